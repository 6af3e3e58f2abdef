//! How often was changed what each node has a copy of. A row a kind, apart from the one that all go by: who registers a function holds up no
//! job.

use async_trait::async_trait;
use sqlx::PgConnection;

use super::PostgresStore;
use crate::store::{Copied, CopyStore, StoreError};

#[async_trait]
impl CopyStore for PostgresStore {
    async fn version(&self, of: Copied) -> Result<i64, StoreError> {
        let query = sqlx::query_scalar("SELECT version FROM versions WHERE kind = $1");
        Ok(query.bind(of as i16).fetch_one(&self.pool).await?)
    }

    async fn changed(&self, of: Copied, known: i64) {
        self.published.behind(of, known).await;
    }
}

/// Counts a change, as the first step of its transaction: changes of a kind come one after the other.
pub(super) async fn count(connection: &mut PgConnection, of: Copied) -> Result<(), StoreError> {
    sqlx::query("UPDATE versions SET version = version + 1 WHERE kind = $1").bind(of as i16).execute(connection).await?;
    Ok(())
}
