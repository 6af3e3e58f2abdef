//! `async`: many waits on few threads. Work that holds its thread holds up all the others, and the figures show it.

use std::convert::Infallible;
use std::future::ready;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::runtime::{Builder, Handle, Runtime};
use tower::Service;

use super::attempt::{Attempt, Ran, Reading, made, panicked};
use crate::clock::{Monotonic, micros};
use crate::job::{Failure, Outcome};
use crate::measure::{Crowd, Metered, PollMeter, park};
use crate::workload::Registry;

/// How often the event loop is asked how late it is.
const LAG_INTERVAL: Duration = Duration::from_millis(100);
/// Over how many of these the latest is kept.
const LAG_WINDOW: usize = 10;

/// A tokio runtime of its own, so that a job that holds it delays other jobs and never the API.
pub struct AsyncRuntime {
    home: Handle,
    /// Taken as this is shut down or dropped.
    runtime: Mutex<Option<Runtime>>,
    lag: Arc<Lag>,
}

/// How late the timer is by which an event loop is watched.
#[derive(Debug)]
struct Lag {
    /// The latest of the last second, in microseconds.
    latest_us: AtomicU64,
    /// Since when it runs, in nanoseconds of the monotonic clock: it can't tell how late it is itself before the loop goes on.
    since_ns: AtomicU64,
}

impl AsyncRuntime {
    /// Starts a runtime with this many event-loop threads, and up to `blocking` threads for work that blocks.
    pub fn start(name: &str, threads: usize, blocking: usize) -> std::io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .max_blocking_threads(blocking)
            .thread_name(name)
            .enable_all()
            .on_thread_park(park::falls_asleep)
            .on_thread_unpark(park::is_awake)
            .build()?;
        let lag = Arc::new(Lag { latest_us: AtomicU64::new(0), since_ns: AtomicU64::new(Monotonic::now().as_nanos()) });
        // On each runtime, though only the event loop's lag is read: a thread of `threads` wakes tasks of others alone, and tells how late it
        // was (`measure::park`) by having gone to sleep anew, which it does only after a task of its own.
        runtime.spawn(watch(Arc::clone(&lag)));
        Ok(Self { home: runtime.handle().clone(), runtime: Mutex::new(Some(runtime)), lag })
    }

    /// Where to spawn.
    pub fn handle(&self) -> &Handle {
        &self.home
    }

    /// Drops what runs, and waits so long for what blocks. Must not be called on itself.
    pub async fn shut_down(&self, within: Duration) {
        if let Some(runtime) = self.take() {
            // Only a panic could keep that from its end.
            let _ = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(within)).await;
        }
    }

    fn take(&self) -> Option<Runtime> {
        self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// How late a timer fired on the event loop, or is by now, in microseconds: the latest of the last second.
    pub fn lag_us(&self) -> u64 {
        self.lag.latest_us.load(Ordering::Relaxed).max(self.lag.by_now_us())
    }
}

impl Drop for AsyncRuntime {
    fn drop(&mut self) {
        // Jobs that hold their thread must not hold up the end of the program.
        if let Some(runtime) = self.take() {
            runtime.shutdown_background();
        }
    }
}

impl Lag {
    fn by_now_us(&self) -> u64 {
        let since = Monotonic::from_nanos(self.since_ns.load(Ordering::Relaxed));
        micros(since.elapsed().saturating_sub(LAG_INTERVAL))
    }
}

async fn watch(lag: Arc<Lag>) {
    let mut window = [0; LAG_WINDOW];
    for at in (0..LAG_WINDOW).cycle() {
        tokio::time::sleep(LAG_INTERVAL).await;
        window[at] = lag.by_now_us();
        lag.latest_us.store(window.into_iter().max().unwrap_or(0), Ordering::Relaxed);
        lag.since_ns.store(Monotonic::now().as_nanos(), Ordering::Relaxed);
    }
}

/// Runs each attempt in the task that polls it: whoever calls it does so in a task on an [`AsyncRuntime`], one task an attempt.
#[derive(Clone)]
pub struct AsyncExecutor {
    registry: Arc<Registry>,
    crowd: Crowd,
}

impl AsyncExecutor {
    /// Runs the workloads of `registry`.
    pub fn new(registry: Arc<Registry>) -> Self {
        Self { registry, crowd: Crowd::default() }
    }
}

impl Service<Attempt> for AsyncExecutor {
    type Response = Ran;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Ran, Infallible>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, attempt: Attempt) -> Self::Future {
        let Attempt { workload, stop, reporter, slot, .. } = attempt;
        let work = match made(|| self.registry.work(&workload, stop.clone(), reporter)) {
            Ok(work) => work,
            Err(failure) => return Box::pin(ready(Ok(Ran::failed(failure)))),
        };
        let mut metered = Metered::new(work.into_future(), self.crowd.clone());
        // A block, not a function: the arguments of one are there twice while it waits, and there may be thousands of them.
        Box::pin(async move {
            let (outcome, ended) = tokio::select! {
                biased;
                ended = &mut metered => match ended {
                    Ok(result) => (Outcome::from(result), true),
                    Err(panic) => (Outcome::Error(panicked(&*panic)), true),
                },
                _ = stop.stopped() => (Outcome::Error(Failure::error("stopped")), false),
            };
            let meter = metered.meter();
            // What the work holds on to goes before its slot does.
            drop(metered);
            drop(slot);
            Ok(Ran { outcome, reading: reading(meter, ended), crashed: None, begun: true })
        })
    }
}

/// What is said of work that ended by itself, or was dropped.
fn reading(meter: PollMeter, ended: bool) -> Reading {
    Reading {
        began: meter.began,
        // What comes after the last poll is not the work's, if that poll was its end.
        wall: meter
            .began
            .map(|began| if ended { meter.latest.unwrap_or(began.started) } else { Monotonic::now() }.since(began.started)),
        usage: Some(meter.usage),
        polls: Some((meter.polls, meter.longest_poll)),
        core_wait: Some(meter.core_wait + meter.late),
        loop_wait: Some(meter.loop_wait),
        held_jobs: meter.held,
        longest_hold: Some(meter.longest_hold),
        ..Reading::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_is_held_is_late_before_it_goes_on() {
        let runtime = AsyncRuntime::start("held", 1, 1).unwrap();
        let (begin, begun) = std::sync::mpsc::channel();
        let (go_on, held) = std::sync::mpsc::channel::<()>();
        runtime.handle().spawn(async move { (begin.send(()), held.recv()) });
        begun.recv().unwrap();
        let since = Monotonic::now();
        while runtime.lag_us() < 300_000 {
            assert!(since.elapsed() < Duration::from_secs(10), "{} µs", runtime.lag_us());
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(go_on);
    }
}
