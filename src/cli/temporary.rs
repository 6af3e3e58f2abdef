//! A server for the time of a command.

use std::future::Future;
use std::io::ErrorKind;
use std::time::{Duration, Instant};
use std::{fs, thread};

use serde::de::IgnoredAny;
use tempfile::TempDir;
use tokio::task::JoinError;

use super::client::Client;
use super::error::CliError;
use super::print;
use super::serve::listen;
use crate::app::{self, AppError};
use crate::auth::KeyRule;
use crate::config::{Config, LogFormat, Source, Sources};
use crate::job::Role;
use crate::shutdown::Stop;
use crate::{shutdown, telemetry};

const START_LIMIT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_millis(20);

/// How often a folder is tried to be removed, and the wait in between.
const REMOVALS: u32 = 50;
const REMOVAL_INTERVAL: Duration = Duration::from_millis(20);

/// The folder of a server for the time of a command, if it has one of its own. It is removed as this is dropped, which is to be after the
/// runtime: until then, programs that the server has started may write in it, and would make it anew.
#[derive(Default)]
pub(super) struct Folder(Option<TempDir>);

impl Drop for Folder {
    fn drop(&mut self) {
        let Some(folder) = &self.0 else { return };
        for _ in 0..REMOVALS {
            match fs::remove_dir_all(folder.path()) {
                // Something that was killed was just about to write.
                Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => thread::sleep(REMOVAL_INTERVAL),
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return print::aside(format_args!("can't remove {}: {error}", folder.path().display()));
                }
                _ => return,
            }
        }
    }
}

/// The settings as they suit a command that wants a server for itself, where nobody has said otherwise, with a folder that goes when it ends.
pub(super) fn prepare(mut config: Config, sources: &Sources, own: &mut Folder) -> Result<Config, CliError> {
    let was_shared = config.database.is_some();
    alone(&mut config, sources);
    let was_shared = was_shared && config.database.is_none();
    // Whoever starts it is the one who uses it.
    (config.tls_cert, config.tls_key, config.keys) = (None, None, KeyRule::Auto);
    let given = |name| sources.get(name).is_some_and(|source| *source != Source::Default);
    if !given("log") {
        // What people want to see is the command's own output.
        "warn".clone_into(&mut config.log);
    }
    if !given("listen") {
        config.listen.set_port(0);
    }
    // A data folder that is set up for a service whose database is elsewhere is that service's: a database is not put there unless the
    // command line says so.
    if given("data_dir") && (!was_shared || is_said(sources, "data_dir")) {
        return Ok(config);
    }
    let folder = TempDir::with_prefix("trine-").map_err(|error| CliError::Prepare("make a temporary folder", error))?;
    folder.path().clone_into(&mut config.data_dir);
    own.0 = Some(folder);
    Ok(config)
}

/// Takes away what the servers of a service share, unless it is said on the command line: they would run this one's jobs, and it theirs.
pub(super) fn alone(config: &mut Config, sources: &Sources) {
    if !is_said(sources, "database") {
        config.database = None;
    }
    if !is_said(sources, "artifacts") {
        config.artifacts = None;
    }
    if !is_said(sources, "role") {
        config.role = Role::default();
    }
    if !is_said(sources, "labels") {
        config.labels.clear();
    }
}

/// Whether a setting is said on the command line.
fn is_said(sources: &Sources, name: &str) -> bool {
    matches!(sources.get(name), Some(Source::Flag(_)))
}

/// Does something with a server that is there as long as that takes.
pub(super) async fn with_server<T, F>(config: Config, work: impl FnOnce(Client) -> F) -> Result<T, CliError>
where
    F: Future<Output = Result<T, CliError>>,
{
    let _log = telemetry::init(&config.log, config.log_format == LogFormat::Json)?;
    let stop = shutdown::requested(true).map_err(CliError::Runtime)?;
    let (listener, url) = listen(config.listen, "http")?;
    let client = Client::new(&url)?;
    let mut service = tokio::spawn(app::serve(config, listener, stop.clone(), || {}));
    let outcome = tokio::select! {
        outcome = async { until_ready(&client).await?; work(client).await } => unless_told(&stop, outcome),
        // It ends this early if it can't start, or at a signal.
        ended = &mut service => return served(ended).and(Err(CliError::Interrupted)),
    };
    stop.asked.cancel();
    served(service.await)?;
    outcome
}

/// What came of work with a server; of a signal nobody is told as of a server that can't be reached any more.
pub(super) fn unless_told<T>(stop: &Stop, outcome: Result<T, CliError>) -> Result<T, CliError> {
    outcome.map_err(|error| if stop.asked.is_cancelled() { CliError::Interrupted } else { error })
}

/// Waits until the service takes work.
pub(super) async fn until_ready(client: &Client) -> Result<(), CliError> {
    let deadline = Instant::now() + START_LIMIT;
    loop {
        match client.get::<IgnoredAny>("/readyz", &()).await {
            Err(CliError::Refused(_)) if Instant::now() < deadline => tokio::time::sleep(START_INTERVAL).await,
            ready => return ready.map(drop),
        }
    }
}

/// How the service ended.
pub(super) fn served(ended: Result<Result<(), AppError>, JoinError>) -> Result<(), CliError> {
    match ended {
        Ok(ended) => Ok(ended?),
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
