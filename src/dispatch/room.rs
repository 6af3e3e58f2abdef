//! How many jobs may wait in a queue, and how soon there is room for more.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::job::{NewJob, Queue};
use crate::store::Depth;

/// Over which time the rate is measured at which a queue drains.
const WINDOW: Duration = Duration::from_secs(10);
/// What a client is told to wait: at least, at most, and while no rate is known.
const WAITS: (Duration, Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3_600), Duration::from_secs(5));

/// A number for each queue.
pub type PerQueue<T> = [T; Queue::ALL.len()];

/// A queue has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the queue {queue} takes {most} waiting jobs at most")]
pub struct Full {
    /// Which.
    pub queue: Queue,
    /// How many jobs may wait in it.
    pub most: u64,
    /// When there may be room; `None` if there will never be enough.
    pub retry_after: Option<Duration>,
}

/// The room in each queue.
#[derive(Debug)]
pub(super) struct Room {
    most: PerQueue<Option<u64>>,
    /// Jobs that are being accepted, and not among those that wait yet.
    coming: Arc<PerQueue<AtomicU64>>,
    drains: PerQueue<Drain>,
}

/// Room that was found for jobs which are being accepted. To be dropped once they are.
pub(super) struct Taken {
    coming: Arc<PerQueue<AtomicU64>>,
    jobs: PerQueue<u64>,
}

impl Room {
    /// `most`: how many jobs may wait in each queue, where there is a limit.
    pub(super) fn new(most: PerQueue<Option<u64>>) -> Self {
        Self { most, coming: Arc::default(), drains: Default::default() }
    }

    /// Finds room for all of these jobs, or for none.
    pub(super) fn take(&self, jobs: &[NewJob], depth: impl Fn(Queue) -> Depth) -> Result<Taken, Full> {
        let mut taken = Taken { coming: Arc::clone(&self.coming), jobs: Default::default() };
        if self.most.iter().all(Option::is_none) {
            return Ok(taken);
        }
        let mut wanted = PerQueue::default();
        for job in jobs {
            wanted[job.route.queue as usize] += 1;
        }
        for queue in Queue::ALL {
            let (at, count) = (queue as usize, wanted[queue as usize]);
            let Some(most) = self.most[at].filter(|_| count > 0) else { continue };
            // Counted before looking: two that come at once never both find the last place.
            let coming = self.coming[at].fetch_add(count, Ordering::SeqCst) + count;
            taken.jobs[at] = count;
            let Depth { queued, scheduled, blocked, .. } = depth(queue);
            let over = (queued + scheduled + blocked + coming).saturating_sub(most);
            if over > 0 {
                let retry_after = (count <= most).then(|| self.drains[at].time_for(over));
                return Err(Full { queue, most, retry_after });
            }
        }
        Ok(taken)
    }

    /// So many jobs of a queue wait no longer.
    pub(super) fn drained(&self, queue: Queue, jobs: usize) {
        if self.most[queue as usize].is_some() {
            self.drains[queue as usize].add(jobs);
        }
    }
}

impl Taken {
    /// Whether there is no limit to any of it.
    pub(super) fn is_empty(&self) -> bool {
        self.jobs.iter().all(|jobs| *jobs == 0)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        for (coming, jobs) in self.coming.iter().zip(self.jobs) {
            if jobs > 0 {
                coming.fetch_sub(jobs, Ordering::SeqCst);
            }
        }
    }
}

/// The rate at which jobs leave a queue: what is older counts less and less.
#[derive(Debug, Default)]
struct Drain(Mutex<Option<(Instant, f64)>>);

impl Drain {
    fn add(&self, jobs: usize) {
        self.add_at(jobs, Instant::now());
    }

    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    fn add_at(&self, jobs: usize, now: Instant) {
        let mut drain = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rate = drain.map_or(0.0, |drain| faded(drain, now)) + jobs as f64 / WINDOW.as_secs_f64();
        *drain = Some((now, rate));
    }

    /// How long it takes until so many have left.
    fn time_for(&self, jobs: u64) -> Duration {
        self.time_at(jobs, Instant::now())
    }

    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    fn time_at(&self, jobs: u64, now: Instant) -> Duration {
        let (least, most, unknown) = WAITS;
        let drain = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(rate) = drain.map(|drain| faded(drain, now)) else { return unknown };
        let seconds = jobs as f64 / rate;
        if seconds < most.as_secs_f64() { Duration::from_secs_f64(seconds).max(least) } else { most }
    }
}

fn faded((at, rate): (Instant, f64), now: Instant) -> f64 {
    rate * (-now.saturating_duration_since(at).as_secs_f64() / WINDOW.as_secs_f64()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_follows_the_rate() {
        let (drain, start) = (Drain::default(), Instant::now());
        assert_eq!(drain.time_at(7, start), WAITS.2);
        // A hundred a second, for a minute.
        for tenth in 0..600 {
            drain.add_at(10, start + Duration::from_millis(tenth * 100));
        }
        let end = start + Duration::from_secs(60);
        let wait = drain.time_at(1_000, end).as_secs_f64();
        assert!((9.0..11.0).contains(&wait), "{wait}");
        assert_eq!(drain.time_at(1, end), WAITS.0);
        assert_eq!(drain.time_at(1_000, end + Duration::from_secs(3_600)), WAITS.1);
    }
}
