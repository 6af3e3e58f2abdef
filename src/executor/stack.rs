//! The one place where the layers round the executors are ordered, read from the outside in:
//!
//! ```text
//! measure    makes one record of whatever happened below
//! deadline   tells an attempt to stop, and leaves behind what does not
//! executor   runs it; its slot, taken before the job was claimed, travels with it
//! ```
//!
//! Executors by threads, and Python's processes, have a line before them and keep deadlines themselves: they count from when a thread or a
//! process comes to an attempt.
//!
//! There is no concurrency layer: an attempt brings its slot along, so that no job is claimed that would have to wait for long for one,
//! and a slot is free again when the thread or process is, not when somebody has stopped waiting.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceBuilder, service_fn};

use super::commands::{CommandSettings, CommandsExecutor};
use super::deadline::BEYOND;
use super::inline::InlineExecutor;
use super::pool::WorkerStatus;
use super::processes::{self, ProcessPool, ProcessSettings};
use super::python::{BEHIND, Python, PythonExecutor, PythonSettings, SourceFault};
use super::slots::MOST_AHEAD;
use super::{AsyncExecutor, AsyncRuntime, Attempt, DeadlineLayer, MeasureLayer, Measured, Ran, ThreadsExecutor};
use crate::artifact::Artifacts;
use crate::job::{Executor, Queue};
use crate::outbound::LOOKUPS;
use crate::workload::{Environment, EnvironmentError, Registry};

/// How many Python processes one thread talks with.
const HOSTS_OF_A_THREAD: usize = 16;
/// Threads for what their jobs leave on the disk, at the most.
const CLEANERS: usize = 128;
/// How long it may take to remove what hosts have left on the disk.
const LAST_HOSTS: Duration = Duration::from_secs(2);

/// An executor with its layers.
pub type Stack = BoxCloneSyncService<Attempt, Measured, Infallible>;

/// How large the executors are, and how patient.
#[derive(Clone, Debug)]
pub struct ExecutorSettings {
    /// Jobs on the event loop at once.
    pub async_slots: usize,
    /// Threads of the event loop.
    pub async_threads: usize,
    /// Threads for work that waits.
    pub threads_io: usize,
    /// Threads for work that computes.
    pub threads_cpu: usize,
    /// How long an attempt may take to end after it was told to stop.
    pub stop_grace: Duration,
    /// The worker processes.
    pub processes: ProcessSettings,
    /// The Python hosts; `None` without any interpreter.
    pub python: Option<PythonSettings>,
    /// The programs.
    pub commands: CommandSettings,
    /// Where the files are kept that Python jobs and programs leave behind.
    pub artifacts: Artifacts,
}

/// Why the executors could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    /// The event loop.
    #[error("can't start the event loop: {0}")]
    Runtime(#[from] std::io::Error),
    /// The threads.
    #[error("can't start the threads: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
    /// The Python hosts.
    #[error("can't prepare the Python hosts: {0}")]
    Python(std::io::Error),
    /// Where programs keep what they write.
    #[error("can't prepare the folder of commands: {0}")]
    Commands(std::io::Error),
    /// What workloads share can't be opened.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
}

/// All executors, started.
pub struct Executors {
    event_loop: AsyncRuntime,
    home: Handle,
    /// Drives timers and sockets of futures that run on threads, so that a held event loop does not hold them too.
    _reactor: AsyncRuntime,
    pool: ProcessPool,
    python: Option<Python>,
    python_home: Option<AsyncRuntime>,
    stacks: [Stack; Queue::ALL.len()],
    /// Makes a registry with an environment of its own, as each executor has one.
    registry: Box<dyn Fn() -> Result<Arc<Registry>, ExecutorError> + Send + Sync>,
    grace: Duration,
    slots: [usize; Queue::ALL.len()],
}

impl Executors {
    /// Starts them. Must be called on a tokio runtime; worker processes are started in the background.
    ///
    /// `registry` makes the workloads out of an environment. Each executor has an environment of its own: a connection that one of
    /// them opened is driven by its runtime, and must not be handed to another.
    pub fn start(settings: &ExecutorSettings, registry: fn(Environment) -> Registry) -> Result<Self, ExecutorError> {
        let workloads = settings.processes.workloads.clone();
        let open = move || Ok::<_, ExecutorError>(Arc::new(registry(Environment::open(&workloads)?)));
        let (for_loop, for_threads) = (open()?, open()?);
        // Threads for looking up host names, besides those that jobs have: jobs must not keep their own lookups waiting.
        let event_loop = AsyncRuntime::start("trine-async", settings.async_threads, LOOKUPS)?;
        let reactor = AsyncRuntime::start("trine-threads", 1, settings.threads_io + LOOKUPS)?;
        let pool = ProcessPool::start(settings.processes.clone(), settings.processes.size, ());
        let python = settings.python.as_ref().and_then(|python| Some((python, python.interpreters.first()?)));
        let artifacts = &settings.artifacts;
        let python_slots = python.map_or([0; 3], |(python, _)| [python.async_slots, python.threads, python.processes]);
        let threads = python.map(|(settings, _)| settings.processes.div_ceil(HOSTS_OF_A_THREAD));
        let python_home = threads.map(|threads| AsyncRuntime::start("trine-python", threads, CLEANERS)).transpose()?;
        let python = {
            let _at_home = python_home.as_ref().map(|home| home.handle().enter());
            let python = python.map(|(settings, first)| Python::start(settings, first, artifacts));
            python.transpose().map_err(ExecutorError::Python)?
        };
        let grace = settings.stop_grace;
        let handle = reactor.handle().clone();
        let on_loop = layers(AsyncExecutor::new(for_loop), grace);
        let waiting = measured(ThreadsExecutor::waiting(handle.clone(), Arc::clone(&for_threads), grace));
        let computing = ThreadsExecutor::computing(settings.threads_cpu, handle, Arc::clone(&for_threads), grace)?;
        let computing = measured(computing);
        let beyond = grace + BEYOND;
        let workers = pool.clone();
        let processes = layers(service(move |attempt| processes::run(workers.clone(), grace, attempt)), beyond);
        let [python_async, python_threads, python_processes] = Executor::ALL.map(|mode| {
            let python = PythonExecutor::new(python.clone(), mode, Arc::clone(&for_threads), grace);
            service(move |attempt| python.clone().run(attempt))
        });
        let (python_async, python_threads) = (layers(python_async, beyond), layers(python_threads, beyond));
        let python_processes = measured(python_processes);
        let commands = CommandsExecutor::new(&settings.commands, for_threads, grace, settings.artifacts.clone())
            .map_err(ExecutorError::Commands)?;
        let commands = layers(service(move |attempt| commands.clone().run(attempt)), beyond);
        Ok(Self {
            event_loop,
            home: Handle::current(),
            _reactor: reactor,
            stacks: [on_loop, waiting, computing, processes, python_async, python_threads, python_processes, commands],
            slots: [
                settings.async_slots,
                settings.threads_io,
                settings.threads_cpu,
                pool.size(),
                python_slots[0],
                python_slots[1],
                python_slots[2],
                settings.commands.slots,
            ],
            pool,
            python,
            python_home,
            registry: Box::new(open),
            grace,
        })
    }

    /// Where the attempts of a queue are to be driven: those of `async` on its event loop, which is what they are about; those of
    /// others, whose work is elsewhere, where the queue is served.
    pub fn home(&self, queue: Queue) -> &Handle {
        match queue {
            Queue::Async => self.event_loop.handle(),
            _ => self.serving(queue),
        }
    }

    /// Where a queue is to be served: those of Python on threads of their own, the others on the caller's runtime. A message of a Python host
    /// makes a few tasks go on one after the other, and on a runtime of several threads each of them would wake another thread.
    pub fn serving(&self, queue: Queue) -> &Handle {
        match (queue, &self.python_home) {
            (Queue::PythonAsync | Queue::PythonThreads | Queue::PythonProcesses, Some(home)) => home.handle(),
            _ => &self.home,
        }
    }

    /// The executor that serves a queue, with its layers.
    pub fn stack(&self, queue: Queue) -> Stack {
        self.stacks[queue as usize].clone()
    }

    /// Native work on no executor: one call after the other, on a thread that ends with the last handle to it.
    pub fn inline(&self) -> Result<Stack, ExecutorError> {
        let inline = InlineExecutor::start((self.registry)()?, self.grace)?;
        Ok(measured(inline))
    }

    /// How many jobs of a queue run at once.
    pub const fn slots(&self, queue: Queue) -> usize {
        self.slots[queue as usize]
    }

    /// How many jobs may stand in the line that the executor of a queue has of its own, in which they wait for no longer than those before
    /// them take.
    pub const fn line(&self, queue: Queue) -> usize {
        match queue {
            Queue::ThreadsCpu => MOST_AHEAD,
            Queue::PythonProcesses => self.slots(queue) * BEHIND,
            _ => 0,
        }
    }

    /// How late a timer fired on the event loop, or is by now, in microseconds: the latest of the last second.
    pub fn loop_lag_us(&self) -> u64 {
        self.event_loop.lag_us()
    }

    /// The processes that serve a queue, as they are now.
    pub fn workers(&self, queue: Queue) -> Vec<WorkerStatus> {
        match (queue, &self.python) {
            (Queue::Processes, _) => self.pool.workers(),
            (queue, Some(python)) => python.workers(queue),
            (_, None) => Vec::new(),
        }
    }

    /// Whether there are no processes to work, because they can't be started: the log says why.
    pub fn can_not_start(&self) -> bool {
        self.pool.can_not_start() || self.python.as_ref().is_some_and(Python::can_not_start)
    }

    /// What is wrong with the source of a Python module that is to be called by this entry point, says the interpreter with that name.
    ///
    /// # Errors
    /// It could not be looked at, for this reason.
    pub async fn check_python(&self, interpreter: &str, source: &str, entrypoint: &str) -> Result<Option<SourceFault>, String> {
        match &self.python {
            Some(python) => python.check(interpreter, source, entrypoint).await,
            None => Err("this server has no Python interpreter any more".into()),
        }
    }

    /// Kills the processes that wait for work, and starts no more.
    pub fn close(&self) {
        self.pool.close();
        if let Some(python) = &self.python {
            python.close();
        }
    }

    /// Drops whatever is left on the threads for Python, which kills its hosts, and waits for what these have left on the disk. To be called last: others may
    /// use what was opened there, such as a connection to the store.
    pub async fn end(&self) {
        if let Some(home) = &self.python_home {
            home.shut_down(LAST_HOSTS).await;
        }
    }
}

/// An executor that takes an attempt at any time, as this function runs it.
fn service<F>(
    run: impl Fn(Attempt) -> F + Clone + Send + Sync + 'static,
) -> impl Service<Attempt, Response = Ran, Error = Infallible, Future: Send + Unpin + 'static> + Clone + Send + Sync + 'static
where
    F: Future<Output = Ran> + Send + 'static,
{
    service_fn(move |attempt| run(attempt).map(Ok).boxed())
}

fn layers<S>(executor: S, grace: Duration) -> Stack
where
    S: Service<Attempt, Response = Ran, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + Unpin + 'static,
{
    measured(ServiceBuilder::new().layer(DeadlineLayer::new(grace)).service(executor))
}

/// An executor that keeps deadlines itself.
fn measured<S>(executor: S) -> Stack
where
    S: Service<Attempt, Response = Ran, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    BoxCloneSyncService::new(ServiceBuilder::new().layer(MeasureLayer).service(executor))
}
