//! Puts the service together: store, executors, dispatcher, API.

mod confinement;
mod error;
mod own_files;
mod python;

pub use error::AppError;

use std::fs::{File, TryLockError};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::{self, BodyLimits, Held, Keyring, Memory, Pages, Parts, Streams, Traffic};
use crate::artifact::Artifacts;
use crate::auth::KeyRule;
use crate::clock::SystemClock;
use crate::comparison::Comparisons;
use crate::config::{Config, Database, Partitions};
use crate::dispatch::{
    Deliverer, DeliverySettings, Dispatcher, Functions, Quotas, Retention, Rules, Schedules, interpreter_label, sweep_artifacts,
    watch_bloat,
};
use crate::executor::processes::ProcessSettings;
use crate::executor::{CommandSettings, ExecutorSettings, Executors};
use crate::job::{Labels, Queue, Role};
use crate::own;
use crate::profile::Profiles;
use crate::sandbox::Sandbox;
use crate::server::{self, Limits, Patience, Tls, TlsFiles};
use crate::shutdown::Stop;
use crate::store::Store;
use crate::store::postgres::{PostgresOptions, PostgresStore};
use crate::store::sqlite::{SqliteOptions, SqliteStore};
use crate::webhook;
use crate::workload::{Environment, PythonRules, Registry, WorkloadSettings};

/// The program that runs here, also if there is another one at its path by now, such as a newer version.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// The file in the data folder that its server has locked.
const LOCK: &str = "server.lock";

/// With so few files that may be open at once, things fail in ways that do not tell why.
const FEW_FILES: usize = 256;
/// What part of the file descriptors is kept for jobs: one in so many.
const OF_FILES_FOR_JOBS: usize = 4;

/// Serves until it is asked to stop, hands its clients over to other servers, then drains: takes nothing new, finishes what runs within the
/// grace period or until it is hurried, hands back the rest. `ready` is called when it begins to answer.
pub async fn serve(config: Config, listener: TcpListener, stop: Stop, ready: impl FnOnce()) -> Result<(), AppError> {
    let files = raise_file_limit();
    let tls = TlsFiles::both(config.tls_cert.clone(), config.tls_key.clone())?.map(Tls::load).transpose()?;
    let interpreters = python::interpreters(&config).await?;
    let kernel = confinement::check_sandbox(&config, &interpreters)?;
    let _held = take_data_folder(&config.data_dir)?;
    let python = python::rules(&config, &interpreters);
    let programs = python::programs(&config, kernel, &interpreters, &python);
    let workloads = WorkloadSettings {
        outbound: config.outbound(),
        http_max_bytes: config.http_max_bytes,
        workspace: config.workspace(),
        python,
        commands: config.commands.clone(),
    };
    let registry = Arc::new(Registry::native(Environment::open(&workloads)?));
    let address = listener.local_addr().map_err(AppError::Listener)?;
    let store = open_store(&config, address, &workloads.python).await?;
    let quotas = Arc::new(Quotas::new(Arc::clone(&store), config.quota()));
    let keyring = Arc::new(Keyring::load(Arc::clone(&store), config.keys, Arc::clone(&quotas)).await?);
    check_keys(&config, &keyring, address)?;
    check_shared(&config, &*store).await?;
    let functions = Arc::new(Functions::load(Arc::clone(&store)).await?);
    let deliveries = deliveries(&config)?;
    Comparisons::interrupt(&*store).await?;
    let closed = CancellationToken::new();
    let watched = own_files::watch(&config, stop.asked.clone(), closed.clone())?;
    let artifacts = Artifacts::open(&config.artifacts(), &store.identity().await?, config.artifact_bytes)?;
    let program = PathBuf::from(THIS_PROGRAM);
    let sandbox = Sandbox::new(program.clone(), config.sandbox).map_err(AppError::SandboxSetup)?;
    let settings = ExecutorSettings {
        async_slots: config.async_slots,
        async_threads: config.async_threads,
        threads_io: config.threads_io,
        threads_cpu: config.threads_cpu,
        stop_grace: config.stop_grace,
        python: python::settings(&config, &sandbox, interpreters, &functions)?,
        artifacts: artifacts.clone(),
        commands: CommandSettings { sandbox, folder: config.data_dir.join("commands"), slots: config.command_slots },
        processes: ProcessSettings { program, size: config.processes, max_jobs: config.worker_max_jobs, workloads },
    };
    let executors = Executors::start(&settings, Registry::native)?;
    let profiles = Profiles::load(store.profiles().await?, store.is_shared());
    let rules = rules(&config);
    // Jobs are claimed from here on: a start that failed now would count a loss of each of them.
    let dispatcher = Dispatcher::start(Arc::clone(&store), registry, functions, executors, rules, profiles, Arc::clone(&quotas));
    let comparisons = Comparisons::start(dispatcher.clone());
    let schedules = Arc::new(Schedules::new(store.clone(), api::job_maker(dispatcher.clone()), quotas));
    let outbound = Arc::clone(dispatcher.registry().environment().outbound());
    let deliverer = Deliverer::new(Arc::clone(&store), outbound, deliveries, api::message);
    let mut house = keep_house(&config, &store, &dispatcher, &schedules, &deliverer, &keyring, &artifacts);
    let pages = Pages { origins: config.cors_allow.clone().into(), hosts: config.allowed_hosts.clone().into() };
    let parts = Parts {
        dispatcher: dispatcher.clone(),
        comparisons: comparisons.clone(),
        schedules,
        deliverer,
        bodies: bodies(&config),
        programs: Arc::new(programs),
        keyring,
        pages,
        streams: Streams::new(config.max_event_streams),
        artifacts,
        traffic: Traffic::default(),
        held: Held::default(),
    };
    let api = api::service(parts.into());
    let limits = Limits {
        patience: Patience { headers: config.header_timeout, idle: config.idle_timeout, answer: config.answer_timeout },
        max_connections: connections(&config, files),
        grace: config.stop_grace,
    };
    let drained = {
        let (dispatcher, asked, closed, handover) = (dispatcher.clone(), stop.asked.clone(), closed.clone(), config.handover);
        async move {
            asked.cancelled().await;
            dispatcher.leave();
            let _ = tokio::time::timeout(handover, closed.cancelled()).await;
            tracing::info!("shutting down: nothing new is taken");
            dispatcher.drain();
        }
    };
    let hurried = stop.hurried;
    ready();
    hurried.run_until_cancelled(server::serve(listener, tls, api, limits, stop.asked.clone(), drained)).await;
    closed.cancel();
    stop.asked.cancel();
    dispatcher.drain();
    let housework = async {
        comparisons.shut_down().await;
        while let Some(ended) = house.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a task broke off");
            }
        }
    };
    // What is cut off, such as a message on its way, is done again by the next server. Both waits are at the same time, since whoever
    // stops a server may have no patience for one after the other, and a comparison may be kept waiting by a job that runs.
    tokio::join!(hurried.run_until_cancelled(housework), dispatcher.shut_down(config.grace, &hurried));
    dispatcher.end().await;
    tracing::info!("shut down");
    watched.await.ok().flatten().map_or(Ok(()), |path| Err(AppError::FileGone(path)))
}

/// What a request may bring.
fn bodies(config: &Config) -> BodyLimits {
    BodyLimits {
        max_bytes: config.max_body_bytes,
        timeout: config.body_timeout,
        memory: Memory::new(config.max_body_memory_bytes),
    }
}

/// The data folder, for this server alone as long as the file is open: each one empties it of what programs of an earlier one have left.
fn take_data_folder(folder: &Path) -> Result<File, AppError> {
    let unusable = |error| AppError::DataFolder { path: folder.into(), error };
    own::folder(folder).map_err(unusable)?;
    let mode = folder.metadata().map_err(unusable)?.permissions().mode();
    if mode & 0o077 != 0 {
        let folder = folder.display();
        tracing::warn!("other users of this machine can look into the data folder: `chmod -R go= {folder}` keeps them out");
    }
    own::lock(&folder.join(LOCK)).map_err(|error| match error {
        TryLockError::WouldBlock => AppError::DataFolderTaken(folder.into()),
        TryLockError::Error(error) => unusable(error),
    })
}

/// The store that the settings name.
async fn open_store(config: &Config, address: SocketAddr, python: &PythonRules) -> Result<Arc<dyn Store>, AppError> {
    let Config { max_losses, job_log_lines, job_log_bytes, .. } = *config;
    let node = config.node.clone().unwrap_or_else(|| node_name(address));
    let labels = labels(config, &node, python);
    match config.database() {
        Database::Sqlite(_) if config.role != Role::All => Err(AppError::Alone(config.role)),
        Database::Sqlite(path) => {
            let options =
                SqliteOptions { path, node, labels, clock: Arc::new(SystemClock), max_losses, job_log_lines, job_log_bytes };
            Ok(Arc::new(SqliteStore::open(options).await?))
        }
        Database::Postgres(url) => {
            tracing::info!(%node, database = %url, "jobs are shared with the other servers of this database");
            let options = PostgresOptions {
                urls: url.of_each_host(),
                schema: config.database_schema.clone(),
                partitions: config.database_partitions == Partitions::Day,
                node,
                role: config.role,
                labels,
                lease: config.lease,
                connections: config.database_connections,
                clock: None,
                max_losses,
                job_log_lines,
                job_log_bytes,
            };
            Ok(Arc::new(PostgresStore::open(options).await?))
        }
    }
}

/// What this server is called where it is not said: no other one can be reached there.
fn node_name(address: SocketAddr) -> String {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    format!("{}@{address}", host.as_deref().unwrap_or("trine"))
}

/// What is said of this server: by the operator, and by itself.
fn labels(config: &Config, node: &str, python: &PythonRules) -> Labels {
    let said = config.labels.iter().map(|label| (label.name.clone(), label.value.clone()));
    let own = [("node", node), ("os", std::env::consts::OS), ("arch", std::env::consts::ARCH)];
    let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
    said.chain(own).chain(python.interpreters.iter().map(|rule| interpreter_label(&rule.name))).collect()
}

/// What goes on besides jobs until the server drains: keys are followed, schedules fire, webhooks are delivered, old results are removed.
fn keep_house(
    config: &Config,
    store: &Arc<dyn Store>,
    dispatcher: &Dispatcher,
    schedules: &Arc<Schedules>,
    deliverer: &Arc<Deliverer>,
    keyring: &Arc<Keyring>,
    artifacts: &Artifacts,
) -> JoinSet<()> {
    let mut house = JoinSet::new();
    house.spawn(Arc::clone(keyring).follow(dispatcher.drained()));
    let (schedules, drained) = (Arc::clone(schedules), dispatcher.drained());
    house.spawn(async move { schedules.keep(drained).await });
    house.spawn(Arc::clone(deliverer).keep(dispatcher.drained()));
    let retention = Retention { age: config.retention_age.0, count: config.retention_count.0 };
    house.spawn(retention.keep_to(Arc::clone(store), dispatcher.drained()));
    house.spawn(sweep_artifacts(artifacts.clone(), Arc::clone(store), dispatcher.drained()));
    house.spawn(watch_bloat(Arc::clone(store), dispatcher.drained()));
    house
}

/// How webhooks are delivered.
fn deliveries(config: &Config) -> Result<DeliverySettings, AppError> {
    let secrets = if config.webhook_secrets.is_empty() {
        vec![webhook::secret_in(&config.data_dir.join("webhook.secret")).map_err(AppError::Secret)?]
    } else {
        config.webhook_secrets.clone()
    };
    let rules = webhook::Rules { attempts: config.webhook_attempts, backoff: config.webhook_backoff };
    Ok(DeliverySettings { secrets, rules, timeout: config.webhook_timeout })
}

/// What the operator decides of jobs.
fn rules(config: &Config) -> Rules {
    Rules {
        max_losses: config.max_losses,
        most_waiting: Queue::ALL.map(|queue| config.most_waiting(queue)),
        keys_kept: config.idempotency,
        routing: config.routing,
        role: config.role,
    }
}

/// Where others than this machine reach the server, it asks for keys, so there has to be one; unless the operator wants it otherwise.
fn check_keys(config: &Config, keyring: &Keyring, address: SocketAddr) -> Result<(), AppError> {
    let needed = !keyring.is_open() || (config.keys == KeyRule::Auto && !address.ip().is_loopback());
    if needed && !keyring.has_live() {
        return Err(AppError::NoKeys { address, database: config.database() });
    }
    if !needed && !address.ip().is_loopback() {
        tracing::warn!("no keys are asked for: whoever reaches {address} may do everything");
    }
    Ok(())
}

/// What servers that share a database are to be given alike: one that goes by its own data folder instead says so, once there are others.
async fn check_shared(config: &Config, store: &dyn Store) -> Result<(), AppError> {
    if !store.is_shared() || (!config.webhook_secrets.is_empty() && config.artifacts.is_some()) {
        return Ok(());
    }
    let others = store.nodes().await?.into_iter().filter(|node| !node.is_this && !node.has_expired);
    let others = others.map(|node| node.name).collect::<Vec<_>>().join(", ");
    if others.is_empty() {
        return Ok(());
    }
    if config.webhook_secrets.is_empty() {
        tracing::warn!(
            others,
            "`webhook_secrets` is not set: this server signs webhooks with webhook.secret of its data folder, and others with their own"
        );
    }
    if config.artifacts.is_none() {
        tracing::warn!(
            others,
            "`artifacts` is not set: files that jobs leave behind here are kept in this server's data folder, where others don't find them"
        );
    }
    Ok(())
}

/// Thousands of connections and fetches at once need as many file descriptors as the system allows. How many that is.
fn raise_file_limit() -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map(|(soft, hard)| match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(error) => {
            tracing::warn!(%error, "can't raise the limit of open files");
            soft
        }
    });
    let files = limit.ok().and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    if files < FEW_FILES {
        tracing::warn!(
            "the system allows {files} open files: with so few, requests and jobs fail, and below 128 no Python process starts; `ulimit -n` raises that"
        );
    }
    files
}

/// How many connections there may be: clients must not take the file descriptors that the jobs and the database need.
fn connections(config: &Config, files: usize) -> usize {
    let most = files - files / OF_FILES_FOR_JOBS;
    if most < config.max_connections {
        tracing::info!("only {most} connections at once, since the system allows {files} open files");
    }
    most.min(config.max_connections)
}
