use serde::{Deserialize, Serialize};

use super::{Outcome, Timing};
use crate::clock::Timestamp;

/// Where a job is. Each state carries just its own timestamps.
#[derive(Clone, Debug)]
pub enum State {
    /// It waits for its time: it is to run later, or a retry's back-off.
    Scheduled {
        /// When it may run.
        due_at: Timestamp,
    },
    /// It waits for other jobs to end.
    Blocked,
    /// It waits for its executor.
    Queued,
    /// An attempt runs.
    Running {
        /// When the attempt was claimed.
        claimed_at: Timestamp,
        /// A client wants it to stop.
        stopping: bool,
    },
    /// It has ended.
    Finished(Box<Finished>),
}

/// How and when a job ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How it ended.
    pub ending: Ending,
    /// Its last attempt's output or error.
    pub outcome: Outcome,
    /// What was measured of its last attempt; absent if no attempt of it was run to its end.
    pub timing: Option<Timing>,
    /// When the last attempt was claimed; absent if the job waited when it ended. Its work began `timing.dispatch_us` later.
    pub started_at: Option<Timestamp>,
    /// When its end was recorded.
    pub finished_at: Timestamp,
}

/// How a job's last attempt ended: all of [`Finished`] that is not for the store to say.
#[derive(Clone, Debug)]
pub struct Conclusion {
    /// How the job ended.
    pub ending: Ending,
    /// The attempt's output or error.
    pub outcome: Outcome,
    /// What was measured of the attempt; absent if its work never began.
    pub timing: Option<Timing>,
}

impl Conclusion {
    /// The same with the moments that only the store knows.
    pub fn at(self, started_at: Option<Timestamp>, finished_at: Timestamp) -> Finished {
        let Self { ending, outcome, timing } = self;
        Finished { ending, outcome, timing, started_at, finished_at }
    }
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// It returned an output.
    Succeeded,
    /// It failed, and its retry rule allows no further attempt.
    Failed,
    /// A client cancelled it.
    Cancelled,
    /// What ran it died too often.
    Lost,
}

impl Ending {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Succeeded, Self::Failed, Self::Cancelled, Self::Lost];

    /// The name that the API uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
        }
    }
}

impl State {
    /// How and when the job ended, if it has.
    pub fn finished(&self) -> Option<&Finished> {
        match self {
            Self::Finished(finished) => Some(finished),
            Self::Scheduled { .. } | Self::Blocked | Self::Queued | Self::Running { .. } => None,
        }
    }

    /// The one word that the API shows: the place or, once finished, the ending.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Scheduled { .. } => "scheduled",
            Self::Blocked => "blocked",
            Self::Queued => "queued",
            Self::Running { .. } => "running",
            Self::Finished(finished) => finished.ending.as_str(),
        }
    }
}
