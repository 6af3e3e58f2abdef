//! Puts the service together: store, executors, dispatcher, API.

use std::collections::HashSet;
use std::fs::{File, TryLockError};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::api::{
    self, BodyLimits, InterpreterView, Keyring, Memory, Pages, Parts, ProgramsView, PythonView, SandboxView, Streams, Traffic,
};
use crate::artifact::{ArtifactError, ArtifactPlace, Artifacts};
use crate::auth::KeyRule;
use crate::clock::SystemClock;
use crate::command::Command;
use crate::comparison::Comparisons;
use crate::config::{Config, Database, NamedProgram, Partitions, Permission};
use crate::dispatch::{
    Deliverer, DeliverySettings, Dispatcher, Functions, Quotas, Retention, Rules, Schedules, interpreter_label, sweep_artifacts,
    watch_bloat,
};
use crate::executor::processes::ProcessSettings;
use crate::executor::python::{Interpreter, InterpreterError, PythonSettings};
use crate::executor::{CommandSettings, ExecutorError, ExecutorSettings, Executors};
use crate::job::{Labels, Queue, Role};
use crate::own;
use crate::profile::Profiles;
use crate::sandbox::{self, Sandbox};
use crate::server::{self, Limits, Patience, Tls, TlsError, TlsFiles};
use crate::shutdown::Stop;
use crate::store::postgres::{LeaseRules, PostgresOptions, PostgresStore};
use crate::store::sqlite::{SqliteOptions, SqliteStore};
use crate::store::{Store, StoreError};
use crate::webhook;
use crate::workload::{Environment, EnvironmentError, PythonRules, Registry, WorkloadSettings};

/// How long the API still answers after it has begun to say that it is not ready, so that a load balancer notices.
const HANDOVER: Duration = Duration::from_millis(100);

/// The program that runs here, also if there is another one at its path by now, such as a newer version.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// What part of the file descriptors is kept for jobs: one in so many.
const OF_FILES_FOR_JOBS: usize = 4;

/// Why the service could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// What workloads share can't be opened.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// The store can't be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The executors can't be started.
    #[error(transparent)]
    Executors(#[from] ExecutorError),
    /// Programs can't be confined as the operator requires.
    #[error("`sandbox` is `required`, but it has a gap: {0}")]
    Sandbox(String),
    /// Jobs could not tell one interpreter from another.
    #[error("`python_interpreters` has two that are called {0:?}")]
    SameName(String),
    /// The certificate can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Requests need a key, and there is none.
    #[error(
        "{address} asks for API keys, and there is none that is good for anything: make one with \
         `trine keys create admin --scopes admin --database {database}`, or let in whoever comes with `--keys off`"
    )]
    NoKeys {
        /// Where the server would listen.
        address: SocketAddr,
        /// Where keys are kept.
        database: Database,
    },
    /// It is to do a part of what there is to do, and there is nobody to do the rest.
    #[error("the role `{}` is for servers that share a PostgreSQL: one that keeps its jobs in SQLite has to do all", .0.as_str())]
    Alone(Role),
    /// The address of the listener can't be told.
    #[error("can't tell the address of the listener: {0}")]
    Listener(std::io::Error),
    /// An interpreter that the operator named can't be used.
    #[error(transparent)]
    Interpreter(#[from] InterpreterError),
    /// The data folder can't be made, or nothing in it.
    #[error("can't use the data folder {}: {error}", path.display())]
    DataFolder {
        /// Where it is.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The data folder is another server's.
    #[error("another server has the data folder {}: each needs one of its own, also where they share a database", .0.display())]
    DataFolderTaken(PathBuf),
    /// Programs can't be watched over.
    #[error("can't prepare the sandbox: {0}")]
    Watch(std::io::Error),
    /// Where artifacts are kept can't be used.
    #[error(transparent)]
    Artifacts(#[from] ArtifactError),
    /// What signs webhooks can't be read or made.
    #[error("can't read or make webhook.secret in the data folder: {0}")]
    Secret(std::io::Error),
}

/// Serves until it is asked to stop, then drains: takes nothing new, finishes what runs within the grace period or until it is hurried, hands
/// back the rest. `ready` is called when it begins to answer.
pub async fn serve(config: Config, listener: TcpListener, stop: Stop, ready: impl FnOnce()) -> Result<(), AppError> {
    let files = raise_file_limit();
    let tls = TlsFiles::both(config.tls_cert.clone(), config.tls_key.clone())?.map(Tls::load).transpose()?;
    let interpreters = interpreters(&config).await?;
    let kernel = check_sandbox(&config, &interpreters)?;
    let _held = take_data_folder(&config.data_dir)?;
    let python = PythonRules {
        interpreters: interpreters.iter().map(Interpreter::rule).collect(),
        network: config.python_network == Permission::Allow,
        pickles: config.takes_pickles(),
    };
    let programs = programs(&config, kernel, &interpreters, &python);
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
    let functions = Arc::new(Functions::load(Arc::clone(&store)).await?);
    let artifacts = Artifacts::open(&config.artifacts(), &store.identity().await?, config.artifact_bytes)?;
    let program = PathBuf::from(THIS_PROGRAM);
    let sandbox = Sandbox::new(program.clone(), config.sandbox).map_err(AppError::Watch)?;
    let settings = ExecutorSettings {
        async_slots: config.async_slots,
        async_threads: config.async_threads,
        threads_io: config.threads_io,
        threads_cpu: config.threads_cpu,
        stop_grace: config.stop_grace,
        python: python_settings(&config, &sandbox, interpreters, &functions)?,
        artifacts: artifacts.clone(),
        commands: CommandSettings { sandbox, folder: config.data_dir.join("commands"), slots: config.command_slots },
        processes: ProcessSettings { program, size: config.processes, max_jobs: config.worker_max_jobs, workloads },
    };
    let executors = Executors::start(&settings, Registry::native)?;
    let profiles = Profiles::load(store.profiles().await?, store.is_shared());
    let rules = rules(&config);
    let dispatcher = Dispatcher::start(Arc::clone(&store), registry, functions, executors, rules, profiles, Arc::clone(&quotas));
    let comparisons = Comparisons::start(dispatcher.clone()).await?;
    let schedules = Arc::new(Schedules::new(store.clone(), api::job_maker(dispatcher.clone()), quotas));
    let outbound = Arc::clone(dispatcher.registry().environment().outbound());
    let deliverer = Deliverer::new(Arc::clone(&store), outbound, deliveries(&config)?, api::message);
    let mut house = keep_house(&config, &store, &dispatcher, &schedules, &deliverer, &keyring, &artifacts);
    let bodies = BodyLimits {
        max_bytes: config.max_body_bytes,
        timeout: config.body_timeout,
        memory: Memory::new(config.max_body_memory_bytes),
    };
    let pages = Pages { origins: config.cors_allow.clone().into(), hosts: config.allowed_hosts.clone().into() };
    let streams = Streams::new(config.max_event_streams);
    let parts = Parts {
        dispatcher: dispatcher.clone(),
        comparisons: comparisons.clone(),
        schedules,
        deliverer,
        bodies,
        programs: Arc::new(programs),
        keyring,
        pages,
        streams,
        artifacts,
        traffic: Traffic::default(),
    };
    let api = api::service(parts.into());
    let limits = Limits {
        patience: Patience { headers: config.header_timeout, idle: config.idle_timeout, answer: config.answer_timeout },
        max_connections: connections(&config, files),
        grace: config.stop_grace,
    };
    let drained = {
        let (dispatcher, asked) = (dispatcher.clone(), stop.asked.clone());
        async move {
            asked.cancelled().await;
            tracing::info!("shutting down: nothing new is taken");
            dispatcher.drain();
            tokio::time::sleep(HANDOVER).await;
        }
    };
    let hurried = stop.hurried;
    ready();
    hurried.run_until_cancelled(server::serve(listener, tls, api, limits, drained)).await;
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
    store.close().await;
    Ok(())
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
    own::lock(&folder.join("server.lock")).map_err(|error| match error {
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
                leases: LeaseRules::lasting(config.lease),
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

/// The interpreters that the operator names, or else the usual one, if there is one.
async fn interpreters(config: &Config) -> Result<Vec<Interpreter>, AppError> {
    let named = &config.python_interpreters;
    if named.is_empty() {
        return match Interpreter::find("python3".into(), "python3".into()).await {
            Ok(interpreter) => Ok(vec![interpreter]),
            Err(error) => {
                tracing::info!("no jobs in Python: {error}");
                Ok(Vec::new())
            }
        };
    }
    let named: Vec<_> = named.iter().filter(|interpreter| interpreter.name != "none").collect();
    let mut names = HashSet::new();
    if let Some(again) = named.iter().find(|interpreter| !names.insert(&interpreter.name)) {
        return Err(AppError::SameName(again.name.clone()));
    }
    let found = named.into_iter().map(|NamedProgram { name, program }| Interpreter::find(name.clone(), program.clone()));
    Ok(futures_util::future::try_join_all(found).await?)
}

/// What is published of users' own programs.
fn programs(config: &Config, kernel: sandbox::Report, interpreters: &[Interpreter], rules: &PythonRules) -> ProgramsView {
    let view = |interpreter: &Interpreter| InterpreterView {
        name: interpreter.name.clone(),
        version: interpreter.version.clone(),
        implementation: interpreter.implementation.clone(),
        gil: interpreter.gil,
        cloudpickle: interpreter.cloudpickle.clone(),
    };
    ProgramsView {
        sandbox: SandboxView { mode: config.sandbox, kernel },
        python: PythonView {
            interpreters: interpreters.iter().map(view).collect(),
            network: rules.network,
            pickles: rules.pickles,
        },
    }
}

fn python_settings(
    config: &Config,
    sandbox: &Sandbox,
    interpreters: Vec<Interpreter>,
    functions: &Arc<Functions>,
) -> Result<Option<PythonSettings>, AppError> {
    if interpreters.is_empty() {
        return Ok(None);
    }
    let memory_bytes = config.python_memory_bytes;
    Ok(Some(PythonSettings {
        interpreters,
        folder: std::path::absolute(config.data_dir.join("python")).map_err(AppError::Watch)?,
        sandbox: sandbox.clone(),
        limits: sandbox::Limits {
            memory_bytes,
            // What it may address is more than what it may use: threads reserve far more than they touch.
            address_space_bytes: Some(memory_bytes.saturating_mul(4)),
            scratch_bytes: config.python_scratch_bytes,
            file_bytes: config.python_scratch_bytes,
            ..sandbox::Limits::default()
        },
        async_slots: config.python_async_slots,
        threads: config.python_threads,
        processes: config.python_processes,
        max_jobs: config.worker_max_jobs,
        functions: Arc::<Functions>::clone(functions),
    }))
}

/// What programs can be confined with. What is missing is said in the log, or ends the start where all of it is required.
fn check_sandbox(config: &Config, interpreters: &[Interpreter]) -> Result<sandbox::Report, AppError> {
    let mut report = sandbox::probe();
    report.missing.extend(open_secrets(config, interpreters));
    match config.sandbox {
        sandbox::Mode::Required if !report.missing.is_empty() => return Err(AppError::Sandbox(report.missing.join("; "))),
        sandbox::Mode::Off => tracing::warn!("the sandbox is off: users' programs may do what the server may"),
        sandbox::Mode::On | sandbox::Mode::Required => {
            for gap in &report.missing {
                tracing::warn!("the sandbox has a gap: {gap}");
            }
        }
    }
    Ok(report)
}

/// A sentence for each of the server's own files and folders that sandboxed programs can read, because of where it is.
fn open_secrets(config: &Config, interpreters: &[Interpreter]) -> Vec<String> {
    let database = match config.database() {
        Database::Sqlite(path) => Some(path),
        Database::Postgres(_) => None,
    };
    let artifacts = match config.artifacts() {
        ArtifactPlace::Folder(path) => Some(path),
        ArtifactPlace::S3 { .. } => None,
    };
    let own = [
        ("data folder", Some(config.data_dir.clone())),
        ("database", database),
        ("settings file", config.file.clone()),
        ("TLS key", config.tls_key.clone()),
        ("folder of artifacts", artifacts),
        ("workspace", Some(config.workspace())),
    ];
    let own = own.into_iter().filter_map(|(what, path)| Some((what, path?)));
    own.filter_map(|(what, path)| {
        // An operator may well want a command to read these, and names them.
        let may_be_named = matches!(what, "folder of artifacts" | "workspace");
        let place = open_place(&path, config, interpreters, may_be_named)?;
        Some(format!("the {what} {} is {place}", path.display()))
    })
    .collect()
}

/// Where a path is, if some program can read it there.
fn open_place(path: &Path, config: &Config, interpreters: &[Interpreter], may_be_named: bool) -> Option<String> {
    if sandbox::is_open_to_all(path) {
        return Some("in a folder of the system, which every sandboxed program can read".to_owned());
    }
    let is_read = |interpreter: &&Interpreter| interpreter.folders.iter().any(|folder| sandbox::is_below(path, folder));
    if let Some(Interpreter { name, .. }) = interpreters.iter().find(is_read) {
        return Some(format!("in a folder that the Python interpreter {name:?} reads, as every job in it can"));
    }
    let holds = |read: &PathBuf| sandbox::is_below(path, read) && !(may_be_named && sandbox::is_below(read, path));
    let is_read = |command: &Command| command.read.iter().chain(&command.folder).chain([&command.path]).any(holds);
    let (name, _) = config.commands.0.iter().find(|(_, command)| is_read(command))?;
    Some(format!("among what the command {name:?} reads"))
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
    limit.ok().and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// How many connections there may be: clients must not take the file descriptors that the jobs and the database need.
fn connections(config: &Config, files: usize) -> usize {
    let most = files - files / OF_FILES_FOR_JOBS;
    if most < config.max_connections {
        tracing::info!("only {most} connections at once, since the system allows {files} open files");
    }
    most.min(config.max_connections)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_interpreters_of_one_name_are_refused() {
        let named = |name: &str, program: &str| NamedProgram { name: name.into(), program: program.into() };
        let python_interpreters = vec![named("a", "/bin/x"), named("none", "none"), named("none", "none"), named("a", "/bin/y")];
        let refused = interpreters(&Config { python_interpreters, ..Config::default() }).await.unwrap_err();
        assert_eq!(refused.to_string(), "`python_interpreters` has two that are called \"a\"");
    }

    #[test]
    fn a_data_folder_that_an_interpreter_reads_is_told_of() {
        let project = tempfile::tempdir().unwrap();
        let interpreter = |folder: std::path::PathBuf| Interpreter {
            name: "python3".into(),
            path: "/usr/bin/python3".into(),
            version: "3.11.2".into(),
            implementation: "cpython".into(),
            gil: true,
            cloudpickle: None,
            folders: vec![folder],
        };
        // As an editable install has it.
        let (editable, other) = (interpreter(project.path().into()), interpreter(project.path().join("packages")));
        let config = Config { data_dir: project.path().join("trine-data"), ..Config::default() };
        let told = open_secrets(&config, &[other.clone(), editable]);
        assert!(told[0].contains("the data folder") && told[0].contains("interpreter \"python3\""), "{told:?}");
        // What is in it by default is told of as well.
        assert!(
            ["database", "artifacts", "workspace"].iter().all(|what| told.iter().any(|told| told.contains(what))),
            "{told:?}"
        );
        assert!(open_secrets(&config, &[other]).is_empty());
    }

    #[test]
    fn what_a_command_reads_of_the_server_is_told_of() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().display();
        let told = |reads: &str| {
            let commands = format!("[c]\npath = '/bin/true'\n{reads}").parse().unwrap();
            let workspace = Some(folder.path().join("work"));
            let tls_key = Some(folder.path().join("keys/key.pem"));
            for made in ["work", "keys", "data"] {
                std::fs::create_dir_all(folder.path().join(made)).unwrap();
            }
            let data_dir = folder.path().join("data");
            open_secrets(&Config { tls_key, data_dir, workspace, commands, ..Config::default() }, &[])
        };
        let all = told(&format!("folder = '{place}'"));
        assert_eq!(all.len(), 5, "{all:?}");
        assert!(all.iter().all(|told| told.ends_with("is among what the command \"c\" reads")), "{all:?}");
        let key = told(&format!("read = ['{place}/keys']"));
        assert!(key.len() == 1 && key[0].starts_with("the TLS key"), "{key:?}");
        // Whoever names the workspace itself wants it to be read.
        assert_eq!(told(&format!("read = ['{place}/work']")), [""; 0]);
    }
}
