//! Jobs that compute, against the same function on a bare thread pool.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rayon::iter::{IntoParallelIterator, ParallelIterator};
use rayon::{ThreadPool, ThreadPoolBuilder};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::task::JoinSet;
use trine::command::Commands;
use trine::job::{Output, Spec};
use trine::workload::{Context, Environment, PythonRules, Registry, Reporter, Stop, Task, Work, WorkloadSettings};

use crate::http::{Connection, request};
use crate::report::{Bar, Figure, print};
use crate::server::{Server, folder};
use crate::{Options, Result};

/// How many jobs of which length, and how much longer they may take through the API.
const LOADS: [(usize, Duration, f64); 2] = [(64, Duration::from_millis(100), 1.03), (5_000, Duration::from_millis(1), 1.15)];
/// Up to so many jobs have a connection each.
const CONNECTIONS: usize = 64;

pub(crate) async fn run(options: &Options) -> Result<()> {
    let cores = std::thread::available_parallelism()?.get();
    let folder = folder()?;
    let bare = Bare::new(folder.path(), cores)?;
    let mut server = Server::start(folder.path(), &[("TRINE_THREADS_CPU", &cores.to_string())]).await?;
    for (jobs, length, bar) in LOADS {
        let workload = bare.calibrate(length)?;
        let expected: Counted = serde_json::from_str(bare.call(&workload)?.get())?;
        through_api(&mut server, &workload, cores, &expected).await?;
        let mut alone = Figure::new("bare thread pool, s");
        let mut through = Figure::new("through the API, s");
        let mut ratio = Figure::with_bar("through the API over bare", Bar::AtMost(bar));
        for _ in 0..options.rounds {
            let bare = bare.run(&workload, jobs)?.as_secs_f64();
            let api = if jobs > CONNECTIONS {
                in_a_batch(&mut server, &workload, jobs).await?
            } else {
                through_api(&mut server, &workload, jobs, &expected).await?
            };
            alone.add(bare);
            through.add(api.as_secs_f64());
            ratio.add(api.as_secs_f64() / bare);
        }
        print(&format!("cpu: {jobs} times {workload} on {cores} threads"), &[alone, through, ratio]);
    }
    server.stop().await
}

/// What `primes` returns.
#[derive(Debug, Deserialize, PartialEq, Eq)]
struct Counted {
    count: u32,
}

/// The workload without the service.
struct Bare {
    registry: Registry,
    pool: ThreadPool,
}

impl Bare {
    fn new(folder: &Path, threads: usize) -> Result<Self> {
        let settings = WorkloadSettings {
            outbound: trine::outbound::OutboundSettings::default(),
            http_max_bytes: 0,
            workspace: folder.join("workspace"),
            python: PythonRules::default(),
            commands: Commands::default(),
        };
        let registry = Registry::native(Environment::open(&settings)?);
        Ok(Self { registry, pool: ThreadPoolBuilder::new().num_threads(threads).build()? })
    }

    /// A workload that takes about this long a call.
    fn calibrate(&self, length: Duration) -> Result<String> {
        let mut below = 2_000_u32;
        loop {
            let workload = format!(r#"{{"type":"primes","below":{below}}}"#);
            let start = Instant::now();
            self.call(&workload)?;
            if start.elapsed() >= length {
                return Ok(workload);
            }
            below += below / 20;
        }
    }

    fn call(&self, workload: &str) -> Result<Output> {
        let spec = Spec { kind: "primes".to_owned(), json: RawValue::from_string(workload.to_owned())? };
        let context = Context {
            environment: Arc::clone(self.registry.environment()),
            stop: Stop::default(),
            reporter: Reporter::default(),
        };
        match self.registry.task(&spec)? {
            Task::Native(work) => match work(context) {
                Work::Blocking(call) => Ok(call()?),
                Work::Future(_) => Err("a workload that computes is not a future".into()),
            },
            Task::Python(_) | Task::Function(_) | Task::Command(_) => Err("it is native".into()),
        }
    }

    /// How long this many calls take on the pool.
    fn run(&self, workload: &str, calls: usize) -> Result<Duration> {
        let start = Instant::now();
        self.pool.install(|| (0..calls).into_par_iter().try_for_each(|_| self.call(workload).map(drop)))?;
        Ok(start.elapsed())
    }
}

/// How long this many jobs take that are submitted at once.
async fn in_a_batch(server: &mut Server, workload: &str, jobs: usize) -> Result<Duration> {
    let job = format!(r#"{{"bound":"cpu","executor":"threads","workload":{workload}}}"#);
    server.take(&vec![job.as_str(); jobs]).await
}

/// How long this many jobs take, each submitted on a connection of its own that waits for the result.
async fn through_api(server: &mut Server, workload: &str, jobs: usize, expected: &Counted) -> Result<Duration> {
    #[derive(Deserialize)]
    struct Job {
        output: Counted,
    }
    let body = format!(r#"{{"bound":"cpu","executor":"threads","workload":{workload}}}"#);
    let submission: Arc<[u8]> = request("POST", "/jobs", "Prefer: wait=30\r\n", &body).into();
    let mut connections = Vec::with_capacity(jobs);
    for _ in 0..jobs {
        connections.push(Connection::open(server.address).await?);
    }
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for mut connection in connections {
        let submission = Arc::clone(&submission);
        tasks.spawn(async move { connection.json::<Job>(&submission, 200).await });
    }
    let results = tasks.join_all().await;
    let took = start.elapsed();
    server.accepted += jobs as u64;
    for result in results {
        let counted = result?.output;
        if counted != *expected {
            return Err(format!("{counted:?} instead of {expected:?}").into());
        }
    }
    server.finish(|_| Ok(())).await?;
    Ok(took)
}
