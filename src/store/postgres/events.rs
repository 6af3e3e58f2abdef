//! The SQL of events: what is written of them inside the writer's transaction, and what is read.

use sqlx::{PgConnection, Postgres, QueryBuilder};

use super::pool::Pool;
use super::read;
use super::rows::{self, Cells, uuid, uuids};
use crate::clock::Timestamp;
use crate::job::JobId;
use crate::store::kept::event::{self, ACCEPTED, EventRow, FINISHED, PAGE, REQUEUED, RUNNING, has_conditions, kinds};
use crate::store::said::Said;
use crate::store::{EventFilter, EventPage, StoreError};

/// Adds rows.
pub(super) async fn insert(connection: &mut PgConnection, rows: &[EventRow]) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let insert = "INSERT INTO events (at, job, attempt, kind, data) \
                SELECT * FROM unnest($1::BIGINT[], $2::UUID[], $3::BIGINT[], $4::SMALLINT[], $5::TEXT[])";
    sqlx::query(insert)
        .bind(rows.iter().map(|row| row.at.as_micros()).collect::<Vec<_>>())
        .bind(uuids(rows.iter().map(|row| &row.job)))
        .bind(rows.iter().map(|row| i64::from(row.attempt)).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.kind).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.data.as_deref()).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}

/// Keeps that attempts of these jobs were running, which their rows are about to forget.
pub(super) async fn keep_attempts(connection: &mut PgConnection, ids: &[JobId]) -> Result<(), StoreError> {
    // `state = 2` would let the planner go through all that runs instead of looking up ids.
    let text = "INSERT INTO events (at, job, attempt, kind) SELECT claimed_at, id, attempt, $1 FROM work WHERE id = ANY($2) AND state + 0 = 2";
    sqlx::query(text).bind(RUNNING).bind(uuids(ids)).execute(connection).await?;
    Ok(())
}

/// Keeps how jobs ended, that their last attempts were running, and that they wait again from these moments on, before their results are
/// taken away.
pub(super) async fn keep_results(connection: &mut PgConnection, ids: &[JobId], moments: &[i64]) -> Result<(), StoreError> {
    let (first, last) = rows::ends(ids.iter());
    let ids = uuids(ids);
    let running = "INSERT INTO events (at, job, attempt, kind) SELECT started_at, id, attempt, $1 FROM results \
                   WHERE id = ANY($2) AND started_at IS NOT NULL";
    sqlx::query(running).bind(RUNNING).bind(&ids).execute(&mut *connection).await?;
    let finished = "INSERT INTO events (at, job, attempt, kind, data) \
                    SELECT finished_at, id, attempt, $1, json_build_array(ending, started_at, output, error, timing)::TEXT FROM results \
                    WHERE id = ANY($2)";
    sqlx::query(finished).bind(FINISHED).bind(&ids).execute(&mut *connection).await?;
    let requeued = "INSERT INTO events (at, job, attempt, kind) SELECT t.at, r.id, r.attempt, $1 \
                    FROM unnest($2::UUID[], $3::BIGINT[]) AS t(id, at) JOIN results r ON r.id = t.id AND r.id BETWEEN $4 AND $5";
    sqlx::query(requeued).bind(REQUEUED).bind(&ids).bind(moments).bind(first).bind(last).execute(connection).await?;
    Ok(())
}

/// How much a job has said.
pub(super) async fn noted(connection: &mut PgConnection, id: JobId) -> Result<Said, StoreError> {
    let text = "SELECT count(*), coalesce(sum(octet_length(data)), 0)::BIGINT FROM events WHERE job = $1 AND kind IN (2, 3, 4)";
    let row = sqlx::query(text).bind(uuid(id)).fetch_one(connection).await?;
    let mut cells = Cells::new(&row);
    Ok(Said { rows: cells.number()?, bytes: cells.number()? })
}

/// The next events after `after`, in one snapshot.
pub(super) async fn read(pool: &Pool, filter: &EventFilter, after: Timestamp) -> Result<EventPage, StoreError> {
    let mut query = query(filter, after);
    event::page(query.build().fetch(pool), filter, after).await
}

/// What happened, found wherever it is kept: the moments first, each kind by an index in the order of its moments, then what belongs to
/// those of the page.
fn query(filter: &EventFilter, after: Timestamp) -> QueryBuilder<Postgres> {
    // A job that waits again after an attempt has its claim among the events.
    let sources = [
        ("events AS s", "s.job", "at", "s.kind", 0_i16, "true"),
        ("jobs AS s", "s.id", "accepted_at", "0::SMALLINT", 1, "true"),
        ("work AS s", "s.id", "claimed_at", "1::SMALLINT", 1, "s.state = 2"),
        ("results AS s", "s.id", "started_at", "1::SMALLINT", 2, "s.started_at IS NOT NULL"),
        ("results AS s", "s.id", "finished_at", "7::SMALLINT", 2, "true"),
    ];
    let kinds = kinds(filter);
    let list = kinds.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut query = QueryBuilder::new("WITH page AS (SELECT * FROM (");
    let mut first = true;
    for (place, (table, id, at, kind, source, condition)) in sources.into_iter().enumerate() {
        let own = [None, Some(ACCEPTED), Some(RUNNING), Some(RUNNING), Some(FINISHED)][place];
        if own.is_some_and(|own| !kinds.contains(&own)) {
            continue;
        }
        query.push(if std::mem::take(&mut first) { "(SELECT " } else { " UNION ALL (SELECT " });
        query.push(format!("s.{at} AS at, {id} AS id, {kind} AS kind, {source} AS source FROM {table}"));
        if has_conditions(filter) {
            query.push(format!(" JOIN jobs j ON j.id = {id}"));
        }
        query.push(format!(" WHERE {condition} AND s.{at} > ")).push_bind(after.as_micros());
        if own.is_none() {
            query.push(format!(" AND s.kind IN ({list})"));
        }
        if let Some(job) = filter.job {
            query.push(format!(" AND {id} = ")).push_bind(uuid(job));
        }
        conditions(&mut query, filter);
        query.push(format!(" ORDER BY s.{at} LIMIT {})", PAGE.0));
    }
    query.push(format!(") AS all_sources ORDER BY at LIMIT {}) ", PAGE.0));
    query.push(
        "SELECT page.at, page.id, j.bound, j.queue, page.kind, coalesce(e.attempt, w.attempt, r.attempt, 0), e.data, \
         f.ending, f.started_at, f.finished_at, f.output, f.error, f.timing \
         FROM page JOIN jobs j ON j.id = page.id LEFT JOIN events e ON page.source = 0 AND e.at = page.at \
         LEFT JOIN work w ON w.id = page.id LEFT JOIN results r ON r.id = page.id \
         LEFT JOIN results f ON page.source = 2 AND page.kind = 7 AND f.id = page.id",
    );
    if let Some(job) = filter.job {
        // They are all of it. This says in which partition that is.
        query.push(" WHERE page.id = ").push_bind(uuid(job));
    }
    query.push(" ORDER BY page.at");
    query
}

/// What is asked of the job, as conditions on its row `j`.
fn conditions(query: &mut QueryBuilder<Postgres>, filter: &EventFilter) {
    read::subject(query, filter.owner, filter.bound, filter.executor, filter.workload.as_deref());
    for (key, value) in &filter.tags {
        query.push(" AND EXISTS (SELECT 1 FROM tags WHERE tags.id = j.id AND tags.key = ").push_bind(key.clone());
        query.push(" AND tags.value = ").push_bind(value.clone()).push(")");
    }
}
