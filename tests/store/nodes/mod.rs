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

/// Makes a test of each function for nodes that reach their database by themselves, and through a pooler that keeps no sessions.
macro_rules! directly_and_through_a_pooler {
    ($($name:ident),* $(,)?) => {
        mod directly {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::postgres::Schema::new()).await;
            })*
        }

        mod pooled {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::postgres::Schema::pooled()).await;
            })*
        }
    };
}
use directly_and_through_a_pooler;

async fn revoked(store: &PostgresStore) -> Vec<(Lease, Revocation)> {
    tokio::time::timeout(PATIENCE, store.revoked()).await.expect("attempts to stop")
}
