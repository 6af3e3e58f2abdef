//! Whose jobs are.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::rows::Cells;
use super::writer::Command;
use super::{SqliteStore, moves};
use crate::job::{JobId, Owner};
use crate::store::{MINUTE, OwnerStore, StoreError, Usage};

/// One statement, so that a job that moves meanwhile is in one of the tables.
const OWNED: &str = "SELECT unhex(value) FROM json_each(?1) WHERE \
    EXISTS (SELECT 1 FROM jobs WHERE id = unhex(value) AND owner = ?2) OR \
    EXISTS (SELECT 1 FROM results WHERE id = unhex(value) AND owner = ?2)";

/// A job's own columns come first, so that most of what is long is not read.
const USAGE: &str = "SELECT count(*) FILTER (WHERE state <> 2) + (SELECT count(*) FROM comparisons WHERE owner = ?1 AND state = 0), \
    count(*) FILTER (WHERE state = 2), \
    coalesce(sum(iif(payload IS NULL, octet_length(workload), (SELECT octet_length(text) FROM payloads WHERE n = payload))) \
    FILTER (WHERE state <> 2), 0) + \
    (SELECT coalesce(sum(octet_length(request)), 0) FROM comparisons WHERE owner = ?1 AND state = 0) \
    FROM jobs WHERE owner = ?1";

#[async_trait]
impl OwnerStore for SqliteStore {
    async fn owned(&self, owner: Owner, jobs: &[JobId]) -> Result<HashSet<JobId>, StoreError> {
        let query = sqlx::query(OWNED).bind(moves::array(jobs)).bind(owner.code());
        query.fetch_all(&self.readers).await?.iter().map(|row| Cells::new(row).id()).collect()
    }

    async fn usage(&self, owner: Owner) -> Result<Usage, StoreError> {
        self.catch_up().await;
        let row = sqlx::query(USAGE).bind(owner.code()).fetch_one(&self.readers).await?;
        let mut cells = Cells::new(&row);
        Ok(Usage { queued: cells.number()?, running: cells.number()?, bytes: cells.number()? })
    }

    async fn allow(&self, running: HashMap<Owner, u32>) -> Result<(), StoreError> {
        self.ask(|reply| Command::Allow(running, reply)).await
    }

    async fn spend(&self, owner: Owner, span: Duration) -> Result<Option<Duration>, StoreError> {
        Ok(self.paces.spend(owner, span, Instant::now()))
    }

    async fn give_back(&self, owner: Owner, span: Duration) -> Result<(), StoreError> {
        self.paces.give_back(owner, span);
        Ok(())
    }

    async fn spent(&self, owner: Owner) -> Result<Duration, StoreError> {
        Ok(self.paces.spent(owner, Instant::now()))
    }
}

/// How fast owners submit: when nothing of it counts any more. Nobody else uses the file, and a restart may forget a minute.
#[derive(Default)]
pub(super) struct Paces(Mutex<HashMap<Owner, Instant>>);

impl Paces {
    fn spend(&self, owner: Owner, span: Duration, now: Instant) -> Option<Duration> {
        let mut clear_at = self.clear_at();
        let after = clear_at.get(&owner).map_or(now, |at| now.max(*at)) + span;
        let wait = after.saturating_duration_since(now + MINUTE);
        if !wait.is_zero() {
            return Some(wait);
        }
        clear_at.insert(owner, after);
        None
    }

    fn give_back(&self, owner: Owner, span: Duration) {
        if let Some(at) = self.clear_at().get_mut(&owner) {
            *at = at.checked_sub(span).unwrap_or(*at);
        }
    }

    fn spent(&self, owner: Owner, now: Instant) -> Duration {
        self.clear_at().get(&owner).map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
    }

    fn clear_at(&self) -> MutexGuard<'_, HashMap<Owner, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minutes_worth_may_come_at_once_and_comes_back_evenly() {
        let (paces, owner, start) = (Paces::default(), "00000000000a".parse().unwrap(), Instant::now());
        let spend = |seconds, after| paces.spend(owner, Duration::from_secs(seconds), start + Duration::from_secs(after));
        assert_eq!((spend(59, 0), spend(1, 0), spend(2, 0)), (None, None, Some(Duration::from_secs(2))));
        assert_eq!((spend(3, 2), spend(2, 2), spend(60, 200)), (Some(Duration::from_secs(1)), None, None));
        paces.give_back(owner, Duration::from_secs(50));
        assert_eq!((spend(49, 200), paces.spent(owner, start + Duration::from_secs(210))), (None, Duration::from_secs(49)));
    }
}
