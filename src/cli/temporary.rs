//! A server for the time of a command.

use std::future::Future;
use std::time::{Duration, Instant};

use serde::de::IgnoredAny;
use tempfile::TempDir;
use tokio::task::JoinError;

use super::client::Client;
use super::error::CliError;
use super::serve::listen;
use crate::app::{self, AppError};
use crate::auth::KeyRule;
use crate::config::{Config, LogFormat, Source, Sources};
use crate::{shutdown, telemetry};

const START_LIMIT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_millis(20);

/// The settings as they suit a command that wants a server for itself, where nobody has said otherwise; and the folder that goes when it
/// ends.
pub(super) fn prepare(mut config: Config, sources: &Sources) -> Result<(Config, Option<TempDir>), CliError> {
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
    if given("data_dir") {
        return Ok((config, None));
    }
    let folder = TempDir::with_prefix("trine-").map_err(|error| CliError::Prepare("make a temporary folder", error))?;
    folder.path().clone_into(&mut config.data_dir);
    Ok((config, Some(folder)))
}

/// Does something with a server that is there as long as that takes.
pub(super) async fn with_server<T, F>(config: Config, work: impl FnOnce(Client) -> F) -> Result<T, CliError>
where
    F: Future<Output = Result<T, CliError>>,
{
    let _log = telemetry::init(&config.log, config.log_format == LogFormat::Json)?;
    let stop = shutdown::requested().map_err(CliError::Runtime)?;
    let (listener, url) = listen(config.listen, "http")?;
    let client = Client::new(&url)?;
    let mut service = tokio::spawn(app::serve(config, listener, stop.clone(), || {}));
    let outcome = tokio::select! {
        outcome = async { until_ready(&client).await?; work(client).await } => outcome,
        // It ends this early if it can't start, or at a signal.
        ended = &mut service => return served(ended).and(Err(CliError::Interrupted)),
    };
    stop.asked.cancel();
    served(service.await)?;
    outcome
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
