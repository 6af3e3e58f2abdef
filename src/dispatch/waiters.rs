//! Who waits for the end of which job.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::job::JobId;

/// Wakes those who wait for a job when it ends. What they then see, they read from the store.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    waiting: Mutex<HashMap<JobId, watch::Sender<bool>>>,
}

/// Somebody's wish to know when a job ends. To be made before looking whether it has ended already.
pub(super) struct Waiter<'a> {
    waiters: &'a Waiters,
    id: JobId,
    ended: watch::Receiver<bool>,
}

impl Waiters {
    /// From here on, the end of this job is not missed.
    pub(super) fn watch(&self, id: JobId) -> Waiter<'_> {
        let ended = self.waiting().entry(id).or_insert_with(|| watch::Sender::new(false)).subscribe();
        Waiter { waiters: self, id, ended }
    }

    /// Whether somebody waits for this job.
    pub(super) fn any(&self, id: JobId) -> bool {
        self.waiting().contains_key(&id)
    }

    /// The job has ended.
    pub(super) fn ended(&self, id: JobId) {
        if let Some(sender) = self.waiting().remove(&id) {
            sender.send_replace(true);
        }
    }

    /// Nobody is to wait any longer.
    pub(super) fn end_all(&self) {
        for (_, sender) in self.waiting().drain() {
            sender.send_replace(true);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<JobId, watch::Sender<bool>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter<'_> {
    /// Waits until the job has ended, at most `limit`.
    pub(super) async fn ended(mut self, limit: Duration) {
        // That the time is up, or that the sender is gone, is for the caller to see by looking at the job.
        let _ = tokio::time::timeout(limit, self.ended.wait_for(|ended| *ended)).await;
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut waiting = self.waiters.waiting();
        // The last one to leave takes the entry along; a newer entry has receivers of its own.
        if waiting.get(&self.id).is_some_and(|sender| sender.receiver_count() <= 1 && !*self.ended.borrow()) {
            waiting.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_end_between_watching_and_waiting_is_not_missed_and_nothing_is_left() {
        let (waiters, id) = (Waiters::default(), JobId::new());
        let (first, second) = (waiters.watch(id), waiters.watch(id));
        waiters.ended(id);
        first.ended(Duration::from_secs(60)).await;
        second.ended(Duration::from_secs(60)).await;
        waiters.watch(id).ended(Duration::ZERO).await;
        assert!(waiters.waiting().is_empty());
    }
}
