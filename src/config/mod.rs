//! Settings: read once at the start, then passed down.
//!
//! Each setting is declared once, as a field of [`Config`], with its flag, its environment variable, its default and its help. A flag
//! wins over the environment, the environment over the file, the file over the default.

mod database;
mod file;
mod label;
mod load;
mod retention;
mod values;
mod waiting;

pub use database::{BadDatabase, Database, PostgresUrl};
pub use file::FileError;
pub use label::Label;
pub use load::{LoadError, Source, Sources, arguments_of, load, without_flags};
pub use retention::{KeptCount, KeptFor};
pub use waiting::WaitingLimit;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::Resettable;
use clap::{Args, Command, FromArgMatches, ValueEnum};
use ipnet::IpNet;
use serde::{Serialize, Serializer};

use self::values::{
    MOST_PROCESSES, a_minute_at_most, a_second_at_least, address, as_millis, at_least_one, connections, cores, hidden, host,
    interpreter, log_filter, memory, millis, node_name, origin, processes, some_millis, threads, whole,
};
use crate::artifact::ArtifactPlace;
use crate::auth::{KeyRule, Quota};
use crate::command::Commands;
use crate::job::{Queue, Role, Routing, Secret};
use crate::outbound::{Denied, OutboundSettings, Rules, network};
use crate::sandbox;

/// The flags of a command that runs the service: every setting, and the file that holds some of them.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// TOML file with settings, such as `async_slots = 100` or `[http] allow = ["10.0.0.0/8"]`. Without this flag, trine.toml in the
    /// working folder if it exists.
    #[arg(long = "config", env = "TRINE_CONFIG", value_name = "FILE")]
    config_file: Option<PathBuf>,
    #[command(flatten)]
    config: Config,
}

/// The settings in force.
#[derive(Args, Clone, Debug, Serialize)]
#[command(next_help_heading = "Settings")]
pub struct Config {
    /// The file that was read, whether or not one of them came from it.
    #[arg(skip)]
    #[serde(skip)]
    pub file: Option<PathBuf>,
    /// Address and port of the API; port 0 takes a free one
    #[arg(long, env = "TRINE_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8040", value_parser = address)]
    pub listen: SocketAddr,
    /// Certificate for HTTPS, with those that vouch for it, as PEM; read anew on SIGHUP [default: plain HTTP]
    #[arg(long, env = "TRINE_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of the certificate, as PEM
    #[arg(long, env = "TRINE_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Whether requests need an API key
    #[arg(long, env = "TRINE_KEYS", value_name = "RULE", default_value = "auto")]
    pub keys: KeyRule,
    /// Jobs that may wait for a key whose own quota does not say [default: any number]
    #[arg(long, env = "TRINE_QUOTA_QUEUED", value_name = "N", value_parser = at_least_one::<u64>)]
    pub quota_queued: Option<u64>,
    /// Jobs that may run at once for such a key [default: any number]
    #[arg(long, env = "TRINE_QUOTA_RUNNING", value_name = "N", value_parser = at_least_one::<u32>)]
    pub quota_running: Option<u32>,
    /// Jobs that may be submitted in a minute with such a key [default: any number]
    #[arg(long, env = "TRINE_QUOTA_PER_MINUTE", value_name = "N", value_parser = at_least_one::<u32>)]
    pub quota_per_minute: Option<u32>,
    /// Bytes of workloads that may wait for such a key [default: any number]
    #[arg(long, env = "TRINE_QUOTA_BYTES", value_name = "BYTES", value_parser = at_least_one::<u64>)]
    pub quota_bytes: Option<u64>,
    /// Folder of everything that is kept
    #[arg(long, env = "TRINE_DATA_DIR", value_name = "FOLDER", default_value = "./trine-data")]
    pub data_dir: PathBuf,
    /// Database, as sqlite:PATH or, for servers that share their jobs, `postgres://USER:PASSWORD@HOST[,HOST…]/DATABASE` [default: trine.db
    /// in the data folder]
    #[arg(long, env = "TRINE_DATABASE", value_name = "URL", hide_env_values = true)]
    pub database: Option<Database>,
    /// Schema of a PostgreSQL in which the tables are; made if it is missing
    #[arg(long, env = "TRINE_DATABASE_SCHEMA", value_name = "NAME", default_value = "trine")]
    pub database_schema: String,
    /// Connections to a PostgreSQL, besides the two that write and that say that this server is there
    #[arg(long, env = "TRINE_DATABASE_CONNECTIONS", value_name = "N", default_value_t = 16, value_parser = connections)]
    pub database_connections: u32,
    /// Whether a PostgreSQL keeps jobs and results in partitions, so that retention drops whole days; once it does, it stays so
    #[arg(long, env = "TRINE_DATABASE_PARTITIONS", value_name = "BY", default_value = "off")]
    pub database_partitions: Partitions,
    /// What this server is called among those that share a database; one that comes with the name of another takes its place [default: name
    /// of the host, and the address]
    #[arg(long, env = "TRINE_NODE", value_name = "NAME", value_parser = node_name)]
    pub node: Option<String>,
    /// What runs on a server is run elsewhere when it has not been heard of for so long, in milliseconds, a second at least; it stops that by
    /// itself when it has not reached the database for five sixths of the time
    #[arg(id = "lease_ms", long = "lease-ms", env = "TRINE_LEASE_MS", value_name = "MS", default_value = "30000", value_parser = a_second_at_least)]
    #[serde(rename = "lease_ms", serialize_with = "as_millis")]
    pub lease: Duration,
    /// Folder that `file` and `image` work in [default: workspace in the data folder]
    #[arg(long, env = "TRINE_WORKSPACE", value_name = "FOLDER")]
    pub workspace: Option<PathBuf>,
    /// Where the files are kept that jobs leave behind: a folder, or `s3://BUCKET/PREFIX` in a storage that `AWS_ENDPOINT`, `AWS_REGION`,
    /// `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` name; of servers that share a database, all need the same [default: artifacts in
    /// the data folder]
    #[arg(long, env = "TRINE_ARTIFACTS", value_name = "PLACE", value_parser = ArtifactPlace::from_str)]
    pub artifacts: Option<ArtifactPlace>,
    /// Bytes of such files that an attempt may leave
    #[arg(long, env = "TRINE_ARTIFACT_BYTES", value_name = "BYTES", default_value_t = 256 << 20, value_parser = whole::<u64>)]
    pub artifact_bytes: u64,
    /// What this server does, of those that share a PostgreSQL: answer requests and run jobs, answer requests alone, or run jobs alone
    #[arg(long, env = "TRINE_ROLE", value_name = "ROLE", default_value = "all")]
    pub role: Role,
    /// What is said of this server, for jobs that require it: as NAME=VALUE, separated by commas; in the file, a table `labels`
    #[arg(long, env = "TRINE_LABELS", value_name = "LABELS", value_delimiter = ',', value_parser = Label::from_str)]
    pub labels: Vec<Label>,
    /// Networks that `http` and webhooks may reach besides public ones, such as 127.0.0.1 or 10.0.0.0/8; separated by commas
    #[arg(long, env = "TRINE_HTTP_ALLOW", value_name = "NETWORKS", value_delimiter = ',', value_parser = network)]
    pub http_allow: Vec<IpNet>,
    /// What `http` and webhooks never reach, though it is public or allowed: networks, and names with all names below them, such as 10.0.0.1 or
    /// internal.example.com; separated by commas
    #[arg(long, env = "TRINE_HTTP_DENY", value_name = "NETWORKS AND NAMES", value_delimiter = ',', value_parser = Denied::from_str)]
    pub http_deny: Vec<Denied>,
    /// The only ports that `http` reaches, such as 80,443 [default: any]
    #[arg(long, env = "TRINE_HTTP_PORTS", value_name = "PORTS", value_delimiter = ',', value_parser = whole::<u16>)]
    pub http_ports: Vec<u16>,
    /// Name servers that `http` asks, and nobody else, such as 10.0.0.53:53; separated by commas [default: as the system does it]
    #[arg(long, env = "TRINE_HTTP_NAME_SERVERS", value_name = "ADDRESSES", value_delimiter = ',')]
    pub http_name_servers: Vec<SocketAddr>,
    /// Longest body that `http` reads, in bytes
    #[arg(long, env = "TRINE_HTTP_MAX_BYTES", value_name = "BYTES", default_value_t = 8 << 20, value_parser = whole::<u64>)]
    pub http_max_bytes: u64,
    /// Jobs that run at once on the `async` executor
    #[arg(long, env = "TRINE_ASYNC_SLOTS", value_name = "N", default_value_t = 16_384, value_parser = at_least_one::<usize>)]
    pub async_slots: usize,
    /// Threads of the event loop of the `async` executor
    #[arg(long, env = "TRINE_ASYNC_THREADS", value_name = "N", default_value_t = 1, value_parser = threads)]
    pub async_threads: usize,
    /// Threads that run jobs tagged `io`
    #[arg(long, env = "TRINE_THREADS_IO", value_name = "N", default_value_t = 256, value_parser = threads)]
    pub threads_io: usize,
    /// Threads that run jobs tagged `cpu`
    #[arg(long, env = "TRINE_THREADS_CPU", value_name = "N", default_value_t = cores(), value_parser = threads)]
    pub threads_cpu: usize,
    /// Worker processes, 1,024 at most
    #[arg(long, env = "TRINE_PROCESSES", value_name = "N", default_value_t = cores().min(MOST_PROCESSES), value_parser = processes)]
    pub processes: usize,
    /// Jobs after which a worker process is replaced by a fresh one
    #[arg(long, env = "TRINE_WORKER_MAX_JOBS", value_name = "N", default_value_t = 10_000, value_parser = at_least_one::<u64>)]
    pub worker_max_jobs: u64,
    /// Python interpreters by name, as NAME=PROGRAM or just PROGRAM; the first is used where a job names none; separated by commas. The
    /// default is python3, if there is one; `none` for no Python
    #[arg(long, env = "TRINE_PYTHON_INTERPRETERS", value_name = "INTERPRETERS", value_delimiter = ',', value_parser = interpreter)]
    pub python_interpreters: Vec<NamedProgram>,
    /// Whether Python jobs that ask for the network get it
    #[arg(long, env = "TRINE_PYTHON_NETWORK", value_name = "RULE", default_value = "deny")]
    pub python_network: Permission,
    /// Whether Python functions may come by pickle, which can do anything in the sandbox as it is read [default: allow on a loopback
    /// address, else deny]
    #[arg(long, env = "TRINE_PYTHON_PICKLES", value_name = "RULE")]
    pub python_pickles: Option<Permission>,
    /// Jobs that run at once on Python's event loop
    #[arg(long, env = "TRINE_PYTHON_ASYNC_SLOTS", value_name = "N", default_value_t = 1_024, value_parser = at_least_one::<usize>)]
    pub python_async_slots: usize,
    /// Threads of the Python host that runs jobs on threads
    #[arg(long, env = "TRINE_PYTHON_THREADS", value_name = "N", default_value_t = 32, value_parser = threads)]
    pub python_threads: usize,
    /// Python processes that run one job each, 1,024 at most
    #[arg(long, env = "TRINE_PYTHON_PROCESSES", value_name = "N", default_value_t = cores().min(MOST_PROCESSES), value_parser = processes)]
    pub python_processes: usize,
    /// Most memory that a Python process may use, in bytes, 64 MiB at least; at half of it, it is replaced after its job
    #[arg(long, env = "TRINE_PYTHON_MEMORY_BYTES", value_name = "BYTES", default_value_t = 1 << 30, value_parser = memory)]
    pub python_memory_bytes: u64,
    /// Most that a Python process may keep in its scratch folder, in bytes
    #[arg(long, env = "TRINE_PYTHON_SCRATCH_BYTES", value_name = "BYTES", default_value_t = 1 << 30, value_parser = at_least_one::<u64>)]
    pub python_scratch_bytes: u64,
    /// Programs that jobs may run: the table `[commands]` of the file, or the same as TOML text
    #[arg(long, env = "TRINE_COMMANDS", value_name = "TOML", default_value = "", hide_env_values = true, value_parser = Commands::from_str)]
    pub commands: Commands,
    /// Commands that run at once
    #[arg(long, env = "TRINE_COMMAND_SLOTS", value_name = "N", default_value_t = cores(), value_parser = at_least_one::<usize>)]
    pub command_slots: usize,
    /// How far programs that are not trusted are confined
    #[arg(long, env = "TRINE_SANDBOX", value_name = "MODE", default_value = "on")]
    pub sandbox: sandbox::Mode,
    /// What the choice of an executor goes by, where a job does not say
    #[arg(long, env = "TRINE_ROUTING", value_name = "RULE", default_value = "advise")]
    pub routing: Routing,
    /// How often whatever runs a job may die under it before the job ends as `lost`
    #[arg(long, env = "TRINE_MAX_LOSSES", value_name = "N", default_value_t = 3, value_parser = at_least_one::<u32>)]
    pub max_losses: u32,
    /// Jobs that may wait in a queue, as N for each or QUEUE=N for one; separated by commas. A submission beyond that is answered with
    /// `429`; without a limit, jobs wait on disk
    #[arg(long, env = "TRINE_MAX_WAITING", value_name = "LIMITS", value_delimiter = ',', value_parser = WaitingLimit::from_str)]
    pub max_waiting: Vec<WaitingLimit>,
    /// How long the answer to a request with an `Idempotency-Key` is kept, in milliseconds
    #[arg(id = "idempotency_ms", long = "idempotency-ms", env = "TRINE_IDEMPOTENCY_MS", value_name = "MS", default_value = "86400000", value_parser = some_millis)]
    #[serde(rename = "idempotency_ms", serialize_with = "as_millis")]
    pub idempotency: Duration,
    /// Lines of log, and of progress, that are kept of a job; the rest is dropped
    #[arg(long, env = "TRINE_JOB_LOG_LINES", value_name = "N", default_value_t = 10_000, value_parser = at_least_one::<u64>)]
    pub job_log_lines: u64,
    /// Bytes of them that are kept of a job
    #[arg(long, env = "TRINE_JOB_LOG_BYTES", value_name = "BYTES", default_value_t = 1 << 20, value_parser = at_least_one::<u64>)]
    pub job_log_bytes: u64,
    /// Streams of events that may be open at once
    #[arg(long, env = "TRINE_MAX_EVENT_STREAMS", value_name = "N", default_value_t = 1_000, value_parser = at_least_one::<usize>)]
    pub max_event_streams: usize,
    /// What webhooks are signed with, as whsec_ and 24 to 64 bytes in Base64; of several, separated by commas, each signs, so that
    /// receivers can go from one to the next [default: one in the data folder, made at the first start]
    #[arg(long, env = "TRINE_WEBHOOK_SECRETS", value_name = "SECRETS", value_delimiter = ',', hide_env_values = true, value_parser = Secret::from_str)]
    #[serde(serialize_with = "hidden")]
    pub webhook_secrets: Vec<Secret>,
    /// How often a webhook is tried in all
    #[arg(long, env = "TRINE_WEBHOOK_ATTEMPTS", value_name = "N", default_value_t = 11, value_parser = at_least_one::<u32>)]
    pub webhook_attempts: u32,
    /// How long to wait before a webhook is tried for the second time, in milliseconds; each further wait is four times as long, six hours
    /// at most
    #[arg(id = "webhook_backoff_ms", long = "webhook-backoff-ms", env = "TRINE_WEBHOOK_BACKOFF_MS", value_name = "MS", default_value = "5000", value_parser = some_millis)]
    #[serde(rename = "webhook_backoff_ms", serialize_with = "as_millis")]
    pub webhook_backoff: Duration,
    /// How long the receiver of a webhook may take to answer, in milliseconds; a minute at most
    #[arg(id = "webhook_timeout_ms", long = "webhook-timeout-ms", env = "TRINE_WEBHOOK_TIMEOUT_MS", value_name = "MS", default_value = "15000", value_parser = a_minute_at_most)]
    #[serde(rename = "webhook_timeout_ms", serialize_with = "as_millis")]
    pub webhook_timeout: Duration,
    /// How long finished jobs are kept, such as 90d or 12h, or forever
    #[arg(long, env = "TRINE_RETENTION_AGE", value_name = "TIME", default_value = "90d", value_parser = KeptFor::from_str)]
    pub retention_age: KeptFor,
    /// How many finished jobs are kept, or all
    #[arg(long, env = "TRINE_RETENTION_COUNT", value_name = "N", default_value = "all", value_parser = KeptCount::from_str)]
    pub retention_count: KeptCount,
    /// How long after SIGTERM all is answered as before, though `/readyz` says that clients should turn elsewhere and each answer ends its
    /// connection, in milliseconds
    #[arg(id = "handover_ms", long = "handover-ms", env = "TRINE_HANDOVER_MS", value_name = "MS", default_value = "100", value_parser = millis)]
    #[serde(rename = "handover_ms", serialize_with = "as_millis")]
    pub handover: Duration,
    /// How long running jobs may take to end after the hand-over, in milliseconds
    #[arg(id = "grace_ms", long = "grace-ms", env = "TRINE_GRACE_MS", value_name = "MS", default_value = "25000", value_parser = millis)]
    #[serde(rename = "grace_ms", serialize_with = "as_millis")]
    pub grace: Duration,
    /// How long a stopped attempt may take to end before it is killed or left behind, and requests once the server shuts down, in
    /// milliseconds
    #[arg(id = "stop_grace_ms", long = "stop-grace-ms", env = "TRINE_STOP_GRACE_MS", value_name = "MS", default_value = "2000", value_parser = millis)]
    #[serde(rename = "stop_grace_ms", serialize_with = "as_millis")]
    pub stop_grace: Duration,
    /// How long a client may take to send a request's headers, in milliseconds
    #[arg(id = "header_timeout_ms", long = "header-timeout-ms", env = "TRINE_HEADER_TIMEOUT_MS", value_name = "MS", default_value = "10000", value_parser = some_millis)]
    #[serde(rename = "header_timeout_ms", serialize_with = "as_millis")]
    pub header_timeout: Duration,
    /// How long a client may take to send a request's body, in milliseconds
    #[arg(id = "body_timeout_ms", long = "body-timeout-ms", env = "TRINE_BODY_TIMEOUT_MS", value_name = "MS", default_value = "30000", value_parser = some_millis)]
    #[serde(rename = "body_timeout_ms", serialize_with = "as_millis")]
    pub body_timeout: Duration,
    /// How long a connection may be idle between two requests, in milliseconds
    #[arg(id = "idle_timeout_ms", long = "idle-timeout-ms", env = "TRINE_IDLE_TIMEOUT_MS", value_name = "MS", default_value = "75000", value_parser = some_millis)]
    #[serde(rename = "idle_timeout_ms", serialize_with = "as_millis")]
    pub idle_timeout: Duration,
    /// How long a client may take in nothing of an answer, in milliseconds
    #[arg(id = "answer_timeout_ms", long = "answer-timeout-ms", env = "TRINE_ANSWER_TIMEOUT_MS", value_name = "MS", default_value = "30000", value_parser = some_millis)]
    #[serde(rename = "answer_timeout_ms", serialize_with = "as_millis")]
    pub answer_timeout: Duration,
    /// Connections that may be open at once; further ones are told to come back later
    #[arg(long, env = "TRINE_MAX_CONNECTIONS", value_name = "N", default_value_t = 12_000, value_parser = at_least_one::<usize>)]
    pub max_connections: usize,
    /// Longest body of a request, in bytes
    #[arg(long, env = "TRINE_MAX_BODY_BYTES", value_name = "BYTES", default_value_t = 32 << 20, value_parser = at_least_one::<usize>)]
    pub max_body_bytes: usize,
    /// Bytes of all bodies that are read at once, `max_body_bytes` at least; further ones are refused for the moment
    #[arg(long, env = "TRINE_MAX_BODY_MEMORY_BYTES", value_name = "BYTES", default_value_t = 256 << 20, value_parser = at_least_one::<usize>)]
    pub max_body_memory_bytes: usize,
    /// Origins whose pages may call the API, such as `https://example.com`, or `*` for all; separated by commas [default: none]
    #[arg(long, env = "TRINE_CORS_ALLOW", value_name = "ORIGINS", value_delimiter = ',', value_parser = origin)]
    pub cors_allow: Vec<String>,
    /// Names by which browsers may find the server, besides addresses, `localhost` and names without a dot; separated by commas
    #[arg(long, env = "TRINE_ALLOWED_HOSTS", value_name = "NAMES", value_delimiter = ',', value_parser = host)]
    pub allowed_hosts: Vec<String>,
    /// What is logged: a level, or levels by module such as `info,trine::dispatch=debug`
    #[arg(long, env = "TRINE_LOG", value_name = "FILTER", default_value = "info", value_parser = log_filter)]
    pub log: String,
    /// How a log line is written. With `json`, where the server is to be found is told by such a line, too, and not on the standard output
    #[arg(long, env = "TRINE_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// Whether something is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// It is.
    Allow,
    /// It is not.
    Deny,
}

/// By what tables are divided that grow with the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Partitions {
    /// They are left as they are.
    Off,
    /// By the day on which a job was submitted.
    Day,
}

/// A program with a name of the operator's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedProgram {
    /// The name.
    pub name: String,
    /// The program: a path, or a name to look for on the `PATH`.
    pub program: PathBuf,
}

impl Serialize for NamedProgram {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}={}", self.name, self.program.display()))
    }
}

/// How a log line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Settings {
    /// The settings in force, and the file that was read for them.
    pub fn in_force(self) -> Config {
        Config { file: self.config_file, ..self.config }
    }
}

impl Config {
    /// Where jobs are kept.
    pub fn database(&self) -> Database {
        self.database.clone().unwrap_or_else(|| Database::Sqlite(self.data_dir.join("trine.db")))
    }

    /// The folder that `file` and `image` work in.
    pub fn workspace(&self) -> PathBuf {
        self.workspace.clone().unwrap_or_else(|| self.data_dir.join("workspace"))
    }

    /// Where the files are kept that jobs leave behind.
    pub fn artifacts(&self) -> ArtifactPlace {
        self.artifacts.clone().unwrap_or_else(|| ArtifactPlace::Folder(self.data_dir.join("artifacts")))
    }

    /// Where `http` and webhooks may go.
    pub fn outbound(&self) -> OutboundSettings {
        let (allow, deny, ports) = (self.http_allow.clone(), self.http_deny.clone(), self.http_ports.clone());
        OutboundSettings { rules: Rules { allow, deny, ports }, name_servers: self.http_name_servers.clone() }
    }

    /// How much a key may have the server do, where its own quota does not say.
    pub fn quota(&self) -> Quota {
        let Self { quota_queued, quota_running, quota_per_minute, quota_bytes, .. } = *self;
        Quota { queued: quota_queued, running: quota_running, per_minute: quota_per_minute, bytes: quota_bytes }
    }

    /// How many jobs may wait in a queue; `None` for any number.
    pub fn most_waiting(&self, queue: Queue) -> Option<u64> {
        waiting::most_waiting(&self.max_waiting, queue)
    }

    /// Why two things that the settings say can't both be meant, if it is so.
    fn contradiction(&self) -> Option<String> {
        if let Some((setting, name)) = self.said_twice() {
            return Some(format!("`{setting}` says two things of {name}: which of them is meant?"));
        }
        let (memory, longest) = (self.max_body_memory_bytes, self.max_body_bytes);
        let message = || {
            format!(
                "`max_body_memory_bytes` is {memory} and `max_body_bytes` is {longest}: for the longest body there would never be enough memory"
            )
        };
        (memory < longest).then(message)
    }

    /// A setting that is a list by names, and one that it has twice: which of both is meant, nobody can tell.
    fn said_twice(&self) -> Option<(&'static str, String)> {
        fn twice(mut names: impl Iterator<Item = String>) -> Option<String> {
            let mut seen = HashSet::new();
            names.find(|name| !seen.insert(name.clone()))
        }
        let labels = self.labels.iter().map(|label| label.name.clone());
        let queues = self.max_waiting.iter().map(|limit| limit.queue.map_or("all queues", Queue::as_str).to_owned());
        let interpreters = self.python_interpreters.iter().map(|interpreter| interpreter.name.clone());
        let found = [("labels", twice(labels)), ("max_waiting", twice(queues)), ("python_interpreters", twice(interpreters))];
        found.into_iter().find_map(|(setting, name)| Some((setting, name?)))
    }

    /// Whether functions may come by pickle.
    pub fn takes_pickles(&self) -> bool {
        let rule =
            self.python_pickles.unwrap_or(if self.listen.ip().is_loopback() { Permission::Allow } else { Permission::Deny });
        rule == Permission::Allow
    }

    /// The names of all settings, as the file has them, in the order of their declaration.
    pub fn names() -> Vec<String> {
        Self::arguments().get_arguments().map(|argument| argument.get_id().to_string()).collect()
    }

    /// The settings as the flags of a command that takes nothing else.
    fn arguments() -> Command {
        Self::augment_args(Command::new("trine").no_binary_name(true))
    }

    /// The same, deaf to the environment.
    fn arguments_alone() -> Command {
        Self::arguments().mut_args(|argument| argument.env(Resettable::Reset))
    }
}

impl Default for Config {
    /// The defaults alone: no flag, no environment, no file.
    #[expect(clippy::expect_used, reason = "no argument is required and each default is valid; a test runs this")]
    fn default() -> Self {
        let none: [&str; 0] = [];
        Self::arguments_alone()
            .try_get_matches_from(none)
            .and_then(|matches| Self::from_arg_matches(&matches))
            .expect("each setting has a default or needs none")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_follow_the_data_folder() {
        let config = Config { data_dir: "/srv/trine".into(), ..Config::default() };
        assert_eq!(config.listen.to_string(), "127.0.0.1:8040");
        assert_eq!(config.database(), Database::Sqlite("/srv/trine/trine.db".into()));
        assert_eq!(config.workspace(), PathBuf::from("/srv/trine/workspace"));
        assert_eq!((config.async_slots, config.max_body_bytes), (16_384, 33_554_432));
        assert_eq!(config.processes, cores().min(MOST_PROCESSES));
    }

    #[test]
    fn an_address_is_a_network_of_one() {
        assert_eq!(network(" 127.0.0.1 ").unwrap().to_string(), "127.0.0.1/32");
        assert_eq!(network("fd00::/8").unwrap().to_string(), "fd00::/8");
        assert!(network("example.com").is_err());
    }

    #[test]
    fn what_is_said_twice_is_found() {
        let said = |flags: &[&str]| {
            let matches = Config::arguments_alone().try_get_matches_from(flags).unwrap();
            Config::from_arg_matches(&matches).unwrap().said_twice()
        };
        let twice = |setting, name: &str| Some((setting, name.to_owned()));
        assert_eq!(said(&["--max-waiting=10,threads-cpu=5,async=5", "--labels=a=1,b=1", "--python-interpreters=a=x,b=x"]), None);
        assert_eq!(said(&["--max-waiting=threads-cpu=5,10,threads-cpu=6"]), twice("max_waiting", "threads-cpu"));
        assert_eq!(said(&["--max-waiting=10", "--max-waiting=10"]), twice("max_waiting", "all queues"));
        assert_eq!(said(&["--labels=gpu=a100,gpu=h100"]), twice("labels", "gpu"));
        assert_eq!(said(&["--python-interpreters=a=/bin/x,a=/bin/y"]), twice("python_interpreters", "a"));
    }

    /// The rule by which people find a setting's three forms.
    #[test]
    fn each_setting_has_a_flag_and_a_variable_of_its_name() {
        for argument in Config::arguments().get_arguments() {
            let name = argument.get_id().as_str();
            assert_eq!(argument.get_long().unwrap(), name.replace('_', "-"));
            assert_eq!(argument.get_env().unwrap(), format!("TRINE_{}", name.to_uppercase()).as_str());
            assert!(argument.get_help().is_some(), "{name} has no help");
        }
    }
}
