//! What others on this node see of the writer's state.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::super::shared::Shared;
use super::super::synced::Synced;
use crate::clock::{Clock, Timestamp};
use crate::job::Queue;
use crate::store::unasked::Unasked;
use crate::store::{Copied, Depth, Hub};

/// What others see: as of this node's latest look at the database.
pub(in crate::store::postgres) struct Published {
    clock: Option<Arc<dyn Clock>>,
    /// How far the database's clock is ahead of this machine's, in microseconds.
    ahead_us: AtomicI64,
    depths: Mutex<[Depth; Queue::ALL.len()]>,
    latest_event: AtomicI64,
    versions: watch::Sender<Vec<i64>>,
    pub(in crate::store::postgres) synced: Synced,
    pub(in crate::store::postgres) hub: Arc<Hub>,
    pub(in crate::store::postgres) unasked: Unasked,
}

impl Published {
    pub(super) fn new(shared: &Shared, clock: Option<Arc<dyn Clock>>, synced: Synced) -> Self {
        let published = Self {
            clock,
            ahead_us: AtomicI64::new(0),
            depths: Mutex::default(),
            latest_event: AtomicI64::new(0),
            versions: watch::Sender::default(),
            synced,
            hub: Hub::new(),
            unasked: Unasked::default(),
        };
        published.publish(shared);
        published
    }

    /// The time by the database's clock, so that nodes agree on it.
    pub(in crate::store::postgres) fn now(&self) -> Timestamp {
        let here = || Timestamp::now().as_micros().saturating_add(self.ahead_us.load(Ordering::SeqCst));
        self.clock.as_ref().map_or_else(|| Timestamp::from_micros(here()), |clock| clock.now())
    }

    /// What time it is, says the database.
    pub(super) fn set_time(&self, now: Timestamp) {
        self.ahead_us.store(now.as_micros() - Timestamp::now().as_micros(), Ordering::SeqCst);
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
