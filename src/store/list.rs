//! Which jobs a list holds, in which order, and how many.

use crate::clock::Timestamp;
use crate::job::{Bound, Ending, Executor, FailureKind, FindingKinds, JobId, Owner, State};

/// Where a job may be, as lists filter it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateFilter {
    /// Waits for its time.
    Scheduled,
    /// Waits for other jobs.
    Blocked,
    /// Waits for its executor.
    Queued,
    /// An attempt runs.
    Running,
    /// Ended this way.
    Ended(Ending),
}

impl StateFilter {
    /// Where a job in this state is.
    pub const fn of(state: &State) -> Self {
        match state {
            State::Scheduled { .. } => Self::Scheduled,
            State::Blocked => Self::Blocked,
            State::Queued => Self::Queued,
            State::Running { .. } => Self::Running,
            State::Finished(finished) => Self::Ended(finished.ending),
        }
    }
}

/// Which jobs a list holds: those that pass every condition that is set.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Whose they are; `None` for everybody's.
    pub owner: Option<Owner>,
    /// Where they are: any of these; empty for anywhere.
    pub states: Vec<StateFilter>,
    /// Of which kind their error is.
    pub error: Option<FailureKind>,
    /// How they are tagged.
    pub bound: Option<Bound>,
    /// Where they run.
    pub executor: Option<Executor>,
    /// Their workload's `type`.
    pub workload: Option<String>,
    /// Labels and their values: all of them.
    pub tags: Vec<(String, String)>,
    /// Accepted at this moment or later.
    pub since: Option<Timestamp>,
    /// Accepted before this moment.
    pub until: Option<Timestamp>,
    /// What their figures speak against: any of these. Only what has ended has any.
    pub findings: Option<FindingKinds>,
}

/// In which order of its ids a list is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// The latest first.
    #[default]
    NewestFirst,
    /// The earliest first.
    OldestFirst,
}

/// One page of a list.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// The order.
    pub order: Order,
    /// The last id of the page before; the list goes on behind it.
    pub after: Option<JobId>,
    /// How many at most. It ends earlier, with the first job that does not fit, where they weigh more than a page may hold.
    pub limit: usize,
}
