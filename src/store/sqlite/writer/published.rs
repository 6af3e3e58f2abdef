//! What others see of the writer's state.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::lanes::Counted;
use super::super::marks::Marks;
use super::super::rollups::Rollups;
use crate::clock::Timestamp;
use crate::job::Queue;
use crate::store::kept::state::{BLOCKED, LIMITED, RUNNING, SCHEDULED};
use crate::store::unasked::Unasked;
use crate::store::{Depth, Hub};

/// What others see of the writer's state: as of the latest commit.
pub(in crate::store::sqlite) struct Published {
    pub(super) depths: Mutex<Depths>,
    pub(super) rollups: Mutex<Rollups>,
    pub(super) latest_event: AtomicI64,
    pub(super) marks: Mutex<Marks>,
    pub(in crate::store::sqlite) hub: Arc<Hub>,
    pub(in crate::store::sqlite) unasked: Unasked,
    pub(super) running: Mutex<BTreeMap<Counted, Running>>,
}

/// The jobs with a key, or of an owner, that run.
#[derive(Clone, Copy, Default)]
pub(in crate::store::sqlite) struct Running {
    pub(in crate::store::sqlite) count: u32,
    /// The limit of the latest of them.
    pub(in crate::store::sqlite) limit: u32,
}

impl Published {
    pub(in crate::store::sqlite) fn depth(&self, queue: Queue) -> Depth {
        let depth = self.depths.lock().unwrap_or_else(PoisonError::into_inner).of(queue);
        Depth { queued: depth.queued + depth.limited, ..depth }
    }

    /// The jobs that run, by what they are counted for.
    pub(in crate::store::sqlite) fn running(&self) -> MutexGuard<'_, BTreeMap<Counted, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many more of them run, or fewer.
    pub(super) fn count_running(&self, changes: BTreeMap<Counted, (i64, Option<u32>)>) {
        if changes.is_empty() {
            return;
        }
        let mut running = self.running();
        for (key, (more, limit)) in changes {
            let Running { count, limit: before } = running.get(&key).copied().unwrap_or_default();
            let count = u32::try_from(i64::from(count) + more).unwrap_or(0);
            if count == 0 {
                running.remove(&key);
            } else {
                running.insert(key, Running { count, limit: limit.unwrap_or(before) });
            }
        }
    }

    pub(in crate::store::sqlite) fn latest_event(&self) -> Timestamp {
        Timestamp::from_micros(self.latest_event.load(Ordering::SeqCst))
    }

    pub(in crate::store::sqlite) fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::store::sqlite) fn rollups(&self) -> MutexGuard<'_, Rollups> {
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

    /// A job does not wait any more that did, as the database has it.
    pub(super) const fn leave(&mut self, queue: Queue, state: i16) {
        let waiting = self.of_state(queue, state);
        *waiting = waiting.saturating_sub(1);
    }

    /// How many jobs of a queue are where that is.
    pub(super) const fn of_state(&mut self, queue: Queue, state: i16) -> &mut u64 {
        let depth = self.at(queue);
        match state {
            SCHEDULED => &mut depth.scheduled,
            RUNNING => &mut depth.running,
            BLOCKED => &mut depth.blocked,
            LIMITED => &mut depth.limited,
            _ => &mut depth.queued,
        }
    }

    pub(super) const fn at(&mut self, queue: Queue) -> &mut Depth {
        &mut self.0[queue as usize]
    }
}
