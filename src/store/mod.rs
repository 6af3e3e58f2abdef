//! Where jobs are kept. A trait, so that one machine keeps them in SQLite and many share a PostgreSQL.
//!
//! Unfinished jobs and results are kept apart: a job moves from the one to the other once, in one transaction, so the part
//! that is claimed from stays small whatever the history, and there is room for just one result an id.
//!
//! What happens to a job is recorded as [`Event`](crate::job::Event)s; a [`Follower`] gives them to whoever wants to see them.
//!
//! Each method is one short transaction. Rows stay private to the store: what both drivers keep alike is in `kept/`, the rest is theirs.

mod acceptance;
mod bloat;
mod claims;
mod codes;
mod comparison;
mod copied;
mod counted;
mod error;
mod event;
mod fate;
mod follow;
mod full;
mod function;
mod graph;
mod intake;
mod kept;
mod key;
mod limit;
mod list;
mod looks;
mod migrations;
mod node;
mod oldest;
mod once;
mod owner;
mod page;
pub mod postgres;
mod profile;
mod reopens;
mod retention;
mod said;
mod schedule;
mod sketch;
pub mod sqlite;
mod summary;
mod tally;
mod turns;
mod unasked;
mod webhook;
mod window;

pub use bloat::{Bloat, BloatStore, TableBloat};
pub use comparison::{Comparison, ComparisonEnd, ComparisonState, ComparisonStore};
pub use copied::{Age, Copied, CopyStore};
pub use error::StoreError;
pub use event::{EventFilter, EventPage, Subscription};
pub use follow::Follower;
pub use function::FunctionStore;
pub use graph::{Child, Graph, GraphStore, ParentEdge};
pub use key::KeyStore;
pub use limit::{Gate, LimitKey, LimitStatus, LimitStore};
pub use list::{Filter, Order, Page, StateFilter};
pub use looks::Looks;
pub use node::{NodeStatus, NodeStore};
pub use oldest::OldestStore;
pub use once::{Answered, Digest, Once, OnceStore, Twin, Unique};
pub use owner::{MINUTE, OwnerStore, Usage};
pub use page::{PAGE_BYTES, Weight, on_page};
pub use profile::{DayRow, DayTotals, ProfileChanges, ProfileRow, ProfileStore};
pub use retention::{Removal, Removed, RetentionStore};
pub use schedule::{Firing, ScheduleStore};
pub use sketch::{BadSketch, Quantiles, Sketch};
pub use summary::{Sketches, SummaryKey};
pub use webhook::{DeliveryFilter, MANY, WebhookStore};

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;

use self::event::{Hub, News, Subject};
use self::window::Window;
use crate::clock::Timestamp;
use crate::job::{
    Bound, Conclusion, Ending, Failure, Job, JobId, Labels, NewJob, Note, Owner, ProfileKey, Queue, Retry, Spec, Timing,
};

/// The right to run one attempt, proved by a token that the store checks on every write of the attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The job.
    pub id: JobId,
    /// Unique to this claim; compared for equality only.
    pub token: i64,
}

/// A job that was claimed: what is needed to run one attempt of it.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// The right to run it.
    pub lease: Lease,
    /// Whose job it is.
    pub owner: Option<Owner>,
    /// The client's tag.
    pub bound: Bound,
    /// What to run.
    pub workload: Spec,
    /// The longest that the attempt may run.
    pub deadline: Option<Duration>,
    /// When a failed attempt is followed by another, if not by the default rule: see [`Claimed::retry`].
    pub retry: Option<Arc<Retry>>,
    /// The number of this attempt, from 1.
    pub attempt: u32,
    /// How often whatever ran the job died under it before.
    pub losses: u32,
    /// How many of its attempts were before it was last run again by hand: its retry rule does not count them.
    pub earlier: u32,
    /// The labels that a node must have to run it.
    pub requires: Option<Box<Labels>>,
    /// How long it was waiting since it was accepted or due.
    pub queued_for: Duration,
    /// The profile that its runs belong to; known if it was claimed as it was accepted.
    pub profile: Option<ProfileKey>,
}

impl Claimed {
    /// When a failed attempt is followed by another.
    pub fn retry(&self) -> &Retry {
        self.retry.as_deref().unwrap_or(&Retry::DEFAULT)
    }
}

/// What becomes of a job when an attempt of it ends.
#[derive(Clone, Debug)]
pub enum Settlement {
    /// It has ended.
    Finish(Conclusion),
    /// It runs again.
    Again {
        /// Not before this moment.
        due_at: Timestamp,
        /// What ran it died under it: counts as a loss.
        lost: bool,
        /// How the attempt ended.
        error: Failure,
        /// What was measured of it; absent if its work never began.
        timing: Option<Timing>,
    },
    /// It was handed back, not run to its end: it waits again as if it had not been claimed.
    Release {
        /// Whether its work had begun. Else it was no start of its rate.
        begun: bool,
    },
    /// The same, but its work had not begun, and it waits until this moment.
    Later {
        /// When it may be claimed again.
        due_at: Timestamp,
    },
}

impl Settlement {
    /// Whether the job has ended with it.
    pub const fn is_end(&self) -> bool {
        matches!(self, Self::Finish(_))
    }
}

/// How soon a settlement is to be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// At once: somebody waits for it.
    Awaited,
    /// As soon as what jobs of this queue leave has to be.
    Patient(Queue),
}

/// Whether a settlement was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It was, and the job goes on.
    Recorded,
    /// It was, and with it the job has ended.
    Ended {
        /// Since when its last attempt ran.
        started_at: Timestamp,
        /// When its end was recorded.
        finished_at: Timestamp,
    },
    /// The lease was no longer valid; nothing was changed.
    Stale,
}

/// What a cancellation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancellation {
    /// The job was waiting; it has ended as cancelled.
    Cancelled,
    /// An attempt runs under this lease; it has been marked and must be told to stop.
    Stopping(Lease),
    /// It had already ended this way.
    Finished(Ending),
    /// It is not where it was to be.
    Elsewhere,
    /// There is no such job.
    Unknown,
}

/// What a retry by hand did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requeue {
    /// The job waits again; its result is gone.
    Queued,
    /// It has not ended yet.
    Unfinished,
    /// There is no such job.
    Unknown,
}

/// What was done to one page of jobs.
#[derive(Debug)]
pub struct Portion<T> {
    /// What was done.
    pub done: T,
    /// The last job of the page; `None` if there are no more behind it.
    pub last: Option<JobId>,
}

/// Jobs that were cancelled together.
#[derive(Debug, Default)]
pub struct Cancelled {
    /// Those that were waiting; they have ended.
    pub ended: Vec<JobId>,
    /// Attempts that run; they have been marked and must be told to stop.
    pub stopping: Vec<Lease>,
}

/// How many jobs wait and run in each queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Waiting for a slot, or until a limit allows it to start.
    pub queued: u64,
    /// Those of them that have a limit.
    pub limited: u64,
    /// Waiting for their time.
    pub scheduled: u64,
    /// Waiting for other jobs.
    pub blocked: u64,
    /// Claimed.
    pub running: u64,
}

/// Why an attempt is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// Another node was asked to cancel the job.
    Cancelled,
    /// Its lease has ended, or soon will: the job runs elsewhere, or waits again.
    Lost,
}

/// Where jobs are kept, and with them whatever else is: a trait for each kind of thing.
#[async_trait]
pub trait Store:
    BloatStore
    + ComparisonStore
    + CopyStore
    + FunctionStore
    + GraphStore
    + KeyStore
    + LimitStore
    + NodeStore
    + OldestStore
    + OnceStore
    + OwnerStore
    + ProfileStore
    + RetentionStore
    + ScheduleStore
    + WebhookStore
    + Send
    + Sync
    + 'static
{
    /// What time it is, as all go by it that share the store: whatever is due, or over, is so by this.
    fn now(&self) -> Timestamp;

    /// Makes jobs durable: all of them, or none. Gives them back after the commit, with the moment of their acceptance.
    async fn accept(&self, jobs: Vec<NewJob>) -> Result<Vec<NewJob>, StoreError>;

    /// Claims up to `most` jobs that wait in `queue`, the highest priority first, then the oldest. Waits until there is one.
    ///
    /// Dropping the future gives back what it might have claimed.
    async fn claim(&self, queue: Queue, most: usize) -> Result<Vec<Claimed>, StoreError>;

    /// Ends the attempt that `lease` stands for, if the lease is still valid. It is for the handle that claimed the job to say so.
    ///
    /// Unless somebody waits for it, the store may take some milliseconds longer, to write it together with others.
    async fn settle(&self, lease: Lease, settlement: Arc<Settlement>, urgency: Urgency) -> Result<Settled, StoreError>;

    /// Records what the attempt says, if its lease is still valid; waits while the store has more to write than it may hold in
    /// memory. What was recorded is there before a settlement of the same lease that follows.
    async fn note(&self, lease: Lease, note: Note);

    /// The same without waiting: what there is no room for is counted, and the count recorded in its place.
    fn offer(&self, lease: Lease, note: Note);

    /// Waits until attempts of this node are to stop that it was not asked to stop, and why. For one listener.
    async fn revoked(&self) -> Vec<(Lease, Revocation)>;

    /// Whether this node, as far as it knows, runs the attempt of this lease.
    fn may_run_here(&self, lease: Lease) -> bool;

    /// Cancels those of these jobs that wait; marks those that run. If `only` says where, they are left alone elsewhere.
    async fn cancel_these(&self, ids: Vec<JobId>, only: &[StateFilter]) -> Result<Cancelled, StoreError>;

    /// Does the same to one job, and says what it did.
    async fn cancel(&self, id: JobId, only: &[StateFilter]) -> Result<Cancellation, StoreError> {
        loop {
            let Cancelled { ended, stopping } = self.cancel_these(vec![id], only).await?;
            if !ended.is_empty() {
                return Ok(Cancellation::Cancelled);
            }
            if let Some(lease) = stopping.first() {
                return Ok(Cancellation::Stopping(*lease));
            }
            match self.job(id).await?.map(|job| StateFilter::of(&job.state)) {
                Some(StateFilter::Ended(ending)) => return Ok(Cancellation::Finished(ending)),
                Some(place) if !only.is_empty() && !only.contains(&place) => return Ok(Cancellation::Elsewhere),
                // It has just been made to wait again.
                Some(_) => {}
                None => return Ok(Cancellation::Unknown),
            }
        }
    }

    /// Does the same to a page of the unfinished jobs that pass a filter, in the order of their ids: short enough that others need not
    /// wait for long.
    async fn cancel_page(&self, filter: &Filter, after: Option<JobId>) -> Result<Portion<Cancelled>, StoreError>;

    /// Makes those of these jobs wait again that are finished, and had ended `by` a moment if there is one: which they are. Each keeps
    /// its id and its count of attempts; its losses are forgotten, and its retry rule applies anew.
    async fn requeue_these(&self, ids: Vec<JobId>, by: Option<Timestamp>) -> Result<Vec<JobId>, StoreError>;

    /// Does the same to one job, and says what it did.
    async fn requeue(&self, id: JobId) -> Result<Requeue, StoreError> {
        if !self.requeue_these(vec![id], None).await?.is_empty() {
            return Ok(Requeue::Queued);
        }
        Ok(if self.job(id).await?.is_some() { Requeue::Unfinished } else { Requeue::Unknown })
    }

    /// Does the same to a page of the finished jobs that pass a filter and had ended `by` a moment, `most` at the most, in the order of their
    /// ids.
    async fn requeue_page(
        &self,
        filter: &Filter,
        by: Option<Timestamp>,
        after: Option<JobId>,
        most: usize,
    ) -> Result<Portion<Vec<JobId>>, StoreError>;

    /// Waits until jobs have ended that nobody asked this node to end: because their time was over, or a job that they come after did not
    /// succeed, or on another node as long as [`somebody_waits`](Self::somebody_waits). Which they are. For one listener.
    async fn ended_unasked(&self) -> Vec<JobId>;

    /// To be true from before somebody looks whether a job has ended until nobody waits for one any more: otherwise the ends on other nodes
    /// are not looked for.
    fn somebody_waits(&self) -> Arc<AtomicBool>;

    /// One job, wherever it is.
    async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError>;

    /// Those of these jobs that there are, wherever they are, without their workloads and their outcomes: of very many, those could fill the
    /// memory.
    async fn outlines(&self, ids: &[JobId]) -> Result<HashMap<JobId, Job>, StoreError>;

    /// Jobs wherever they are, in the order of their ids.
    async fn jobs(&self, filter: &Filter, page: Page) -> Result<Vec<Job>, StoreError>;

    /// Finished jobs, in the order of their ids.
    async fn results(&self, filter: &Filter, page: Page) -> Result<Vec<Job>, StoreError>;

    /// The next events after the one with the id `after` that pass a filter.
    async fn events(&self, filter: &EventFilter, after: Timestamp) -> Result<EventPage, StoreError>;

    /// Listens to what is recorded from here on; for a [`Follower`].
    fn subscribe(&self) -> Subscription;

    /// The id of the latest event that this node knows of.
    fn latest_event(&self) -> Timestamp;

    /// Counts and quantiles of the results, from rollups: one entry for each combination of workload, bound, executor and ending.
    async fn summary(&self) -> Result<BTreeMap<SummaryKey, Sketches>, StoreError>;

    /// How many jobs wait and run in a queue: as of the latest change by this node; of those by others, as of a moment ago.
    fn depth(&self, queue: Queue) -> Depth;

    /// What the store calls itself where things are kept outside of it: the same for all that share it, for good, and no other's.
    async fn identity(&self) -> Result<String, StoreError>;

    /// Whether it can write.
    async fn check(&self) -> Result<(), StoreError>;

    /// Finishes what was begun and shuts. What comes later is refused with [`StoreError::Closed`].
    async fn close(&self);
}
