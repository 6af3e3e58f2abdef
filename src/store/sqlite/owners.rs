//! Whose jobs are.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;

use super::rows::Cells;
use super::writer::Command;
use super::{SqliteStore, moves};
use crate::job::{JobId, Owner};
use crate::store::{OwnerStore, StoreError, Usage};

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
}
