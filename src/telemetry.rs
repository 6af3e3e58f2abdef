//! What the server says of itself while it runs: lines on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

/// Why there will be no log.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one.
    #[error("log filter: {0}")]
    BadFilter(#[from] tracing_subscriber::filter::ParseError),
    /// This process has a log already.
    #[error(transparent)]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Starts the log: what passes `filter`, such as `info,trine::dispatch=debug`, as JSON objects or as text for people.
pub fn init(filter: &str, json: bool) -> Result<(), TelemetryError> {
    let filter = EnvFilter::builder().parse(filter)?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if json {
        log.json().finish().try_init()?;
    } else {
        log.with_ansi(std::io::stderr().is_terminal()).finish().try_init()?;
    }
    Ok(())
}
