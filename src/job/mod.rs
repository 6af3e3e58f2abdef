//! The domain: what a job is, where it is, how it ended and what was measured of it.
//!
//! Nothing here knows of HTTP, of the database or of threads.

mod event;
mod finding;
mod graph;
mod history;
mod id;
mod labels;
mod limit;
mod names;
mod outcome;
mod owner;
mod profile_key;
mod role;
mod route;
mod routing;
mod state;
mod submission;
mod timing;
mod webhook;

pub use event::{Event, EventKind, LogStream, Note, What};
pub use finding::{FindingKind, FindingKinds, LONG_HOLD_US};
pub use graph::{After, Dependency, OnFailure, Parent, parents_first};
pub use history::{History, Tried};
pub use id::{ComparisonId, JobId, JobIds};
pub use labels::{Labels, MAX_REQUIRED, meets, wrong_label};
pub use limit::{Concurrency, Rate};
pub use outcome::{Failure, FailureKind, Outcome, Output};
pub use owner::{BadOwner, Owner};
pub use profile_key::ProfileKey;
pub use role::Role;
pub use route::{Bound, Choice, Executor, Form, Queue, Route, Rule, Runtime, Written};
pub use routing::{Evidence, Routing};
pub use state::{Conclusion, Ending, Finished, State};
pub use submission::{PRIORITY_LEVEL, Retry, Spec, Submission, Tags, Unique};
pub use timing::{Observed, Timing};
pub use webhook::{BadSecret, Secret, Webhook};

use crate::clock::Timestamp;

/// One submitted workload with its options, its route and where it is.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its name for ever.
    pub id: JobId,
    /// What the client asked for.
    pub submission: Box<Submission>,
    /// The executor chosen for it, and why.
    pub route: Route,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// The number of its latest attempt; 0 before the first.
    pub attempt: u32,
    /// How often it was run again because whatever ran it had died under it.
    pub losses: u32,
    /// Where it is now.
    pub state: State,
}

/// A job as it is about to be accepted: all that the store needs to know of it.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// Its name for ever.
    pub id: JobId,
    /// What the client asked for.
    pub submission: Box<Submission>,
    /// The executor chosen for it, and why.
    pub route: Route,
    /// The jobs that it comes after.
    pub after: Vec<Dependency>,
    /// When it was accepted: the store puts the moment of its commit here.
    pub accepted_at: Timestamp,
    /// When it may start, if that was still to come when it was accepted: the store puts that here by its clock.
    pub due_at: Option<Timestamp>,
    /// The profile that its runs belong to, if they are like any others.
    pub profile: Option<ProfileKey>,
}

impl NewJob {
    /// It is accepted at this moment, when it is `now` by the clock: moments only order what happens, and may be ahead of a clock that was set.
    pub fn accept(&mut self, at: Timestamp, now: Timestamp) {
        self.accepted_at = at;
        self.due_at = self.submission.run_at.filter(|run_at| *run_at > now);
    }

    /// The job as it is right after it was accepted.
    pub fn into_job(self) -> Job {
        let NewJob { id, submission, route, after, accepted_at, due_at, .. } = self;
        let state = match due_at {
            _ if !after.is_empty() => State::Blocked,
            Some(due_at) => State::Scheduled { due_at },
            None => State::Queued,
        };
        Job { id, submission, route, accepted_at, attempt: 0, losses: 0, state }
    }
}
