use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::{Lease, StoreError};
use crate::clock::Timestamp;
use crate::job::{Labels, Role, meets};

/// A server among those that share a store; in SQLite there is one.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    /// What it is called.
    pub name: String,
    /// The number of its start: later ones have higher numbers.
    pub start: i64,
    /// What it does.
    pub role: Role,
    /// What is said of it.
    pub labels: Labels,
    /// The version of the program.
    pub version: String,
    /// When it took its place among the nodes.
    pub started_at: Timestamp,
    /// When it was heard of last.
    pub seen_at: Timestamp,
    /// How long ago that was, by the clock of the store.
    pub unheard_for: Duration,
    /// Until when what it runs is its own; `None` for one whose leases last as long as it does.
    pub expires_at: Option<Timestamp>,
    /// Whether that time is over, by the clock of the store.
    pub has_expired: bool,
    /// How many attempts it has claimed.
    pub leases: u64,
    /// Whether it claims nothing more.
    pub is_draining: bool,
    /// Whether this is the one that was asked.
    pub is_this: bool,
}

impl NodeStatus {
    /// Whether it runs jobs that require these labels, unless it is drained.
    pub fn may_run(&self, required: &Labels) -> bool {
        self.role.works() && !self.has_expired && meets(&self.labels, required)
    }
}

/// What is known of nodes.
#[async_trait]
pub trait NodeStore {
    /// All of them, in the order of their names.
    async fn nodes(&self) -> Result<Vec<NodeStatus>, StoreError>;

    /// Has the node of this name claim nothing more, or go on. What runs there goes on to its end either way; when the process ends, this
    /// ends with it. Whether there is such a node.
    async fn set_draining(&self, name: &str, draining: bool) -> Result<bool, StoreError>;

    /// Tells the other nodes that this one claims nothing more, since it is about to end.
    async fn leave(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// What is said of this node.
    fn labels(&self) -> &Labels;

    /// Whether other nodes may come, with other labels.
    fn is_shared(&self) -> bool;

    /// Whether this node is to claim nothing more, as far as it has heard.
    fn is_draining(&self) -> bool;

    /// These attempts don't end though the store is about to be shut. They are not to run again at once, as what is given back then, but as lost:
    /// on other nodes when the lease of this one is over; where there are no others, at the next start.
    fn leave_behind(&self, running: Vec<Lease>);

    /// How many results of this node came too late since it was started: their leases had ended.
    fn stale_results(&self) -> u64 {
        0
    }
}

/// Keeps claims away from a node that is to claim nothing more.
pub(super) struct Gatekeeper(watch::Sender<bool>);

impl Gatekeeper {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    pub(super) fn is_shut(&self) -> bool {
        *self.0.borrow()
    }

    pub(super) fn shut(&self, shut: bool) {
        if self.0.send_if_modified(|before| std::mem::replace(before, shut) != shut) {
            if shut {
                tracing::info!("drained: this server claims no more jobs, and what runs goes on to its end");
            } else {
                tracing::info!("resumed: this server claims jobs again");
            }
        }
    }

    /// Waits until claims are let in.
    pub(super) async fn open(&self) {
        if self.is_shut() {
            // Its sender is here, so it does not end early.
            let _ = self.0.subscribe().wait_for(|shut| !shut).await;
        }
    }
}
