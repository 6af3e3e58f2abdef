//! All nodes, as any of them sees them, and what one has another do.

use std::time::Duration;

use async_trait::async_trait;
use clap::ValueEnum as _;

use super::PostgresStore;
use super::rows::Cells;
use crate::job::{Labels, Role};
use crate::store::{Lease, NodeStatus, NodeStore, StoreError};

/// As it is kept.
fn role(text: &str) -> Result<Role, StoreError> {
    let known = Role::value_variants().iter().find(|role| role.as_str() == text);
    known.copied().ok_or_else(|| StoreError::Corrupt(format!("{text:?} is nothing that a node does")))
}

#[async_trait]
impl NodeStore for PostgresStore {
    async fn nodes(&self) -> Result<Vec<NodeStatus>, StoreError> {
        let text = "SELECT n.name, n.id, n.version, (extract(epoch FROM n.started_at) * 1000000)::BIGINT, \
                    (extract(epoch FROM n.seen_at) * 1000000)::BIGINT, (extract(epoch FROM n.expires_at) * 1000000)::BIGINT, \
                    greatest(0, extract(epoch FROM clock_timestamp() - n.seen_at) * 1000000)::BIGINT, \
                    n.expires_at < clock_timestamp(), n.draining, coalesce(w.leases, 0), n.role, n.labels \
                    FROM nodes n LEFT JOIN (SELECT node, count(*) AS leases FROM work WHERE state = 2 GROUP BY node) w ON w.node = n.id \
                    ORDER BY n.name COLLATE \"C\", n.id";
        let rows = sqlx::query(text).fetch_all(&self.pool).await?;
        rows.iter()
            .map(|row| {
                let mut cells = Cells::new(row);
                let (name, start) = (cells.take()?, cells.take()?);
                Ok(NodeStatus {
                    name,
                    start,
                    version: cells.take()?,
                    started_at: cells.time()?,
                    seen_at: cells.time()?,
                    expires_at: Some(cells.time()?),
                    unheard_for: Duration::from_micros(cells.number()?),
                    has_expired: cells.take()?,
                    is_draining: cells.take()?,
                    leases: cells.number()?,
                    is_this: start == self.node.id(),
                    role: role(cells.take()?)?,
                    labels: cells.json()?.unwrap_or_default(),
                })
            })
            .collect()
    }

    async fn set_draining(&self, name: &str, draining: bool) -> Result<bool, StoreError> {
        let query = sqlx::query("UPDATE nodes SET draining = $2 WHERE name = $1").bind(name).bind(draining);
        let found = query.execute(&self.pool).await?.rows_affected() > 0;
        // The one that it is about looks at its row soon, be it this one.
        self.told.notify_one();
        Ok(found)
    }

    async fn leave(&self) -> Result<(), StoreError> {
        // Not by its name: another one may have that meanwhile.
        sqlx::query("UPDATE nodes SET draining = TRUE WHERE id = $1").bind(self.node.id()).execute(&self.pool).await?;
        Ok(())
    }

    fn labels(&self) -> &Labels {
        &self.node.labels
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn is_draining(&self) -> bool {
        self.node.gatekeeper.is_shut()
    }

    fn leave_behind(&self, running: Vec<Lease>) {
        self.node.leave_behind(running);
    }

    fn stale_results(&self) -> u64 {
        self.node.stale()
    }
}
