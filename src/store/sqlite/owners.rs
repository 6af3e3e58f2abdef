//! Whose jobs are.

use std::collections::HashSet;

use async_trait::async_trait;

use super::rows::Cells;
use super::{SqliteStore, moves};
use crate::job::{JobId, Owner};
use crate::store::{OwnerStore, StoreError};

/// One statement, so that a job that moves meanwhile is in one of the tables.
const OWNED: &str = "SELECT unhex(value) FROM json_each(?1) WHERE \
    EXISTS (SELECT 1 FROM jobs WHERE id = unhex(value) AND owner = ?2) OR \
    EXISTS (SELECT 1 FROM results WHERE id = unhex(value) AND owner = ?2)";

#[async_trait]
impl OwnerStore for SqliteStore {
    async fn owned(&self, owner: Owner, jobs: &[JobId]) -> Result<HashSet<JobId>, StoreError> {
        let query = sqlx::query(OWNED).bind(moves::array(jobs)).bind(owner.code());
        query.fetch_all(&self.readers).await?.iter().map(|row| Cells::new(row).id()).collect()
    }
}
