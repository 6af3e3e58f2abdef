//! Schedules: timetables that submit jobs, and what became of each time that one of them was due.

mod plan;
mod timetable;

pub use plan::{Decision, LATE, Plan, Seen, plan};
pub use timetable::{BadTimetable, Timetable};

use serde_json::value::RawValue;

use crate::clock::Timestamp;
use crate::job::{JobId, Owner};

/// A timetable with the job that it submits.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// By what it is known.
    pub name: String,
    /// When it is due.
    pub timetable: Timetable,
    /// What becomes of the times that were missed while no server ran.
    pub catch_up: CatchUp,
    /// What becomes of a time at which a job of it has not ended yet.
    pub overlap: Overlap,
    /// The submission, as the client wrote it; it is read anew each time.
    pub job: Box<RawValue>,
    /// Nothing of it starts until it is resumed.
    pub paused: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last given other contents.
    pub changed_at: Timestamp,
    /// When it is due next; `None` while it is paused, or if it never is again.
    pub next_at: Option<Timestamp>,
}

/// What becomes of the times that were missed: those that are noticed later than [`LATE`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CatchUp {
    /// Nothing.
    #[default]
    Skip,
    /// The latest of them is made up for.
    Once,
    /// All of them are, the earliest first; if there are more than 1,000, the latest 1,000.
    All,
}

/// What becomes of a time at which a job of the schedule has not ended yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// Another job starts.
    #[default]
    Allow,
    /// None does.
    Skip,
    /// One does when those before it have ended; at most 1,000 wait for that.
    Queue,
}

/// A time at which a schedule was due, or was run by hand, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fire {
    /// When it was due.
    pub due_at: Timestamp,
    /// When it was decided upon.
    pub at: Timestamp,
    /// Somebody wanted it then, whatever the timetable says.
    pub by_hand: bool,
    /// What came of it.
    pub outcome: FireOutcome,
}

/// What came of a time at which a schedule was due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FireOutcome {
    /// A job was submitted.
    Submitted(JobId),
    /// A job will be, when those before it have ended.
    Waiting,
    /// None was, because of the schedule's own rules.
    Skipped(Skip),
    /// None could be.
    Failed(String),
}

/// Why no job was submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// A job of the schedule had not ended.
    Overlap,
    /// As many as may wait already waited.
    Full,
    /// It was missed while no server ran, and perhaps others before it.
    Missed,
}

impl Schedule {
    /// What a schedule of this owner is called among all: two owners may give theirs the same name.
    pub fn full_name(owner: Option<Owner>, name: &str) -> String {
        owner.map_or_else(|| name.to_owned(), |owner| format!("{owner}:{name}"))
    }

    /// Whose it is.
    pub fn owner(&self) -> Option<Owner> {
        self.name.split_once(':').and_then(|(owner, _)| owner.parse().ok())
    }

    /// What its owner calls it.
    pub fn own_name(&self) -> &str {
        self.name.split_once(':').map_or(&self.name, |(_, name)| name)
    }
}

impl Skip {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Overlap, Self::Full, Self::Missed];

    /// In words.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Overlap => "a job of the schedule had not ended",
            Self::Full => "1,000 times waited already",
            Self::Missed => "it was missed while no server ran",
        }
    }
}
