//! Several nodes on one PostgreSQL.

mod agreement;
mod database;
mod leases;
mod news;

use std::sync::Arc;

use trine::job::Queue;
use trine::store::postgres::PostgresStore;
use trine::store::{Claimed, Lease, Revocation, Settled, Settlement, Store, Urgency};

use crate::PATIENCE;

async fn claim_one(store: &PostgresStore) -> Claimed {
    let claimed = tokio::time::timeout(PATIENCE, store.claim(Queue::Async, 1)).await.expect("a job to claim").unwrap();
    claimed.into_iter().next().unwrap()
}

async fn settle(store: &PostgresStore, lease: Lease, settlement: Settlement) -> Settled {
    store.settle(lease, Arc::new(settlement), Urgency::Awaited).await.unwrap()
}

async fn revoked(store: &PostgresStore) -> Vec<(Lease, Revocation)> {
    tokio::time::timeout(PATIENCE, store.revoked()).await.expect("attempts to stop")
}
