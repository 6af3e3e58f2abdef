//! Measures a future: round each poll, on the thread that polls it.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use super::run_delay::new_run_delay;
use super::{Usage, park};
use crate::clock::{Monotonic, Stopwatch, micros};
use crate::job::LONG_HOLD_US;

/// A poll that takes so much longer than it computes was kept waiting for something.
const STANDSTILL: Duration = Duration::from_micros(100);

/// A poll that is shorter than this is taken for computing: to ask the kernel would cost more than most such polls.
const SHORT: Duration = Duration::from_micros(50);

/// A future that counts what its polls cost. A panic in a poll is its output.
pub struct Metered<F> {
    inner: F,
    meter: PollMeter,
    waker: Option<(Waker, Arc<Stamp>)>,
    crowd: Crowd,
}

/// What the polls of a future have cost so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct PollMeter {
    /// When it was polled first.
    pub began: Option<Stopwatch>,
    /// When its latest poll ended.
    pub latest: Option<Monotonic>,
    /// How often it was polled.
    pub polls: u64,
    /// The longest that one poll took.
    pub longest_poll: Duration,
    /// The longest that one poll took, but for the time in which it had no core.
    pub longest_hold: Duration,
    /// How many other futures were on the loop then, if that poll held it for long.
    pub held: Option<u64>,
    /// What the polling threads used meanwhile.
    pub usage: Usage,
    /// How long its polls had no core.
    pub core_wait: Duration,
    /// How long the event loop had no core when it was to wake it.
    pub late: Duration,
    /// How long it was ready to be polled and was not.
    pub loop_wait: Duration,
}

/// How many metered futures are on one event loop.
#[derive(Clone, Debug, Default)]
pub struct Crowd(Arc<AtomicU64>);

/// A waker that takes down when it was used first since it was last looked at.
struct Stamp {
    /// Nanoseconds of the monotonic clock; 0 for not yet.
    woken: AtomicU64,
    /// How late that was because the event loop had no core, in nanoseconds.
    late: AtomicU64,
    waker: Waker,
}

impl Wake for Stamp {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.woken.load(Ordering::Relaxed) == 0 {
            let late = u64::try_from(park::lateness().as_nanos()).unwrap_or(u64::MAX);
            self.late.store(late, Ordering::Relaxed);
            self.woken.store(Monotonic::now().as_nanos(), Ordering::Relaxed);
        }
        self.waker.wake_by_ref();
    }
}

impl<F: Future + Unpin> Metered<F> {
    /// A future that has not been polled, one more of a crowd.
    pub fn new(inner: F, crowd: Crowd) -> Self {
        crowd.0.fetch_add(1, Ordering::Relaxed);
        Self { inner, meter: PollMeter::default(), waker: None, crowd }
    }
}

impl<F> Metered<F> {
    /// What its polls have cost so far.
    pub const fn meter(&self) -> PollMeter {
        self.meter
    }
}

impl<F> Drop for Metered<F> {
    fn drop(&mut self) {
        self.crowd.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl PollMeter {
    /// Counts a poll of that time, which used so much. `run_delay` says how long the thread has had no core lately.
    fn add(&mut self, (from, now): (Monotonic, Monotonic), usage: Usage, crowd: &Crowd, run_delay: impl FnOnce() -> Duration) {
        let took = now.since(from);
        self.polls += 1;
        self.latest = Some(now);
        if took > self.longest_poll {
            self.longest_poll = took;
            self.held = (micros(took) >= LONG_HOLD_US).then(|| crowd.0.load(Ordering::Relaxed).saturating_sub(1));
        }
        // It may have waited in the poll by itself, or had no core: only then it is worth while to ask.
        let stood_still = took.saturating_sub(Duration::from_micros(usage.cpu_user_us + usage.cpu_system_us));
        let core_wait = if stood_still >= STANDSTILL { run_delay().min(stood_still) } else { Duration::ZERO };
        self.core_wait += core_wait;
        self.longest_hold = self.longest_hold.max(took.saturating_sub(core_wait));
        self.usage += usage;
    }
}

impl<F: Future + Unpin> Future for Metered<F> {
    type Output = Result<F::Output, Box<dyn Any + Send>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { inner, meter, waker, crowd } = &mut *self;
        let from = match &meter.began {
            Some(_) => Monotonic::now(),
            None => meter.began.insert(Stopwatch::start()).started,
        };
        let before = Usage::of_thread_until(from);
        let (stamped, stamp) = match waker {
            Some((stamped, stamp)) if stamp.waker.will_wake(cx.waker()) => (stamped, stamp),
            none => {
                let stamp = Arc::new(Stamp { woken: AtomicU64::new(0), late: AtomicU64::new(0), waker: cx.waker().clone() });
                let (stamped, stamp) = none.insert((Waker::from(Arc::clone(&stamp)), stamp));
                (stamped, stamp)
            }
        };
        let woken = stamp.woken.swap(0, Ordering::Relaxed);
        if woken != 0 {
            // As long as it was being polled, it waited for nothing, even if it or another thread had woken it by then.
            let woken = Monotonic::from_nanos(woken);
            let waited = from.since(meter.latest.map_or(woken, |ended| woken.max(ended)));
            meter.loop_wait += waited;
            meter.late += Duration::from_nanos(stamp.late.load(Ordering::Relaxed));
            if waited >= STANDSTILL {
                // What the thread was delayed until now is a part of that.
                new_run_delay();
            }
        }
        let mut cx = Context::from_waker(stamped);
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(inner).poll(&mut cx)));
        let now = Monotonic::now();
        let usage = match now.since(from) {
            short if short < SHORT => Usage { cpu_user_us: micros(short), ..Usage::default() },
            _ => Usage::of_thread_at(now) - before,
        };
        meter.add((from, now), usage, crowd, new_run_delay);
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_turn_that_comes_late_is_told_from_waiting() {
        let crowd = Crowd::default();
        let yielding = async {
            for _ in 0..3 {
                let mut woken = false;
                std::future::poll_fn(|cx| {
                    cx.waker().wake_by_ref();
                    if std::mem::replace(&mut woken, true) { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
            }
        };
        let mut metered = Metered::new(Box::pin(yielding), crowd.clone());
        let hold = Duration::from_millis(30);
        let holding = async {
            std::thread::sleep(hold);
            tokio::task::yield_now().await;
            crowd.0.load(Ordering::Relaxed)
        };
        // Both are polled in turns: the one that yields is ready all the time, and has to wait for the other one.
        let (output, crowd) = tokio::join!(&mut metered, holding);
        assert!(output.is_ok() && crowd == 1);
        let meter = metered.meter();
        assert!(meter.loop_wait >= hold && meter.usage.cpu_user_us < 30_000, "{meter:?}");
        drop(metered);
    }

    #[tokio::test]
    async fn what_wakes_itself_and_goes_on_computing_is_not_kept_waiting_by_that() {
        let mut ended = None;
        let computing = std::future::poll_fn(|cx| {
            if let Some(ended) = ended {
                return Poll::Ready(ended);
            }
            cx.waker().wake_by_ref();
            std::thread::sleep(Duration::from_millis(20));
            ended = Some(Monotonic::now());
            Poll::Pending
        });
        let mut metered = Metered::new(computing, Crowd::default());
        let ended = (&mut metered).await.unwrap();
        let meter = metered.meter();
        assert!(meter.loop_wait <= meter.latest.unwrap().since(ended), "{meter:?}");
    }

    #[test]
    fn only_what_a_poll_could_have_run_counts() {
        let mut meter = PollMeter::default();
        let mut add = |ran: u64, delay: u64| {
            let usage = Usage { cpu_user_us: ran, ..Usage::default() };
            let now = Monotonic::now();
            let from = Monotonic::from_nanos(now.as_nanos() - 900_000);
            meter.add((from, now), usage, &Crowd::default(), || Duration::from_micros(delay));
            (meter.core_wait, meter.longest_hold)
        };
        let micros = Duration::from_micros;
        assert_eq!(add(300, 600), (micros(600), micros(300)));
        assert_eq!(add(300, 70), (micros(670), micros(830)));
        assert_eq!(add(1_000_000, 70), (micros(670), micros(900)));
        // Not more than it stood still, whatever else the thread was delayed by.
        assert!(add(300, 5_000_000).0 < Duration::from_secs(5));
    }
}
