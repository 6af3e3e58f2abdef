//! From rows to jobs.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::codes::Code;
use super::lanes::Counted;
use crate::clock::Timestamp;
use crate::job::{
    Concurrency, Evidence, Failure, Finished, Job, JobId, Outcome, Owner, Queue, Rate, Retry, Route, Routing, Rule, Spec, State,
    Submission, Tags, Timing, Unique, Webhook,
};
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

/// What is kept of a submission only where it is not as it is by default.
#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Options<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry: Option<Cow<'a, Retry>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<Cow<'a, Tags>>,
    /// Microseconds since the Unix epoch, as `expires_at`.
    #[serde(skip_serializing_if = "Option::is_none")]
    run_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unique: Option<Unique>,
    /// The trigger that makes deliveries reads it.
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook: Option<Cow<'a, Webhook>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    routing: Option<Routing>,
    /// What the route rests on, besides its rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<Evidence>,
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency: Option<Cow<'a, Concurrency>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<Cow<'a, Rate>>,
    /// The name of its lane is made of it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    confined: bool,
    /// A column is generated from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<Owner>,
}

impl<'a> Options<'a> {
    /// Those of a submission with this route; `None` if there are none.
    pub(super) fn of(submission: &'a Submission, route: &Route) -> Option<Self> {
        let options = Self {
            deadline_ms: submission.deadline.map(|deadline| u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX)),
            retry: submission.retry.as_deref().map(Cow::Borrowed),
            tags: (!submission.tags.is_empty()).then_some(Cow::Borrowed(&submission.tags)),
            run_at: submission.run_at.map(Timestamp::as_micros),
            expires_at: submission.expires_at.map(Timestamp::as_micros),
            unique: submission.unique,
            webhook: submission.webhook.as_deref().map(Cow::Borrowed),
            routing: submission.routing,
            evidence: route.evidence,
            concurrency: submission.concurrency.as_deref().map(Cow::Borrowed),
            rate: submission.rate.as_deref().map(Cow::Borrowed),
            confined: submission.confined,
            owner: submission.owner,
        };
        (options != Self::default()).then_some(options)
    }

    fn deadline(&self) -> Option<Duration> {
        self.deadline_ms.map(Duration::from_millis)
    }

    fn retry(&mut self) -> Option<Arc<Retry>> {
        self.retry.take().map(|retry| Arc::new(retry.into_owned()))
    }
}

/// The figures of a timing, in the order in which they are stored.
pub(super) type Figures = [Option<u64>; 15];

pub(super) const fn figures(timing: &Timing) -> Figures {
    let Timing { queue_us, dispatch_us, wall_us, .. } = *timing;
    [
        Some(queue_us),
        Some(dispatch_us),
        Some(wall_us),
        timing.cpu_user_us,
        timing.cpu_system_us,
        timing.polls,
        timing.longest_poll_us,
        timing.max_rss_bytes,
        timing.ctx_voluntary,
        timing.ctx_involuntary,
        match timing.gil {
            Some(true) => Some(1),
            Some(false) => Some(0),
            None => None,
        },
        timing.core_wait_us,
        timing.loop_wait_us,
        timing.gil_wait_us,
        timing.held_jobs,
    ]
}

pub(super) fn timing(figures: Figures) -> Timing {
    let [queue_us, dispatch_us, wall_us, cpu_user_us, cpu_system_us, polls, longest_poll_us, max_rss_bytes, ..] = figures;
    let [.., voluntary, involuntary, gil, core_wait_us, loop_wait_us, gil_wait_us, held_jobs] = figures;
    Timing {
        queue_us: queue_us.unwrap_or_default(),
        dispatch_us: dispatch_us.unwrap_or_default(),
        wall_us: wall_us.unwrap_or_default(),
        cpu_user_us,
        cpu_system_us,
        polls,
        longest_poll_us,
        max_rss_bytes,
        ctx_voluntary: voluntary,
        ctx_involuntary: involuntary,
        gil: gil.map(|gil| gil != 0),
        core_wait_us,
        loop_wait_us,
        gil_wait_us,
        held_jobs,
    }
}

/// Reads a row's columns from left to right.
pub(super) struct Cells<'r> {
    row: &'r SqliteRow,
    next: usize,
}

impl<'r> Cells<'r> {
    pub(super) const fn new(row: &'r SqliteRow) -> Self {
        Self { row, next: 0 }
    }

    pub(super) fn take<T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>>(&mut self) -> Result<T, StoreError> {
        let at = self.next;
        self.next += 1;
        Ok(self.row.try_get(at)?)
    }

    pub(super) fn id(&mut self) -> Result<JobId, StoreError> {
        let bytes: &[u8] = self.take()?;
        bytes.try_into().map(JobId::from_bytes).map_err(|_| StoreError::Corrupt("an id is not 16 bytes long".into()))
    }

    pub(super) fn code<T: Code>(&mut self) -> Result<T, StoreError> {
        T::from_code(self.take()?)
    }

    pub(super) fn number<T: TryFrom<i64>>(&mut self) -> Result<T, StoreError> {
        convert(self.take::<i64>()?)
    }

    pub(super) fn time(&mut self) -> Result<Timestamp, StoreError> {
        Ok(Timestamp::from_micros(self.take()?))
    }

    pub(super) fn raw(&mut self) -> Result<Box<RawValue>, StoreError> {
        RawValue::from_string(self.take()?).map_err(|error| StoreError::Corrupt(error.to_string()))
    }

    pub(super) fn json<T: serde::de::DeserializeOwned>(&mut self) -> Result<Option<T>, StoreError> {
        let text: Option<&str> = self.take()?;
        text.map(serde_json::from_str).transpose().map_err(|error| StoreError::Corrupt(error.to_string()))
    }

    /// The [`OF_BOTH`] columns; the state is to be filled in.
    fn job(&mut self) -> Result<Job, StoreError> {
        let id = self.id()?;
        let queue: Queue = self.code()?;
        let mut route = Route { executor: queue.executor(), queue, rule: self.code()?, evidence: None };
        let isolated = route.rule == Rule::Isolated;
        let (bound, executor) = (self.code()?, self.code()?);
        let workload = Spec { kind: self.take()?, json: self.raw()? };
        let priority = self.number()?;
        let mut options = self.json::<Options<'_>>()?.unwrap_or_default();
        let submission = Box::new(Submission {
            isolated,
            bound,
            executor,
            workload,
            priority,
            deadline: options.deadline(),
            retry: options.retry(),
            tags: options.tags.map(Cow::into_owned).unwrap_or_default(),
            run_at: options.run_at.map(Timestamp::from_micros),
            expires_at: options.expires_at.map(Timestamp::from_micros),
            unique: options.unique,
            webhook: options.webhook.map(|webhook| Box::new(webhook.into_owned())),
            routing: options.routing,
            after: Vec::new(),
            concurrency: options.concurrency.map(|limit| Box::new(limit.into_owned())),
            rate: options.rate.map(|rate| Box::new(rate.into_owned())),
            confined: options.confined,
            owner: options.owner,
        });
        route.evidence = options.evidence;
        let accepted_at = self.time()?;
        Ok(Job { id, submission, route, accepted_at, attempt: self.number()?, losses: self.number()?, state: State::Queued })
    }
}

fn convert<T: TryFrom<i64>>(value: i64) -> Result<T, StoreError> {
    T::try_from(value).map_err(|_| StoreError::Corrupt(format!("{value} is out of range")))
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
