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
mod run;
mod shared;
mod spent;

pub(super) use self::line::BEHIND;
pub(super) use self::run::PythonExecutor;
pub use check::SourceFault;
pub use codes::CodeSource;
pub use interpreter::{Interpreter, InterpreterError};

#[cfg(any(test, fuzzing))]
pub(super) use self::protocol::understand;

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit};
use tokio::process::Command;
use tokio::sync::Mutex;

use self::codes::Codes;
use self::host::Host;
use self::line::Line;
use self::shared::SharedHosts;
use super::pool::{Pool, WorkerStatus};
use crate::artifact::Artifacts;
use crate::job::{Executor, Queue};
use crate::sandbox::{self, Sandbox, ScratchSpace};

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
