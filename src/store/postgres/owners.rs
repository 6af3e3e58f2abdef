//! Whose jobs are.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use async_trait::async_trait;

use super::PostgresStore;
use super::rows::{Cells, uuids};
use super::writer::Command;
use crate::job::{JobId, Owner, Queue};
use crate::store::{Depth, MINUTE, OwnerStore, Store as _, StoreError, Usage};

/// What an owner has waiting and running, as `w`, with the jobs of it, as `j`.
macro_rules! usage {
    ($from:literal) => {
        concat!(
            "SELECT count(*) FILTER (WHERE w.state <> 2) + (SELECT count(*) FROM comparisons WHERE owner = $1 AND state = 0), \
             count(*) FILTER (WHERE w.state = 2), \
             (coalesce(sum(octet_length(j.workload)) FILTER (WHERE w.state <> 2), 0) + \
             (SELECT coalesce(sum(octet_length(request)), 0) FROM comparisons WHERE owner = $1 AND state = 0))::BIGINT FROM work w ",
            $from
        )
    };
}

/// So many jobs that have not ended are looked at one by one, whoever's they are. What a plan for a join reads of these is all that the owner ever
/// had, where `work` was full when it was vacuumed.
const FEW: u64 = 100_000;
const ONE_BY_ONE: &str =
    usage!("CROSS JOIN LATERAL (SELECT workload FROM jobs WHERE jobs.id = w.id AND jobs.owner = $1 LIMIT 1) AS j");
/// Of very many, most may be others'.
const TOGETHER: &str = usage!("JOIN jobs j ON j.id = w.id WHERE j.owner = $1");

/// By the clock of the database, in microseconds.
macro_rules! now {
    () => {
        "(extract(epoch FROM clock_timestamp()) * 1000000)::BIGINT"
    };
}

/// From when on a new span counts: now, or when what is there counts no more. Asked behind the row's lock, by the clock as it is then. What was
/// counted by a clock that was far ahead is forgotten.
macro_rules! clear_at {
    () => {
        concat!("CASE WHEN p.clear_at > ", now!(), " + 2 * $3 THEN ", now!(), " ELSE greatest(p.clear_at, ", now!(), ") END")
    };
}

/// Counts a span, if there is room.
const SPEND: &str = concat!(
    "INSERT INTO paces AS p (owner, clear_at) VALUES ($1, ",
    now!(),
    " + $2) ON CONFLICT (owner) DO UPDATE SET clear_at = (",
    clear_at!(),
    ") + $2 WHERE (",
    clear_at!(),
    ") + $2 <= ",
    now!(),
    " + $3 RETURNING 1"
);

#[async_trait]
impl OwnerStore for PostgresStore {
    async fn owned(&self, owner: Owner, jobs: &[JobId]) -> Result<HashSet<JobId>, StoreError> {
        let query = sqlx::query("SELECT id FROM jobs WHERE owner = $1 AND id = ANY($2)").bind(owner.code()).bind(uuids(jobs));
        query.fetch_all(&self.pool).await?.iter().map(|row| Cells::new(row).id()).collect()
    }

    async fn usage(&self, owner: Owner) -> Result<Usage, StoreError> {
        let all = Queue::ALL.map(|queue| {
            let Depth { queued, limited: _, scheduled, blocked, running } = self.depth(queue);
            queued + scheduled + blocked + running
        });
        let text = if all.iter().sum::<u64>() <= FEW { ONE_BY_ONE } else { TOGETHER };
        let row = sqlx::query(text).bind(owner.code()).fetch_one(&self.pool).await?;
        let mut cells = Cells::new(&row);
        Ok(Usage { queued: cells.number()?, running: cells.number()?, bytes: cells.number()? })
    }

    async fn allow(&self, running: HashMap<Owner, u32>) -> Result<(), StoreError> {
        self.ask(|reply| Command::Allow(running, reply)).await
    }

    async fn spend(&self, owner: Owner, span: Duration) -> Result<Option<Duration>, StoreError> {
        let query = sqlx::query(SPEND).bind(owner.code()).bind(micros(span)).bind(micros(MINUTE));
        if query.fetch_optional(&self.pool).await?.is_some() {
            return Ok(None);
        }
        // Whoever gave something back in between has not waited in vain.
        Ok(Some((self.spent(owner).await? + span).saturating_sub(MINUTE)))
    }

    async fn give_back(&self, owner: Owner, span: Duration) -> Result<(), StoreError> {
        let query =
            sqlx::query("UPDATE paces SET clear_at = clear_at - $2 WHERE owner = $1").bind(owner.code()).bind(micros(span));
        query.execute(&self.pool).await?;
        Ok(())
    }

    async fn spent(&self, owner: Owner) -> Result<Duration, StoreError> {
        let text = concat!("SELECT clear_at - ", now!(), " FROM paces WHERE owner = $1");
        let left: Option<i64> = sqlx::query_scalar(text).bind(owner.code()).fetch_optional(&self.pool).await?;
        let left = Duration::from_micros(left.unwrap_or_default().max(0).unsigned_abs());
        Ok(if left > MINUTE * 2 { Duration::ZERO } else { left })
    }
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}
