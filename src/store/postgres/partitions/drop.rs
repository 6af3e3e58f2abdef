//! A day is dropped when all of it may be removed.

use std::time::{Duration, Instant};

use sqlx::error::DatabaseError;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Postgres, Transaction};
use uuid::Uuid;

use super::super::connect::may_go_by;
use super::{Partition, is_of_the_moment};
use crate::store::StoreError;

/// The most events, deliveries, labels or edges of one step.
const MOST: i64 = 1_000;

/// A partition is dropped if it can be found out so soon whether something in it has to stay: everything waits while that is asked once more.
const LONGEST_LOOK: Duration = Duration::from_secs(1);
/// Everything waits no longer than that for its results to be counted once more.
const SHORT_COUNT: Duration = Duration::from_millis(100);
/// Nor for what was removed with it to be looked for once more: what is dead slows that down.
const SHORT_LOOK: Duration = Duration::from_millis(200);

/// What was done to drop a partition.
pub(in super::super) enum Dropped {
    /// It is gone, with so many results.
    Gone(u64),
    /// Some of what belongs to it is.
    Part,
    /// Nothing: it is in use, or changes, just now.
    Later,
    /// Nothing: a part of it has to stay.
    Stays,
}

/// Takes a step at dropping a partition of which all results ended before a moment, if nothing in it has to stay: what belongs to its jobs
/// and would be read without them goes first, a little at a time. Nobody has to wait for that.
pub(in super::super) async fn drop_day(
    connection: &mut PgConnection,
    partition: Partition,
    ended_before: i64,
) -> Result<Dropped, StoreError> {
    match step(connection, partition, ended_before).await {
        Err(error) if is_of_the_moment(&error) => {
            tracing::debug!(%error, "others were in the way of dropping a day; it is tried again");
            Ok(Dropped::Later)
        }
        Err(StoreError::Database(sqlx::Error::Database(error))) if stands_in_the_way(&*error) => {
            tracing::warn!(%error, "a day can't be dropped as a whole; its results are removed one by one");
            Ok(Dropped::Stays)
        }
        done => done,
    }
}

/// Whether it stays so until somebody changes it: a view of it, or a right that is missing.
fn stands_in_the_way(error: &dyn DatabaseError) -> bool {
    error.code().is_some_and(|code| ["2BP01", "42501"].contains(&&*code))
}

async fn step(connection: &mut PgConnection, partition: Partition, ended_before: i64) -> Result<Dropped, StoreError> {
    let Some(suffix) = partition.suffix() else { return Ok(Dropped::Stays) };
    let ids = partition.ids();
    let looked_at = Instant::now();
    let mut patient = patiently(connection).await?;
    if has_to_stay(&mut patient, &suffix, ids, ended_before).await? {
        return Ok(Dropped::Stays);
    }
    patient.commit().await?;
    let took = looked_at.elapsed();
    // Another node may be at it: that one has the rows locked.
    let steps = [
        "DELETE FROM events WHERE at IN \
         (SELECT at FROM events WHERE job >= $1 AND job < $2 AND NOT EXISTS (SELECT 1 FROM work WHERE work.id = events.job) \
          ORDER BY job, at LIMIT $3 FOR UPDATE SKIP LOCKED)",
        "DELETE FROM deliveries WHERE place IN \
         (SELECT place FROM deliveries WHERE job >= $1 AND job < $2 AND state <> 0 ORDER BY job LIMIT $3 FOR UPDATE SKIP LOCKED)",
    ];
    for step in steps {
        if sqlx::query(step).bind(ids.0).bind(ids.1).bind(MOST).execute(&mut *connection).await?.rows_affected() > 0 {
            return Ok(Dropped::Part);
        }
    }
    if took > LONGEST_LOOK {
        return Ok(Dropped::Stays);
    }
    let looked_at = Instant::now();
    if has_belongings(connection, ids).await? || looked_at.elapsed() > SHORT_LOOK || is_in_use(connection, &suffix).await? {
        return Ok(Dropped::Later);
    }
    // This may take a while, so it is done before anybody has to wait. Of the jobs of a day that is over each is left to do or a result, so what is
    // not changed by a removal is the number of both.
    let text = format!("SELECT (SELECT count(*) FROM results_{suffix}), (SELECT removed FROM retention)");
    let counted_at = Instant::now();
    let mut patient = patiently(connection).await?;
    let (results, removed): (i64, i64) = sqlx::query_as(AssertSqlSafe(text)).fetch_one(&mut *patient).await?;
    patient.commit().await?;
    let may_count_again = counted_at.elapsed() < SHORT_COUNT;
    let mut transaction = connection.begin().await?;
    let done = let_go(&mut transaction, &suffix, ids, ended_before, (results, removed), may_count_again).await;
    if matches!(done, Ok(Dropped::Gone(_))) {
        transaction.commit().await?;
    } else {
        // At once: all wait for its locks.
        transaction.rollback().await?;
    }
    done
}

/// A transaction for what may take longer than what somebody waits for.
async fn patiently(connection: &mut PgConnection) -> Result<Transaction<'_, Postgres>, StoreError> {
    let mut transaction = connection.begin().await?;
    sqlx::query("SET LOCAL statement_timeout = '10min'").execute(&mut *transaction).await?;
    Ok(transaction)
}

/// Whether something in a partition is not to be removed: what has not ended, or not for long enough; what is still to be told; whose output an
/// unfinished job may ask for; of which not all children have heard.
async fn has_to_stay(
    connection: &mut PgConnection,
    suffix: &str,
    ids: (Uuid, Uuid),
    ended_before: i64,
) -> Result<bool, StoreError> {
    // The name of the partition, since the latest end of all is the last entry of an index.
    let text = format!(
        "SELECT EXISTS (SELECT 1 FROM work WHERE id >= $1 AND id < $2) \
         OR coalesce((SELECT max(finished_at) FROM results_{suffix}) >= $3, false) \
         OR EXISTS (SELECT 1 FROM deliveries WHERE job >= $1 AND job < $2 AND state = 0) \
         OR EXISTS (SELECT 1 FROM releases WHERE parent >= $1 AND parent < $2) \
         OR EXISTS (SELECT 1 FROM edges e JOIN work w ON w.id = e.child WHERE e.parent >= $1 AND e.parent < $2)"
    );
    let query = sqlx::query_scalar(AssertSqlSafe(text)).bind(ids.0).bind(ids.1).bind(ended_before);
    Ok(query.fetch_one(connection).await?)
}

/// Drops a partition under the lock of all nodes, and counts its results as removed, if nothing has changed since they were counted.
async fn let_go(
    connection: &mut PgConnection,
    suffix: &str,
    ids: (Uuid, Uuid),
    ended_before: i64,
    (mut results, removed): (i64, i64),
    may_count_again: bool,
) -> Result<Dropped, StoreError> {
    sqlx::query("SET LOCAL lock_timeout = '5s'").execute(&mut *connection).await?;
    may_go_by(sqlx::query_scalar("SELECT oldest FROM shared FOR UPDATE").fetch_one(&mut *connection).await?)?;
    // Everything waits from here on.
    sqlx::raw_sql("SET LOCAL lock_timeout = '200ms'; SET LOCAL statement_timeout = '2s'").execute(&mut *connection).await?;
    let still: i64 = sqlx::query_scalar("SELECT removed FROM retention FOR UPDATE").fetch_one(&mut *connection).await?;
    if still != removed {
        // Something was removed in between, perhaps of this day. Where that goes on, no count would ever be good.
        if !may_count_again {
            return Ok(Dropped::Stays);
        }
        let text = format!("SELECT count(*) FROM results_{suffix}");
        results = sqlx::query_scalar(AssertSqlSafe(text)).fetch_one(&mut *connection).await?;
    }
    if has_belongings(connection, ids).await? || has_to_stay(connection, suffix, ids, ended_before).await? {
        return Ok(Dropped::Later);
    }
    let text = "UPDATE retention SET removed = removed + $1";
    sqlx::query(text).bind(results).execute(&mut *connection).await?;
    sqlx::query(AssertSqlSafe(format!("DROP TABLE jobs_{suffix}, results_{suffix}"))).execute(connection).await?;
    Ok(Dropped::Gone(u64::try_from(results).unwrap_or(0)))
}

/// Whether there are events or deliveries of its jobs.
async fn has_belongings(connection: &mut PgConnection, ids: (Uuid, Uuid)) -> Result<bool, StoreError> {
    let text = "SELECT EXISTS (SELECT 1 FROM events WHERE job >= $1 AND job < $2) \
                OR EXISTS (SELECT 1 FROM deliveries WHERE job >= $1 AND job < $2)";
    Ok(sqlx::query_scalar(text).bind(ids.0).bind(ids.1).fetch_one(connection).await?)
}

/// Whether somebody has been using what would have to be locked for longer than turns take: everything would wait behind whoever waits for that.
async fn is_in_use(connection: &mut PgConnection, suffix: &str) -> Result<bool, StoreError> {
    // Since when others are at it is only told of one's own sessions.
    let text = "SELECT EXISTS (SELECT 1 FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid \
                WHERE l.relation IN (to_regclass('jobs'), to_regclass('results'), to_regclass('jobs_' || $1), to_regclass('results_' || $1)) \
                AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND l.pid <> pg_backend_pid() \
                AND coalesce(clock_timestamp() - a.xact_start > INTERVAL '2 s', true))";
    Ok(sqlx::query_scalar(text).bind(suffix).fetch_one(connection).await?)
}

/// Drops those of these partitions in which nothing is left, and nothing is put in the meantime.
pub(in super::super) async fn drop_empty(
    connection: &mut PgConnection,
    partitions: impl Iterator<Item = Partition>,
) -> Result<(), StoreError> {
    for partition in partitions {
        let Some(suffix) = partition.suffix() else { continue };
        let text = format!("SELECT EXISTS (SELECT 1 FROM jobs_{suffix})");
        match sqlx::query_scalar(AssertSqlSafe(text)).fetch_one(&mut *connection).await.map_err(StoreError::from) {
            Ok(true) => {}
            Ok(false) => {
                drop_day(connection, partition, i64::MIN).await?;
            }
            Err(error) if is_of_the_moment(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Removes some labels and edges of jobs that are gone with their days; whether there were any. Without its job nobody sees them.
pub(in super::super) async fn tidy(connection: &mut PgConnection, partitions: &[Partition]) -> Result<bool, StoreError> {
    let text = "WITH gone AS (SELECT NOT EXISTS (SELECT 1 FROM jobs WHERE id >= $1 AND id < $2) AS gone), \
                labels AS (DELETE FROM tags WHERE (key, value, id) IN (SELECT key, value, id FROM tags \
                WHERE id >= $1 AND id < $2 AND (SELECT gone FROM gone) ORDER BY id LIMIT $3 FOR UPDATE SKIP LOCKED) RETURNING 1), \
                edges AS (DELETE FROM edges WHERE (parent, child) IN (SELECT parent, child FROM edges \
                WHERE child >= $1 AND child < $2 AND (SELECT gone FROM gone) ORDER BY child LIMIT $3 FOR UPDATE SKIP LOCKED) RETURNING 1) \
                SELECT (SELECT count(*) FROM labels) + (SELECT count(*) FROM edges)";
    let mut from = Uuid::nil();
    for partition in partitions {
        let (first, end) = partition.ids();
        if from < first {
            let removed: i64 = sqlx::query_scalar(text).bind(from).bind(first).bind(MOST).fetch_one(&mut *connection).await?;
            if removed > 0 {
                return Ok(true);
            }
        }
        from = end;
    }
    Ok(false)
}
