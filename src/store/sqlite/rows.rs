//! From rows to jobs.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use sqlx::sqlite::SqliteRow;

use super::lanes::Counted;
use crate::clock::Timestamp;
use crate::job::{Failure, Finished, Job, JobId, Outcome, Owner, Queue, Route, Rule, Spec, State, Submission, Tags, Timing};
use crate::store::kept;
pub(super) use crate::store::kept::{Figures, Options, figures, timing};
use crate::store::{Claimed, Lease, StateFilter, StoreError};

/// The longest workload that stands in the row of its job, in bytes. A longer one stands in `payloads`: a row of these tables that is
/// longer than a quarter of a page takes a page of its own, and would be written once more when the job ends.
pub(super) const LONGEST_INSIDE: usize = 512;

/// The workload, wherever it stands.
macro_rules! workload {
    () => {
        "iif(payload IS NULL, workload, (SELECT text FROM payloads WHERE n = payload))"
    };
}
pub(super) const WORKLOAD: &str = workload!();
/// How long it is.
pub(super) const WORKLOAD_BYTES: &str =
    "iif(payload IS NULL, octet_length(workload), (SELECT octet_length(text) FROM payloads WHERE n = payload))";

/// The columns that unfinished jobs and results share, as they move from one table to the other.
pub(super) const SHARED: &str =
    "id, queue, rule, bound, choice, type, workload, payload, priority, options, accepted_at, attempt, losses";
/// The same as they are read, in the order in which [`Cells`] reads them.
pub(super) const OF_BOTH: &str =
    concat!("id, queue, rule, bound, choice, type, ", workload!(), ", priority, options, accepted_at, attempt, losses");
/// The further columns of an unfinished job.
pub(super) const OF_JOB: &str = "state, due_at, claimed_at, stopping";
/// The further columns of a result.
pub(super) const OF_RESULT: &str = "ending, started_at, finished_at, output, error, timing, findings";
/// What a claim returns.
pub(super) const OF_CLAIM: &str = concat!(
    "id, token, bound, type, ",
    workload!(),
    ", options, attempt, losses, coalesce(earlier, 0), claimed_at - due_at, claimed_at, children"
);

/// Values of `state` in the table of unfinished jobs. The partial indexes name them too.
pub(super) const SCHEDULED: i64 = 0;
pub(super) const QUEUED: i64 = 1;
pub(super) const RUNNING: i64 = 2;
pub(super) const BLOCKED: i64 = 3;
/// Queued, with a limit: in a lane.
pub(super) const LIMITED: i64 = 4;

/// The values of `state` of those that a list shows; none for those that are not among the unfinished jobs.
pub(super) const fn codes_of(state: StateFilter) -> &'static [i64] {
    match state {
        StateFilter::Scheduled => &[SCHEDULED],
        StateFilter::Blocked => &[BLOCKED],
        StateFilter::Queued => &[QUEUED, LIMITED],
        StateFilter::Running => &[RUNNING],
        StateFilter::Ended(_) => &[],
    }
}

/// Reads a row's columns from left to right.
pub(super) type Cells<'r> = kept::Cells<'r, SqliteRow>;

impl Cells<'_> {
    /// The [`OF_BOTH`] columns; the state is to be filled in.
    fn job(&mut self) -> Result<Job, StoreError> {
        let id = self.id()?;
        let queue: Queue = self.code()?;
        let mut route = Route { executor: queue.executor(), queue, rule: self.code()?, evidence: None };
        let isolated = route.rule == Rule::Isolated;
        let (bound, executor) = (self.code()?, self.code()?);
        let workload = Spec { kind: self.take()?, json: self.raw()? };
        let mut submission =
            Box::new(Submission { isolated, executor, priority: self.number()?, ..Submission::new(bound, workload) });
        self.json::<Options<'_>>()?.unwrap_or_default().give_back(&mut submission, &mut route);
        let accepted_at = self.time()?;
        Ok(Job { id, submission, route, accepted_at, attempt: self.number()?, losses: self.number()?, state: State::Queued })
    }
}

/// From [`OF_BOTH`] and [`OF_JOB`].
pub(super) fn unfinished(row: &SqliteRow) -> Result<Job, StoreError> {
    let mut cells = Cells::new(row);
    let mut job = cells.job()?;
    let state: i64 = cells.take()?;
    let due_at = cells.time()?;
    let claimed_at: Option<i64> = cells.take()?;
    job.state = match state {
        SCHEDULED => State::Scheduled { due_at },
        QUEUED | LIMITED => State::Queued,
        BLOCKED => State::Blocked,
        RUNNING => State::Running {
            claimed_at: Timestamp::from_micros(claimed_at.unwrap_or_default()),
            stopping: cells.take::<i64>()? != 0,
        },
        other => return Err(StoreError::Corrupt(format!("{other} is no state"))),
    };
    Ok(job)
}

/// Where a job is that has this value of `state`.
pub(super) fn place_of(state: i64) -> Result<StateFilter, StoreError> {
    match state {
        SCHEDULED => Ok(StateFilter::Scheduled),
        QUEUED | LIMITED => Ok(StateFilter::Queued),
        RUNNING => Ok(StateFilter::Running),
        BLOCKED => Ok(StateFilter::Blocked),
        other => Err(StoreError::Corrupt(format!("{other} is no state"))),
    }
}

/// From [`OF_BOTH`] and [`OF_RESULT`].
pub(super) fn result(row: &SqliteRow) -> Result<Job, StoreError> {
    let mut cells = Cells::new(row);
    let mut job = cells.job()?;
    job.state = State::Finished(Box::new(finished(&mut cells, job.id)?));
    Ok(job)
}

/// From [`OF_RESULT`].
pub(super) fn finished(cells: &mut Cells<'_>, id: JobId) -> Result<Finished, StoreError> {
    let ending = cells.code()?;
    let started_at = cells.take::<Option<i64>>()?.map(Timestamp::from_micros);
    let finished_at = cells.time()?;
    let output = cells.take::<Option<String>>()?;
    let error: Option<Failure> = cells.json()?;
    let outcome = match (output, error) {
        (_, Some(failure)) => Outcome::Error(failure),
        (Some(output), None) => {
            Outcome::Output(RawValue::from_string(output).map_err(|error| StoreError::Corrupt(error.to_string()))?)
        }
        (None, None) => return Err(StoreError::Corrupt(format!("the result of {id} has neither output nor error"))),
    };
    Ok(Finished { ending, outcome, timing: measured(cells)?, started_at, finished_at })
}

/// From the figures of a timing.
pub(super) fn measured(cells: &mut Cells<'_>) -> Result<Option<Timing>, StoreError> {
    Ok(cells.json()?.map(timing))
}

/// From the options: the labels, and whose the job is.
pub(super) fn labels(cells: &mut Cells<'_>) -> Result<(Option<Tags>, Option<Owner>), StoreError> {
    let options = cells.json::<Options<'_>>()?.unwrap_or_default();
    Ok((options.tags.map(Cow::into_owned), options.owner))
}

/// A job that was just claimed, with what the writer keeps of it.
pub(super) struct Fresh {
    pub(super) claimed: Claimed,
    pub(super) claimed_at: Timestamp,
    /// `None` if there are none.
    pub(super) tags: Option<Arc<Tags>>,
    pub(super) owner: Option<Owner>,
    /// Whether other jobs may wait for its end.
    pub(super) children: bool,
    /// What it counts for as long as it runs.
    pub(super) counted: Vec<Counted>,
}

/// From [`OF_CLAIM`].
pub(super) fn claimed(row: &SqliteRow) -> Result<Fresh, StoreError> {
    let mut cells = Cells::new(row);
    let lease = Lease { id: cells.id()?, token: cells.take()? };
    let bound = cells.code()?;
    let workload = Spec { kind: cells.take()?, json: cells.raw()? };
    let mut options = cells.json::<Options<'_>>()?.unwrap_or_default();
    let claimed = Claimed {
        lease,
        bound,
        workload,
        deadline: options.deadline(),
        retry: options.retry(),
        requires: options.requires(),
        attempt: cells.number()?,
        losses: cells.number()?,
        earlier: cells.number()?,
        queued_for: Duration::from_micros(cells.take::<i64>()?.try_into().unwrap_or(0)),
        profile: None,
    };
    let (claimed_at, tags) = (cells.time()?, options.tags.map(|tags| Arc::new(tags.into_owned())));
    let key = options.concurrency.map(|concurrency| Counted::Key(concurrency.key.as_str().into()));
    let quota = options.owner.filter(|_| options.confined).map(Counted::Owner);
    let counted = key.into_iter().chain(quota).collect();
    Ok(Fresh { claimed, claimed_at, tags, owner: options.owner, children: cells.take()?, counted })
}
