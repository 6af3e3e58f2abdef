//! The SQL of the writer. Each function is one step inside the writer's transaction.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Serialize;
use sqlx::{Row as _, SqliteConnection};

use super::codes::Code;
use super::rows::{self, Ended, Fresh, OF_CLAIM, OF_RESULT, SHARED};
use crate::clock::Timestamp;
use crate::job::{Ending, Failure, FailureKind, Job, JobId, Queue, State};
use crate::store::{Sketches, StoreError, SummaryKey};

type Connection = SqliteConnection;

/// The token and the moment of a claim.
#[derive(Clone, Copy)]
pub(super) struct Claim {
    pub(super) token: i64,
    pub(super) at: Timestamp,
}

/// Claims up to `most` queued jobs, the highest priority first, then the oldest: each a microsecond later than the one before, the
/// first one a microsecond after `claim.at`.
pub(super) async fn claim(
    connection: &mut Connection,
    queue: Queue,
    most: usize,
    claim: Claim,
) -> Result<Vec<Fresh>, StoreError> {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        format!(
            "UPDATE jobs SET state = 2, attempt = attempt + 1, token = ?, claimed_at = ? + place FROM \
             (SELECT next, row_number() OVER (ORDER BY first DESC, next) AS place FROM \
              (SELECT id AS next, priority AS first FROM jobs WHERE state = 1 AND queue = ? ORDER BY priority DESC, id LIMIT ?)) \
             WHERE id = next RETURNING {OF_CLAIM}"
        )
    });
    let rows = sqlx::query(TEXT.as_str())
        .bind(claim.token)
        .bind(claim.at.as_micros())
        .bind(queue.code())
        .bind(i64::try_from(most).unwrap_or(i64::MAX))
        .fetch_all(connection)
        .await?;
    let mut claimed = rows.iter().map(rows::claimed).collect::<Result<Vec<_>, _>>()?;
    claimed.sort_unstable_by_key(|(priority, fresh)| (-priority, fresh.claimed.lease.id));
    Ok(claimed.into_iter().map(|(_, fresh)| fresh).collect())
}

/// Moves an unfinished job, wherever it is, to the results, without anything measured.
pub(super) async fn end(
    connection: &mut Connection,
    id: JobId,
    ending: Ending,
    failure: &Failure,
    at: Timestamp,
) -> Result<Ended, StoreError> {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        format!(
            "INSERT INTO results ({SHARED}, started_at, ending, finished_at, error) \
             SELECT {SHARED}, iif(state = 2, claimed_at, NULL), ?, ?, ? FROM jobs WHERE id = ? \
             RETURNING queue, bound, type, options, attempt, started_at"
        )
    });
    let row = sqlx::query(TEXT.as_str())
        .bind(ending.code())
        .bind(at.as_micros())
        .bind(json(failure))
        .bind(&id.as_bytes()[..])
        .fetch_one(&mut *connection)
        .await?;
    sqlx::query("DELETE FROM jobs WHERE id = ?").bind(&id.as_bytes()[..]).execute(connection).await?;
    rows::ended(&row)
}

/// The queue and the state of an unfinished job.
pub(super) async fn place(connection: &mut Connection, id: JobId) -> Result<Option<(Queue, i64)>, StoreError> {
    let row =
        sqlx::query("SELECT queue, state FROM jobs WHERE id = ?").bind(&id.as_bytes()[..]).fetch_optional(connection).await?;
    row.map(|row| Ok((Queue::from_code(row.try_get(0)?)?, row.try_get(1)?))).transpose()
}

/// Makes a running job wait again until `due_at`, and counts a loss if it was one.
pub(super) async fn again(connection: &mut Connection, id: JobId, due_at: Timestamp, lost: bool) -> Result<(), StoreError> {
    sqlx::query("UPDATE jobs SET state = 0, due_at = ?, token = NULL, losses = losses + ? WHERE id = ?")
        .bind(due_at.as_micros())
        .bind(i64::from(lost))
        .bind(&id.as_bytes()[..])
        .execute(connection)
        .await?;
    Ok(())
}

/// Makes a running job wait again as if it had not been claimed.
pub(super) async fn release(connection: &mut Connection, id: JobId) -> Result<(), StoreError> {
    sqlx::query("UPDATE jobs SET state = 1, token = NULL, attempt = attempt - 1 WHERE id = ?")
        .bind(&id.as_bytes()[..])
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn mark_stopping(connection: &mut Connection, id: JobId) -> Result<(), StoreError> {
    sqlx::query("UPDATE jobs SET stopping = 1 WHERE id = ?").bind(&id.as_bytes()[..]).execute(connection).await?;
    Ok(())
}

/// Queues the scheduled jobs that are due; how many in each queue.
pub(super) async fn promote(connection: &mut Connection, now: Timestamp) -> Result<Vec<Queue>, StoreError> {
    let rows = sqlx::query("UPDATE jobs SET state = 1 WHERE state = 0 AND due_at <= ? RETURNING queue")
        .bind(now.as_micros())
        .fetch_all(connection)
        .await?;
    rows.iter().map(|row| Queue::from_code(row.try_get(0)?)).collect()
}

/// The oldest job that has not ended.
pub(super) async fn oldest(connection: &mut Connection) -> Result<Option<JobId>, StoreError> {
    let id: Option<Vec<u8>> = sqlx::query_scalar("SELECT min(id) FROM jobs").fetch_one(connection).await?;
    let corrupt = |_| StoreError::Corrupt("an id is not 16 bytes long".into());
    id.map(|id| id.try_into().map(JobId::from_bytes).map_err(corrupt)).transpose()
}

/// When the next scheduled job is due.
pub(super) async fn next_due(connection: &mut Connection) -> Result<Option<Timestamp>, StoreError> {
    let due: Option<i64> = sqlx::query_scalar("SELECT min(due_at) FROM jobs WHERE state = 0").fetch_one(connection).await?;
    Ok(due.map(Timestamp::from_micros))
}

pub(super) async fn result(connection: &mut Connection, id: JobId) -> Result<Option<Job>, StoreError> {
    static TEXT: LazyLock<String> = LazyLock::new(|| format!("SELECT {SHARED}, {OF_RESULT} FROM results WHERE id = ?"));
    let row = sqlx::query(TEXT.as_str()).bind(&id.as_bytes()[..]).fetch_optional(connection).await?;
    row.as_ref().map(rows::result).transpose()
}

/// Moves a result back to the queue.
pub(super) async fn requeue(connection: &mut Connection, id: JobId, now: Timestamp) -> Result<(), StoreError> {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let columns = SHARED.trim_end_matches(", losses");
        format!("INSERT INTO jobs ({columns}, state, due_at) SELECT {columns}, 1, ? FROM results WHERE id = ?")
    });
    sqlx::query(TEXT.as_str()).bind(now.as_micros()).bind(&id.as_bytes()[..]).execute(&mut *connection).await?;
    sqlx::query("DELETE FROM results WHERE id = ?").bind(&id.as_bytes()[..]).execute(connection).await?;
    Ok(())
}

/// The running jobs with their losses and retry rules.
pub(super) async fn running(connection: &mut Connection) -> Result<Vec<Job>, StoreError> {
    static TEXT: LazyLock<String> =
        LazyLock::new(|| format!("SELECT {SHARED}, {} FROM jobs WHERE state = 2 ORDER BY id", rows::OF_JOB));
    let rows = sqlx::query(TEXT.as_str()).fetch_all(connection).await?;
    rows.iter().map(rows::unfinished).collect()
}

/// How many jobs wait, by queue and state.
pub(super) async fn count_waiting(connection: &mut Connection) -> Result<Vec<(Queue, i64, u64)>, StoreError> {
    // Two counts, each over a partial index.
    let queued = "SELECT queue, 1, count(*) FROM jobs WHERE state = 1 GROUP BY queue";
    let scheduled = "SELECT queue, 0, count(*) FROM jobs WHERE state = 0 GROUP BY queue";
    let mut counts = Vec::new();
    for text in [queued, scheduled] {
        for row in sqlx::query(text).fetch_all(&mut *connection).await? {
            let count: i64 = row.try_get(2)?;
            counts.push((Queue::from_code(row.try_get(0)?)?, row.try_get(1)?, u64::try_from(count).unwrap_or(0)));
        }
    }
    Ok(counts)
}

pub(super) async fn rollups(connection: &mut Connection) -> Result<BTreeMap<SummaryKey, Sketches>, StoreError> {
    let rows = sqlx::query("SELECT type, bound, executor, ending, sketches FROM rollups").fetch_all(connection).await?;
    rows.iter()
        .map(|row| {
            let key = SummaryKey {
                workload: row.try_get::<&str, _>(0)?.into(),
                bound: Code::from_code(row.try_get(1)?)?,
                executor: Code::from_code(row.try_get(2)?)?,
                ending: Code::from_code(row.try_get(3)?)?,
            };
            let sketches = Sketches::from_bytes(row.try_get(4)?)
                .map_err(|error| StoreError::Corrupt(format!("the rollup of {}: {error}", key.workload)))?;
            Ok((key, sketches))
        })
        .collect()
}

/// Writes something that changes nothing, to see whether writing works.
pub(super) async fn touch(connection: &mut Connection) -> Result<(), StoreError> {
    sqlx::query("UPDATE server SET boot = boot").execute(connection).await?;
    Ok(())
}

/// Counts this start of a server.
pub(super) async fn next_boot(connection: &mut Connection) -> Result<i64, StoreError> {
    let text = "INSERT INTO server (one, boot) VALUES (1, 1) ON CONFLICT (one) DO UPDATE SET boot = boot + 1 RETURNING boot";
    Ok(sqlx::query_scalar(text).fetch_one(connection).await?)
}

/// Types of this program with string keys, which always can be written as JSON.
pub(super) fn json(value: &(impl Serialize + ?Sized)) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Whether a job that was running when its runner died is finished by that, and how.
pub(super) fn fate(job: &Job, max_losses: u32) -> Option<(Ending, Failure)> {
    if matches!(job.state, State::Running { stopping: true, .. }) {
        return Some((Ending::Cancelled, Failure::cancelled()));
    }
    let losses = job.losses + 1;
    (!job.submission.retry.survives_loss(losses, max_losses)).then(|| {
        let message = format!("the server went down while this job ran, for the {} time; it is not run again", ordinal(losses));
        (Ending::Lost, Failure::new(FailureKind::Lost, message))
    })
}

fn ordinal(n: u32) -> String {
    match n {
        1 => "first".into(),
        2 => "second".into(),
        3 => "third".into(),
        n => format!("{n}th"),
    }
}
