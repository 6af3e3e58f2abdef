use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Evidence, Observed};

/// The client's tag: what it believes that the work does most of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// It waits: for the network, files, a database.
    Io,
    /// It computes.
    Cpu,
}

/// How a job is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Executor {
    /// An event loop: many waits on one thread.
    Async,
    /// A pool of threads.
    Threads,
    /// Worker processes, one job each at a time.
    Processes,
}

/// Which executor the client wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// The one that the router finds best.
    #[default]
    Auto,
    /// The event loop.
    Async,
    /// The thread pool.
    Threads,
    /// A worker process.
    Processes,
}

impl Choice {
    /// The executor that the client insists on.
    pub const fn insisted(self) -> Option<Executor> {
        match self {
            Self::Auto => None,
            Self::Async => Some(Executor::Async),
            Self::Threads => Some(Executor::Threads),
            Self::Processes => Some(Executor::Processes),
        }
    }
}

/// The form in which a workload is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// A future: it gives the thread back while it waits.
    Async,
    /// A call that returns when it is done, and holds its thread until then.
    Blocking,
}

/// What a workload is written in, which decides by what it can be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Runtime {
    /// Rust, in this program: threads compute at once.
    Native,
    /// Python, in an interpreter's processes: most interpreters have a lock that lets one thread compute at a time.
    Python,
    /// Whatever it is: a program of its own.
    Command,
}

/// How a workload is written, as far as the choice of an executor depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// What it is written in.
    pub runtime: Runtime,
    /// How.
    pub form: Form,
    /// Whether a global lock lets one of its threads compute at a time.
    pub gil: bool,
    /// Whether only a process that it has to itself can keep it within its limits.
    #[serde(default)]
    pub needs_a_process: bool,
}

/// Where jobs wait. Each has its own slots and its own dispatch loop, so that a full one never holds up another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Queue {
    /// For the event loop.
    Async,
    /// For the thread pool that waits: many threads.
    ThreadsIo,
    /// For the thread pool that computes: one thread a core.
    ThreadsCpu,
    /// For the worker processes.
    Processes,
    /// For Python's event loop.
    PythonAsync,
    /// For Python's threads.
    PythonThreads,
    /// For Python's worker processes.
    PythonProcesses,
    /// For programs that run in processes of their own.
    Commands,
}

/// The chosen executor, and the rule that chose it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// How the job is run.
    pub executor: Executor,
    /// Where it waits.
    pub queue: Queue,
    /// Why.
    pub rule: Rule,
    /// What was measured of earlier runs, where that chose the executor, would have chosen another, or was asked in vain.
    pub evidence: Option<Evidence>,
}

/// The rules by which a route is chosen, in the order in which they are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The client named the executor.
    Insisted,
    /// The client wants it to be isolated.
    Isolated,
    /// The workload is a program.
    Command,
    /// Tagged `io`, and the workload is written as a future.
    IoAsync,
    /// Tagged `io`, but the workload blocks while it waits.
    IoBlocking,
    /// Tagged `cpu`, and no global lock keeps threads from computing at once.
    CpuThreads,
    /// Tagged `cpu`, and the interpreter's global lock lets one thread compute at a time.
    CpuProcesses,
    /// Earlier runs computed.
    MeasuredCpu,
    /// Earlier runs waited.
    MeasuredIo,
    /// Earlier runs held the event loop.
    MeasuredHold,
    /// One in many is tried on the event loop, to see whether it holds it, or still does; or in a process, where it is seen what it does.
    Trial,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Insisted,
        Self::Isolated,
        Self::Command,
        Self::IoAsync,
        Self::IoBlocking,
        Self::CpuThreads,
        Self::CpuProcesses,
        Self::MeasuredCpu,
        Self::MeasuredIo,
        Self::MeasuredHold,
        Self::Trial,
    ];

    /// The name that the API uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Insisted => "insisted",
            Self::Isolated => "isolated",
            Self::IoAsync => "io_async",
            Self::IoBlocking => "io_blocking",
            Self::CpuThreads => "cpu_threads",
            Self::CpuProcesses => "cpu_processes",
            Self::Command => "command",
            Self::MeasuredCpu => "measured_cpu",
            Self::MeasuredIo => "measured_io",
            Self::MeasuredHold => "measured_hold",
            Self::Trial => "trial",
        }
    }

    /// The reason in words.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Insisted => "the job, or the function that it calls, asks for this executor",
            Self::Isolated => "the client asked for isolation, which only a worker process gives",
            Self::IoAsync => "tagged io and asynchronous: one event loop holds many waits at the price of one thread",
            Self::IoBlocking => {
                "tagged io, but it blocks its thread while it waits: threads wait side by side, an event loop would be held"
            }
            Self::CpuThreads => {
                "tagged cpu, and no global lock is in the way: threads compute on all cores without the cost of a process hop"
            }
            Self::CpuProcesses => {
                "tagged cpu, and the interpreter's global lock lets one thread compute at a time: processes compute on all cores"
            }
            Self::Command => "a command is a program, and a program runs in a process of its own",
            Self::MeasuredCpu => "measured to compute",
            Self::MeasuredIo => "measured to wait",
            Self::MeasuredHold => "measured to hold the event loop",
            Self::Trial => "tried on the event loop now and then, to see whether it holds it",
        }
    }
}

impl Route {
    /// The reason in words, with the numbers that it rests on.
    pub fn reason(&self) -> Cow<'static, str> {
        let Some(evidence) = self.evidence else { return self.rule.reason().into() };
        let measured = matches!(self.rule, Rule::MeasuredCpu | Rule::MeasuredIo | Rule::MeasuredHold | Rule::Trial);
        if measured {
            let reason = match (self.rule, self.executor) {
                (Rule::Trial, Executor::Processes) => {
                    "tried in a process now and then, since beside others the interpreter's lock hides whether it waits"
                }
                (rule, _) => rule.reason(),
            };
            return format!("{reason}: {evidence}").into();
        }
        let executor = evidence.executor;
        let verb = match evidence.observed {
            _ if evidence.held_us.is_some() && self.executor == Executor::Async => "to hold the event loop",
            Some(Observed::Cpu) => "to compute",
            Some(Observed::Io) => "to wait",
            Some(Observed::Mixed) | None => "to do both",
        };
        let (declared, measured) = (self.rule.reason(), format!("it was measured {verb} ({evidence})"));
        if evidence.failing {
            return format!("{declared}; {measured}, but most of its latest runs on {executor} failed").into();
        }
        if evidence.observed == Some(Observed::Mixed) && executor == self.executor {
            return format!("{declared}; {measured}, so its tag decides").into();
        }
        format!("{declared}; but {measured}, and measured routing would choose {executor}").into()
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { runs, cpu_percent, wall_us, held_us, .. } = self;
        let ms = |us: u64| us.div_ceil(1_000);
        // The share is of the time in which there was a core for them; how long they took is more than that on a busy machine.
        if *runs == 0 {
            return match held_us {
                Some(held) => write!(f, "it held it for up to {} ms", ms(*held)),
                None => f.write_str("no run has told what it does"),
            };
        }
        write!(f, "{runs} runs of {} ms used {cpu_percent} % of a core whenever there was one", ms(*wall_us))?;
        held_us.map_or(Ok(()), |held| write!(f, ", and held the event loop for up to {} ms", ms(held)))
    }
}

impl Executor {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Async, Self::Threads, Self::Processes];

    /// The name that the API uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Async => "async",
            Self::Threads => "threads",
            Self::Processes => "processes",
        }
    }

    /// Where a job for this executor waits.
    pub const fn queue(self, runtime: Runtime, bound: Bound) -> Queue {
        match (runtime, self, bound) {
            (Runtime::Native, Self::Async, _) => Queue::Async,
            (Runtime::Native, Self::Threads, Bound::Io) => Queue::ThreadsIo,
            (Runtime::Native, Self::Threads, Bound::Cpu) => Queue::ThreadsCpu,
            (Runtime::Native, Self::Processes, _) => Queue::Processes,
            (Runtime::Python, Self::Async, _) => Queue::PythonAsync,
            (Runtime::Python, Self::Threads, _) => Queue::PythonThreads,
            (Runtime::Python, Self::Processes, _) => Queue::PythonProcesses,
            (Runtime::Command, ..) => Queue::Commands,
        }
    }
}

impl Bound {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Io, Self::Cpu];

    /// The name that the API uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Io => "io",
            Self::Cpu => "cpu",
        }
    }
}

impl Queue {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Async,
        Self::ThreadsIo,
        Self::ThreadsCpu,
        Self::Processes,
        Self::PythonAsync,
        Self::PythonThreads,
        Self::PythonProcesses,
        Self::Commands,
    ];

    /// The executor that serves it.
    pub const fn executor(self) -> Executor {
        match self {
            Self::Async | Self::PythonAsync => Executor::Async,
            Self::ThreadsIo | Self::ThreadsCpu | Self::PythonThreads => Executor::Threads,
            Self::Processes | Self::PythonProcesses | Self::Commands => Executor::Processes,
        }
    }

    /// Whether its jobs run in other processes, so that nothing that they do can take the server down.
    pub const fn is_apart(self) -> bool {
        match self {
            Self::Async | Self::ThreadsIo | Self::ThreadsCpu => false,
            Self::Processes | Self::PythonAsync | Self::PythonThreads | Self::PythonProcesses | Self::Commands => true,
        }
    }

    /// Those of a runtime.
    pub fn of(runtime: Runtime) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |queue| queue.runtime() == runtime)
    }

    /// What its jobs are written in.
    pub const fn runtime(self) -> Runtime {
        match self {
            Self::Async | Self::ThreadsIo | Self::ThreadsCpu | Self::Processes => Runtime::Native,
            Self::PythonAsync | Self::PythonThreads | Self::PythonProcesses => Runtime::Python,
            Self::Commands => Runtime::Command,
        }
    }

    /// The name that the API uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Async => "async",
            Self::ThreadsIo => "threads-io",
            Self::ThreadsCpu => "threads-cpu",
            Self::Processes => "processes",
            Self::PythonAsync => "python-async",
            Self::PythonThreads => "python-threads",
            Self::PythonProcesses => "python-processes",
            Self::Commands => "commands",
        }
    }
}
