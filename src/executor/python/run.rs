//! How a call is made: on a host that it shares with others, or on one that it has to itself for its turn.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{FutureExt as _, OptionFuture};
use tokio::sync::Notify;

use super::calls::{Gone, Unsaid};
use super::host::Host;
use super::line::{Line, Seat, Wish};
use super::resting::Resting;
use super::shared::SharedHosts;
use super::{Key, MAX_OUTPUT, Python, spent};
use crate::artifact::Artifacts;
use crate::clock::Monotonic;
use crate::executor::attempt::{Attempt, Ran};
use crate::executor::deadline::{BEYOND, limited, passed};
use crate::executor::slots::Slot;
use crate::function::Limits;
use crate::job::{Executor, Failure, FailureKind, Outcome, Spec};
use crate::workload::{PythonCall, PythonFunction, Registry, StopReason, Task};

/// Runs calls of Python functions in one of the ways.
#[derive(Clone)]
pub(in crate::executor) struct PythonExecutor {
    /// `None` where there is no interpreter.
    python: Option<Python>,
    mode: Executor,
    registry: Arc<Registry>,
    grace: Duration,
    resting: Resting,
}

impl PythonExecutor {
    pub(in crate::executor) fn new(python: Option<Python>, mode: Executor, registry: Arc<Registry>, grace: Duration) -> Self {
        Self { python, mode, registry, grace, resting: Resting::default() }
    }

    /// The call that a workload asks for.
    async fn call(&self, python: &Python, workload: &Spec) -> Result<(PythonCall, Limits), Failure> {
        match self.registry.task(workload)? {
            Task::Python(call) => Ok((*call, Limits::default())),
            Task::Function(call) => python.codes.call(*call, self.registry.environment().python()).await,
            Task::Native(_) | Task::Command(_) => {
                Err(Failure::error("it is not written in Python and was sent to an executor of Python"))
            }
        }
    }

    pub(in crate::executor) async fn run(self, attempt: Attempt) -> Ran {
        let Some(python) = &self.python else {
            return Ran::failed(Failure::error("this server has no Python interpreter any more"));
        };
        if attempt.keeps_files {
            python.artifacts.make_way(attempt.job, attempt.number).await;
        }
        // Its code may take long to come.
        let call = tokio::select! {
            biased;
            call = self.call(python, &attempt.workload) => call,
            _ = attempt.stop.stopped() => return not_begun(),
            () = passed(attempt.deadline) => {
                attempt.stop.stop(StopReason::Deadline);
                return not_begun();
            }
        };
        let (call, limits) = match call {
            Ok(call) => call,
            Err(failure) => return Ran::failed(failure),
        };
        let key = Key { interpreter: call.interpreter.clone(), network: call.network, memory_bytes: limits.memory_bytes };
        if self.resting.has(&key) {
            return no_process();
        }
        let call = &Wanted { function: &call.function, limits, artifacts: &python.artifacts };
        let ran = match self.mode {
            Executor::Async => on_shared(&python.on_loop, &key, call, attempt, self.grace, true).await,
            Executor::Threads => on_shared(&python.on_threads, &key, call, attempt, self.grace, false).await,
            Executor::Processes => in_turn(&python.line, &key, call, attempt, self.grace).await,
        };
        self.resting.note(&key, &ran);
        ran
    }
}

/// What is wanted of a host: a function with its arguments, and what the call may use.
pub(super) struct Wanted<'a> {
    pub(super) function: &'a PythonFunction,
    pub(super) limits: Limits,
    pub(super) artifacts: &'a Artifacts,
}

/// What became of a call, or why its host says nothing; `None` if it did not end though it was told to.
pub(super) type Called = Option<Result<Ran, Unsaid>>;

/// Runs a call on a host of many. A job that does not listen costs the host: at once if it holds the event loop, and with it all others.
async fn on_shared(
    hosts: &SharedHosts,
    key: &Key,
    call: &Wanted<'_>,
    mut attempt: Attempt,
    grace: Duration,
    has_loop: bool,
) -> Ran {
    let host = tokio::select! {
        host = hosts.get(key) => host,
        _ = attempt.stop.stopped() => return not_begun(),
    };
    let Ok(host) = host else { return no_process() };
    let slot = Arc::new(std::mem::take(&mut attempt.slot));
    match on_host(&host, call, &attempt, &slot, grace, None).await {
        Some(ended) => ran(ended, &host, "shared by all jobs of its kind"),
        None if has_loop && !host.hears().await => {
            host.kill();
            Ran::failed(Failure::error("it held the event loop and did not stop when it was told to; its host was killed"))
        }
        None => {
            SharedHosts::leave(host);
            let what = if has_loop { "task" } else { "thread" };
            Ran::failed(Failure::error(format!("it did not stop when it was told to; its {what} was left behind")))
        }
    }
}

/// Runs a call on a host that makes it alone. Its deadline begins when it is its turn: before that it stands in a line. A host may give a
/// call back whose turn has come just now, which it did not know; but once at the most, and what time it had by then is part of what it may
/// take.
async fn in_turn(line: &Line, key: &Key, call: &Wanted<'_>, mut attempt: Attempt, grace: Duration) -> Ran {
    // Kept until the host is back in the pool, or whoever gets the slot next would find none there.
    let slot = Arc::new(std::mem::take(&mut attempt.slot));
    let mut wish = Wish { key: key.clone(), bytes: call.function.bytes(), is_back: false, had_turn: false };
    let mut left = attempt.deadline;
    loop {
        let turn = Arc::new(Notify::new());
        let (ran, came) = {
            let mut running = std::pin::pin!(alone(line, &wish, call, &attempt, &slot, grace, &turn));
            tokio::select! {
                biased;
                ran = &mut running => (ran, None),
                () = turn.notified() => {
                    let came = Monotonic::now();
                    (limited(running, attempt.stop.clone(), left, grace + BEYOND).await, Some(came))
                }
            }
        };
        if let Ok(ran) = ran {
            return ran;
        }
        // Both may have been heard before this was polled.
        let had_turn = came.is_some() || turn.notified().now_or_never().is_some();
        if had_turn && std::mem::replace(&mut wish.had_turn, true) {
            return Ran::failed(Failure::new(FailureKind::Lost, "its Python process gave it back twice"));
        }
        left = left.map(|left| left.saturating_sub(came.map_or(Duration::ZERO, Monotonic::elapsed)));
        wish.is_back = true;
    }
}

/// A call has come back from its host, and has not begun.
struct Returned;

async fn alone(
    line: &Line,
    wish: &Wish,
    call: &Wanted<'_>,
    attempt: &Attempt,
    slot: &Arc<Slot>,
    grace: Duration,
    turn: &Arc<Notify>,
) -> Result<Ran, Returned> {
    let seat = tokio::select! {
        biased;
        _ = attempt.stop.stopped() => return Ok(not_begun()),
        seat = line.seat(wish, slot, turn) => seat,
    };
    let seat = match seat {
        Ok(Some(seat)) => seat,
        Ok(None) => {
            slot.hand_back(&attempt.stop);
            return Ok(not_begun());
        }
        Err(NoProcess) => return Ok(no_process()),
    };
    if wish.had_turn {
        // Sent once more for want of its code, it would stand behind others again.
        seat.host().forget(call.function);
    }
    match on_host(seat.host(), call, attempt, slot, grace, Some(&seat)).await {
        Some(Ok(ran)) => {
            seat.leave();
            Ok(ran)
        }
        Some(Err(Unsaid::Returned)) => {
            seat.host().forget(call.function);
            seat.leave();
            Err(Returned)
        }
        Some(ended) => Ok(ran(ended, seat.host(), "of this job alone")),
        None => Ok(Ran::failed(Failure::error("it did not stop when it was told to, and was killed"))),
    }
}

pub(super) async fn on_host(
    host: &Host,
    call: &Wanted<'_>,
    attempt: &Attempt,
    slot: &Arc<Slot>,
    grace: Duration,
    seat: Option<&Seat>,
) -> Called {
    let Attempt { job, number, claimed, keeps_files, ref stop, ref reporter, .. } = *attempt;
    let mut code_is_lacking = false;
    loop {
        let mut begun = host.begin((job, number), call, reporter.clone(), slot, code_is_lacking, seat);
        let most = seat.and(call.limits.cpu_ms);
        let spent = most.map(|ms| spent::more_than(Duration::from_millis(ms), host, begun.id).map(move |()| ms).boxed());
        let ended = tokio::select! {
            biased;
            ended = &mut begun.ended => Some(ended),
            Some(ms) = OptionFuture::from(spent) => {
                let how = format!("was killed: the call used more CPU time than the {ms} ms that it may");
                return Some(Err(Unsaid::Gone(Gone { kind: FailureKind::Error, how, by_itself: false, may_be_left: false })));
            }
            _ = stop.stopped() => {
                host.stop(begun.id);
                loop {
                    // Behind another call it has not begun, and is not what keeps the host.
                    let is_behind = host.is_behind(begun.id);
                    let _stopping = (!is_behind).then(|| host.stopping());
                    match tokio::time::timeout(grace, &mut begun.ended).await {
                        Ok(ended) => break Some(ended),
                        Err(_) if is_behind => {}
                        Err(_) => break None,
                    }
                }
            }
        };
        let (kind, how) = (FailureKind::Lost, "was shut down");
        let gone = || Unsaid::Gone(Gone { kind, how: how.into(), by_itself: false, may_be_left: false });
        match ended.map(|ended| ended.unwrap_or_else(|_| Err(gone()))) {
            Some(Ok(done)) if done.lacks_code() && !code_is_lacking => code_is_lacking = true,
            Some(Ok(done)) => {
                if done.worn {
                    host.retire();
                }
                let (has_artifacts, reading) = (done.artifacts, done.reading(claimed));
                host.has_used(reading.max_rss_bytes);
                let most_output = call.limits.output_bytes.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(MAX_OUTPUT);
                let outcome = done.into_outcome(most_output.min(MAX_OUTPUT));
                let mut ran = Ran { reading, outcome, crashed: None, begun: true };
                if ran.outcome.failure().is_some() {
                    host.has_failed();
                }
                if has_artifacts {
                    let keeping = keeps_files.then_some(call.artifacts);
                    ran = ran.but(host.take_artifacts(begun.id, (job, number), keeping, stop).await);
                }
                return Some(Ok(ran));
            }
            Some(Err(unsaid)) => return Some(Err(unsaid)),
            None => {
                host.leave(begun.id);
                drop(begun);
                host.given_up();
                return None;
            }
        }
    }
}

pub(super) fn ran(ended: Result<Ran, Unsaid>, host: &Host, whose: &str) -> Ran {
    match ended {
        Ok(ran) => ran,
        Err(Unsaid::Gone(Gone { kind, how, by_itself, .. })) => {
            let failure = Failure::new(kind, format!("the Python process {} ({whose}) {how}", host.pid()));
            if by_itself { Ran::crashed(host.pid().as_raw().unsigned_abs(), failure) } else { Ran::failed(failure) }
        }
        Err(Unsaid::Returned) => not_begun(),
    }
}

pub(super) fn not_begun() -> Ran {
    Ran::unbegun("stopped before a Python process was there")
}

/// No process can be started for a job.
pub(super) struct NoProcess;

/// Whether that is what became of it.
pub(super) fn has_no_process(ran: &Ran) -> bool {
    !ran.begun && ran.outcome.failure().is_some_and(|failure| failure.kind == FailureKind::Lost)
}

fn no_process() -> Ran {
    Ran { outcome: Outcome::Error(Failure::new(FailureKind::Lost, "no process can be started for it")), ..not_begun() }
}
