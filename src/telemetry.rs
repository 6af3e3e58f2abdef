//! What the server says of itself while it runs: lines on standard error.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

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

/// What comes with each of many tries to reach a database that is away; whoever wanted something of it tells that as well.
const QUIET: &str = ",sqlx::pool=off,sqlx_core::pool=off";
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
    let quiet = if filter.contains("sqlx") { "" } else { QUIET };
    let filter = EnvFilter::builder().parse(format!("{filter}{quiet}"))?;
    let (lines, writer) = NonBlockingBuilder::default().buffered_lines_limit(WAITING).finish(io::stderr());
    let log = tracing_subscriber::fmt().with_env_filter(filter);
    if json {
        log.json().with_writer(lines).finish().try_init()?;
    } else {
        let text = log.with_ansi(io::stderr().is_terminal());
        text.with_writer(move || OneLine(lines.clone())).finish().try_init()?;
    }
    Ok(Log { _writer: writer })
}

/// Writes what it is given at once as one line: what others say - a storage's answer, a process's last words - has line breaks in it, which
/// could be read as lines of the log.
struct OneLine<W>(W);

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = event.strip_suffix(b"\n").unwrap_or(event);
        if !text.iter().any(|byte| b"\r\n".contains(byte)) {
            return self.0.write_all(event).map(|()| event.len());
        }
        let mut line = Vec::with_capacity(event.len() + 64);
        for byte in text {
            match byte {
                b'\n' => line.extend(b"\\n"),
                b'\r' => line.extend(b"\\r"),
                other => line.push(*other),
            }
        }
        line.push(b'\n');
        self.0.write_all(&line).map(|()| event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Something that may happen by the thousand: it is told at most once in [`Sparing::APART`], and how often it was not.
#[derive(Debug, Default)]
pub struct Sparing {
    state: Mutex<(Option<Instant>, u64)>,
}

impl Sparing {
    /// How far apart it is told.
    pub const APART: Duration = Duration::from_secs(10);

    /// It has happened. How often it was not told since the last time, if it is to be told now.
    pub fn tell(&self) -> Option<u64> {
        self.tell_at(Instant::now())
    }

    fn tell_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (told_at, left_out) = &mut *state;
        if told_at.is_some_and(|at| now.saturating_duration_since(at) < Self::APART) {
            *left_out += 1;
            return None;
        }
        *told_at = Some(now);
        Some(std::mem::take(left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let mut written = Vec::new();
        for event in ["  INFO plain\n", "  WARN error=<Error>\n  ERROR forged\r\n</Error>\n"] {
            OneLine(&mut written).write_all(event.as_bytes()).unwrap();
        }
        let lines = "  INFO plain\n  WARN error=<Error>\\n  ERROR forged\\r\\n</Error>\n";
        assert_eq!(String::from_utf8(written).unwrap(), lines);
    }

    #[test]
    fn what_happens_often_is_told_now_and_then() {
        let (sparing, start) = (Sparing::default(), Instant::now());
        let told = |after| sparing.tell_at(start + Duration::from_secs(after));
        assert_eq!([told(0), told(0), told(9), told(10), told(11), told(30)], [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
