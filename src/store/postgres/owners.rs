//! Whose jobs are.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;

use super::PostgresStore;
use super::rows::{Cells, uuids};
use super::writer::Command;
use crate::job::{JobId, Owner};
use crate::store::{OwnerStore, StoreError, Usage};

const USAGE: &str = "SELECT count(*) FILTER (WHERE w.state <> 2) + (SELECT count(*) FROM comparisons WHERE owner = $1 AND state = 0), \
    count(*) FILTER (WHERE w.state = 2), \
    (coalesce(sum(octet_length(j.workload)) FILTER (WHERE w.state <> 2), 0) + \
    (SELECT coalesce(sum(octet_length(request)), 0) FROM comparisons WHERE owner = $1 AND state = 0))::BIGINT \
    FROM work w JOIN jobs j ON j.id = w.id WHERE j.owner = $1";

#[async_trait]
impl OwnerStore for PostgresStore {
    async fn owned(&self, owner: Owner, jobs: &[JobId]) -> Result<HashSet<JobId>, StoreError> {
        let query = sqlx::query("SELECT id FROM jobs WHERE owner = $1 AND id = ANY($2)").bind(owner.code()).bind(uuids(jobs));
        query.fetch_all(&self.pool).await?.iter().map(|row| Cells::new(row).id()).collect()
    }

    async fn usage(&self, owner: Owner) -> Result<Usage, StoreError> {
        let row = sqlx::query(USAGE).bind(owner.code()).fetch_one(&self.pool).await?;
        let mut cells = Cells::new(&row);
        Ok(Usage { queued: cells.number()?, running: cells.number()?, bytes: cells.number()? })
    }

    async fn allow(&self, running: HashMap<Owner, u32>) -> Result<(), StoreError> {
        self.ask(|reply| Command::Allow(running, reply)).await
    }
}
