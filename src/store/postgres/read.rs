//! What can be read: single jobs and pages of lists.

use std::collections::HashMap;

use futures_util::TryStreamExt as _;
use sqlx::postgres::PgRow;
use sqlx::{Postgres, QueryBuilder};
use uuid::Uuid;

use super::partitions::Ends;
use super::pool::Pool;
use super::rows::{self, Cells, from_jobs, of_job, outline_of_job, text, uuid, uuids};
use crate::job::{Bound, Executor, Job, JobId, Owner, Queue};
use crate::store::kept::state::{codes_of_any, lots_of};
use crate::store::kept::{ID_SLACK, code, first_id, number};
use crate::store::page::{Held, Ids};
use crate::store::{Filter, Order, Page, StoreError, Weight as _};

/// The most jobs that one statement looks for.
const LOOKED_FOR: usize = 500;

/// Where jobs are looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Among {
    /// All of them.
    All,
    /// Those that have not ended.
    Unfinished,
    /// Those that have.
    Results,
}

pub(super) async fn job(pool: &Pool, id: JobId) -> Result<Option<Job>, StoreError> {
    let text = concat!("SELECT ", of_job!(), from_jobs!(), "WHERE j.id = $1");
    let row = sqlx::query(text).bind(uuid(id)).fetch_optional(pool).await?;
    row.as_ref().map(rows::job).transpose()
}

pub(super) async fn outlines(pool: &Pool, ids: &[JobId]) -> Result<HashMap<JobId, Job>, StoreError> {
    let text = concat!("SELECT ", outline_of_job!(), from_jobs!(), "WHERE j.id = ANY($1)");
    let mut outlines = HashMap::with_capacity(ids.len());
    for some in ids.chunks(LOOKED_FOR) {
        for row in sqlx::query(text).bind(uuids(some)).fetch_all(pool).await? {
            let job = rows::job(&row)?;
            outlines.insert(job.id, job);
        }
    }
    Ok(outlines)
}

/// A page of jobs.
pub(super) async fn jobs(pool: &Pool, ends: &Ends, among: Among, filter: &Filter, page: Page) -> Result<Vec<Job>, StoreError> {
    let select = concat!("SELECT ", of_job!(), from_jobs!());
    let (mut jobs, mut held) = (Vec::new(), Held::default());
    let take = |row: &PgRow| {
        let job = rows::job(row)?;
        let fits = held.takes(job.weight());
        jobs.push(job);
        Ok(fits)
    };
    found(pool, ends, select, among, filter, page, take).await?;
    Ok(jobs)
}

/// The ids of a page of jobs; of those that have ended, with no more than a page has of outcomes.
pub(super) async fn ids(pool: &Pool, ends: &Ends, among: Among, filter: &Filter, page: Page) -> Result<Ids, StoreError> {
    let select = concat!("SELECT j.id, coalesce(octet_length(r.output), octet_length(r.error), 0)::BIGINT", from_jobs!());
    let mut ids = Ids::default();
    let take = |row: &PgRow| {
        let mut cells = Cells::new(row);
        Ok(ids.takes(cells.id()?, cells.number()?, page))
    };
    found(pool, ends, select, among, filter, page, take).await?;
    Ok(ids)
}

/// Takes the rows of a page, as long as there is room for more: from the days where it begins, and from further ones as long as it is not full.
async fn found(
    pool: &Pool,
    ends: &Ends,
    select: &str,
    among: Among,
    filter: &Filter,
    page: Page,
    mut take: impl FnMut(&PgRow) -> Result<bool, StoreError>,
) -> Result<(), StoreError> {
    let mut ranges = ends.ranges();
    if page.order == Order::OldestFirst {
        ranges.reverse();
    }
    let mut found = 0;
    for range in ranges {
        let is_passed = page.after.map(uuid).is_some_and(|after| match page.order {
            Order::NewestFirst => after <= range.0,
            Order::OldestFirst => after >= range.1,
        });
        if is_passed {
            continue;
        }
        let left = Page { limit: page.limit - found, ..page };
        let Some(mut query) = query(select, among, filter, left, range) else { break };
        let mut rows = query.build().fetch(pool);
        while let Some(row) = rows.try_next().await? {
            found += 1;
            if !take(&row)? {
                return Ok(());
            }
        }
        if found >= page.limit {
            break;
        }
    }
    Ok(())
}

/// What is selected, of the jobs of a page with ids from one on, before another; `None` if no job can pass.
fn query(select: &str, among: Among, filter: &Filter, page: Page, (first, end): (Uuid, Uuid)) -> Option<QueryBuilder<Postgres>> {
    let of_the_ended = filter.error.is_some() || filter.findings.is_some();
    let mut parts = Vec::new();
    if filter.states.is_empty() {
        match among {
            Among::Unfinished if of_the_ended => {}
            _ if of_the_ended => parts.push((Among::Results, String::new())),
            _ => parts.push((among, String::new())),
        }
    } else {
        // As text, so that the partial indexes can be used.
        let listed = |codes: Vec<i16>| codes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let unfinished = codes_of_any(&filter.states);
        if !unfinished.is_empty() && among != Among::Results && !of_the_ended {
            parts.push((Among::Unfinished, format!(" AND w.state IN ({})", listed(unfinished))));
        }
        if among != Among::Unfinished {
            let standing = |lot: Vec<_>| format!(" AND r.ending IN ({})", listed(lot.into_iter().map(code).collect()));
            parts.extend(lots_of(&filter.states).into_iter().map(|lot| (Among::Results, standing(lot))));
        }
    }
    // One statement, so that no job is seen in none of its parts or in two of them.
    let (mut query, is_one) = (QueryBuilder::new(""), parts.len() == 1);
    let mut before = "(";
    for (among, standing) in &parts {
        if !is_one {
            query.push(before);
            before = ") UNION ALL (";
        }
        part(&mut query, select, (*among, standing), filter, page, (first, end));
    }
    if parts.len() > 1 {
        query.push(")");
        in_order(&mut query, "1", page);
    }
    (!parts.is_empty()).then_some(query)
}

/// The jobs of a page that stand in one way.
fn part(
    query: &mut QueryBuilder<Postgres>,
    select: &str,
    (among, standing): (Among, &str),
    filter: &Filter,
    page: Page,
    (first, end): (Uuid, Uuid),
) {
    // An inner join lets the narrow table lead.
    let select = match among {
        Among::All => select.to_owned(),
        Among::Unfinished => select.replace("LEFT JOIN work", "JOIN work"),
        Among::Results => select.replace("LEFT JOIN results", "JOIN results"),
    };
    query.push(select);
    // The last condition there is that of the join with `results`: what is said of one table says nothing of the partitions of the other.
    let within = |query: &mut QueryBuilder<Postgres>, table: &str| {
        if first > Uuid::nil() {
            query.push(format!(" AND {table}.id >= ")).push_bind(first);
        }
        if end < Uuid::max() {
            query.push(format!(" AND {table}.id < ")).push_bind(end);
        }
    };
    within(query, "r");
    for (n, (key, value)) in filter.tags.iter().enumerate() {
        query.push(format!(" JOIN tags t{n} ON t{n}.id = j.id AND t{n}.key = ")).push_bind(text(key));
        query.push(format!(" AND t{n}.value = ")).push_bind(text(value));
        within(query, &format!("t{n}"));
    }
    query.push(" WHERE true");
    within(query, "j");
    if among == Among::Unfinished {
        within(query, "w");
    }
    query.push(standing);
    if let Some(kind) = filter.error {
        query.push(" AND r.ending <> 0 AND r.failure = ").push_bind(kind.as_str());
    }
    subject(query, filter.owner, filter.bound, filter.executor, filter.workload.as_deref());
    if let Some(kinds) = filter.findings {
        query.push(" AND r.findings IS NOT NULL AND r.findings & ").push_bind(i64::from(kinds.bits())).push(" <> 0");
    }
    if let Some(since) = filter.since {
        query.push(" AND j.accepted_at >= ").push_bind(since.as_micros());
        query.push(" AND j.id >= ").push_bind(uuid(first_id(since.before(ID_SLACK))));
    }
    if let Some(until) = filter.until {
        query.push(" AND j.accepted_at < ").push_bind(until.as_micros());
        query.push(" AND j.id < ").push_bind(uuid(first_id(until.after(ID_SLACK))));
    }
    if let Some(after) = page.after {
        let beyond = if page.order == Order::NewestFirst { " AND j.id < " } else { " AND j.id > " };
        query.push(beyond).push_bind(uuid(after));
    }
    in_order(query, "j.id", page);
}

/// So many as are on a page, by this column.
fn in_order(query: &mut QueryBuilder<Postgres>, id: &str, page: Page) {
    let direction = if page.order == Order::NewestFirst { "DESC" } else { "ASC" };
    query.push(format!(" ORDER BY {id} {direction} LIMIT ")).push_bind(number(page.limit));
}

/// What is asked of a job, as conditions on its row `j`.
pub(super) fn subject(
    query: &mut QueryBuilder<Postgres>,
    owner: Option<Owner>,
    bound: Option<Bound>,
    executor: Option<Executor>,
    workload: Option<&str>,
) {
    if let Some(owner) = owner {
        query.push(" AND j.owner = ").push_bind(owner.code());
    }
    if let Some(bound) = bound {
        query.push(format!(" AND j.bound = {}", code(bound)));
    }
    if let Some(executor) = executor {
        let queues = Queue::ALL.into_iter().filter(|queue| queue.executor() == executor);
        let codes: Vec<_> = queues.map(|queue| code(queue).to_string()).collect();
        query.push(format!(" AND j.queue IN ({})", codes.join(", ")));
    }
    if let Some(workload) = workload {
        query.push(" AND j.type = ").push_bind(text(workload));
    }
}
