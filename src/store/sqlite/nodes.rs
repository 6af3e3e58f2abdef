//! The one server of a SQLite file, as a node.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::SqliteStore;
use crate::clock::Timestamp;
use crate::job::{Labels, Queue, Role};
use crate::store::node::Gatekeeper;
use crate::store::{Bloat, BloatStore, Lease, NodeStatus, NodeStore, StoreError};

/// This server.
pub(super) struct Node {
    pub(super) name: String,
    pub(super) labels: Labels,
    pub(super) started_at: Timestamp,
    pub(super) gatekeeper: Arc<Gatekeeper>,
    /// What goes on to the end of the process.
    pub(super) left_behind: Mutex<Vec<Lease>>,
}

#[async_trait]
impl NodeStore for SqliteStore {
    async fn nodes(&self) -> Result<Vec<NodeStatus>, StoreError> {
        let start = sqlx::query_scalar("SELECT boot FROM server").fetch_one(&self.readers).await?;
        self.wait_a_turn().await;
        let this = NodeStatus {
            name: self.node.name.clone(),
            start,
            // There is nobody else to do the rest.
            role: Role::All,
            labels: self.node.labels.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            started_at: self.node.started_at,
            seen_at: self.clock.now(),
            unheard_for: Duration::ZERO,
            expires_at: None,
            has_expired: false,
            leases: Queue::ALL.into_iter().map(|queue| self.published.depth(queue).running).sum(),
            is_draining: self.node.gatekeeper.is_shut(),
            is_this: true,
        };
        Ok(vec![this])
    }

    async fn set_draining(&self, name: &str, draining: bool) -> Result<bool, StoreError> {
        if name != self.node.name {
            return Ok(false);
        }
        self.node.gatekeeper.shut(draining);
        // Claims that wait with the writer are turned away when it wakes up.
        self.wait_a_turn().await;
        Ok(true)
    }

    fn labels(&self) -> &Labels {
        &self.node.labels
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn leave_behind(&self, running: Vec<Lease>) {
        self.node.left_behind.lock().unwrap_or_else(PoisonError::into_inner).extend(running);
    }

    fn is_draining(&self) -> bool {
        self.node.gatekeeper.is_shut()
    }
}

#[async_trait]
impl BloatStore for SqliteStore {
    async fn bloat(&self) -> Result<Option<Bloat>, StoreError> {
        // The room of what is deleted is free at once.
        Ok(None)
    }
}
