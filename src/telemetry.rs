//! What the server says of itself while it runs: lines on standard error.

use std::io::IsTerminal;

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
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

/// Lines that wait for whoever reads the log. When there is no room for more, they are dropped.
const WAITING: usize = 10_000;

/// The log, as long as this is there; what waits when it is dropped is written if it is read at once.
#[must_use = "the log ends when this is dropped"]
pub struct Log {
    _writer: WorkerGuard,
}

/// Starts the log: what passes `filter`, such as `info,trine::dispatch=debug`, as JSON objects or as text for people.
///
/// Lines are written by a thread of its own, so that a reader who stops reading holds up nothing but the log.
pub fn init(filter: &str, json: bool) -> Result<Log, TelemetryError> {
    let filter = EnvFilter::builder().parse(filter)?;
    let (lines, writer) = NonBlockingBuilder::default().buffered_lines_limit(WAITING).finish(std::io::stderr());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(lines);
    if json {
        log.json().finish().try_init()?;
    } else {
        log.with_ansi(std::io::stderr().is_terminal()).finish().try_init()?;
    }
    Ok(Log { _writer: writer })
}
