//! What others see of the writer's state.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::super::marks::Marks;
use super::super::rollups::Rollups;
use super::super::rows::SCHEDULED;
use crate::clock::Timestamp;
use crate::job::{JobId, Queue};
use crate::store::{Depth, Hub};

/// What others see of the writer's state: as of the latest commit.
pub(in crate::store::sqlite) struct Published {
    pub(super) depths: Mutex<Depths>,
    pub(super) rollups: Mutex<Rollups>,
    pub(super) latest_event: AtomicI64,
    pub(super) marks: Mutex<Marks>,
    pub(in crate::store::sqlite) hub: Arc<Hub>,
    pub(in crate::store::sqlite) unasked: Unasked,
}

/// Jobs that ended without anybody asking for it, until somebody takes note.
#[derive(Default)]
pub(in crate::store::sqlite) struct Unasked {
    ended: Mutex<Vec<JobId>>,
    some: Notify,
}

impl Unasked {
    pub(super) fn add(&self, ids: Vec<JobId>) {
        if !ids.is_empty() {
            self.ended.lock().unwrap_or_else(PoisonError::into_inner).extend(ids);
            self.some.notify_one();
        }
    }

    pub(in crate::store::sqlite) async fn wait(&self) -> Vec<JobId> {
        loop {
            let ended = std::mem::take(&mut *self.ended.lock().unwrap_or_else(PoisonError::into_inner));
            if !ended.is_empty() {
                return ended;
            }
            self.some.notified().await;
        }
    }
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
    pub(super) const fn leave(&mut self, queue: Queue, state: i64) {
        let depth = self.at(queue);
        let waiting = if state == SCHEDULED { &mut depth.scheduled } else { &mut depth.queued };
        *waiting = waiting.saturating_sub(1);
    }

    pub(super) const fn at(&mut self, queue: Queue) -> &mut Depth {
        &mut self.0[queue as usize]
    }
}
