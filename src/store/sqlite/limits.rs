//! What can be read of limits.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use sqlx::SqlitePool;

use super::SqliteStore;
use super::lanes::Counted;
use super::rows::Cells;
use crate::clock::Timestamp;
use crate::job::{Concurrency, JobId, Owner, Rate};
use crate::store::kept::lane::{COUNTED, FULL, OPEN, OVER_QUOTA, rate_status, read_starts};
use crate::store::kept::number;
use crate::store::{Gate, LimitKey, LimitStatus, LimitStore, StoreError};

/// The jobs in the lanes with a key, by its place in their names, and its field among the options.
macro_rules! waiting {
    ($place:literal, $field:literal) => {
        concat!(
            "SELECT (SELECT count(*) FROM (SELECT 1 FROM lanes CROSS JOIN jobs ON jobs.state = 4 AND jobs.queue = lanes.queue \
             AND jobs.lane = lanes.lane WHERE lanes.lane ->> ",
            $place,
            " = ?1 LIMIT ?2)), (SELECT jobs.options ->> '",
            $field,
            "' FROM lanes CROSS JOIN jobs ON jobs.state = 4 AND jobs.queue = lanes.queue AND jobs.lane = lanes.lane \
             WHERE lanes.lane ->> ",
            $place,
            " = ?1 LIMIT 1)"
        )
    };
}

#[async_trait]
impl LimitStore for SqliteStore {
    async fn gate(&self, id: JobId) -> Result<Option<Gate>, StoreError> {
        let text = "SELECT lanes.gate, jobs.lane ->> 0, jobs.lane ->> 2 FROM jobs \
                    LEFT JOIN lanes ON lanes.queue = jobs.queue AND lanes.lane = jobs.lane WHERE jobs.id = ? AND jobs.state = 4";
        // What runs is counted by the writer.
        self.wait_a_turn().await;
        let Some(row) = sqlx::query(text).bind(&id.as_bytes()[..]).fetch_optional(&self.readers).await? else {
            return Ok(None);
        };
        let mut cells = Cells::new(&row);
        let (gate, key, owner): (Option<i64>, Option<String>, Option<i64>) = (cells.take()?, cells.take()?, cells.take()?);
        Ok(Some(match gate.unwrap_or(OPEN) {
            OPEN => Gate::Open,
            FULL => Gate::Full { running: self.running(&key.unwrap_or_default()).0 },
            OVER_QUOTA => Gate::OverQuota { running: owner.and_then(Owner::from_code).map_or(0, |owner| self.running_of(owner)) },
            until => Gate::Until(Timestamp::from_micros(until)),
        }))
    }

    async fn limits(&self, after: Option<&LimitKey>, most: usize) -> Result<Vec<LimitStatus>, StoreError> {
        let mut limits = Vec::new();
        self.wait_a_turn().await;
        let (mut concurrency, mut rate) = match after {
            None => (Some(String::new()), String::new()),
            Some(LimitKey::Concurrency(key)) => (Some(key.clone()), String::new()),
            Some(LimitKey::Rate(key)) => (None, key.clone()),
        };
        // Some lanes have no job any more: they say nothing of a limit, and others are behind them.
        while let Some(after) = concurrency.take().filter(|_| limits.len() < most) {
            let keys = self.concurrency_keys(&after, most - limits.len()).await?;
            for key in &keys {
                limits.extend(self.concurrency(key).await?);
            }
            concurrency = keys.last().map(ToString::to_string);
        }
        while limits.len() < most {
            let keys = rate_keys(&self.readers, &rate, most - limits.len()).await?;
            for key in &keys {
                limits.extend(self.rate(key).await?);
            }
            let Some(last) = keys.into_iter().next_back() else { break };
            rate = last;
        }
        Ok(limits)
    }
}

impl SqliteStore {
    /// How many jobs with a key run, and the limit of the latest of them.
    fn running(&self, key: &str) -> (u64, Option<u32>) {
        let running = self.published.running().get(&Counted::Key(key.into())).copied();
        running.map_or((0, None), |running| (u64::from(running.count), Some(running.limit)))
    }

    /// How many confined jobs of an owner run.
    fn running_of(&self, owner: Owner) -> u64 {
        self.published.running().get(&Counted::Owner(owner)).map_or(0, |running| u64::from(running.count))
    }

    /// The keys behind this one with which jobs run or wait.
    async fn concurrency_keys(&self, after: &str, most: usize) -> Result<BTreeSet<Arc<str>>, StoreError> {
        let text = "SELECT DISTINCT lane ->> 0 FROM lanes WHERE lane ->> 0 > ? ORDER BY lane ->> 0 LIMIT ?";
        let waiting: Vec<String> = sqlx::query_scalar(text).bind(after).bind(number(most)).fetch_all(&self.readers).await?;
        let running = self.published.running();
        let behind = running.range((Bound::Excluded(Counted::Key(after.into())), Bound::Unbounded)).take(most);
        let behind = behind.map_while(|(counted, _)| match counted {
            Counted::Key(key) => Some(Arc::clone(key)),
            Counted::Owner(_) => None,
        });
        let all: BTreeSet<Arc<str>> = behind.chain(waiting.into_iter().map(Into::into)).collect();
        Ok(all.into_iter().take(most).collect())
    }

    async fn concurrency(&self, key: &str) -> Result<Option<LimitStatus>, StoreError> {
        let (running, limit) = self.running(key);
        let (waiting, first) = waiting::<Concurrency>(&self.readers, waiting!("0", "concurrency"), key).await?;
        let limit = first.or(limit.map(|limit| Concurrency { key: key.to_owned(), limit }));
        Ok(limit.map(|limit| LimitStatus::Concurrency { limit, running, waiting }))
    }

    async fn rate(&self, key: &str) -> Result<Option<LimitStatus>, StoreError> {
        let (waiting, first) = waiting::<Rate>(&self.readers, waiting!("1", "rate"), key).await?;
        let text = "SELECT key, starts, latest, until FROM rates WHERE key = ?";
        let row = sqlx::query(text).bind(key).fetch_optional(&self.readers).await?;
        let starts = row.as_ref().map(read_starts).transpose()?;
        Ok(rate_status(first, starts, waiting, self.clock.now()))
    }
}

async fn rate_keys(readers: &SqlitePool, after: &str, most: usize) -> Result<Vec<String>, StoreError> {
    let text = "SELECT key FROM (SELECT key FROM rates WHERE key > ?1 ORDER BY key LIMIT ?2) UNION \
                SELECT key FROM (SELECT DISTINCT lane ->> 1 AS key FROM lanes WHERE lane ->> 1 > ?1 ORDER BY 1 LIMIT ?2) \
                ORDER BY key LIMIT ?2";
    Ok(sqlx::query_scalar(text).bind(after).bind(number(most)).fetch_all(readers).await?)
}

/// How many jobs with a key wait in queues, and the limit of one of them, if there is any: read with the text for its kind.
async fn waiting<T: DeserializeOwned>(
    readers: &SqlitePool,
    text: &'static str,
    key: &str,
) -> Result<(u64, Option<T>), StoreError> {
    let row = sqlx::query(text).bind(key).bind(COUNTED).fetch_one(readers).await?;
    let mut cells = Cells::new(&row);
    Ok((cells.number()?, cells.json()?))
}
