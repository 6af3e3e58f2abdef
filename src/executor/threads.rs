//! `threads`: a pool for work that blocks while it waits, and a pool of one thread a core for work that computes.

use std::convert::Infallible;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use rayon::ThreadPool;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tower::Service;

use super::attempt::{Attempt, Ran, Reading, made, panicked};
use super::deadline::{limited, passed};
use crate::clock::Stopwatch;
use crate::job::{Failure, FailureKind, Outcome, Output};
use crate::measure::{Crowd, Metered, Usage, run_delay};
use crate::workload::{Registry, Stop, Work};

/// Runs each attempt on a thread that it has to itself meanwhile.
///
/// It keeps their deadlines itself, since they count from when a thread comes to them: until then they stand in a line.
#[derive(Clone)]
pub struct ThreadsExecutor {
    pool: Pool,
    /// Drives the timers and sockets of work that is written as a future.
    reactor: Handle,
    registry: Arc<Registry>,
    grace: Duration,
}

/// An attempt in the line: whoever takes it out, be it a thread that runs it or who is told that it is to stop, has it to himself.
type InLine = Mutex<Option<Attempt>>;

fn take(in_line: &InLine) -> Option<Attempt> {
    in_line.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Which threads.
#[derive(Clone)]
enum Pool {
    /// Many, for work that waits.
    Waiting(Handle),
    /// One a core, for work that computes.
    Computing(Arc<ThreadPool>),
}

impl ThreadsExecutor {
    /// Threads for work that waits: the blocking pool of the runtime behind `reactor`. What has not stopped `grace` after it was told to
    /// is left behind.
    pub fn waiting(reactor: Handle, registry: Arc<Registry>, grace: Duration) -> Self {
        Self { pool: Pool::Waiting(reactor.clone()), reactor, registry, grace }
    }

    /// Threads for work that computes: `threads` of them.
    pub fn computing(
        threads: usize,
        reactor: Handle,
        registry: Arc<Registry>,
        grace: Duration,
    ) -> Result<Self, rayon::ThreadPoolBuildError> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|n| format!("trine-cpu-{n}")).build()?;
        Ok(Self { pool: Pool::Computing(Arc::new(pool)), reactor, registry, grace })
    }
}

impl Service<Attempt> for ThreadsExecutor {
    type Response = Ran;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Ran, Infallible>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, attempt: Attempt) -> Self::Future {
        let (stop, deadline, grace) = (attempt.stop.clone(), attempt.deadline, self.grace);
        let patience = attempt.slot.patience();
        let in_line = Arc::new(InLine::new(Some(attempt)));
        let ((begin, begun), (report, ran)) = (oneshot::channel(), oneshot::channel());
        let (registry, reactor) = (Arc::clone(&self.registry), self.reactor.clone());
        let span = tracing::Span::current();
        let next = Arc::clone(&in_line);
        let on_thread = move || {
            let Some(Attempt { workload, stop, reporter, slot, .. }) = take(&next) else { return };
            let _ = begin.send(());
            let _entered = span.entered();
            let ran = run(|| registry.work(&workload, stop.clone(), reporter), &stop, |work| reactor.block_on(work));
            // The thread is free from here on, whether or not anybody still waits for the report.
            drop(slot);
            let _ = report.send(ran);
        };
        match &self.pool {
            Pool::Waiting(handle) => drop(handle.spawn_blocking(on_thread)),
            Pool::Computing(pool) => pool.spawn(on_thread),
        }
        Box::pin(async move {
            let begun = tokio::select! {
                biased;
                _ = begun => true,
                _ = stop.stopped() => take(&in_line).is_none(),
                () = passed(patience) => take(&in_line).map(|attempt| attempt.slot.hand_back(&stop)).is_none(),
            };
            if !begun {
                return Ok(Ran::unbegun("stopped before a thread came to it"));
            }
            let gone = |_| Ran::failed(Failure::new(FailureKind::Lost, "the thread pool was shut down"));
            let ran = async { Ok(ran.await.unwrap_or_else(gone)) };
            limited(std::pin::pin!(ran), stop, deadline, grace).await
        })
    }
}

/// A future on its way to be waited for, told to stop or not.
pub(super) type Waiting<'a> = Pin<Box<dyn Future<Output = Result<Output, Failure>> + 'a>>;

/// Makes work and runs it on the calling thread, which is measured meanwhile. `block_on` waits for work that is a future.
pub(super) fn run(
    make: impl FnOnce() -> Result<Work, Failure>,
    stop: &Stop,
    block_on: impl FnOnce(Waiting<'_>) -> Result<Output, Failure>,
) -> Ran {
    let work = match made(make) {
        Ok(work) => work,
        Err(failure) => return Ran::failed(failure),
    };
    let (before, delayed) = (Usage::of_thread(), run_delay());
    let began = Stopwatch::start();
    let (ended, late) = match work {
        Work::Blocking(call) => (catch_unwind(AssertUnwindSafe(call)), Duration::ZERO),
        Work::Future(future) => {
            // Whoever wakes it may be late, too.
            let mut metered = Metered::new(future, Crowd::default());
            let waiting = Box::pin(async {
                tokio::select! {
                    biased;
                    ended = &mut metered => ended.unwrap_or_else(|panic| resume_unwind(panic)),
                    _ = stop.stopped() => Err(Failure::error("stopped")),
                }
            });
            let ended = catch_unwind(AssertUnwindSafe(|| block_on(waiting)));
            (ended, metered.meter().late)
        }
    };
    let wall = began.started.elapsed();
    let usage = Usage::of_thread() - before;
    let core_wait = delayed.and_then(|before| Some(run_delay()?.saturating_sub(before) + late));
    let outcome = match ended {
        Ok(result) => Outcome::from(result),
        Err(panic) => Outcome::Error(panicked(&*panic)),
    };
    let reading = Reading { began: Some(began), wall: Some(wall), usage: Some(usage), core_wait, ..Reading::default() };
    Ran { outcome, reading, crashed: None, begun: true }
}
