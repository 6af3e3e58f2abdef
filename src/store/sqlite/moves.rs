//! The SQL of jobs that move between the tables otherwise than by the end of an attempt: many of them by one statement.
//!
//! Ids come as a JSON array. Where each job gets a moment of its own, that is its place in the array behind `before`.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::codes::Code;
use super::rows::{self, Cells, SHARED};
use super::{edges, events};
use crate::clock::Timestamp;
use crate::job::{Ending, Failure, JobId, Queue, Timing};
use crate::store::kept::edge::Doom;
use crate::store::kept::job::measured;
use crate::store::kept::{json, number};
use crate::store::{StoreError, Subject};

/// The jobs of an array of ids, in `from`; `e.key` is the place of each in the array.
macro_rules! among {
    ($from:literal) => {
        concat!("jsonb_each(?) AS e CROSS JOIN ", $from, " ON ", $from, ".id = unhex(e.value)")
    };
}

/// The lane of a job by its options, as [`Submission::lane`](crate::job::Submission::lane) has it.
macro_rules! lane {
    () => {
        "iif(options ->> 'confined', \
             json_array(options ->> '$.concurrency.key', options ->> '$.rate.key', options ->> 'owner'), \
             iif(options ->> 'concurrency' IS NULL AND options ->> 'rate' IS NULL, NULL, \
                 json_array(options ->> '$.concurrency.key', options ->> '$.rate.key')))"
    };
}
const LANE: &str = lane!();

/// Where an unfinished job is.
pub(super) struct Place {
    pub(super) id: JobId,
    /// As the database has it.
    pub(super) state: i16,
}

/// A job that was ended by no attempt of its own.
pub(super) struct Ended {
    pub(super) id: JobId,
    /// Where it was.
    pub(super) state: i16,
    /// The lane that it was in, or would have been in if it waited.
    pub(super) lane: Option<String>,
    pub(super) queue: Queue,
    pub(super) subject: Subject,
    pub(super) ending: Ending,
    pub(super) failure: Failure,
    pub(super) attempt: u32,
    pub(super) started_at: Option<Timestamp>,
    pub(super) finished_at: Timestamp,
    /// Whether other jobs may wait for its end.
    pub(super) children: bool,
}

/// A result that is a job again.
pub(super) struct Back {
    pub(super) id: JobId,
    pub(super) queue: Queue,
    pub(super) subject: Subject,
    /// What its result was.
    pub(super) ending: Ending,
    pub(super) timing: Option<Timing>,
    pub(super) at: Timestamp,
    /// If it has a limit.
    pub(super) lane: Option<String>,
    /// Whether it waits for other jobs.
    pub(super) blocked: bool,
}

/// Ids as the argument of a statement for many jobs.
pub(super) fn array(ids: &[JobId]) -> String {
    json(&ids.iter().map(|id| hex_id(*id)).collect::<Vec<_>>())
}

/// Where those of these jobs are that have not ended.
pub(super) async fn places(connection: &mut SqliteConnection, ids: &[JobId]) -> Result<Vec<Place>, StoreError> {
    let text = concat!("SELECT jobs.id, state FROM ", among!("jobs"));
    let rows = sqlx::query(text).bind(array(ids)).fetch_all(connection).await?;
    let place = |row| {
        let mut cells = Cells::new(row);
        Ok(Place { id: cells.id()?, state: cells.take()? })
    };
    rows.iter().map(place).collect()
}

/// Up to `most` jobs that wait although their time is over.
pub(super) async fn expired(connection: &mut SqliteConnection, now: Timestamp, most: usize) -> Result<Vec<JobId>, StoreError> {
    let text = "SELECT id FROM jobs WHERE expires_at IS NOT NULL AND state <> 2 AND expires_at <= ? ORDER BY expires_at LIMIT ?";
    let rows = sqlx::query(text).bind(now.as_micros()).bind(number(most)).fetch_all(connection).await?;
    rows.iter().map(|row| Cells::new(row).id()).collect()
}

/// When the time of the next job that waits is over.
pub(super) async fn next_expiry(connection: &mut SqliteConnection) -> Result<Option<Timestamp>, StoreError> {
    let text = "SELECT min(expires_at) FROM jobs WHERE expires_at IS NOT NULL AND state <> 2";
    let at: Option<i64> = sqlx::query_scalar(text).fetch_one(connection).await?;
    Ok(at.map(Timestamp::from_micros))
}

/// Notes that the attempts of these jobs are to stop.
pub(super) async fn stop(connection: &mut SqliteConnection, ids: &[JobId]) -> Result<(), StoreError> {
    let text = "UPDATE jobs SET stopping = 1 WHERE state = 2 AND id IN (SELECT unhex(value) FROM jsonb_each(?))";
    sqlx::query(text).bind(array(ids)).execute(connection).await?;
    Ok(())
}

/// Moves unfinished jobs to the results, without anything measured: each a microsecond later than the one before, the first one a
/// microsecond after `before`. In the order of their ends; only those in this state, if it is given.
pub(super) async fn end(
    connection: &mut SqliteConnection,
    dooms: &[Doom],
    only: Option<i16>,
    before: Timestamp,
) -> Result<Vec<Ended>, StoreError> {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        format!(
            "INSERT INTO results ({SHARED}, started_at, ending, finished_at, error) \
             SELECT {}, iif(jobs.state = 2, claimed_at, NULL), value ->> 1, ?1 + 1 + key, value ->> 2 FROM jsonb_each(?2) \
             CROSS JOIN jobs ON jobs.id = unhex(value ->> 0) AND (?3 IS NULL OR jobs.state = ?3) \
             RETURNING id, queue, bound, type, options, attempt, started_at, finished_at",
            of("jobs", SHARED)
        )
    });
    let array: Vec<_> = dooms.iter().map(|doom| (hex_id(doom.id), doom.ending.code(), json(&doom.failure))).collect();
    let query = sqlx::query(TEXT.as_str()).bind(before.as_micros()).bind(json(&array)).bind(only);
    let rows = query.fetch_all(&mut *connection).await?;
    let ids = rows.iter().map(|row| Cells::new(row).id()).collect::<Result<Vec<_>, _>>()?;
    let mut left = leave(connection, &ids).await?;
    let ended = |row| {
        let mut cells = Cells::new(row);
        let id = cells.id()?;
        let (queue, subject) = subject(&mut cells)?;
        let (attempt, started_at, finished_at) = (cells.number()?, cells.time_or_none()?, cells.time()?);
        // When it ended says which of them it was.
        let doom = usize::try_from(finished_at.as_micros() - before.as_micros() - 1).ok().and_then(|at| dooms.get(at));
        let (Some(Doom { ending, failure, .. }), Some((state, lane, children))) = (doom, left.remove(&id)) else {
            return Err(StoreError::Corrupt(format!("{id} was not to end")));
        };
        let (ending, failure) = (*ending, failure.clone());
        Ok(Ended { id, state, lane, queue, subject, ending, failure, attempt, started_at, finished_at, children })
    };
    let mut ended = rows.iter().map(ended).collect::<Result<Vec<_>, _>>()?;
    ended.sort_unstable_by_key(|ended| ended.finished_at);
    Ok(ended)
}

/// Takes jobs that were moved to the results away from the others: where each was, its lane, and whether other jobs may wait for its end.
async fn leave(
    connection: &mut SqliteConnection,
    ids: &[JobId],
) -> Result<HashMap<JobId, (i16, Option<String>, bool)>, StoreError> {
    let text = "DELETE FROM jobs WHERE id IN (SELECT unhex(value) FROM jsonb_each(?)) RETURNING id, state, lane, children";
    let rows = sqlx::query(text).bind(array(ids)).fetch_all(connection).await?;
    let left = |row| {
        let mut cells = Cells::new(row);
        Ok((cells.id()?, (cells.take()?, cells.take()?, cells.take()?)))
    };
    rows.iter().map(left).collect()
}

/// Moves results back to the queue of jobs that have ended, `by` this moment if there is one; what has no result is left out. Each is kept among
/// the events first.
pub(super) async fn requeue(
    connection: &mut SqliteConnection,
    ids: &[JobId],
    by: Option<Timestamp>,
    before: Timestamp,
) -> Result<Vec<Back>, StoreError> {
    static INSERT: LazyLock<String> = LazyLock::new(|| {
        let columns = SHARED.trim_end_matches(", losses");
        // Whoever wants a job to run again that was too late wants it all the same.
        format!(
            "INSERT INTO jobs ({columns}, lane, state, due_at, earlier, expires_at, children) \
             SELECT {}, {LANE}, iif({LANE} IS NULL, 1, 4), ?1 + 1 + e.key, attempt, iif(options ->> 'expires_at' > ?1, options ->> 'expires_at', NULL), \
                    EXISTS (SELECT 1 FROM edges WHERE edges.parent = results.id) FROM {}",
            of("results", columns),
            among!("results").replace('?', "?2"),
        )
    });
    let text = concat!(
        "SELECT results.id, queue, bound, results.type, options, ending, timing, ",
        lane!(),
        " FROM jsonb_each(?1) AS e CROSS JOIN results ON results.id = unhex(e.value) WHERE finished_at <= ?2 ORDER BY e.key"
    );
    let by = by.map_or(i64::MAX, Timestamp::as_micros);
    let rows = sqlx::query(text).bind(array(ids)).bind(by).fetch_all(&mut *connection).await?;
    let moments = (before.as_micros() + 1..).map(Timestamp::from_micros);
    let mut back = rows.iter().zip(moments).map(|(row, at)| back(row, at)).collect::<Result<Vec<_>, _>>()?;
    if back.is_empty() {
        return Ok(back);
    }
    let ids = array(&back.iter().map(|back| back.id).collect::<Vec<_>>());
    events::keep_results(connection, &ids, before).await?;
    sqlx::query(INSERT.as_str()).bind(before.as_micros()).bind(&ids).execute(&mut *connection).await?;
    // The workload stays where it is; the outcome is among the events now.
    for text in [
        "DELETE FROM payloads WHERE n IN (SELECT outcome_payload FROM results WHERE id IN (SELECT unhex(value) FROM jsonb_each(?)))",
        "DELETE FROM results WHERE id IN (SELECT unhex(value) FROM jsonb_each(?))",
    ] {
        sqlx::query(text).bind(&ids).execute(&mut *connection).await?;
    }
    let blocked = edges::reopen(connection, &ids).await?;
    for back in &mut back {
        back.blocked = blocked.contains(&back.id);
    }
    Ok(back)
}

/// These columns of this table.
fn of(table: &str, columns: &str) -> String {
    columns.split(", ").map(|column| format!("{table}.{column}")).collect::<Vec<_>>().join(", ")
}

/// From the queue, the tag, the workload's name and the options.
fn subject(cells: &mut Cells<'_>) -> Result<(Queue, Subject), StoreError> {
    let queue: Queue = cells.code()?;
    let (bound, workload) = (cells.code()?, cells.take::<&str>()?.into());
    let (tags, owner) = rows::labels(cells)?;
    Ok((queue, Subject { bound, executor: queue.executor(), workload, tags: tags.map(Arc::new), owner }))
}

fn back(row: &SqliteRow, at: Timestamp) -> Result<Back, StoreError> {
    let mut cells = Cells::new(row);
    let id = cells.id()?;
    let (queue, subject) = subject(&mut cells)?;
    let (ending, timing) = (cells.code()?, measured(&mut cells)?);
    Ok(Back { id, queue, subject, ending, timing, at, lane: cells.take()?, blocked: false })
}

/// As SQLite's `unhex` reads it.
pub(super) fn hex_id(id: JobId) -> uuid::fmt::Simple {
    uuid::Uuid::from_bytes(*id.as_bytes()).simple()
}
