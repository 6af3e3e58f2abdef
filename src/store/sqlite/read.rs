//! What can be read: single jobs and pages of lists, on connections that only read.

use std::collections::HashMap;
use std::sync::LazyLock;

use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Sqlite, SqlitePool};

use super::codes::Code;
use super::moves::array;
use super::rows::{self, Cells, OF_BOTH, OF_JOB, OF_RESULT, OUTCOME_BYTES, OUTLINE_OF_BOTH, OUTLINE_OF_RESULT, outcome};
use crate::job::{Bound, Ending, Executor, Job, JobId, Owner, Queue};
use crate::store::kept::state::{codes_of_any, lots_of};
use crate::store::kept::{ID_SLACK, first_id, number};
use crate::store::page::Ids;
use crate::store::{Filter, Order, Page, StateFilter, StoreError, page};

/// The most jobs that one statement looks for.
const LOOKED_FOR: usize = 500;

pub(super) async fn job(readers: &SqlitePool, id: JobId) -> Result<Option<Job>, StoreError> {
    static UNFINISHED: LazyLock<String> = LazyLock::new(|| format!("SELECT {OF_BOTH}, {OF_JOB} FROM jobs WHERE id = ?"));
    static RESULT: LazyLock<String> = LazyLock::new(|| format!("SELECT {OF_BOTH}, {OF_RESULT} FROM results WHERE id = ?"));
    let find = async |text: &'static str, read: fn(&SqliteRow) -> Result<Job, StoreError>| {
        let row = sqlx::query(text).bind(&id.as_bytes()[..]).fetch_optional(readers).await?;
        row.as_ref().map(read).transpose()
    };
    // A job moves to the results, so a look there that finds nothing may have been too early for one that has just left `jobs`;
    // and one that is run again moves back.
    for (text, read) in [
        (&RESULT, rows::result as fn(&SqliteRow) -> _),
        (&UNFINISHED, rows::unfinished),
        (&RESULT, rows::result),
        (&UNFINISHED, rows::unfinished),
    ] {
        if let Some(job) = find(text.as_str(), read).await? {
            return Ok(Some(job));
        }
    }
    Ok(None)
}

pub(super) async fn outlines(readers: &SqlitePool, ids: &[JobId]) -> Result<HashMap<JobId, Job>, StoreError> {
    static UNFINISHED: LazyLock<String> = LazyLock::new(|| of_ids("jobs", OF_JOB));
    static RESULTS: LazyLock<String> = LazyLock::new(|| of_ids("results", OUTLINE_OF_RESULT));
    let mut outlines = HashMap::with_capacity(ids.len());
    for some in ids.chunks(LOOKED_FOR) {
        // One snapshot for both tables, so that no job is seen in neither.
        let mut snapshot = readers.begin().await?;
        for (text, read) in [(&UNFINISHED, rows::unfinished as fn(&SqliteRow) -> _), (&RESULTS, rows::result)] {
            for row in sqlx::query(text.as_str()).bind(array(some)).fetch_all(&mut *snapshot).await? {
                let job = read(&row)?;
                outlines.insert(job.id, job);
            }
        }
        snapshot.commit().await?;
    }
    Ok(outlines)
}

fn of_ids(table: &str, further: &str) -> String {
    format!("SELECT {OUTLINE_OF_BOTH}, {further} FROM {table} WHERE id IN (SELECT unhex(value) FROM json_each(?))")
}

pub(super) async fn jobs(readers: &SqlitePool, filter: &Filter, page: Page) -> Result<Vec<Job>, StoreError> {
    let of_the_ended = filter.error.is_some() || filter.findings.is_some();
    let has_unfinished = filter.states.is_empty() || !codes_of_any(&filter.states).is_empty();
    found(readers, has_unfinished && !of_the_ended, filter, page).await
}

pub(super) async fn results(readers: &SqlitePool, filter: &Filter, page: Page) -> Result<Vec<Job>, StoreError> {
    found(readers, false, filter, page).await
}

/// A page, of the jobs that have ended, and perhaps of those that have not.
async fn found(readers: &SqlitePool, with_unfinished: bool, filter: &Filter, page: Page) -> Result<Vec<Job>, StoreError> {
    // One snapshot for both tables, so that no job is seen in neither or in both.
    let mut snapshot = readers.begin().await?;
    let mut jobs = Vec::new();
    if with_unfinished {
        let mut query = query("jobs", OF_JOB, &unfinished(&filter.states), filter, page);
        jobs = page::read(query.build().fetch(&mut *snapshot), rows::unfinished).await?;
    }
    for lot in lots_of(&filter.states) {
        let mut query = query("results", OF_RESULT, &ended(&lot), filter, page);
        jobs.extend(page::read(query.build().fetch(&mut *snapshot), rows::result).await?);
    }
    snapshot.commit().await?;
    sort(&mut jobs, page.order, |job| job.id);
    jobs.truncate(page.limit);
    Ok(jobs)
}

/// The ids of a page of unfinished jobs, or of finished ones with no more than a page has of outcomes.
pub(super) async fn ids(readers: &SqlitePool, table: Table, filter: &Filter, page: Page) -> Result<Ids, StoreError> {
    let (table, bytes, standings) = match table {
        Table::Jobs => ("jobs", "0", vec![unfinished(&filter.states)]),
        Table::Results => ("results", OUTCOME_BYTES, lots_of(&filter.states).iter().map(|lot| ended(lot)).collect()),
    };
    let mut found = Vec::new();
    for standing in standings {
        let select = format!("SELECT id, {bytes} FROM {} WHERE true{standing}", source(table, filter));
        for row in conditions(select, filter, page).build().fetch_all(readers).await? {
            let mut cells = Cells::new(&row);
            found.push((cells.id()?, cells.number()?));
        }
    }
    sort(&mut found, page.order, |(id, _)| *id);
    let mut ids = Ids::default();
    for (id, weight) in found.into_iter().take(page.limit) {
        if !ids.takes(id, weight, page) {
            break;
        }
    }
    Ok(ids)
}

fn sort<T>(found: &mut [T], order: Order, id: impl Fn(&T) -> JobId) {
    match order {
        Order::NewestFirst => found.sort_unstable_by_key(|one| std::cmp::Reverse(id(one))),
        Order::OldestFirst => found.sort_unstable_by_key(id),
    }
}

/// Where jobs are looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    /// Among those that have not ended.
    Jobs,
    /// Among those that have.
    Results,
}

fn query(table: &str, further: &str, standing: &str, filter: &Filter, page: Page) -> QueryBuilder<Sqlite> {
    conditions(format!("SELECT {OF_BOTH}, {further} FROM {} WHERE true{standing}", source(table, filter)), filter, page)
}

/// Labels come in the order of the jobs that have them, so that a page is read from the first of them, be it rare or on every job.
fn source(table: &str, filter: &Filter) -> String {
    if filter.tags.is_empty() { table.to_owned() } else { format!("tags CROSS JOIN {table} USING (id)") }
}

/// What is selected, of the jobs of a page, besides where they stand.
fn conditions(select: String, filter: &Filter, page: Page) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new(select);
    if let Some(kind) = filter.error {
        query.push(concat!(" AND ending <> 0 AND ", outcome!("", "error"), " ->> 'kind' = ")).push_bind(kind.as_str());
    }
    subject(&mut query, filter.owner, filter.bound, filter.executor, filter.workload.as_deref());
    for (n, (key, value)) in filter.tags.iter().enumerate() {
        let (begin, table, end) = if n == 0 {
            ("", "tags", "")
        } else {
            (" AND EXISTS (SELECT 1 FROM tags AS also WHERE also.id = tags.id", "also", ")")
        };
        query.push(begin).push(format!(" AND {table}.key = ")).push_bind(key.clone());
        query.push(format!(" AND {table}.value = ")).push_bind(value.clone()).push(end);
    }
    if let Some(kinds) = filter.findings {
        // The partial index is used only where its condition is said.
        query.push(" AND findings IS NOT NULL AND findings & ").push_bind(i64::from(kinds.bits())).push(" <> 0");
    }
    if let Some(since) = filter.since {
        query.push(" AND accepted_at >= ").push_bind(since.as_micros());
        query.push(" AND id >= ").push_bind(first_id(since.before(ID_SLACK)).as_bytes().to_vec());
    }
    if let Some(until) = filter.until {
        query.push(" AND accepted_at < ").push_bind(until.as_micros());
        query.push(" AND id < ").push_bind(first_id(until.after(ID_SLACK)).as_bytes().to_vec());
    }
    let (beyond, direction) = match page.order {
        Order::NewestFirst => (" AND id < ", "DESC"),
        Order::OldestFirst => (" AND id > ", "ASC"),
    };
    if let Some(after) = page.after {
        query.push(beyond).push_bind(after.as_bytes().to_vec());
    }
    query.push(format!(" ORDER BY id {direction} LIMIT ")).push_bind(number(page.limit));
    query
}

fn in_queues(query: &mut QueryBuilder<Sqlite>, executor: Executor) {
    let queues = Queue::ALL.into_iter().filter(|queue| queue.executor() == executor);
    let codes: Vec<_> = queues.map(|queue| queue.code().to_string()).collect();
    query.push(format!(" AND queue IN ({})", codes.join(", ")));
    if executor != Executor::Async {
        // The partial index is used only where its condition is said.
        query.push(" AND queue <> 0");
    }
}

/// What is asked of a job, as conditions on its row in `jobs` or `results`.
pub(super) fn subject(
    query: &mut QueryBuilder<Sqlite>,
    owner: Option<Owner>,
    bound: Option<Bound>,
    executor: Option<Executor>,
    workload: Option<&str>,
) {
    if let Some(owner) = owner {
        query.push(" AND owner = ").push_bind(owner.code());
    }
    if let Some(bound) = bound {
        // As text, so that the partial index on jobs that compute can be used.
        query.push(format!(" AND bound = {}", bound.code()));
    }
    if let Some(executor) = executor {
        in_queues(query, executor);
    }
    if let Some(workload) = workload {
        query.push(" AND type = ").push_bind(workload.to_owned());
    }
}

/// The condition on unfinished jobs that they are in one of these states.
fn unfinished(states: &[StateFilter]) -> String {
    let codes: Vec<_> = codes_of_any(states).iter().map(ToString::to_string).collect();
    if states.is_empty() { String::new() } else { format!(" AND state IN ({})", codes.join(", ")) }
}

/// The condition on results of a lot, as text, so that the partial index on unsuccessful endings can be used.
fn ended(lot: &[Ending]) -> String {
    match lot {
        [] => String::new(),
        [Ending::Succeeded] => " AND ending = 0".to_owned(),
        [ending] => format!(" AND ending = {} AND ending <> 0", ending.code()),
        several => {
            let codes: Vec<_> = several.iter().map(|ending| ending.code().to_string()).collect();
            format!(" AND ending IN ({})", codes.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection as _, SqliteConnection};

    use super::*;

    #[tokio::test]
    async fn no_first_page_is_sorted_or_looked_for_in_all_results() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        crate::store::migrations::SQLITE.run_direct(None, &mut connection, false).await.unwrap();
        let mut plan = async |filter: &Filter, order| {
            let page = Page { order, after: None, limit: 100 };
            let mut explained = QueryBuilder::new("EXPLAIN QUERY PLAN ");
            let [lot] = &lots_of(&filter.states)[..] else { panic!("one statement") };
            explained.push(query("results", OF_RESULT, &ended(lot), filter, page).sql().as_str());
            let rows = explained.build().fetch_all(&mut connection).await.unwrap();
            rows.iter().map(|row| sqlx::Row::get::<String, _>(row, 3)).collect::<Vec<_>>().join("; ")
        };
        let all = Filter::default();
        let filters = [
            (Filter { bound: Some(Bound::Cpu), ..all.clone() }, "results_cpu"),
            (Filter { executor: Some(Executor::Threads), ..all.clone() }, "results_queue"),
            (Filter { workload: Some("sleep".into()), ..all.clone() }, "results_type"),
            (Filter { states: vec![StateFilter::Ended(Ending::Failed)], ..all.clone() }, "results_unsuccessful"),
            (
                Filter { states: [Ending::Succeeded, Ending::Failed].map(StateFilter::Ended).to_vec(), ..all.clone() },
                "SCAN results",
            ),
            (
                Filter { tags: vec![("team".into(), "search".into())], ..all.clone() },
                "tags USING PRIMARY KEY (key=? AND value=?)",
            ),
            (
                Filter { tags: vec![("team".into(), "search".into()), ("run".into(), "7".into())], ..all.clone() },
                "also EXISTS USING PRIMARY KEY (key=? AND value=? AND id=?)",
            ),
            (Filter { owner: Owner::from_code(7), ..all.clone() }, "results_owner"),
            (all, "SCAN results"),
        ];
        for (filter, found_by) in &filters {
            for order in [Order::NewestFirst, Order::OldestFirst] {
                let plan = plan(filter, order).await;
                assert!(plan.contains(found_by), "{filter:?}: {plan}");
                assert!(filter.executor.is_some() || !plan.contains("TEMP B-TREE"), "{filter:?}: {plan}");
            }
        }
    }
}
