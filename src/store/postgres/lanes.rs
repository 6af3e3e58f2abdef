//! The SQL of lanes, where jobs wait that share a limit: inside the writer's transaction.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::PgConnection;
use sqlx::postgres::PgRow;

use super::rows::{self, Cells, Lane, Taken, of_claim, of_id};
use crate::clock::Timestamp;
use crate::job::{JobId, Owner, Queue};
use crate::store::StoreError;
use crate::store::claims::MOST_BYTES;
use crate::store::counted::{Counted, Starts};
use crate::store::kept::lane::{Head, Standing, read_starts};
use crate::store::kept::{Options, code, json, number};

/// A lane whose turn it is.
pub(super) struct OpenLane {
    pub(super) lane: String,
    pub(super) turn: i64,
    /// What its jobs require of a node.
    pub(super) place: String,
}

/// A lane that may be served again: the number of its queue, and what its jobs require of a node.
pub(super) type Opened = (u8, String);

fn opened(rows: &[PgRow]) -> Result<Vec<Opened>, StoreError> {
    let one = |row| {
        let mut cells = Cells::new(row);
        Ok((cells.queue_number()?, cells.take()?))
    };
    rows.iter().map(one).collect()
}

/// Notes that jobs wait in these lanes.
pub(super) async fn enter(
    connection: &mut PgConnection,
    lanes: &HashMap<(Queue, String), Lane>,
    turn: Timestamp,
) -> Result<(), StoreError> {
    let text = "INSERT INTO lanes (queue, lane, turn, ckey, rkey, owner, place) \
                SELECT t.queue, t.lane, $1, t.ckey, t.rkey, t.owner, t.place \
                FROM unnest($2::SMALLINT[], $3::TEXT[], $4::TEXT[], $5::TEXT[], $6::BIGINT[], $7::TEXT[]) \
                AS t(queue, lane, ckey, rkey, owner, place) ON CONFLICT DO NOTHING";
    sqlx::query(text)
        .bind(turn.as_micros())
        .bind(lanes.keys().map(|(queue, _)| code(*queue)).collect::<Vec<_>>())
        .bind(lanes.values().map(|lane| lane.name.as_str()).collect::<Vec<_>>())
        .bind(lanes.values().map(|lane| lane.ckey.as_deref()).collect::<Vec<_>>())
        .bind(lanes.values().map(|lane| lane.rkey.as_deref()).collect::<Vec<_>>())
        .bind(lanes.values().map(|lane| lane.confined).collect::<Vec<_>>())
        .bind(lanes.values().map(|lane| lane.place.as_str()).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}

/// Opens those of these lanes that are shut, if their gate is no higher than the first number and fewer jobs than the second run with their key.
pub(super) async fn open_touched(
    connection: &mut PgConnection,
    touched: &HashMap<(Queue, String), (i64, u32)>,
) -> Result<Vec<Opened>, StoreError> {
    let text = "UPDATE lanes SET gate = 0 FROM unnest($1::SMALLINT[], $2::TEXT[], $3::BIGINT[], $4::BIGINT[]) AS t(queue, lane, opens, most) \
                WHERE lanes.queue = t.queue AND lanes.lane = t.lane AND gate BETWEEN 1 AND t.opens AND t.most > \
                (SELECT count(*) FROM work WHERE work.state = 2 AND work.ckey IS NOT NULL AND work.ckey = lanes.ckey) \
                RETURNING lanes.queue, lanes.place";
    let rows = sqlx::query(text)
        .bind(touched.keys().map(|(queue, _)| code(*queue)).collect::<Vec<_>>())
        .bind(touched.keys().map(|(_, lane)| lane.as_str()).collect::<Vec<_>>())
        .bind(touched.values().map(|(opens, _)| *opens).collect::<Vec<_>>())
        .bind(touched.values().map(|(_, most)| i64::from(*most)).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    opened(&rows)
}

/// The open lanes of a queue whose jobs require any of this, in the order of their turns.
pub(super) async fn next(
    connection: &mut PgConnection,
    queue: Queue,
    places: &[String],
    most: usize,
) -> Result<Vec<OpenLane>, StoreError> {
    let text = "SELECT l.lane, l.turn, l.place FROM unnest($3::TEXT[]) AS p(place) CROSS JOIN LATERAL \
                (SELECT lane, turn, place FROM lanes WHERE queue = $1 AND place = p.place AND gate = 0 ORDER BY turn, lane LIMIT $2) AS l \
                ORDER BY l.turn, l.lane LIMIT $2";
    let rows = sqlx::query(text).bind(code(queue)).bind(number(most)).bind(places).fetch_all(connection).await?;
    rows.iter()
        .map(|row| {
            let mut cells = Cells::new(row);
            Ok(OpenLane { lane: cells.take()?, turn: cells.take()?, place: cells.take()? })
        })
        .collect()
}

/// The first jobs of each of these lanes, in the order in which it is their turn; without those whose time is over.
pub(super) async fn heads(
    connection: &mut PgConnection,
    queue: Queue,
    lanes: &[OpenLane],
    each: usize,
    now: Timestamp,
) -> Result<Vec<Head>, StoreError> {
    let text = "SELECT l.n, head.id, head.confined FROM unnest($1::TEXT[]) WITH ORDINALITY AS l(lane, n) CROSS JOIN LATERAL \
                (SELECT id, turn, confined FROM work WHERE state = 4 AND queue = $2 AND lane = l.lane \
                AND (expires_at IS NULL OR expires_at > $4) ORDER BY turn, id LIMIT $3) AS head ORDER BY l.n, head.turn, head.id";
    let names: Vec<&str> = lanes.iter().map(|lane| lane.lane.as_str()).collect();
    let query = sqlx::query(text).bind(names).bind(code(queue)).bind(number(each)).bind(now.as_micros());
    let mut heads = Vec::new();
    for row in &query.fetch_all(&mut *connection).await? {
        let mut cells = Cells::new(row);
        let (n, id): (usize, JobId) = (cells.number()?, cells.id()?);
        let owner = cells.take::<Option<i64>>()?.and_then(Owner::from_code);
        heads.push(Head { lane: n.saturating_sub(1), id, concurrency: None, rate: None, owner, bytes: 0 });
    }
    // By ids that are known, or all partitions would be planned for.
    let text = "SELECT id, octet_length(workload)::BIGINT, options FROM jobs WHERE id = ANY($1)";
    let rows = sqlx::query(text).bind(rows::uuids(heads.iter().map(|head| &head.id))).fetch_all(connection).await?;
    let mut of_id = HashMap::with_capacity(rows.len());
    for row in &rows {
        let mut cells = Cells::new(row);
        // Those of a job that can't be read: its claim finds that out as well, and leaves it to others.
        of_id.insert(cells.id()?, (cells.take()?, cells.json::<Options<'_>>().unwrap_or_default().unwrap_or_default()));
    }
    for head in &mut heads {
        let (bytes, options) = of_id.remove(&head.id).unwrap_or_default();
        head.bytes = bytes;
        head.concurrency = options.concurrency.map(std::borrow::Cow::into_owned);
        head.rate = options.rate.map(std::borrow::Cow::into_owned);
    }
    Ok(heads)
}

/// How many jobs run that count for these.
pub(super) async fn running(
    connection: &mut PgConnection,
    counted: impl Iterator<Item = Counted>,
) -> Result<HashMap<Counted, i64>, StoreError> {
    let (mut keys, mut owners) = (Vec::new(), Vec::new());
    for counted in counted {
        match counted {
            Counted::Key(key) => keys.push(key.to_string()),
            Counted::Owner(owner) => owners.push(owner.code()),
        }
    }
    let mut running = HashMap::new();
    if !keys.is_empty() {
        let text = "SELECT ckey, count(*) FROM work WHERE state = 2 AND ckey IS NOT NULL AND ckey = ANY($1) GROUP BY ckey";
        let rows: Vec<(String, i64)> = sqlx::query_as(text).bind(keys).fetch_all(&mut *connection).await?;
        running.extend(rows.into_iter().map(|(key, count)| (Counted::Key(key.into()), count)));
    }
    if !owners.is_empty() {
        let text = "SELECT confined, count(*) FROM work WHERE state = 2 AND confined IS NOT NULL AND confined = ANY($1) GROUP BY confined";
        let rows: Vec<(i64, i64)> = sqlx::query_as(text).bind(owners).fetch_all(connection).await?;
        let owner = |(code, count)| Some((Counted::Owner(Owner::from_code(code)?), count));
        running.extend(rows.into_iter().filter_map(owner));
    }
    Ok(running)
}

/// Claims these jobs of a queue for a node, each at its moment.
pub(super) async fn claim(
    connection: &mut PgConnection,
    queue: Queue,
    jobs: &[(JobId, Timestamp)],
    token: i64,
    node: i64,
) -> Result<Taken, StoreError> {
    if jobs.is_empty() {
        return Ok(Taken::default());
    }
    let text = concat!(
        "WITH w AS (UPDATE work SET state = 2, attempt = attempt + 1, token = $1, node = $2, stopping = false, claimed_at = ",
        of_id!("$4::BIGINT[]", "id", "$3"),
        " WHERE id = ANY($3) AND state <> 2 RETURNING id, token, attempt, losses, earlier, claimed_at, due_at) SELECT ",
        of_claim!(),
        " FROM w CROSS JOIN LATERAL (SELECT bound, type, workload, options FROM jobs WHERE id = w.id AND id BETWEEN $5 AND $6 LIMIT 1) AS j"
    );
    let (first, last) = rows::ends(jobs.iter().map(|(id, _)| id));
    let (ids, moments) = rows::by_id(jobs.iter().map(|(id, at)| (*id, at.as_micros())));
    let query = sqlx::query(text).bind(token).bind(node).bind(ids).bind(moments).bind(first).bind(last);
    rows::taken(&query.fetch_all(connection).await?, queue)
}

/// Claims up to `most` queued jobs whose time is not over `now` for a node, and no more than [`MOST_BYTES`], in the order in which it is their turn: each a
/// microsecond later than the one before, the first one a microsecond after `before`.
pub(super) async fn claim_next(
    connection: &mut PgConnection,
    queue: Queue,
    most: usize,
    (token, node, before): (i64, i64, Timestamp),
    now: Timestamp,
) -> Result<Taken, StoreError> {
    let text = "SELECT id FROM work WHERE state = 1 AND queue = $1 AND (expires_at IS NULL OR expires_at > $2) \
                ORDER BY turn, id LIMIT $3 FOR UPDATE SKIP LOCKED";
    let query = sqlx::query(text).bind(code(queue)).bind(now.as_micros()).bind(number(most));
    let rows = query.fetch_all(&mut *connection).await?;
    let mut ids = rows.iter().map(|row| Cells::new(row).id()).collect::<Result<Vec<_>, _>>()?;
    if ids.len() > 1 {
        let fitting = fitting(connection, &ids).await?;
        ids.truncate(fitting);
    }
    let mut at = before;
    let one = |id| {
        at = at.after(Duration::from_micros(1));
        (id, at)
    };
    let jobs: Vec<_> = ids.into_iter().map(one).collect();
    claim(connection, queue, &jobs, token, node).await
}

/// How many of the first of these jobs have no more than [`MOST_BYTES`] of workloads together: one at least.
async fn fitting(connection: &mut PgConnection, ids: &[JobId]) -> Result<usize, StoreError> {
    let text = "SELECT id, octet_length(workload)::BIGINT FROM jobs WHERE id = ANY($1)";
    let mut of_id = HashMap::with_capacity(ids.len());
    for row in &sqlx::query(text).bind(rows::uuids(ids)).fetch_all(connection).await? {
        let mut cells = Cells::new(row);
        of_id.insert(cells.id()?, cells.take::<i64>()?);
    }
    let mut bytes = 0;
    let fits = |id: &&JobId| {
        bytes += of_id.get(*id).copied().unwrap_or_default();
        bytes <= MOST_BYTES
    };
    Ok(ids.iter().take_while(fits).count().max(1))
}

/// Puts lanes where they are to stand, and takes away those in which nobody waits.
pub(super) async fn stand(
    connection: &mut PgConnection,
    queue: Queue,
    standing: &[Standing],
    empty: &[String],
) -> Result<(), StoreError> {
    if !standing.is_empty() {
        let text = "UPDATE lanes SET turn = t.turn, gate = t.gate FROM unnest($1::TEXT[], $2::BIGINT[], $3::BIGINT[]) AS t(lane, turn, gate) \
                    WHERE lanes.queue = $4 AND lanes.lane = t.lane";
        sqlx::query(text)
            .bind(standing.iter().map(|standing| standing.lane.as_str()).collect::<Vec<_>>())
            .bind(standing.iter().map(|standing| standing.turn).collect::<Vec<_>>())
            .bind(standing.iter().map(|standing| standing.gate).collect::<Vec<_>>())
            .bind(code(queue))
            .execute(&mut *connection)
            .await?;
    }
    if !empty.is_empty() {
        sqlx::query("DELETE FROM lanes WHERE queue = $1 AND lane = ANY($2)")
            .bind(code(queue))
            .bind(empty)
            .execute(connection)
            .await?;
    }
    Ok(())
}

/// Those of these for which lanes are shut.
pub(super) async fn shut_for(connection: &mut PgConnection, counted: &[&Counted]) -> Result<Vec<Counted>, StoreError> {
    let text = "SELECT key, NULL FROM unnest($1::TEXT[]) AS keys (key) \
                WHERE EXISTS (SELECT 1 FROM lanes WHERE gate = 1 AND ckey = keys.key) \
                UNION ALL SELECT NULL, owner FROM unnest($2::BIGINT[]) AS owners (owner) \
                WHERE EXISTS (SELECT 1 FROM lanes WHERE gate = 2 AND lanes.owner = owners.owner)";
    let keys = counted.iter().filter_map(|counted| if let Counted::Key(key) = counted { Some(&**key) } else { None });
    let owners = counted.iter().filter_map(|counted| if let Counted::Owner(owner) = counted { Some(owner.code()) } else { None });
    let query = sqlx::query_as(text).bind(keys.collect::<Vec<_>>()).bind(owners.collect::<Vec<_>>());
    let rows: Vec<(Option<String>, Option<i64>)> = query.fetch_all(connection).await?;
    let is_shut = |counted: &Counted| {
        rows.iter().any(|(key, owner)| match counted {
            Counted::Key(name) => key.as_deref() == Some(&**name),
            Counted::Owner(code) => *owner == Some(code.code()),
        })
    };
    Ok(counted.iter().filter(|counted| is_shut(counted)).map(|counted| (*counted).clone()).collect())
}

/// Opens up to `most` lanes that were shut because too many jobs run that count for this; the queue of each. Up to so many of each of these
/// queues, and of those that require the same of a node: who may serve them is not known here.
pub(super) async fn vacate(
    connection: &mut PgConnection,
    counted: &Counted,
    queues: &[i16],
    most: usize,
) -> Result<Vec<Opened>, StoreError> {
    macro_rules! vacate {
        ($shut:literal) => {
            concat!(
                "UPDATE lanes SET gate = 0 WHERE (queue, lane) IN (SELECT l.queue, l.lane FROM unnest($3::SMALLINT[]) AS q(queue) CROSS JOIN \
                 (SELECT '' COLLATE \"C\" AS place UNION SELECT place FROM lanes WHERE place <> '') AS p CROSS JOIN LATERAL \
                 (SELECT queue, lane FROM lanes WHERE ",
                $shut,
                " AND queue = q.queue AND place = p.place ORDER BY turn LIMIT $2) AS l) RETURNING queue, place"
            )
        };
    }
    let query = match counted {
        Counted::Key(name) => sqlx::query(vacate!("gate = 1 AND ckey = $1")).bind(&**name),
        Counted::Owner(code) => sqlx::query(vacate!("gate = 2 AND owner = $1")).bind(code.code()),
    };
    let rows = query.bind(number(most)).bind(queues).fetch_all(connection).await?;
    opened(&rows)
}

/// The owners for whose quotas lanes are shut.
pub(super) async fn over_quota(connection: &mut PgConnection) -> Result<Vec<Owner>, StoreError> {
    let text = "SELECT DISTINCT owner FROM lanes WHERE gate = 2 AND owner IS NOT NULL";
    let owners: Vec<i64> = sqlx::query_scalar(text).fetch_all(connection).await?;
    Ok(owners.into_iter().filter_map(Owner::from_code).collect())
}

/// Opens up to `most` lanes that were shut until now, or a moment before; the queue of each.
pub(super) async fn open(connection: &mut PgConnection, now: Timestamp, most: usize) -> Result<Vec<Opened>, StoreError> {
    let text = "UPDATE lanes SET gate = 0 WHERE (queue, lane) IN \
                (SELECT queue, lane FROM lanes WHERE gate > 2 AND gate <= $1 ORDER BY gate LIMIT $2) RETURNING queue, place";
    let rows = sqlx::query(text).bind(now.as_micros()).bind(number(most)).fetch_all(connection).await?;
    opened(&rows)
}

/// When the next lane opens that is shut for a time.
pub(super) async fn next_open(connection: &mut PgConnection) -> Result<Option<i64>, StoreError> {
    Ok(sqlx::query_scalar("SELECT min(gate) FROM lanes WHERE gate > 2").fetch_one(connection).await?)
}

/// Forgets lanes whose jobs require labels of a node, and that have none any more: perhaps no node has looked there.
pub(super) async fn tidy(connection: &mut PgConnection) -> Result<(), StoreError> {
    let text = "DELETE FROM lanes WHERE place <> '' AND NOT EXISTS \
                (SELECT 1 FROM work WHERE work.state = 4 AND work.queue = lanes.queue AND work.lane = lanes.lane)";
    sqlx::query(text).execute(connection).await?;
    Ok(())
}

/// Opens all lanes that are shut because too many jobs run.
pub(super) async fn reopen(connection: &mut PgConnection) -> Result<(), StoreError> {
    sqlx::query("UPDATE lanes SET gate = 0 WHERE gate IN (1, 2)").execute(connection).await?;
    Ok(())
}

/// The queues that have open lanes, and what the jobs there require.
pub(super) async fn open_places(connection: &mut PgConnection) -> Result<Vec<Opened>, StoreError> {
    let rows = sqlx::query("SELECT DISTINCT queue, place FROM lanes WHERE gate = 0").fetch_all(connection).await?;
    opened(&rows)
}

/// The starts of these keys, as far as there were any lately.
pub(super) async fn starts(connection: &mut PgConnection, keys: &[&str]) -> Result<Vec<Starts>, StoreError> {
    let text = "SELECT key, starts, latest, until FROM rates WHERE key = ANY($1)";
    let rows = sqlx::query(text).bind(keys).fetch_all(connection).await?;
    rows.iter().map(read_starts).collect()
}

/// Keeps the starts of these keys, and forgets those that no longer count.
pub(super) async fn keep_starts<'s>(
    connection: &mut PgConnection,
    starts: impl Iterator<Item = &'s Starts>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let all: Vec<&Starts> = starts.collect();
    if all.is_empty() {
        return Ok(());
    }
    let text = "INSERT INTO rates (key, starts, latest, until) \
                SELECT * FROM unnest($1::TEXT[], $2::TEXT[], $3::TEXT[], $4::BIGINT[]) \
                ON CONFLICT (key) DO UPDATE SET starts = excluded.starts, latest = excluded.latest, until = excluded.until";
    sqlx::query(text)
        .bind(all.iter().map(|starts| starts.key.as_str()).collect::<Vec<_>>())
        .bind(all.iter().map(|starts| json(&starts.window)).collect::<Vec<_>>())
        .bind(all.iter().map(|starts| json(&starts.latest)).collect::<Vec<_>>())
        .bind(all.iter().map(|starts| starts.until.as_micros()).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await?;
    sqlx::query("DELETE FROM rates WHERE until <= $1").bind(now.as_micros()).execute(connection).await?;
    Ok(())
}
