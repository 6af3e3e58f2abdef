//! From rows to jobs.

use std::time::Duration;

use serde_json::value::RawValue;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::codes::Code;
use crate::clock::Timestamp;
use crate::job::{Failure, Finished, Job, JobId, Outcome, Queue, Retry, Route, Rule, Spec, State, Submission, Tags, Timing};
use crate::store::{Claimed, Lease, StoreError};

/// The columns that unfinished jobs and results share, in the order in which [`Cells`] reads them.
pub(super) const SHARED: &str =
    "id, queue, rule, bound, choice, type, workload, priority, deadline_ms, retry, tags, accepted_at, attempt, losses";
/// The further columns of an unfinished job.
pub(super) const OF_JOB: &str = "state, due_at, claimed_at, stopping";
/// The further columns of a result.
pub(super) const OF_RESULT: &str = "ending, started_at, finished_at, output, error, queue_us, dispatch_us, wall_us, \
     cpu_user_us, cpu_system_us, polls, longest_poll_us, max_rss_bytes, ctx_voluntary, ctx_involuntary";
/// What a claim returns.
pub(super) const OF_CLAIM: &str =
    "id, token, bound, type, workload, deadline_ms, retry, attempt, losses, claimed_at - due_at, priority";

/// Values of `state` in the table of unfinished jobs. The partial indexes name them too.
pub(super) const SCHEDULED: i64 = 0;
pub(super) const QUEUED: i64 = 1;
pub(super) const RUNNING: i64 = 2;

/// Reads a row's columns from left to right.
struct Cells<'r> {
    row: &'r SqliteRow,
    next: usize,
}

impl<'r> Cells<'r> {
    const fn new(row: &'r SqliteRow) -> Self {
        Self { row, next: 0 }
    }

    fn take<T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>>(&mut self) -> Result<T, StoreError> {
        let at = self.next;
        self.next += 1;
        Ok(self.row.try_get(at)?)
    }

    fn id(&mut self) -> Result<JobId, StoreError> {
        let bytes: &[u8] = self.take()?;
        bytes.try_into().map(JobId::from_bytes).map_err(|_| StoreError::Corrupt("an id is not 16 bytes long".into()))
    }

    fn code<T: Code>(&mut self) -> Result<T, StoreError> {
        T::from_code(self.take()?)
    }

    fn number<T: TryFrom<i64>>(&mut self) -> Result<T, StoreError> {
        convert(self.take::<i64>()?)
    }

    fn optional<T: TryFrom<i64>>(&mut self) -> Result<Option<T>, StoreError> {
        self.take::<Option<i64>>()?.map(convert).transpose()
    }

    fn time(&mut self) -> Result<Timestamp, StoreError> {
        Ok(Timestamp::from_micros(self.take()?))
    }

    fn raw(&mut self) -> Result<Box<RawValue>, StoreError> {
        RawValue::from_string(self.take()?).map_err(|error| StoreError::Corrupt(error.to_string()))
    }

    fn json<T: serde::de::DeserializeOwned>(&mut self) -> Result<Option<T>, StoreError> {
        let text: Option<&str> = self.take()?;
        text.map(serde_json::from_str).transpose().map_err(|error| StoreError::Corrupt(error.to_string()))
    }

    fn millis(&mut self) -> Result<Option<Duration>, StoreError> {
        Ok(self.optional()?.map(Duration::from_millis))
    }

    /// The [`SHARED`] columns; the state is to be filled in.
    fn job(&mut self) -> Result<Job, StoreError> {
        let id = self.id()?;
        let queue: Queue = self.code()?;
        let route = Route { executor: queue.executor(), queue, rule: self.code()? };
        let isolated = route.rule == Rule::Isolated;
        let submission = Submission {
            isolated,
            bound: self.code()?,
            executor: self.code()?,
            workload: Spec { kind: self.take()?, json: self.raw()? },
            priority: self.number()?,
            deadline: self.millis()?,
            retry: self.json()?.unwrap_or_default(),
            tags: self.json::<Tags>()?.unwrap_or_default(),
        };
        let accepted_at = self.time()?;
        Ok(Job { id, submission, route, accepted_at, attempt: self.number()?, losses: self.number()?, state: State::Queued })
    }
}

fn convert<T: TryFrom<i64>>(value: i64) -> Result<T, StoreError> {
    T::try_from(value).map_err(|_| StoreError::Corrupt(format!("{value} is out of range")))
}

/// From [`SHARED`] and [`OF_JOB`].
pub(super) fn unfinished(row: &SqliteRow) -> Result<Job, StoreError> {
    let mut cells = Cells::new(row);
    let mut job = cells.job()?;
    let state: i64 = cells.take()?;
    let due_at = cells.time()?;
    let claimed_at: Option<i64> = cells.take()?;
    job.state = match state {
        SCHEDULED => State::Scheduled { due_at },
        QUEUED => State::Queued,
        RUNNING => State::Running {
            claimed_at: Timestamp::from_micros(claimed_at.unwrap_or_default()),
            stopping: cells.take::<i64>()? != 0,
        },
        other => return Err(StoreError::Corrupt(format!("{other} is no state"))),
    };
    Ok(job)
}

/// From [`SHARED`] and [`OF_RESULT`].
pub(super) fn result(row: &SqliteRow) -> Result<Job, StoreError> {
    let mut cells = Cells::new(row);
    let mut job = cells.job()?;
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
        (None, None) => return Err(StoreError::Corrupt(format!("the result of {} has neither output nor error", job.id))),
    };
    job.state = State::Finished(Box::new(Finished { ending, outcome, timing: timing(&mut cells)?, started_at, finished_at }));
    Ok(job)
}

fn timing(cells: &mut Cells<'_>) -> Result<Option<Timing>, StoreError> {
    let Some(queue_us) = cells.optional()? else { return Ok(None) };
    Ok(Some(Timing {
        queue_us,
        dispatch_us: cells.number()?,
        wall_us: cells.number()?,
        cpu_user_us: cells.optional()?,
        cpu_system_us: cells.optional()?,
        polls: cells.optional()?,
        longest_poll_us: cells.optional()?,
        max_rss_bytes: cells.optional()?,
        ctx_voluntary: cells.optional()?,
        ctx_involuntary: cells.optional()?,
    }))
}

/// From [`OF_CLAIM`]: the claim and its priority.
pub(super) fn claimed(row: &SqliteRow) -> Result<(i64, Claimed), StoreError> {
    let mut cells = Cells::new(row);
    let claimed = Claimed {
        lease: Lease { id: cells.id()?, token: cells.take()? },
        bound: cells.code()?,
        workload: Spec { kind: cells.take()?, json: cells.raw()? },
        deadline: cells.millis()?,
        retry: cells.json::<Retry>()?.unwrap_or_default(),
        attempt: cells.number()?,
        losses: cells.number()?,
        queued_for: Duration::from_micros(cells.take::<i64>()?.try_into().unwrap_or(0)),
    };
    Ok((cells.take()?, claimed))
}
