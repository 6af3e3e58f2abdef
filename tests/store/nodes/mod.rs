//! Several nodes on one PostgreSQL.

mod agreement;
mod cut;
mod database;
mod leases;
mod news;
mod still;

use trine::store::postgres::PostgresStore;
use trine::store::{Lease, Revocation, Store as _};

use crate::PATIENCE;

async fn revoked(store: &PostgresStore) -> Vec<(Lease, Revocation)> {
    tokio::time::timeout(PATIENCE, store.revoked()).await.expect("attempts to stop")
}
