//! Schedules and their times.

use futures_util::Stream;
use serde_json::value::RawValue;

use super::{Cells, Row, Unread, number};
use crate::job::{JobId, Owner};
use crate::schedule::{Fire, FireOutcome, Schedule, Seen, Skip, Timetable};
use crate::store::{StoreError, page};

/// How many times of a schedule are kept, besides those that wait and those whose jobs have not ended.
pub(in crate::store) const KEPT: i64 = 100;

/// The columns in the order in which [`read`] reads them.
macro_rules! columns {
    () => {
        "name, cron, timezone, catch_up, overlap, job, paused, created_at, changed_at, next_at"
    };
}

/// The columns in the order in which [`read_fire`] reads them.
macro_rules! of_fire {
    () => {
        "due_at, at, by_hand, outcome, job, skip, error"
    };
}

pub(in crate::store) const ADD: &str =
    concat!("INSERT INTO schedules (", columns!(), ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING");
pub(in crate::store) const REPLACE: &str = "UPDATE schedules SET cron = $1, timezone = $2, catch_up = $3, overlap = $4, job = $5, \
     changed_at = $6, next_at = CASE WHEN paused OR (cron = $1 AND timezone = $2) THEN next_at ELSE $7 END WHERE name = $8 AND paused = $9";
pub(in crate::store) const PAUSE: &str = "UPDATE schedules SET paused = $1, next_at = $2 WHERE name = $3 AND changed_at = $4";
pub(in crate::store) const ADVANCE: &str = "UPDATE schedules SET next_at = $1 WHERE name = $2 AND NOT paused";
pub(in crate::store) const REMOVE: &str = "DELETE FROM schedules WHERE name = $1";
pub(in crate::store) const REMOVE_FIRES: &str = "DELETE FROM fires WHERE schedule = $1";
pub(in crate::store) const REMOVE_WAITING: &str =
    "DELETE FROM fires WHERE id IN (SELECT id FROM fires WHERE schedule = $1 AND outcome = 1 ORDER BY id LIMIT $2)";
pub(in crate::store) const ADD_FIRE: &str =
    concat!("INSERT INTO fires (schedule, ", of_fire!(), ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8)");

pub(in crate::store) const ONE: &str = concat!("SELECT ", columns!(), " FROM schedules WHERE name = $1");
pub(in crate::store) const BY_NAME: &str =
    concat!("SELECT ", columns!(), " FROM schedules WHERE name > $1 ORDER BY name LIMIT $2");
pub(in crate::store) const DUE: &str =
    concat!("SELECT ", columns!(), " FROM schedules WHERE next_at <= $1 ORDER BY next_at LIMIT $2");
pub(in crate::store) const NEXT_DUE: &str = "SELECT min(next_at) FROM schedules WHERE next_at > $1";
pub(in crate::store) const COUNT: &str = "SELECT count(*) FILTER (WHERE NOT paused), count(*) FILTER (WHERE paused) FROM (SELECT paused FROM schedules LIMIT $1) AS several";
pub(in crate::store) const OF_OWNER: &str = "SELECT count(*) FROM schedules WHERE name > $1 AND name < $2";
pub(in crate::store) const FIRST_WAITING: &str =
    concat!("SELECT ", of_fire!(), " FROM fires WHERE schedule = $1 AND outcome = 1 ORDER BY id LIMIT 1");
pub(in crate::store) const LATEST_OF_PAGE: &str = concat!(
    "SELECT schedule, ",
    of_fire!(),
    " FROM fires WHERE id IN (SELECT (SELECT max(f.id) FROM fires f WHERE f.schedule = s.name) \
     FROM schedules s WHERE s.name > $1 AND s.name <= $2)"
);
pub(in crate::store) const LATEST: &str =
    concat!("SELECT ", of_fire!(), " FROM fires WHERE schedule = $1 ORDER BY id DESC LIMIT $2");

// What is in the column `outcome`; the partial index on those that wait names it too.
const SUBMITTED: i16 = 0;
const WAITING: i16 = 1;
const SKIPPED: i16 = 2;
const FAILED: i16 = 3;

/// Between which names those of an owner are: behind the colon that ends each, and before the character after that.
pub(in crate::store) fn names_of(owner: Owner) -> (String, String) {
    (format!("{owner}:"), format!("{owner};"))
}

/// What became of a time, as its columns have it: `outcome`, `job`, `skip` and `error`.
pub(in crate::store) const fn columns_of(outcome: &FireOutcome) -> (i16, Option<JobId>, Option<Skip>, Option<&String>) {
    match outcome {
        FireOutcome::Submitted(job) => (SUBMITTED, Some(*job), None, None),
        FireOutcome::Waiting => (WAITING, None, None, None),
        FireOutcome::Skipped(skip) => (SKIPPED, None, Some(*skip), None),
        FireOutcome::Failed(error) => (FAILED, None, None, Some(error)),
    }
}

pub(in crate::store) fn read(row: &impl Row) -> Result<Schedule, StoreError> {
    let mut cells = Cells::new(row);
    let name: String = cells.take()?;
    let (expression, zone): (&str, &str) = (cells.take()?, cells.take()?);
    let corrupt = |error: &dyn std::fmt::Display| StoreError::Corrupt(format!("the schedule {name}: {error}"));
    let timetable = Timetable::parse(expression, zone).map_err(|error| corrupt(&error))?;
    let catch_up = cells.code().map_err(|error| corrupt(&error))?;
    let overlap = cells.code().map_err(|error| corrupt(&error))?;
    let job = RawValue::from_string(cells.take()?).map_err(|error| corrupt(&error))?;
    Ok(Schedule {
        timetable,
        catch_up,
        overlap,
        job,
        paused: cells.take()?,
        created_at: cells.time()?,
        changed_at: cells.time()?,
        next_at: cells.time_or_none()?,
        name,
    })
}

impl Unread {
    /// A page of up to `limit` schedules out of `rows`, which are asked for so many. One that is left out makes room for another: a page that
    /// is not full is the last one.
    pub(in crate::store) async fn pass<R: Row, S: Stream<Item = Result<R, sqlx::Error>>>(
        &self,
        limit: usize,
        rows: impl Fn(i64) -> S,
    ) -> Result<Vec<Schedule>, StoreError> {
        let mut asked = limit;
        loop {
            let page = page::read(rows(number(asked)), |row| self.leave_out("a schedule", read(row))).await?;
            let (seen, page) = (page.len(), page.into_iter().flatten().collect::<Vec<_>>());
            if page.len() == limit || seen < asked {
                return Ok(page);
            }
            asked = limit + (seen - page.len());
        }
    }
}

pub(in crate::store) fn read_fire(row: &impl Row) -> Result<Fire, StoreError> {
    fire(&mut Cells::new(row))
}

/// A time, behind the name of its schedule; `None` if this program can't read it, as one of a newer program.
pub(in crate::store) fn read_named_fire(row: &impl Row) -> Option<Result<(String, Fire), StoreError>> {
    let mut cells = Cells::new(row);
    match cells.take().and_then(|name| Ok((name, fire(&mut cells)?))) {
        Err(StoreError::Corrupt(_)) => None,
        read => Some(read),
    }
}

fn fire(cells: &mut Cells<'_, impl Row>) -> Result<Fire, StoreError> {
    let (due_at, at, by_hand, outcome) = (cells.time()?, cells.time()?, cells.take()?, cells.take::<i16>()?);
    let outcome = match outcome {
        SUBMITTED => FireOutcome::Submitted(cells.id()?),
        WAITING => FireOutcome::Waiting,
        SKIPPED => {
            cells.skip(1);
            FireOutcome::Skipped(cells.code()?)
        }
        FAILED => {
            cells.skip(2);
            FireOutcome::Failed(cells.take()?)
        }
        other => return Err(StoreError::Corrupt(format!("{other} is no outcome of a schedule"))),
    };
    Ok(Fire { due_at, at, by_hand, outcome })
}

/// Whether a job of the schedule has not ended, how many times wait, and the latest time that was due.
pub(in crate::store) fn read_seen(row: &impl Row) -> Result<Seen, StoreError> {
    let mut cells = Cells::new(row);
    Ok(Seen { busy: cells.take()?, waiting: cells.number()?, latest: cells.time_or_none()? })
}
