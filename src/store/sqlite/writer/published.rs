//! What others see of the writer's state.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::marks::Marks;
use crate::clock::Timestamp;
use crate::job::Queue;
use crate::store::{Depth, Hub, Sketches, SummaryKey};

/// What others see of the writer's state: as of the latest commit.
pub(in crate::store::sqlite) struct Published {
    pub(super) depths: Mutex<Depths>,
    pub(super) rollups: Mutex<BTreeMap<SummaryKey, Sketches>>,
    pub(super) latest_event: AtomicI64,
    pub(super) marks: Mutex<Marks>,
    pub(in crate::store::sqlite) hub: Arc<Hub>,
}

impl Published {
    pub(in crate::store::sqlite) fn depth(&self, queue: Queue) -> Depth {
        self.depths.lock().unwrap_or_else(PoisonError::into_inner).of(queue)
    }

    pub(in crate::store::sqlite) fn latest_event(&self) -> Timestamp {
        Timestamp::from_micros(self.latest_event.load(Ordering::SeqCst))
    }

    pub(in crate::store::sqlite) fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::store::sqlite) fn rollups(&self) -> MutexGuard<'_, BTreeMap<SummaryKey, Sketches>> {
        self.rollups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many jobs wait and run in each queue.
#[derive(Clone, Copy, Default)]
pub(super) struct Depths([Depth; Queue::ALL.len()]);

impl Depths {
    pub(super) const fn of(&self, queue: Queue) -> Depth {
        self.0[queue as usize]
    }

    pub(super) const fn at(&mut self, queue: Queue) -> &mut Depth {
        &mut self.0[queue as usize]
    }
}
