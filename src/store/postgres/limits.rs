//! What can be read of limits.

use async_trait::async_trait;

use super::PostgresStore;
use super::pool::Pool;
use super::rows::{Cells, uuid};
use crate::clock::Timestamp;
use crate::job::{Concurrency, JobId, Rate};
use crate::store::kept::lane::{COUNTED, FULL, OPEN, OVER_QUOTA, rate_status, read_starts};
use crate::store::kept::{Options, number};
use crate::store::{Gate, LimitKey, LimitStatus, LimitStore, StoreError};

#[async_trait]
impl LimitStore for PostgresStore {
    async fn gate(&self, id: JobId) -> Result<Option<Gate>, StoreError> {
        let text = "SELECT l.gate, (SELECT count(*) FROM work r WHERE r.state = 2 AND r.ckey = w.ckey), \
                    (SELECT count(*) FROM work r WHERE r.state = 2 AND r.confined = w.confined) \
                    FROM work w LEFT JOIN lanes l ON l.queue = w.queue AND l.lane = w.lane WHERE w.id = $1 AND w.state = 4";
        let Some(row) = sqlx::query(text).bind(uuid(id)).fetch_optional(&self.pool).await? else { return Ok(None) };
        let mut cells = Cells::new(&row);
        let (gate, running, of_owner) = (cells.take::<Option<i64>>()?, cells.number()?, cells.number()?);
        Ok(Some(match gate.unwrap_or(OPEN) {
            OPEN => Gate::Open,
            FULL => Gate::Full { running },
            OVER_QUOTA => Gate::OverQuota { running: of_owner },
            until => Gate::Until(Timestamp::from_micros(until)),
        }))
    }

    async fn limits(&self, after: Option<&LimitKey>, most: usize) -> Result<Vec<LimitStatus>, StoreError> {
        let mut limits = Vec::new();
        let (mut concurrency, mut rate) = match after {
            None => (Some(String::new()), String::new()),
            Some(LimitKey::Concurrency(key)) => (Some(key.clone()), String::new()),
            Some(LimitKey::Rate(key)) => (None, key.clone()),
        };
        // Some lanes have no job any more: they say nothing of a limit, and others are behind them.
        while let Some(after) = concurrency.take().filter(|_| limits.len() < most) {
            let keys = concurrency_keys(&self.pool, &after, most - limits.len()).await?;
            for key in &keys {
                limits.extend(self.concurrency(key).await?);
            }
            concurrency = keys.into_iter().next_back();
        }
        while limits.len() < most {
            let keys = rate_keys(&self.pool, &rate, most - limits.len()).await?;
            for key in &keys {
                limits.extend(self.rate(key).await?);
            }
            let Some(last) = keys.into_iter().next_back() else { break };
            rate = last;
        }
        Ok(limits)
    }
}

impl PostgresStore {
    async fn concurrency(&self, key: &str) -> Result<Option<LimitStatus>, StoreError> {
        let of = "SELECT (SELECT count(*) FROM (SELECT 1 FROM work WHERE state = 4 AND ckey = $1 LIMIT $2) AS few), \
                  (SELECT count(*) FROM work WHERE state = 2 AND ckey = $1), \
                  (SELECT options FROM jobs WHERE id = coalesce((SELECT id FROM work WHERE state = 4 AND ckey = $1 LIMIT 1), \
                  (SELECT id FROM work WHERE state = 2 AND ckey = $1 ORDER BY claimed_at DESC LIMIT 1)))";
        let row = sqlx::query(of).bind(key).bind(COUNTED).fetch_one(&self.pool).await?;
        let mut cells = Cells::new(&row);
        let (waiting, running) = (cells.number()?, cells.number()?);
        let limit: Option<Concurrency> =
            cells.json::<Options<'_>>()?.unwrap_or_default().concurrency.map(std::borrow::Cow::into_owned);
        Ok(limit.map(|limit| LimitStatus::Concurrency { limit, running, waiting }))
    }

    async fn rate(&self, key: &str) -> Result<Option<LimitStatus>, StoreError> {
        let of = "SELECT (SELECT count(*) FROM (SELECT 1 FROM work WHERE state = 4 AND rkey = $1 LIMIT $2) AS few), \
                  (SELECT options FROM jobs WHERE id = (SELECT id FROM work WHERE state = 4 AND rkey = $1 LIMIT 1))";
        let row = sqlx::query(of).bind(key).bind(COUNTED).fetch_one(&self.pool).await?;
        let mut cells = Cells::new(&row);
        let waiting = cells.number()?;
        let first: Option<Rate> = cells.json::<Options<'_>>()?.unwrap_or_default().rate.map(std::borrow::Cow::into_owned);
        let row = sqlx::query("SELECT key, starts, latest, until FROM rates WHERE key = $1")
            .bind(key)
            .fetch_optional(&self.pool)
            .await?;
        let starts = row.as_ref().map(read_starts).transpose()?;
        Ok(rate_status(first, starts, waiting, self.published.now()))
    }
}

/// The keys behind this one with which jobs run or wait.
async fn concurrency_keys(pool: &Pool, after: &str, most: usize) -> Result<Vec<String>, StoreError> {
    // Of lanes there may be very many. What runs is few, and in no order.
    let keys = "SELECT key FROM ((SELECT DISTINCT ckey AS key FROM lanes WHERE ckey > $1 ORDER BY ckey LIMIT $2) UNION \
                SELECT DISTINCT ckey COLLATE \"C\" FROM work WHERE state = 2 AND ckey IS NOT NULL AND ckey COLLATE \"C\" > $1) AS keys \
                ORDER BY key LIMIT $2";
    Ok(sqlx::query_scalar(keys).bind(after).bind(number(most)).fetch_all(pool).await?)
}

async fn rate_keys(pool: &Pool, after: &str, most: usize) -> Result<Vec<String>, StoreError> {
    let keys = "SELECT key FROM ((SELECT key FROM rates WHERE key > $1 ORDER BY key LIMIT $2) UNION \
                (SELECT DISTINCT rkey FROM lanes WHERE rkey > $1 ORDER BY rkey LIMIT $2)) AS keys ORDER BY key LIMIT $2";
    Ok(sqlx::query_scalar(keys).bind(after).bind(number(most)).fetch_all(pool).await?)
}
