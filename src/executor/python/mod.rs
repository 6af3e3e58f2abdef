//! Python on the three models: one host with an event loop, one with threads, or a warm process for each job.
//!
//! A host is the program in `host/`, run by one of the operator's interpreters in the sandbox. `async` and `threads` share one host
//! among many jobs, as their models do: what one of them breaks, it breaks for all, and they say so.

mod calls;
mod check;
mod codes;
mod host;
mod interpreter;
mod line;
mod outbox;
mod protocol;
mod resting;
mod shared;
mod spent;

pub(super) use self::line::BEHIND;
pub use check::SourceFault;
pub use codes::CodeSource;
pub use interpreter::{Interpreter, InterpreterError};

#[cfg(any(test, fuzzing))]
pub(super) use self::protocol::understand;

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{FutureExt as _, OptionFuture};
use nix::sys::resource::{Resource, getrlimit};
use tokio::process::Command;
use tokio::sync::{Mutex, Notify};

use self::calls::{Gone, Unsaid};
use self::codes::Codes;
use self::host::Host;
use self::line::{Line, Seat, Wish};
use self::resting::Resting;
use self::shared::SharedHosts;
use super::attempt::{Attempt, Ran};
use super::deadline::{BEYOND, limited, passed};
use super::pool::{Pool, WorkerStatus};
use super::slots::Slot;
use crate::artifact::Artifacts;
use crate::clock::Monotonic;
use crate::function::Limits;
use crate::job::{Executor, Failure, FailureKind, Outcome, Queue, Spec};
use crate::sandbox::{self, Sandbox, ScratchSpace};
use crate::workload::{PythonCall, PythonFunction, Registry, StopReason, Task};

/// How many files each of the jobs that share a host may have open on average: a connection, and what it takes to open one.
const FILES_OF_A_JOB: u64 = 2;
/// How many threads a host may have besides one for each job: its own, those of `asyncio.to_thread`, and those that jobs start.
const OTHER_THREADS: u64 = 128;
/// What a thread takes of the address space, in bytes: its stack, as long as is usual, and what is round it.
const ADDRESSES_OF_A_THREAD: u64 = 9 << 20;

macro_rules! files_of_host {
    ($($name:literal),* $(,)?) => { [$(($name, include_str!(concat!("host/", $name)))),*] };
}

/// The host's own code, by file.
const PROGRAM: [(&str, &str); 22] = files_of_host![
    "__main__.py",
    "archive.py",
    "channel.py",
    "code.py",
    "errors.py",
    "exceptions.py",
    "helpers.py",
    "host.py",
    "jobs.py",
    "library.py",
    "logs.py",
    "loop.py",
    "messages.py",
    "meter.py",
    "pickles.py",
    "processes.py",
    "running.py",
    "selector.py",
    "start.py",
    "threads.py",
    "trine.py",
    "usage.py",
];

/// How Python is run.
#[derive(Clone, Debug)]
pub struct PythonSettings {
    /// The interpreters; the first is used where a job names none. Without any, nothing is started.
    pub interpreters: Vec<Interpreter>,
    /// Where hosts keep what they need: their program, archives, scratch folders.
    pub folder: PathBuf,
    /// How hosts are confined.
    pub sandbox: Sandbox,
    /// What a host may use.
    pub limits: sandbox::Limits,
    /// Jobs on the event loop at once.
    pub async_slots: usize,
    /// Threads of the host with threads.
    pub threads: usize,
    /// Processes that run one job each.
    pub processes: usize,
    /// A host is replaced after so many jobs.
    pub max_jobs: u64,
    /// Where the code of registered functions comes from.
    pub functions: Arc<dyn CodeSource>,
}

/// What one kind of hosts is started with.
#[derive(Clone, Debug)]
struct HostSettings {
    mode: Executor,
    interpreters: Vec<Interpreter>,
    program: PathBuf,
    archives: PathBuf,
    scratch: ScratchSpace,
    sandbox: Sandbox,
    limits: sandbox::Limits,
    threads: usize,
    max_jobs: u64,
}

impl HostSettings {
    /// Whether it is of the first interpreter: without that, hardly anything could run.
    fn is_first(&self, key: &Key) -> bool {
        self.interpreters.first().is_some_and(|first| first.name == key.interpreter)
    }
}

/// The longest output of a call, in bytes of JSON.
const MAX_OUTPUT: usize = 12 << 20;
/// The most that one job may print, in bytes.
const MAX_LOG: usize = 1 << 20;

/// What a host is started for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    interpreter: String,
    network: bool,
    /// The most resident memory, where that is less than what every host may use.
    memory_bytes: Option<u64>,
}

/// The Python executors, started.
#[derive(Clone)]
pub(super) struct Python {
    on_loop: SharedHosts,
    on_threads: SharedHosts,
    processes: Pool<Arc<Host>>,
    line: Line,
    codes: Codes,
    artifacts: Artifacts,
    /// Held while a source is looked at.
    checking: Arc<Mutex<()>>,
}

impl Python {
    /// Starts the hosts of the first interpreter in the background.
    pub(super) fn start(settings: &PythonSettings, first: &Interpreter, artifacts: &Artifacts) -> io::Result<Self> {
        let program = settings.folder.join("host");
        let archives = settings.folder.join("archives");
        let scratch = ScratchSpace::open(&settings.folder.join("scratch"))?;
        for folder in [&program, &archives] {
            make_anew(folder, &scratch)?;
        }
        for (name, text) in PROGRAM {
            std::fs::write(program.join(name), text)?;
        }
        compile(&program, &settings.interpreters);
        let of_mode = |mode| HostSettings {
            mode,
            interpreters: settings.interpreters.clone(),
            program: program.clone(),
            archives: archives.clone(),
            scratch: scratch.clone(),
            sandbox: settings.sandbox.clone(),
            limits: limits(settings, mode),
            threads: settings.threads,
            max_jobs: settings.max_jobs,
        };
        let usual = Key { interpreter: first.name.clone(), network: false, memory_bytes: None };
        let processes = Pool::start(of_mode(Executor::Processes), settings.processes, usual.clone());
        Ok(Self {
            on_loop: SharedHosts::start(of_mode(Executor::Async), usual.clone()),
            on_threads: SharedHosts::start(of_mode(Executor::Threads), usual),
            line: Line::new(processes.clone()),
            processes,
            codes: Codes::new(Arc::clone(&settings.functions), archives),
            artifacts: artifacts.clone(),
            checking: Arc::default(),
        })
    }

    /// Whether there are no hosts, because they can't be started.
    pub(super) fn can_not_start(&self) -> bool {
        self.on_loop.can_not_start() || self.on_threads.can_not_start() || self.processes.can_not_start()
    }

    /// The hosts of a queue as they are now; none of a queue that is not of Python.
    pub(super) fn workers(&self, queue: Queue) -> Vec<WorkerStatus> {
        match queue {
            Queue::PythonAsync => self.on_loop.workers(),
            Queue::PythonThreads => self.on_threads.workers(),
            Queue::PythonProcesses => self.processes.workers(),
            Queue::Async | Queue::ThreadsIo | Queue::ThreadsCpu | Queue::Processes | Queue::Commands => Vec::new(),
        }
    }

    /// Kills the hosts.
    pub(super) fn close(&self) {
        self.on_loop.close();
        self.on_threads.close();
        self.processes.close();
    }
}

/// Has each interpreter compile the hosts' program, in the background. Hosts may not write where it is: each would compile all of it
/// again as it starts, which is a quarter of what a start takes. Until this is done, or if it can't be, they do.
fn compile(program: &Path, interpreters: &[Interpreter]) {
    for interpreter in interpreters {
        let mut command = Command::new(&interpreter.path);
        command.args(["-I", "-m", "compileall", "-q"]).arg(program).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        tokio::spawn(async move { command.status().await });
    }
}

/// What a host of this model may use: more where many jobs share it.
fn limits(settings: &PythonSettings, mode: Executor) -> sandbox::Limits {
    let usual = settings.limits;
    // The kernel gives no more than the server itself may have.
    let most_files = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(_, hard)| hard);
    let (jobs, threads) = match mode {
        Executor::Async => (settings.async_slots as u64, OTHER_THREADS),
        Executor::Threads => (settings.threads as u64, settings.threads as u64 + OTHER_THREADS),
        Executor::Processes => return usual,
    };
    let of_threads = threads.saturating_mul(ADDRESSES_OF_A_THREAD);
    sandbox::Limits {
        open_files: (usual.open_files + FILES_OF_A_JOB * jobs).min(most_files),
        threads: usual.threads.max(threads),
        address_space_bytes: usual.address_space_bytes.map(|bytes| bytes.saturating_add(of_threads)),
        ..usual
    }
}

/// Makes a folder that may be there. A job of an earlier version may have closed it to the server. What is left of it if the server is killed
/// meanwhile goes at the next start, with all else in the scratch space.
fn make_anew(folder: &Path, scratch: &ScratchSpace) -> io::Result<()> {
    scratch.remove(folder).or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
    std::fs::create_dir_all(folder)
}

/// Runs calls of Python functions in one of the ways.
#[derive(Clone)]
pub(super) struct PythonExecutor {
    /// `None` where there is no interpreter.
    python: Option<Python>,
    mode: Executor,
    registry: Arc<Registry>,
    grace: Duration,
    resting: Resting,
}

impl PythonExecutor {
    pub(super) fn new(python: Option<Python>, mode: Executor, registry: Arc<Registry>, grace: Duration) -> Self {
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

    pub(super) async fn run(self, attempt: Attempt) -> Ran {
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
struct Wanted<'a> {
    function: &'a PythonFunction,
    limits: Limits,
    artifacts: &'a Artifacts,
}

/// What became of a call, or why its host says nothing; `None` if it did not end though it was told to.
type Called = Option<Result<Ran, Unsaid>>;

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

async fn on_host(
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

fn ran(ended: Result<Ran, Unsaid>, host: &Host, whose: &str) -> Ran {
    match ended {
        Ok(ran) => ran,
        Err(Unsaid::Gone(Gone { kind, how, by_itself, .. })) => {
            let failure = Failure::new(kind, format!("the Python process {} ({whose}) {how}", host.pid()));
            if by_itself { Ran::crashed(host.pid().as_raw().unsigned_abs(), failure) } else { Ran::failed(failure) }
        }
        Err(Unsaid::Returned) => not_begun(),
    }
}

fn not_begun() -> Ran {
    Ran::unbegun("stopped before a Python process was there")
}

/// No process can be started for a job.
struct NoProcess;

/// Whether that is what became of it.
fn has_no_process(ran: &Ran) -> bool {
    !ran.begun && ran.outcome.failure().is_some_and(|failure| failure.kind == FailureKind::Lost)
}

fn no_process() -> Ran {
    Ran { outcome: Outcome::Error(Failure::new(FailureKind::Lost, "no process can be started for it")), ..not_begun() }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_a_job_has_closed_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let host = folder.path().join("host");
        fs::create_dir_all(host.join("__pycache__")).unwrap();
        fs::write(host.join("__pycache__/old"), "x").unwrap();
        for closed in [host.join("__pycache__"), host.clone()] {
            fs::set_permissions(closed, Permissions::from_mode(0o000)).unwrap();
        }
        let scratch = ScratchSpace::open(&folder.path().join("scratch")).unwrap();
        for _ in 0..2 {
            make_anew(&host, &scratch).unwrap();
            assert_eq!(fs::read_dir(&host).unwrap().count(), 0);
        }
        // Not even what it is made in has to be there.
        make_anew(&folder.path().join("new/host"), &scratch).unwrap();
    }
}
