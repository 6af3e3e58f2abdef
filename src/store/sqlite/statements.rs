//! The SQL of the writer. Each function is one step inside the writer's transaction.

use std::sync::LazyLock;

use futures_util::TryStreamExt;
use sqlx::{Row as _, SqliteConnection};

use super::codes::Code;
use super::rows::{self, Cells, Fresh, OF_CLAIM, OUTLINE_OF_BOTH};
use crate::clock::Timestamp;
use crate::job::{Job, JobId, Queue};
use crate::store::claims::MOST_BYTES;
use crate::store::kept::number;
use crate::store::{Claimed, StoreError};

type Connection = SqliteConnection;

/// The token and the moment of a claim.
#[derive(Clone, Copy)]
pub(super) struct Claim {
    pub(super) token: i64,
    pub(super) at: Timestamp,
}

/// Where a job waits that may run.
pub(super) struct Queued {
    pub(super) queue: Queue,
    /// If it has a limit.
    pub(super) lane: Option<String>,
}

/// When it is its turn: [`Submission::turn`](crate::job::Submission::turn) as the index has it.
macro_rules! turn {
    () => {
        "due_at - priority * 60000000"
    };
}

/// These columns of the next jobs of a queue whose time is not over.
macro_rules! next {
    ($($columns:tt)*) => {
        concat!(
            "SELECT ",
            $($columns)*,
            " FROM jobs WHERE state = 1 AND queue = ?3 AND (expires_at IS NULL OR expires_at > ?2) ORDER BY ",
            turn!(),
            ", id LIMIT ?4"
        )
    };
}

/// Claims up to `most` queued jobs whose time is not over `now`, and no more than [`MOST_BYTES`], in the order in which it is their turn: each a microsecond later
/// than the one before, the first one a microsecond after `claim.at`.
pub(super) async fn claim(
    connection: &mut Connection,
    queue: Queue,
    most: usize,
    claim: Claim,
    now: Timestamp,
) -> Result<Vec<Fresh>, StoreError> {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        format!(
            "UPDATE jobs SET state = 2, attempt = attempt + 1, token = ?1, claimed_at = ?5 + place FROM \
             (SELECT next, row_number() OVER turns AS place, sum(bytes) OVER turns AS bytes FROM ({}) WINDOW turns AS (ORDER BY turn, next)) \
             WHERE id = next AND (place = 1 OR bytes <= {MOST_BYTES}) RETURNING {OF_CLAIM}",
            format_args!(next!("id AS next, ", turn!(), " AS turn, {bytes} AS bytes"), bytes = rows::WORKLOAD_BYTES)
        )
    });
    let rows = sqlx::query(TEXT.as_str())
        .bind(claim.token)
        .bind(now.as_micros())
        .bind(queue.code())
        .bind(number(most))
        .bind(claim.at.as_micros())
        .fetch_all(connection)
        .await?;
    let mut claimed = rows.iter().map(rows::claimed).collect::<Result<Vec<_>, _>>()?;
    claimed.sort_unstable_by_key(|fresh| fresh.claimed_at);
    Ok(claimed)
}

/// The queued jobs that are next, at most so many and so many bytes of them: as a claim under this token would return them at this moment,
/// but not claimed; and when it is their turn. Ends before the first that does not pass, and before one that may be too late tomorrow: whether
/// it is, is looked at when it is claimed.
pub(super) async fn next(
    connection: &mut Connection,
    queue: Queue,
    most: (usize, usize),
    claim: Claim,
    passes: impl Fn(&Claimed) -> bool,
) -> Result<Vec<(i64, Fresh)>, StoreError> {
    // What is too long for that is not even read.
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        format!(
            next!(
                "id, ?1, bound, type, iif({bytes} <= ?5, {workload}, 'null'), options, attempt + 1, losses, \
                 coalesce(earlier, 0), ?2 - due_at, due_at, children, ",
                turn!(),
                ", {bytes}, expires_at IS NULL"
            ),
            workload = rows::WORKLOAD,
            bytes = rows::WORKLOAD_BYTES,
        )
    });
    let [jobs, most_bytes] = [most.0, most.1].map(number);
    let query = sqlx::query(TEXT.as_str()).bind(claim.token).bind(claim.at.as_micros()).bind(queue.code());
    let mut rows = query.bind(jobs).bind(most_bytes).fetch(connection);
    let (mut next, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.try_next().await? {
        bytes += row.try_get::<i64, _>(13)?;
        let fresh = rows::claimed(&row)?;
        if bytes > most_bytes || !row.try_get::<bool, _>(14)? || !passes(&fresh.claimed) {
            break;
        }
        next.push((row.try_get(12)?, fresh));
    }
    Ok(next)
}

/// Makes a running job wait again until `due_at`, and counts a loss if it was one; when its time is over, if ever.
pub(super) async fn again(
    connection: &mut Connection,
    id: JobId,
    due_at: Timestamp,
    lost: bool,
) -> Result<Option<Timestamp>, StoreError> {
    let text = "UPDATE jobs SET state = 0, due_at = ?, token = NULL, losses = losses + ? WHERE id = ? RETURNING expires_at";
    let again = sqlx::query_scalar(text).bind(due_at.as_micros()).bind(i64::from(lost)).bind(&id.as_bytes()[..]);
    Ok(again.fetch_one(connection).await.map(|at: Option<i64>| at.map(Timestamp::from_micros))?)
}

/// A job that was claimed and waits again: when that was, when its time is over, if ever, and where it waits.
pub(super) struct Released {
    pub(super) claimed_at: Timestamp,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) queued: Queued,
}

/// Makes a running job wait again as if it had not been claimed, or until a moment.
pub(super) async fn release(connection: &mut Connection, id: JobId, until: Option<Timestamp>) -> Result<Released, StoreError> {
    let text = "UPDATE jobs SET state = CASE WHEN ?1 IS NOT NULL THEN 0 WHEN lane IS NULL THEN 1 ELSE 4 END, \
                due_at = coalesce(?1, due_at), token = NULL, attempt = attempt - 1 WHERE id = ?2 \
                RETURNING claimed_at, expires_at, queue, lane";
    let query = sqlx::query(text).bind(until.map(Timestamp::as_micros)).bind(&id.as_bytes()[..]);
    let row = query.fetch_one(connection).await?;
    let mut cells = Cells::new(&row);
    let (claimed_at, expires_at) = (cells.time()?, cells.time_or_none()?);
    Ok(Released { claimed_at, expires_at, queued: Queued { queue: cells.code()?, lane: cells.take()? } })
}

/// Queues up to `most` scheduled jobs that are due; where each waits.
pub(super) async fn promote(connection: &mut Connection, now: Timestamp, most: usize) -> Result<Vec<Queued>, StoreError> {
    let text = "UPDATE jobs SET state = iif(lane IS NULL, 1, 4) WHERE id IN \
                (SELECT id FROM jobs WHERE state = 0 AND due_at <= ? ORDER BY due_at LIMIT ?) RETURNING queue, lane";
    let rows = sqlx::query(text).bind(now.as_micros()).bind(number(most)).fetch_all(connection).await?;
    let queued = |row| {
        let mut cells = Cells::new(row);
        Ok(Queued { queue: cells.code()?, lane: cells.take()? })
    };
    rows.iter().map(queued).collect()
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

/// The running jobs with their losses and retry rules; without their workloads, which may have been too much for the memory before.
pub(super) async fn running(connection: &mut Connection) -> Result<Vec<Job>, StoreError> {
    static TEXT: LazyLock<String> =
        LazyLock::new(|| format!("SELECT {OUTLINE_OF_BOTH}, {} FROM jobs WHERE state = 2 ORDER BY id", rows::OF_JOB));
    let rows = sqlx::query(TEXT.as_str()).fetch_all(connection).await?;
    rows.iter().map(rows::unfinished).collect()
}

/// How many jobs wait, by queue and state.
pub(super) async fn count_waiting(connection: &mut Connection) -> Result<Vec<(Queue, i16, u64)>, StoreError> {
    // Counts over partial indexes.
    let queued = "SELECT queue, 1, count(*) FROM jobs WHERE state = 1 GROUP BY queue";
    let scheduled = "SELECT queue, 0, count(*) FROM jobs WHERE state = 0 GROUP BY queue";
    let blocked = "SELECT queue, 3, count(*) FROM jobs WHERE state = 3 GROUP BY queue";
    let limited = "SELECT queue, 4, count(*) FROM jobs WHERE state = 4 GROUP BY queue";
    let mut counts = Vec::new();
    for text in [queued, scheduled, blocked, limited] {
        for row in sqlx::query(text).fetch_all(&mut *connection).await? {
            let count: i64 = row.try_get(2)?;
            counts.push((Queue::from_code(row.try_get(0)?)?, row.try_get(1)?, u64::try_from(count).unwrap_or(0)));
        }
    }
    Ok(counts)
}

/// Writes something that changes nothing, to see whether writing works.
pub(super) async fn touch(connection: &mut Connection) -> Result<(), StoreError> {
    sqlx::query("UPDATE server SET boot = boot").execute(connection).await?;
    Ok(())
}

/// The last place of a text that is too long for its row.
pub(super) async fn latest_payload(connection: &mut Connection) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar("SELECT coalesce(max(n), 0) FROM payloads").fetch_one(connection).await?)
}

/// Counts this start of a server.
pub(super) async fn next_boot(connection: &mut Connection) -> Result<i64, StoreError> {
    let text = "INSERT INTO server (one, boot) VALUES (1, 1) ON CONFLICT (one) DO UPDATE SET boot = boot + 1 RETURNING boot";
    Ok(sqlx::query_scalar(text).fetch_one(connection).await?)
}

#[cfg(test)]
mod tests {
    use sqlx::Connection as _;

    use super::*;
    use crate::job::PRIORITY_LEVEL;

    #[tokio::test]
    async fn whose_turn_it_is_stands_in_the_index() {
        assert_eq!(turn!(), format!("due_at - priority * {}", PRIORITY_LEVEL.as_micros()));
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        crate::store::migrations::SQLITE.run_direct(None, &mut connection, false).await.unwrap();
        let text = concat!("EXPLAIN QUERY PLAN ", next!("id"));
        let rows = sqlx::query(text).bind(0).bind(0).bind(0).bind(1).fetch_all(&mut connection).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
        assert_eq!(plan, ["SEARCH jobs USING INDEX jobs_queued (queue=?)"]);
    }
}
