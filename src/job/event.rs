use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Bound, Executor, Failure, Finished, JobId, Timing};
use crate::clock::Timestamp;

/// The longest line of log, in bytes; the rest of a longer one is cut off.
const LONGEST_LINE: usize = 8 << 10;
/// The longest progress, in bytes of JSON.
const LONGEST_PROGRESS: usize = 4 << 10;

/// Something that happened to a job.
#[derive(Clone, Debug)]
pub struct Event {
    /// When it was recorded. No two events have the same moment, and it grows in the order in which they were recorded: it is the
    /// event's id, in microseconds since the Unix epoch.
    pub at: Timestamp,
    /// To which job.
    pub job: JobId,
    /// How the job is tagged.
    pub bound: Bound,
    /// Where it runs.
    pub executor: Executor,
    /// What happened.
    pub what: What,
}

/// What can happen to a job.
#[derive(Clone, Debug)]
pub enum What {
    /// It was accepted.
    Accepted,
    /// An attempt was claimed, and runs.
    Running {
        /// Its number, from 1.
        attempt: u32,
    },
    /// An attempt says how far it is.
    Progress {
        /// Its number.
        attempt: u32,
        /// Any JSON value.
        value: Box<RawValue>,
    },
    /// An attempt wrote a line.
    Log {
        /// Its number.
        attempt: u32,
        /// Where to.
        stream: LogStream,
        /// The line, without its end.
        line: String,
    },
    /// An attempt ended, and will be followed by another.
    Retrying {
        /// Its number.
        attempt: u32,
        /// How it ended.
        error: Failure,
        /// What was measured of it; absent if its work never began.
        timing: Option<Box<Timing>>,
        /// When the next one may run.
        due_at: Timestamp,
    },
    /// It had ended, and waits again at a client's wish.
    Requeued,
    /// It has ended.
    Finished {
        /// The number of its last attempt; 0 if there was none.
        attempt: u32,
        /// How.
        finished: Box<Finished>,
    },
}

/// The kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The job was accepted.
    Accepted,
    /// An attempt was claimed, and runs.
    Running,
    /// An attempt says how far it is.
    Progress,
    /// An attempt wrote a line.
    Log,
    /// An attempt ended, and will be followed by another.
    Retrying,
    /// The job had ended, and waits again at a client's wish.
    Requeued,
    /// The job has ended.
    Finished,
}

/// Where a line of log was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What an attempt says while it runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Note {
    /// How far it is.
    Progress(Box<RawValue>),
    /// A line that it wrote.
    Log(LogStream, String),
}

impl Event {
    /// Its kind.
    pub const fn kind(&self) -> EventKind {
        match self.what {
            What::Accepted => EventKind::Accepted,
            What::Running { .. } => EventKind::Running,
            What::Progress { .. } => EventKind::Progress,
            What::Log { .. } => EventKind::Log,
            What::Retrying { .. } => EventKind::Retrying,
            What::Requeued => EventKind::Requeued,
            What::Finished { .. } => EventKind::Finished,
        }
    }
}

impl What {
    /// What this attempt says.
    pub fn noted(attempt: u32, note: Note) -> Self {
        match note {
            Note::Progress(value) => Self::Progress { attempt, value },
            Note::Log(stream, line) => Self::Log { attempt, stream, line },
        }
    }
}

impl Note {
    /// A progress; `None` if it can't be written as JSON, or is longer than 4 KiB.
    pub fn progress(value: &(impl Serialize + ?Sized)) -> Option<Self> {
        serde_json::value::to_raw_value(value).ok().filter(|value| value.get().len() <= LONGEST_PROGRESS).map(Self::Progress)
    }

    /// A line without its end: at most 8 KiB of it, and nothing that ends text early elsewhere.
    pub fn log(stream: LogStream, line: impl Into<String>) -> Self {
        let mut line: String = line.into();
        if line.len() > LONGEST_LINE {
            line.truncate(line.floor_char_boundary(LONGEST_LINE));
            line.push('…');
        }
        if line.contains('\0') {
            line = line.replace('\0', "\u{fffd}");
        }
        line.truncate(line.trim_end_matches(['\n', '\r']).len());
        Self::Log(stream, line)
    }

    /// A line in the place of so many that were dropped.
    pub fn missing(count: u64) -> Self {
        Self::log(LogStream::Stderr, format!("{count} lines are missing here: they came faster than they could be written"))
    }

    /// How much of it is kept, in bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Progress(value) => value.get().len(),
            Self::Log(_, line) => line.len(),
        }
    }
}

impl EventKind {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Accepted, Self::Running, Self::Progress, Self::Log, Self::Retrying, Self::Requeued, Self::Finished];

    /// The name that the API uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Running => "running",
            Self::Progress => "progress",
            Self::Log => "log",
            Self::Retrying => "retrying",
            Self::Requeued => "requeued",
            Self::Finished => "finished",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_to_what_is_kept() {
        let line = |text: &str| match Note::log(LogStream::Stdout, text) {
            Note::Log(_, line) => line,
            Note::Progress(_) => unreachable!("it is a line"),
        };
        assert_eq!((line("a\r\n"), line("a\0b"), line("")), ("a".into(), "a\u{fffd}b".into(), String::new()));
        let long = line(&"ü".repeat(LONGEST_LINE));
        assert!(long.len() <= LONGEST_LINE + '…'.len_utf8() && long.ends_with("ü…"));
    }

    #[test]
    fn progress_is_short() {
        assert!(Note::progress(&0.5).is_some());
        assert!(Note::progress(&"x".repeat(LONGEST_PROGRESS)).is_none());
    }
}
