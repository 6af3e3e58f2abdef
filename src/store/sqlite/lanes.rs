//! The SQL of lanes, where jobs wait that share a limit: inside the writer's transaction.

use std::sync::LazyLock;

use sqlx::SqliteConnection;

use super::codes::Code;
use super::moves::hex_id;
use super::rows::{self, Cells, Fresh, OF_CLAIM};
use crate::clock::Timestamp;
use crate::job::{JobId, Queue};
use crate::store::StoreError;
pub(super) use crate::store::counted::{Counted, Starts, counted_of};
use crate::store::kept::lane::{Head, Standing, read_starts};
use crate::store::kept::{json, number};

/// A lane whose turn it is.
pub(super) struct Lane {
    pub(super) lane: String,
    pub(super) turn: i64,
}

/// Notes that jobs wait in these lanes. Those that are shut open if their gate is no higher than this one.
pub(super) async fn enter(
    connection: &mut SqliteConnection,
    lanes: &[&(Queue, String)],
    turn: Timestamp,
    opens: i64,
) -> Result<(), StoreError> {
    let rows: Vec<_> = lanes.iter().map(|(queue, lane)| (queue.code(), lane)).collect();
    let text = "INSERT INTO lanes (queue, lane, turn) SELECT value ->> 0, value ->> 1, ? FROM json_each(?) WHERE true \
                ON CONFLICT DO UPDATE SET gate = 0 WHERE gate BETWEEN 1 AND ?";
    sqlx::query(text).bind(turn.as_micros()).bind(json(&rows)).bind(opens).execute(connection).await?;
    Ok(())
}

/// The open lanes of a queue, in the order of their turns.
pub(super) async fn next(connection: &mut SqliteConnection, queue: Queue, most: usize) -> Result<Vec<Lane>, StoreError> {
    let text = "SELECT lane, turn FROM lanes WHERE queue = ? AND gate = 0 ORDER BY turn LIMIT ?";
    let rows = sqlx::query(text).bind(queue.code()).bind(number(most)).fetch_all(connection).await?;
    rows.iter()
        .map(|row| {
            let mut cells = Cells::new(row);
            Ok(Lane { lane: cells.take()?, turn: cells.take()? })
        })
        .collect()
}

/// The first jobs of each of these lanes, in the order in which it is their turn; without those whose time is over.
pub(super) async fn heads(
    connection: &mut SqliteConnection,
    queue: Queue,
    lanes: &[Lane],
    each: usize,
    now: Timestamp,
) -> Result<Vec<Head>, StoreError> {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        format!(
            "SELECT lanes.key, jobs.id, jobs.due_at - jobs.priority * 60000000, \
                    jobs.options ->> 'concurrency', jobs.options ->> 'rate', \
                    iif(jobs.options ->> 'confined', jobs.owner, NULL), {} \
             FROM json_each(?1) AS lanes CROSS JOIN jobs ON jobs.id IN \
             (SELECT head.id FROM jobs AS head WHERE head.state = 4 AND head.queue = ?2 AND head.lane = lanes.value \
              AND (head.expires_at IS NULL OR head.expires_at > ?4) \
              ORDER BY head.due_at - head.priority * 60000000, head.id LIMIT ?3)",
            rows::WORKLOAD_BYTES
        )
    });
    let names: Vec<_> = lanes.iter().map(|lane| &lane.lane).collect();
    let query = sqlx::query(TEXT.as_str()).bind(json(&names)).bind(queue.code()).bind(number(each)).bind(now.as_micros());
    let mut heads = Vec::new();
    for row in &query.fetch_all(connection).await? {
        let mut cells = Cells::new(row);
        let (lane, id, turn) = (cells.number()?, cells.id()?, cells.take::<i64>()?);
        let (concurrency, rate) = (cells.json()?, cells.json()?);
        let owner = cells.owner()?;
        heads.push((turn, Head { lane, id, concurrency, rate, owner, bytes: cells.take()? }));
    }
    heads.sort_unstable_by_key(|(turn, head)| (head.lane, *turn, head.id));
    Ok(heads.into_iter().map(|(_, head)| head).collect())
}

/// Claims these jobs, each at its moment.
pub(super) async fn claim(
    connection: &mut SqliteConnection,
    jobs: &[(JobId, Timestamp)],
    token: i64,
) -> Result<Vec<Fresh>, StoreError> {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        format!(
            "UPDATE jobs SET state = 2, attempt = attempt + 1, token = ?, claimed_at = value ->> 1 FROM json_each(?) \
             WHERE jobs.id = unhex(value ->> 0) AND jobs.state = 4 RETURNING {OF_CLAIM}"
        )
    });
    let rows: Vec<_> = jobs.iter().map(|(id, at)| (hex_id(*id), at.as_micros())).collect();
    let rows = sqlx::query(TEXT.as_str()).bind(token).bind(json(&rows)).fetch_all(connection).await?;
    let mut claimed = rows.iter().map(rows::claimed).collect::<Result<Vec<_>, _>>()?;
    claimed.sort_unstable_by_key(|fresh| fresh.claimed_at);
    Ok(claimed)
}

/// The lanes are there. As an `UPDATE … FROM` it would go through all lanes of the queue, with all of the JSON for each.
const STAND: &str = "INSERT INTO lanes (queue, lane, turn, gate) \
                     SELECT ?2, value ->> 0, value ->> 1, value ->> 2 FROM json_each(?1) WHERE true \
                     ON CONFLICT DO UPDATE SET turn = excluded.turn, gate = excluded.gate";

/// Puts lanes where they are to stand, and takes away those in which nobody waits.
pub(super) async fn stand(
    connection: &mut SqliteConnection,
    queue: Queue,
    standing: &[Standing],
    empty: &[String],
) -> Result<(), StoreError> {
    if !standing.is_empty() {
        let rows: Vec<_> = standing.iter().map(|Standing { lane, turn, gate }| (lane, turn, gate)).collect();
        sqlx::query(STAND).bind(json(&rows)).bind(queue.code()).execute(&mut *connection).await?;
    }
    if !empty.is_empty() {
        let text = "DELETE FROM lanes WHERE queue = ? AND lane IN (SELECT value FROM json_each(?))";
        sqlx::query(text).bind(queue.code()).bind(json(empty)).execute(connection).await?;
    }
    Ok(())
}

/// Opens up to `most` lanes of a queue that were shut because too many jobs run that count for this; how many there were.
pub(super) async fn vacate(
    connection: &mut SqliteConnection,
    counted: &Counted,
    queue: Queue,
    most: usize,
) -> Result<u64, StoreError> {
    // The planner would take the index of lanes by key, and sort all that have it.
    let key = "UPDATE lanes SET gate = 0 WHERE (queue, lane) IN \
               (SELECT queue, lane FROM lanes INDEXED BY lanes_full WHERE gate = 1 AND queue = ? AND lane ->> 0 = ? ORDER BY turn LIMIT ?)";
    let owner = "UPDATE lanes SET gate = 0 WHERE (queue, lane) IN \
                 (SELECT queue, lane FROM lanes INDEXED BY lanes_over WHERE gate = 2 AND queue = ? AND lane ->> 2 = ? ORDER BY turn LIMIT ?)";
    let query = match counted {
        Counted::Key(name) => sqlx::query(key).bind(queue.code()).bind(&**name),
        Counted::Owner(code) => sqlx::query(owner).bind(queue.code()).bind(code.code()),
    };
    Ok(query.bind(number(most)).execute(connection).await?.rows_affected())
}

/// Opens up to `most` lanes of a queue that are shut because too many jobs run with this key, and that had their turn no later than `since`;
/// how many there were.
pub(super) async fn pass_on(
    connection: &mut SqliteConnection,
    key: &str,
    queue: Queue,
    since: Timestamp,
    most: usize,
) -> Result<u64, StoreError> {
    let text = "UPDATE lanes SET gate = 0 WHERE (queue, lane) IN \
                (SELECT queue, lane FROM lanes INDEXED BY lanes_full WHERE gate = 1 AND queue = ? AND lane ->> 0 = ? AND turn <= ? \
                 ORDER BY turn LIMIT ?)";
    let query = sqlx::query(text).bind(queue.code()).bind(key).bind(since.as_micros()).bind(number(most));
    Ok(query.execute(connection).await?.rows_affected())
}

/// Opens up to `most` lanes that were shut until now, or a moment before; the queue of each.
pub(super) async fn open(connection: &mut SqliteConnection, now: Timestamp, most: usize) -> Result<Vec<Queue>, StoreError> {
    let text = "UPDATE lanes SET gate = 0 WHERE (queue, lane) IN \
                (SELECT queue, lane FROM lanes WHERE gate > 2 AND gate <= ? ORDER BY gate LIMIT ?) RETURNING queue";
    let rows = sqlx::query(text).bind(now.as_micros()).bind(number(most)).fetch_all(connection).await?;
    rows.iter().map(|row| Cells::new(row).code()).collect()
}

/// When the next lane opens that is shut for a time.
pub(super) async fn next_open(connection: &mut SqliteConnection) -> Result<Option<Timestamp>, StoreError> {
    let text = "SELECT min(gate) FROM lanes WHERE gate > 2";
    let at: Option<i64> = sqlx::query_scalar(text).fetch_one(connection).await?;
    Ok(at.map(Timestamp::from_micros))
}

/// At a start nothing runs, so no lane is full. The queues that have open ones.
pub(super) async fn start(connection: &mut SqliteConnection) -> Result<Vec<Queue>, StoreError> {
    sqlx::query("UPDATE lanes SET gate = 0 WHERE gate IN (1, 2)").execute(&mut *connection).await?;
    let rows = sqlx::query("SELECT DISTINCT queue FROM lanes WHERE gate = 0").fetch_all(connection).await?;
    rows.iter().map(|row| Cells::new(row).code()).collect()
}

/// The starts of these keys, as far as there were any lately.
pub(super) async fn starts(connection: &mut SqliteConnection, keys: &[&str]) -> Result<Vec<Starts>, StoreError> {
    let text = "SELECT rates.key, starts, latest, until FROM json_each(?) CROSS JOIN rates ON rates.key = value";
    let rows = sqlx::query(text).bind(json(keys)).fetch_all(connection).await?;
    rows.iter().map(read_starts).collect()
}

/// Keeps the starts of these keys, and forgets those that no longer count.
pub(super) async fn keep_starts<'s>(
    connection: &mut SqliteConnection,
    starts: impl Iterator<Item = &'s Starts>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let rows: Vec<_> =
        starts.map(|Starts { key, window, latest, until }| (key, json(window), json(latest), until.as_micros())).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let text = "INSERT INTO rates (key, starts, latest, until) \
                SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?) WHERE true \
                ON CONFLICT DO UPDATE SET starts = excluded.starts, latest = excluded.latest, until = excluded.until";
    sqlx::query(text).bind(json(&rows)).execute(&mut *connection).await?;
    sqlx::query("DELETE FROM rates WHERE until <= ?").bind(now.as_micros()).execute(connection).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection as _, Row as _};

    use super::*;
    use crate::store::kept::lane::OPEN;

    #[tokio::test]
    async fn where_lanes_are_to_stand_is_no_walk_over_all_of_them() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        crate::store::migrations::SQLITE.run_direct(None, &mut connection, false).await.unwrap();
        let (empty, waits) = (r#"["a"]"#, r#"["b"]"#);
        let lanes = [empty, waits].map(|lane| (Queue::Async, lane.to_owned()));
        enter(&mut connection, &lanes.each_ref(), Timestamp::from_micros(1), OPEN).await.unwrap();
        let standing = [Standing { lane: waits.into(), turn: 7, gate: 2 }];
        stand(&mut connection, Queue::Async, &standing, &[empty.into()]).await.unwrap();
        let rows: Vec<(i64, String, i64, i64)> = sqlx::query_as("SELECT * FROM lanes").fetch_all(&mut connection).await.unwrap();
        assert_eq!(rows, [(Queue::Async.code(), waits.into(), 7, 2)]);
        let text = format!("EXPLAIN QUERY PLAN {STAND}");
        let query = sqlx::query(sqlx::AssertSqlSafe(text)).bind("[]").bind(0);
        let rows = query.fetch_all(&mut connection).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
        assert_eq!(plan, ["SCAN json_each VIRTUAL TABLE INDEX 1:"]);
    }
}
