//! From rows to jobs.

use std::sync::Arc;

use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::job::{Job, JobId, Owner, Queue, Route, Rule, Spec, State, Submission, Webhook};
use crate::store::counted::Counted;
use crate::store::kept::state::stands;
use crate::store::kept::{self, Options, job, json};
use crate::store::{Claimed, StateFilter, StoreError, Subject};

/// A job with all that is known of it, in the order in which [`job`] reads it.
macro_rules! of_job {
    () => {
        of_job!("j.workload", "r.output, r.error")
    };
    ($workload:literal, $outcome:literal) => {
        concat!(
            "j.id, j.queue, j.rule, j.bound, j.choice, j.type, ",
            $workload,
            ", j.priority, j.options, j.accepted_at, \
             coalesce(w.attempt, r.attempt), coalesce(w.losses, r.losses), w.state, w.due_at, w.claimed_at, w.stopping, \
             r.ending, r.started_at, r.finished_at, ",
            $outcome,
            ", r.timing"
        )
    };
}
/// The same without its workload and its outcome, for very many at once.
macro_rules! outline_of_job {
    () => {
        of_job!("'null'", "'null', NULL")
    };
}
/// Where that is: in one snapshot, a job is either among what is left to do or among the results.
macro_rules! from_jobs {
    () => {
        " FROM jobs j LEFT JOIN work w ON w.id = j.id LEFT JOIN results r ON r.id = j.id "
    };
}
/// What a claim returns, of `work w` and `jobs j`.
macro_rules! of_claim {
    () => {
        "w.id, w.token, j.bound, j.type, j.workload, j.options, w.attempt, w.losses, w.earlier, w.claimed_at - w.due_at, w.claimed_at"
    };
}
/// What one array has where another, in the order of [`by_id`], has an id.
///
/// Joined with `unnest`, a table that is taken for nearly empty would be read as a whole, and compared with all that is asked for. Ids that
/// are in an array are looked up.
macro_rules! of_id {
    ($values:literal, $id:literal, $ids:literal) => {
        concat!("(", $values, ")[width_bucket(", $id, ", ", $ids, "::UUID[])]")
    };
}
pub(super) use {from_jobs, of_claim, of_id, of_job, outline_of_job};

/// An id as the database has it.
pub(super) const fn uuid(id: JobId) -> Uuid {
    Uuid::from_bytes(*id.as_bytes())
}

/// Ids as the argument of a statement for many jobs.
pub(super) fn uuids<'i>(ids: impl IntoIterator<Item = &'i JobId>) -> Vec<Uuid> {
    ids.into_iter().map(|id| uuid(*id)).collect()
}

/// Ids in their order, and what belongs to each, for [`of_id`]; of several with one id, it finds the largest.
pub(super) fn by_id(rows: impl Iterator<Item = (JobId, i64)>) -> (Vec<Uuid>, Vec<i64>) {
    let mut rows: Vec<(Uuid, i64)> = rows.map(|(id, value)| (uuid(id), value)).collect();
    rows.sort_unstable();
    rows.into_iter().unzip()
}

/// The least and the greatest of these ids.
///
/// Where `jobs` and `results` are in partitions, a plan for what is looked up one by one (`id = t.id`) has a part for each of them, unless a
/// statement also says between which ids all of that is. `id = ANY($1)` says so by itself.
pub(super) fn ends<'i>(ids: impl Iterator<Item = &'i JobId> + Clone) -> (Uuid, Uuid) {
    let end = |id: Option<&JobId>| id.map_or(Uuid::nil(), |id| uuid(*id));
    (end(ids.clone().min()), end(ids.max()))
}

/// What each of many jobs has, if it has it, as the argument of a statement: nothing at all if none has, which costs the database less.
pub(super) fn any<T>(values: impl Iterator<Item = Option<T>>) -> Option<Vec<Option<T>>> {
    let values: Vec<_> = values.collect();
    values.iter().any(Option::is_some).then_some(values)
}

/// Text that may have anything in it, as errors do and what a filter looks for: PostgreSQL has no NUL in any. What the API takes of jobs has
/// none.
pub(super) fn text(text: &str) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text.to_owned() }
}

/// Reads a row's columns from left to right.
pub(super) type Cells<'r> = kept::Cells<'r, PgRow>;

impl Cells<'_> {
    /// Of a queue that perhaps only a newer version knows.
    pub(super) fn queue_number(&mut self) -> Result<u8, StoreError> {
        let value: i16 = self.take()?;
        u8::try_from(value).map_err(|_| StoreError::Corrupt(format!("{value} is no queue")))
    }
}

/// From the columns of [`of_job`].
pub(super) fn job(row: &PgRow) -> Result<Job, StoreError> {
    let mut cells = Cells::new(row);
    let mut job = job::job(&mut cells)?;
    let state: Option<i16> = cells.take()?;
    let (due_at, claimed_at): (Option<i64>, Option<i64>) = (cells.take()?, cells.take()?);
    let stopping = cells.take::<Option<bool>>()?.unwrap_or_default();
    let time = |at: Option<i64>| Timestamp::from_micros(at.unwrap_or_default());
    job.state = match state.map(stands).transpose()? {
        Some(StateFilter::Scheduled) => State::Scheduled { due_at: time(due_at) },
        Some(StateFilter::Blocked) => State::Blocked,
        Some(StateFilter::Running) => State::Running { claimed_at: time(claimed_at), stopping },
        Some(StateFilter::Queued | StateFilter::Ended(_)) => State::Queued,
        None => match job::finished(&mut cells, job.id)? {
            Some(finished) => State::Finished(Box::new(finished)),
            None => return Err(StoreError::Corrupt(format!("{} is neither left to do nor done", job.id))),
        },
    };
    Ok(job)
}

/// A job as far as others than its executor have to know it.
pub(super) struct Known {
    pub(super) queue: Queue,
    pub(super) subject: Subject,
    pub(super) webhook: Option<Webhook>,
    /// What it counts for as long as it runs.
    pub(super) counted: Vec<Counted>,
}

impl Known {
    pub(super) fn of(submission: &Submission, queue: Queue) -> Self {
        let key = submission.concurrency.as_ref().map(|limit| Counted::Key(limit.key.as_str().into()));
        let quota = submission.owner.filter(|_| submission.confined).map(Counted::Owner);
        Self {
            queue,
            subject: subject(submission, queue),
            webhook: submission.webhook.as_deref().cloned(),
            counted: key.into_iter().chain(quota).collect(),
        }
    }
}

/// The lane of a job with a limit.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    pub(super) name: String,
    pub(super) ckey: Option<String>,
    pub(super) rkey: Option<String>,
    pub(super) confined: Option<i64>,
    /// What it requires of a node, as a JSON object; empty for nothing.
    pub(super) place: String,
}

impl Lane {
    pub(super) fn of(submission: &Submission) -> Option<Self> {
        let name = submission.lane()?;
        Some(Self {
            name,
            ckey: submission.concurrency.as_ref().map(|limit| limit.key.clone()),
            rkey: submission.rate.as_ref().map(|limit| limit.key.clone()),
            confined: submission.owner.filter(|_| submission.confined).map(Owner::code),
            place: submission.requires.as_deref().map(json).unwrap_or_default(),
        })
    }
}

/// What the jobs of a lane of this name require of a node.
pub(super) fn place_of(lane: &str) -> String {
    let parts: Vec<serde_json::Value> = serde_json::from_str(lane).unwrap_or_default();
    parts.get(3).map(ToString::to_string).unwrap_or_default()
}

/// From the queue, the tag, the workload's name and the options: the job without its workload, and its queue.
pub(super) fn submission(cells: &mut Cells<'_>) -> Result<(Submission, Queue), StoreError> {
    let queue: Queue = cells.code()?;
    let bound = cells.code()?;
    let workload = Spec { kind: cells.take()?, ..Spec::default() };
    let options = cells.json::<Options<'_>>()?.unwrap_or_default();
    Ok((given_back(Submission::new(bound, workload), queue, options), queue))
}

/// From the same columns.
pub(super) fn known(cells: &mut Cells<'_>) -> Result<Known, StoreError> {
    let (submission, queue) = submission(cells)?;
    Ok(Known::of(&submission, queue))
}

/// A submission with what is kept of it in its options.
fn given_back(mut submission: Submission, queue: Queue, options: Options<'_>) -> Submission {
    let mut route = Route { executor: queue.executor(), queue, rule: Rule::Insisted, evidence: None };
    options.give_back(&mut submission, &mut route);
    submission
}

/// What a job is told of as.
pub(super) fn subject(submission: &Submission, queue: Queue) -> Subject {
    Subject {
        bound: submission.bound,
        executor: queue.executor(),
        workload: submission.workload.kind.as_str().into(),
        tags: (!submission.tags.is_empty()).then(|| Arc::new(submission.tags.clone())),
        owner: submission.owner,
    }
}

/// Jobs that were just claimed, and those of them that this program can't read.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) fresh: Vec<Fresh>,
    pub(super) unreadable: Vec<JobId>,
}

/// A job that was just claimed.
pub(super) struct Fresh {
    pub(super) claimed: Claimed,
    pub(super) claimed_at: Timestamp,
    pub(super) run: Arc<Run>,
}

/// What a node keeps of a job that it runs, so that the end of the attempt need not read it again.
pub(super) struct Run {
    pub(super) token: i64,
    pub(super) known: Known,
}

/// From rows of [`of_claim`] of a queue, in the order of the claims.
pub(super) fn taken(rows: &[PgRow], queue: Queue) -> Result<Taken, StoreError> {
    let mut taken = Taken::default();
    for row in rows {
        match claimed(row, queue) {
            Ok(fresh) => taken.fresh.push(fresh),
            Err(StoreError::Corrupt(why)) => {
                let id = Cells::new(row).id()?;
                tracing::warn!(%id, why, "this version can't read the job; it is left to others for a while");
                taken.unreadable.push(id);
            }
            Err(error) => return Err(error),
        }
    }
    taken.fresh.sort_unstable_by_key(|fresh| fresh.claimed_at);
    Ok(taken)
}

/// From the columns of [`of_claim`].
fn claimed(row: &PgRow, queue: Queue) -> Result<Fresh, StoreError> {
    let mut cells = Cells::new(row);
    let (claimed, options) = job::claimed(&mut cells)?;
    let spec = Spec { kind: claimed.workload.kind.clone(), ..Spec::default() };
    let submission = given_back(Submission::new(claimed.bound, spec), queue, options);
    let run = Arc::new(Run { token: claimed.lease.token, known: Known::of(&submission, queue) });
    Ok(Fresh { claimed, claimed_at: cells.time()?, run })
}
