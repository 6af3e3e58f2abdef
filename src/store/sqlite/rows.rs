//! From rows to jobs.

use std::borrow::Cow;
use std::sync::Arc;

use sqlx::sqlite::SqliteRow;

use super::lanes::Counted;
use crate::clock::Timestamp;
use crate::job::{Job, Owner, State, Tags};
use crate::store::kept::state::stands;
use crate::store::kept::{self, Options, job};
use crate::store::{Claimed, StateFilter, StoreError};

/// The longest workload, output or error that stands in the row of its job, in bytes. A longer one stands in `payloads`: a row of these tables that is
/// longer than a quarter of a page takes pages of its own, which are read whenever a search comes by it, and would be written once more when
/// the job ends.
const LONGEST_INSIDE: usize = 512;

/// The place in `payloads` of a text that is too long for its row, behind the latest; `None` if it is not.
pub(super) fn payload_of(text: &str, latest: &mut i64) -> Option<i64> {
    (text.len() > LONGEST_INSIDE).then(|| {
        *latest += 1;
        *latest
    })
}

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

/// The output or the error of a result, wherever it stands: NULL if it has none. `$row` is the name of the table with a dot, or nothing.
macro_rules! outcome {
    ($row:literal, $column:literal) => {
        concat!(
            "iif(",
            $row,
            "outcome_payload IS NULL OR ",
            $row,
            $column,
            " IS NULL, ",
            $row,
            $column,
            ", (SELECT text FROM payloads WHERE n = ",
            $row,
            "outcome_payload))"
        )
    };
}
pub(super) use outcome;
/// How long it is, if it stands apart; else, how long the output is, or 0.
pub(super) const OUTCOME_BYTES: &str = "coalesce(iif(outcome_payload IS NULL, octet_length(output), \
     (SELECT octet_length(text) FROM payloads WHERE n = outcome_payload)), 0)";

/// The columns that unfinished jobs and results share, as they move from one table to the other.
pub(super) const SHARED: &str =
    "id, queue, rule, bound, choice, type, workload, payload, priority, options, accepted_at, attempt, losses";
macro_rules! of_both {
    ($($workload:tt)*) => {
        concat!("id, queue, rule, bound, choice, type, ", $($workload)*, ", priority, options, accepted_at, attempt, losses")
    };
}
/// The same as they are read, in the order in which [`Cells`] reads them.
pub(super) const OF_BOTH: &str = of_both!(workload!());
/// The same without the workload, for very many at once.
pub(super) const OUTLINE_OF_BOTH: &str = of_both!("'null'");
/// The further columns of an unfinished job.
pub(super) const OF_JOB: &str = "state, due_at, claimed_at, stopping";
/// The further columns of a result, as they are written.
pub(super) const RESULT: &str = "ending, started_at, finished_at, outcome_payload, output, error, timing, findings";
/// The same as they are read.
pub(super) const OF_RESULT: &str =
    concat!("ending, started_at, finished_at, ", outcome!("", "output"), ", ", outcome!("", "error"), ", timing, findings");
/// The same without the outcome.
pub(super) const OUTLINE_OF_RESULT: &str = "ending, started_at, finished_at, 'null', NULL, timing, findings";
/// What a claim returns.
pub(super) const OF_CLAIM: &str = concat!(
    "id, token, bound, type, ",
    workload!(),
    ", options, attempt, losses, coalesce(earlier, 0), claimed_at - due_at, claimed_at, children"
);

/// Reads a row's columns from left to right.
pub(super) type Cells<'r> = kept::Cells<'r, SqliteRow>;

/// From [`OF_BOTH`] and [`OF_JOB`].
pub(super) fn unfinished(row: &SqliteRow) -> Result<Job, StoreError> {
    let mut cells = Cells::new(row);
    let mut job = job::job(&mut cells)?;
    let state: i16 = cells.take()?;
    let due_at = cells.time()?;
    let claimed_at: Option<i64> = cells.take()?;
    job.state = match stands(state)? {
        StateFilter::Scheduled => State::Scheduled { due_at },
        StateFilter::Blocked => State::Blocked,
        StateFilter::Running => {
            State::Running { claimed_at: Timestamp::from_micros(claimed_at.unwrap_or_default()), stopping: cells.take()? }
        }
        StateFilter::Queued | StateFilter::Ended(_) => State::Queued,
    };
    Ok(job)
}

/// From [`OF_BOTH`] and [`OF_RESULT`].
pub(super) fn result(row: &SqliteRow) -> Result<Job, StoreError> {
    let mut cells = Cells::new(row);
    let mut job = job::job(&mut cells)?;
    let finished = job::finished(&mut cells, job.id)?.ok_or_else(|| StoreError::Corrupt(format!("{} has no ending", job.id)))?;
    job.state = State::Finished(Box::new(finished));
    Ok(job)
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
    let (claimed, options) = job::claimed(&mut cells)?;
    let (claimed_at, tags) = (cells.time()?, options.tags.map(|tags| Arc::new(tags.into_owned())));
    let key = options.concurrency.map(|concurrency| Counted::Key(concurrency.key.as_str().into()));
    let quota = options.owner.filter(|_| options.confined).map(Counted::Owner);
    let counted = key.into_iter().chain(quota).collect();
    Ok(Fresh { claimed, claimed_at, tags, owner: options.owner, children: cells.take()?, counted })
}
