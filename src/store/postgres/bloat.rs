//! What the database says of what it has to clean up.

use std::time::Duration;

use async_trait::async_trait;

use super::PostgresStore;
use super::pool::Pool;
use super::rows::Cells;
use crate::store::{Bloat, BloatStore, StoreError, TableBloat};

#[async_trait]
impl BloatStore for PostgresStore {
    async fn bloat(&self) -> Result<Option<Bloat>, StoreError> {
        match look(&self.pool).await {
            // Other databases with this protocol clean up in their own ways, and have other views.
            Err(StoreError::Database(error)) => {
                tracing::debug!(%error, "the database does not say what it has to clean up");
                Ok(None)
            }
            bloat => bloat.map(Some),
        }
    }
}

async fn look(pool: &Pool) -> Result<Bloat, StoreError> {
    // Of the sessions of other users, only a superuser or a member of pg_monitor sees it.
    let text = "SELECT (extract(epoch FROM max(clock_timestamp() - xact_start)) * 1000000)::BIGINT FROM pg_stat_activity \
                WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
    let oldest: Option<i64> = sqlx::query_scalar(text).fetch_one(pool).await?;
    // With their partitions, if they have some.
    let text = "SELECT split_part(relname::TEXT, '_', 1) AS name, sum(n_live_tup)::BIGINT, sum(n_dead_tup)::BIGINT FROM pg_stat_user_tables \
                WHERE schemaname = current_schema() AND split_part(relname::TEXT, '_', 1) IN ('events', 'jobs', 'results', 'shared', 'work') \
                GROUP BY 1 ORDER BY 1";
    let tables = sqlx::query(text).fetch_all(pool).await?;
    let table = |row| {
        let mut cells = Cells::new(row);
        Ok(TableBloat { name: cells.take()?, live: cells.number()?, dead: cells.number()? })
    };
    Ok(Bloat {
        oldest_transaction: oldest.map(|us| Duration::from_micros(us.try_into().unwrap_or(0))),
        tables: tables.iter().map(table).collect::<Result<_, StoreError>>()?,
    })
}
