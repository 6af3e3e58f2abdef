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
    lag_us: Arc<AtomicU64>,
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
        let lag_us = Arc::new(AtomicU64::new(0));
        runtime.spawn(watch_lag(Arc::clone(&lag_us)));
        Ok(Self { home: runtime.handle().clone(), runtime: Mutex::new(Some(runtime)), lag_us })
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

    /// How late a timer fired on the event loop, in microseconds: the latest of the last second.
    pub fn lag_us(&self) -> u64 {
        self.lag_us.load(Ordering::Relaxed)
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

async fn watch_lag(lag_us: Arc<AtomicU64>) {
    let mut window = [0; LAG_WINDOW];
    for at in (0..LAG_WINDOW).cycle() {
        let asleep = Monotonic::now();
        tokio::time::sleep(LAG_INTERVAL).await;
        window[at] = micros(asleep.elapsed().saturating_sub(LAG_INTERVAL));
        lag_us.store(window.into_iter().max().unwrap_or(0), Ordering::Relaxed);
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
