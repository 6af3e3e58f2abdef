//! The SQL of events: what is written of them inside the writer's transaction, and what is read on connections that only read.

use std::sync::LazyLock;

use sqlx::{QueryBuilder, Sqlite, SqliteConnection, SqlitePool};

use super::many::{MOST, Many, Values, make, marks};
use super::read;
use super::rows::{Cells, outcome};
use crate::clock::Timestamp;
use crate::job::JobId;
use crate::store::kept::event::{self, ACCEPTED, EventRow, FINISHED, PAGE, REQUEUED, RUNNING, has_conditions, kinds};
use crate::store::said::Said;
use crate::store::{EventFilter, EventPage, StoreError};

/// Results that are looked through for the latest moment, the latest accepted first: the clock itself is nearly always later.
const LOOKED_AT: i64 = 10_000;

static INSERT: LazyLock<Many> = LazyLock::new(|| {
    Many::new(|rows| {
        format!(
            "INSERT INTO events (at, job, attempt, kind, data) SELECT * FROM (VALUES {}) WHERE column1 IS NOT NULL;",
            marks(INSERT_COLUMNS, rows)
        )
    })
});
const INSERT_COLUMNS: usize = 5;

fn push_to(row: &EventRow, values: &mut Values) -> Result<(), StoreError> {
    values.push(row.at.as_micros())?;
    values.push(&row.job.as_bytes()[..])?;
    values.push(row.attempt)?;
    values.push(row.kind)?;
    values.push(row.data.as_deref())
}

/// Adds rows.
pub(super) async fn insert(connection: &mut SqliteConnection, rows: &[EventRow]) -> Result<(), StoreError> {
    let trips = rows.chunks(MOST).map(|rows| {
        INSERT.trip(rows.len(), move |values, size| values.rows(rows, size, INSERT_COLUMNS, |values, row| push_to(row, values)))
    });
    make(connection, trips.collect(), false).await
}

/// Keeps that a job's attempt was running, which the row of the job is about to forget.
pub(super) async fn keep_attempt(connection: &mut SqliteConnection, id: JobId) -> Result<(), StoreError> {
    let text =
        "INSERT INTO events (at, job, attempt, kind) SELECT claimed_at, id, attempt, ? FROM jobs WHERE id = ? AND state = 2";
    sqlx::query(text).bind(RUNNING).bind(&id.as_bytes()[..]).execute(connection).await?;
    Ok(())
}

/// Keeps how jobs ended, that their last attempts were running, and that they wait again, before their results are taken away. `ids` is
/// a JSON array; each job waits again at its place in it behind `before`.
pub(super) async fn keep_results(connection: &mut SqliteConnection, ids: &str, before: Timestamp) -> Result<(), StoreError> {
    let running = "INSERT INTO events (at, job, attempt, kind) SELECT started_at, id, attempt, ? FROM results \
                   WHERE id IN (SELECT unhex(value) FROM jsonb_each(?)) AND started_at IS NOT NULL";
    sqlx::query(running).bind(RUNNING).bind(ids).execute(&mut *connection).await?;
    let finished = concat!(
        "INSERT INTO events (at, job, attempt, kind, data) SELECT finished_at, id, attempt, ?, json_array(ending, started_at, ",
        outcome!("", "output"),
        ", ",
        outcome!("", "error"),
        ", timing) FROM results WHERE id IN (SELECT unhex(value) FROM jsonb_each(?))"
    );
    sqlx::query(finished).bind(FINISHED).bind(ids).execute(&mut *connection).await?;
    let requeued = "INSERT INTO events (at, job, attempt, kind) SELECT ? + 1 + e.key, results.id, attempt, ? \
                    FROM jsonb_each(?) AS e CROSS JOIN results ON results.id = unhex(e.value)";
    sqlx::query(requeued).bind(before.as_micros()).bind(REQUEUED).bind(ids).execute(connection).await?;
    Ok(())
}

/// How much a job has said.
pub(super) async fn noted(connection: &mut SqliteConnection, id: JobId) -> Result<Said, StoreError> {
    let text =
        "SELECT count(*), CAST(total(length(CAST(data AS BLOB))) AS INTEGER) FROM events WHERE job = ? AND kind IN (2, 3, 4)";
    let row = sqlx::query(text).bind(&id.as_bytes()[..]).fetch_one(connection).await?;
    let mut cells = Cells::new(&row);
    Ok(Said { rows: cells.number()?, bytes: cells.number()? })
}

/// The latest moment that anything was recorded at, as far as a short look tells.
pub(super) async fn latest(connection: &mut SqliteConnection) -> Result<Option<Timestamp>, StoreError> {
    let text = "SELECT max(at) FROM (\
                SELECT max(at) AS at FROM events UNION ALL \
                SELECT max(max(accepted_at, coalesce(claimed_at, 0))) FROM (SELECT accepted_at, claimed_at FROM jobs ORDER BY id DESC LIMIT ?1) \
                UNION ALL SELECT max(finished_at) FROM (SELECT finished_at FROM results ORDER BY id DESC LIMIT ?1))";
    let at: Option<i64> = sqlx::query_scalar(text).bind(LOOKED_AT).fetch_one(connection).await?;
    Ok(at.map(Timestamp::from_micros))
}

/// The next events after `after`, in one snapshot. Those that `jobs` and `results` tell of are of no older job than `oldest`, if that is
/// known.
pub(super) async fn read(
    readers: &SqlitePool,
    filter: &EventFilter,
    after: Timestamp,
    oldest: Option<JobId>,
) -> Result<EventPage, StoreError> {
    let mut query = query(filter, after, oldest);
    event::page(query.build().fetch(readers), filter, after).await
}

/// What happened, found wherever it is kept: the moments first, then what belongs to those of the page.
fn query(filter: &EventFilter, after: Timestamp, oldest: Option<JobId>) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new(
        "WITH page AS (SELECT at, id, kind, source FROM (SELECT at, job AS id, kind, 0 AS source FROM events WHERE at > ",
    );
    query.push_bind(after.as_micros());
    if let Some(job) = filter.job {
        query.push(" AND job = ").push_bind(job.as_bytes().to_vec());
    }
    if has_conditions(filter) {
        for (table, start) in [("jobs", " AND (job IN (SELECT id FROM "), ("results", " OR job IN (SELECT id FROM ")] {
            query.push(start).push(table).push(" WHERE id = job");
            conditions(&mut query, filter);
            query.push(")");
        }
        query.push(")");
    }
    // A job that waits again after an attempt has its claim among the events.
    let rebuilt = [
        ("jobs", 1, "accepted_at", ACCEPTED, "true"),
        ("jobs", 1, "claimed_at", RUNNING, "state = 2"),
        ("results", 2, "accepted_at", ACCEPTED, "true"),
        ("results", 2, "started_at", RUNNING, "true"),
        ("results", 2, "finished_at", FINISHED, "true"),
    ];
    for (table, source, at, kind, condition) in rebuilt {
        if !kinds(filter).contains(&kind) {
            continue;
        }
        query.push(format!(" UNION ALL SELECT {at}, id, {kind}, {source} FROM {table} WHERE {condition} AND {at} > "));
        query.push_bind(after.as_micros());
        if let Some(job) = filter.job {
            query.push(" AND id = ").push_bind(job.as_bytes().to_vec());
        }
        if let Some(oldest) = oldest {
            query.push(" AND id >= ").push_bind(oldest.as_bytes().to_vec());
        }
        conditions(&mut query, filter);
    }
    let kinds = kinds(filter).iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    query.push(format!(") WHERE kind IN ({kinds}) ORDER BY at LIMIT {}) ", PAGE.0));
    query.push(DETAILS.as_str());
    query
}

/// What belongs to the events of a page, in their order: `page` is the outermost loop, and keeps its order for its limit's sake. To
/// sort once more would take all outputs of a page into memory. What was taken away from `results` is an array.
static DETAILS: LazyLock<String> = LazyLock::new(|| {
    let kept =
        |at: usize, column: &str| format!("iif(page.source = 0, iif(page.kind = {FINISHED}, e.data ->> {at}, NULL), {column})");
    let of_result = [
        kept(0, "f.ending"),
        kept(1, "f.started_at"),
        "page.at".to_owned(),
        kept(2, outcome!("f.", "output")),
        kept(3, outcome!("f.", "error")),
        kept(4, "f.timing"),
    ];
    format!(
        "SELECT page.at, page.id, coalesce(j.bound, r.bound), coalesce(j.queue, r.queue), page.kind, \
                coalesce(e.attempt, j.attempt, r.attempt), iif(page.kind = {FINISHED}, NULL, e.data), {} \
         FROM page LEFT JOIN events AS e ON page.source = 0 AND e.at = page.at \
         LEFT JOIN jobs AS j ON j.id = page.id LEFT JOIN results AS r ON r.id = page.id \
         LEFT JOIN results AS f ON page.source = 2 AND page.kind = {FINISHED} AND f.id = page.id \
         WHERE j.id IS NOT NULL OR r.id IS NOT NULL",
        of_result.join(", ")
    )
});

/// What is asked of the job, as conditions on its row in `jobs` or `results`.
fn conditions(query: &mut QueryBuilder<Sqlite>, filter: &EventFilter) {
    read::subject(query, filter.owner, filter.bound, filter.executor, filter.workload.as_deref());
    for (key, value) in &filter.tags {
        query.push(" AND id IN (SELECT id FROM tags WHERE key = ").push_bind(key.clone());
        query.push(" AND value = ").push_bind(value.clone()).push(")");
    }
}
