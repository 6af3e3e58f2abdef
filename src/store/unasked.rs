//! Jobs that ended without anybody asking for it.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::job::JobId;

/// Jobs that ended without anybody asking for it, until somebody takes note.
#[derive(Default)]
pub(super) struct Unasked {
    ended: Mutex<Vec<JobId>>,
    /// Somebody waits for the end of a job.
    pub(super) somebody_waits: Arc<AtomicBool>,
    some: Notify,
}

impl Unasked {
    pub(super) fn add(&self, ids: Vec<JobId>) {
        if !ids.is_empty() {
            self.ended.lock().unwrap_or_else(PoisonError::into_inner).extend(ids);
            self.some.notify_one();
        }
    }

    pub(super) async fn wait(&self) -> Vec<JobId> {
        loop {
            let ended = std::mem::take(&mut *self.ended.lock().unwrap_or_else(PoisonError::into_inner));
            if !ended.is_empty() {
                return ended;
            }
            self.some.notified().await;
        }
    }
}
