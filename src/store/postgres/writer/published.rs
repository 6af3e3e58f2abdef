//! What others on this node see of the writer's state.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::super::shared::Shared;
use crate::clock::Timestamp;
use crate::job::Queue;
use crate::store::unasked::Unasked;
use crate::store::{Copied, Depth, Hub};

/// What others see: as of this node's latest look at the database.
pub(in crate::store::postgres) struct Published {
    depths: Mutex<[Depth; Queue::ALL.len()]>,
    latest_event: AtomicI64,
    versions: watch::Sender<Vec<i64>>,
    pub(in crate::store::postgres) hub: Arc<Hub>,
    pub(in crate::store::postgres) unasked: Unasked,
}

impl Published {
    pub(super) fn new(shared: &Shared) -> Self {
        let published = Self {
            depths: Mutex::default(),
            latest_event: AtomicI64::new(0),
            versions: watch::Sender::default(),
            hub: Hub::new(),
            unasked: Unasked::default(),
        };
        published.publish(shared);
        published
    }

    /// What was seen.
    pub(super) fn publish(&self, shared: &Shared) {
        *self.depths.lock().unwrap_or_else(PoisonError::into_inner) = Queue::ALL.map(|queue| shared.depth(queue));
        self.latest_event.store(shared.latest, Ordering::SeqCst);
        self.versions.send_if_modified(|known| {
            let changed = *known != shared.versions;
            known.clone_from(&shared.versions);
            changed
        });
    }

    pub(in crate::store::postgres) fn depth(&self, queue: Queue) -> Depth {
        let depth = self.depths.lock().unwrap_or_else(PoisonError::into_inner)[queue as usize];
        Depth { queued: depth.queued + depth.limited, ..depth }
    }

    /// Waits until a change is seen behind this version.
    pub(in crate::store::postgres) async fn behind(&self, of: Copied, known: i64) {
        let is_behind = |versions: &Vec<i64>| versions.get(of as usize).is_some_and(|version| *version > known);
        // The sender is here, so there is an end to it only if there is a change.
        let _ = self.versions.subscribe().wait_for(is_behind).await;
    }

    pub(in crate::store::postgres) fn latest_event(&self) -> Timestamp {
        Timestamp::from_micros(self.latest_event.load(Ordering::SeqCst))
    }
}
