//! What can be read: single jobs and pages of lists.

use futures_util::TryStreamExt as _;
use sqlx::postgres::PgRow;
use sqlx::{Postgres, QueryBuilder};
use uuid::Uuid;

use super::partitions::Ends;
use super::pool::Pool;
use super::rows::{self, Cells, from_jobs, of_job, text, uuid};
use crate::clock::Timestamp;
use crate::job::{Bound, Executor, Job, JobId, Owner, Queue};
use crate::store::kept::state::codes_of;
use crate::store::kept::{code, number};
use crate::store::page::Held;
use crate::store::{Filter, Order, Page, StateFilter, StoreError, Weight as _};

/// How far the time in an id may be from the time of acceptance. They are mostly milliseconds apart, but a store that can't write
/// accepts late, and ids never go back when the clock does.
const ID_SLACK_US: i64 = 3_600_000_000;

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

/// The ids of a page of jobs.
pub(super) async fn ids(pool: &Pool, ends: &Ends, among: Among, filter: &Filter, page: Page) -> Result<Vec<JobId>, StoreError> {
    let select = concat!("SELECT j.id", from_jobs!());
    let mut ids = Vec::new();
    let take = |row: &PgRow| {
        ids.push(Cells::new(row).id()?);
        Ok(true)
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
    let among = match filter.state {
        Some(StateFilter::Ended(_)) if among == Among::Unfinished => return None,
        Some(StateFilter::Ended(_)) => Among::Results,
        Some(_) if among == Among::Results || of_the_ended => return None,
        Some(_) => Among::Unfinished,
        None if of_the_ended && among == Among::Unfinished => return None,
        None if of_the_ended => Among::Results,
        None => among,
    };
    // An inner join lets the narrow table lead.
    let select = match among {
        Among::All => select.to_owned(),
        Among::Unfinished => select.replace("LEFT JOIN work", "JOIN work"),
        Among::Results => select.replace("LEFT JOIN results", "JOIN results"),
    };
    let mut query = QueryBuilder::new(select);
    // The last condition there is that of the join with `results`: what is said of one table says nothing of the partitions of the other.
    let within = |query: &mut QueryBuilder<Postgres>, table: &str| {
        if first > Uuid::nil() {
            query.push(format!(" AND {table}.id >= ")).push_bind(first);
        }
        if end < Uuid::max() {
            query.push(format!(" AND {table}.id < ")).push_bind(end);
        }
    };
    within(&mut query, "r");
    if let Some((key, value)) = &filter.tag {
        query.push(" JOIN tags t ON t.id = j.id AND t.key = ").push_bind(text(key));
        query.push(" AND t.value = ").push_bind(text(value));
        within(&mut query, "t");
    }
    query.push(" WHERE true");
    within(&mut query, "j");
    if among == Among::Unfinished {
        within(&mut query, "w");
    }
    match filter.state {
        // As text, so that the partial indexes can be used.
        Some(StateFilter::Ended(ending)) => {
            query.push(format!(" AND r.ending = {}", code(ending)));
        }
        Some(unfinished) => {
            let codes: Vec<_> = codes_of(unfinished).iter().map(ToString::to_string).collect();
            query.push(format!(" AND w.state IN ({})", codes.join(", ")));
        }
        None => {}
    }
    if let Some(kind) = filter.error {
        query.push(" AND r.ending <> 0 AND r.failure = ").push_bind(kind.as_str());
    }
    subject(&mut query, filter.owner, filter.bound, filter.executor, filter.workload.as_deref());
    if let Some(kinds) = filter.findings {
        query.push(" AND r.findings IS NOT NULL AND r.findings & ").push_bind(i64::from(kinds.bits())).push(" <> 0");
    }
    if let Some(since) = filter.since {
        query.push(" AND j.accepted_at >= ").push_bind(since.as_micros());
        query.push(" AND j.id >= ").push_bind(uuid(first_id(since.as_micros().saturating_sub(ID_SLACK_US))));
    }
    if let Some(until) = filter.until {
        query.push(" AND j.accepted_at < ").push_bind(until.as_micros());
        query.push(" AND j.id < ").push_bind(uuid(first_id(until.as_micros().saturating_add(ID_SLACK_US))));
    }
    let (beyond, direction) = match page.order {
        Order::NewestFirst => (" AND j.id < ", "DESC"),
        Order::OldestFirst => (" AND j.id > ", "ASC"),
    };
    if let Some(after) = page.after {
        query.push(beyond).push_bind(uuid(after));
    }
    query.push(format!(" ORDER BY j.id {direction} LIMIT ")).push_bind(number(page.limit));
    Some(query)
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

/// The smallest id of a moment: its first 48 bits are the milliseconds since the Unix epoch (RFC 9562, UUID version 7).
pub(super) fn first_id(micros: i64) -> JobId {
    let millis = Timestamp::from_micros(micros).as_micros().div_euclid(1_000).clamp(0, (1 << 48) - 1);
    let mut id = [0; 16];
    id[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
    JobId::from_bytes(id)
}
