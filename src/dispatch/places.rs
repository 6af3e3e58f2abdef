//! The places of a queue: its slots, and how many jobs are claimed ahead of them.
//!
//! A claim takes about as long as a very short job. Where jobs are that short, a few are claimed before there is a slot for them, so
//! that no slot waits for the store. Where they are longer there are none, and nothing is `running` that waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Jobs that take less than this on the average are short.
const SHORT: Duration = Duration::from_millis(10);
/// How long a job that was claimed ahead waits for its slot before it is handed back.
pub(super) const LONGEST_WAIT: Duration = Duration::from_millis(200);
/// For each slot so many jobs are claimed ahead, but no more than so many.
const AHEAD: (usize, usize) = (8, 64);
/// Queues with more slots have no use for it.
const MOST_SLOTS: usize = 256;

/// The places of one queue.
pub(super) struct Places {
    size: usize,
    slots: Arc<Semaphore>,
    /// What may be claimed and not ended.
    claims: Arc<Semaphore>,
    /// How many more `claims` has than `slots`.
    ahead: AtomicUsize,
    /// Told when `ahead` has changed.
    changed: Notify,
    /// How long a job takes, as a moving average in microseconds.
    average_us: AtomicU64,
}

impl Places {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            size: slots,
            slots: Arc::new(Semaphore::new(slots)),
            claims: Arc::new(Semaphore::new(slots)),
            ahead: AtomicUsize::new(0),
            changed: Notify::new(),
            average_us: AtomicU64::new(u64::MAX / 16),
        }
    }

    /// The right to claim up to `most` jobs, as soon as there is a place for one; ahead of the slots, for some at once.
    pub(super) async fn claims(&self, most: usize) -> OwnedSemaphorePermit {
        let mut free = loop {
            let changed = self.changed.notified();
            let least = (self.ahead.load(Ordering::Relaxed) / 2).max(1);
            tokio::select! {
                free = acquire(&self.claims, least) => break free,
                // There may never be as many any more.
                () = changed => {}
            }
        };
        let further = self.claims.available_permits().min(most.saturating_sub(1));
        if let Ok(more) = Arc::clone(&self.claims).try_acquire_many_owned(u32::try_from(further).unwrap_or(0)) {
            free.merge(more);
        }
        free
    }

    /// A slot.
    pub(super) async fn slot(&self) -> OwnedSemaphorePermit {
        match Arc::clone(&self.slots).try_acquire_owned() {
            Ok(slot) => slot,
            Err(_) => acquire(&self.slots, 1).await,
        }
    }

    /// A job took so long. Its places must have been given back.
    pub(super) fn took(&self, time: Duration) {
        if self.size > MOST_SLOTS {
            return;
        }
        let time = u64::try_from(time.as_micros()).unwrap_or(u64::MAX) / 8;
        let before = self.average_us.load(Ordering::Relaxed);
        self.set(before - before / 8 + time);
    }

    /// A job waited for a slot as long as it may: jobs are not short any more.
    pub(super) fn waited(&self) {
        self.set(u64::MAX / 16);
    }

    /// Two jobs that end at once may both come here; the one that comes later sees to it that the number is right.
    fn set(&self, average_us: u64) {
        self.average_us.store(average_us, Ordering::Relaxed);
        let short = Duration::from_micros(average_us) < SHORT;
        let wanted = if short { (self.size * AHEAD.0).min(AHEAD.1) } else { 0 };
        let ahead = self.ahead.load(Ordering::Relaxed);
        if ahead < wanted && self.ahead.compare_exchange(ahead, wanted, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.claims.add_permits(wanted - ahead);
            self.changed.notify_waiters();
        } else if ahead > wanted {
            // Those that are taken are tried again when they come back.
            self.ahead.fetch_sub(self.claims.forget_permits(ahead - wanted), Ordering::Relaxed);
            self.changed.notify_waiters();
        }
    }
}

async fn acquire(places: &Arc<Semaphore>, count: usize) -> OwnedSemaphorePermit {
    match Arc::clone(places).acquire_many_owned(u32::try_from(count).unwrap_or(u32::MAX)).await {
        Ok(place) => place,
        // Nobody closes a queue's places.
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_for_several_is_content_with_fewer_when_there_are_no_more() {
        let places = Arc::new(Places::new(2));
        for _ in 0..500 {
            places.took(Duration::from_millis(1));
        }
        let held = places.claims(100).await;
        let waiting = tokio::spawn({
            let places = Arc::clone(&places);
            async move { places.claims(100).await.num_permits() }
        });
        tokio::task::yield_now().await;
        drop(held);
        places.waited();
        assert!(waiting.await.unwrap() >= 1);
    }

    #[tokio::test]
    async fn jobs_are_claimed_ahead_only_as_long_as_they_are_short() {
        let places = Places::new(2);
        assert_eq!(places.claims(100).await.num_permits(), 2);
        for _ in 0..500 {
            places.took(Duration::from_millis(1));
        }
        let claims = places.claims(100).await;
        assert_eq!(claims.num_permits(), 18);
        places.waited();
        drop(claims);
        places.took(Duration::from_secs(1));
        assert_eq!(places.claims(100).await.num_permits(), 2);
    }
}
