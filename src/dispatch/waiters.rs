//! Who waits for the end of which job.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::HashMap;
use tokio::sync::watch;

use crate::clock::Timestamp;
use crate::job::{Job, JobId, State};
use crate::store::Settlement;

/// Wakes those who wait for a job when it ends.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    waiting: Mutex<HashMap<JobId, watch::Sender<Heard>>>,
    /// Whether there are any.
    some: Arc<AtomicBool>,
}

/// How a job ended whose last attempt brought that about.
#[derive(Debug)]
pub(super) struct End {
    pub(super) attempt: u32,
    pub(super) losses: u32,
    pub(super) settlement: Arc<Settlement>,
    pub(super) started_at: Timestamp,
    pub(super) finished_at: Timestamp,
}

/// What is known of a job's end.
#[derive(Clone, Debug)]
enum Heard {
    Nothing,
    /// It has ended, or is not to be waited for any longer; how, if it was an attempt that ended it.
    Ended(Option<Arc<End>>),
}

/// Somebody's wish to know when a job ends. To be made before looking whether it has ended already.
pub(super) struct Waiter<'a> {
    waiters: &'a Waiters,
    id: JobId,
    heard: watch::Receiver<Heard>,
}

impl End {
    /// The job as it is by that.
    pub(super) fn of(&self, job: Job) -> Job {
        let Settlement::Finish(conclusion) = &*self.settlement else { return job };
        let finished = conclusion.clone().at(Some(self.started_at), self.finished_at);
        Job { attempt: self.attempt, losses: self.losses, state: State::Finished(Box::new(finished)), ..job }
    }
}

impl Waiters {
    /// Says in `some` whether there are any.
    pub(super) fn new(some: Arc<AtomicBool>) -> Self {
        Self { waiting: Mutex::default(), some }
    }

    /// From here on, the end of this job is not missed.
    pub(super) fn watch(&self, id: JobId) -> Waiter<'_> {
        let mut waiting = self.waiting();
        let heard = waiting.entry(id).or_insert_with(|| watch::Sender::new(Heard::Nothing)).subscribe();
        self.some.store(true, Ordering::SeqCst);
        Waiter { waiters: self, id, heard }
    }

    /// Whether somebody waits for this job.
    pub(super) fn any(&self, id: JobId) -> bool {
        self.waiting().contains_key(&id)
    }

    /// The job has ended; how, if that is known.
    pub(super) fn ended(&self, id: JobId, end: Option<End>) {
        let mut waiting = self.waiting();
        if let Some(sender) = waiting.remove(&id) {
            self.some.store(!waiting.is_empty(), Ordering::SeqCst);
            sender.send_replace(Heard::Ended(end.map(Arc::new)));
        }
    }

    /// Nobody is to wait any longer.
    pub(super) fn end_all(&self) {
        let mut waiting = self.waiting();
        self.some.store(false, Ordering::SeqCst);
        for (_, sender) in waiting.drain() {
            sender.send_replace(Heard::Ended(None));
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<JobId, watch::Sender<Heard>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter<'_> {
    /// Waits until the job has ended, at most `limit`; how it did, if that is known. Otherwise it is to be looked at: the time may be up.
    pub(super) async fn ended(mut self, limit: Duration) -> Option<Arc<End>> {
        let ended = self.heard.wait_for(|heard| matches!(heard, Heard::Ended(_)));
        match tokio::time::timeout(limit, ended).await.ok()?.ok()?.clone() {
            Heard::Ended(end) => end,
            Heard::Nothing => None,
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut waiting = self.waiters.waiting();
        // The last one to leave takes the entry along; a newer entry has receivers of its own.
        if waiting
            .get(&self.id)
            .is_some_and(|sender| sender.receiver_count() <= 1 && matches!(*self.heard.borrow(), Heard::Nothing))
        {
            waiting.remove(&self.id);
            self.waiters.some.store(!waiting.is_empty(), Ordering::SeqCst);
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
        waiters.ended(id, None);
        first.ended(Duration::from_secs(60)).await;
        second.ended(Duration::from_secs(60)).await;
        waiters.watch(id).ended(Duration::ZERO).await;
        assert!(waiters.waiting().is_empty() && !waiters.some.load(Ordering::SeqCst));
        let third = waiters.watch(id);
        assert!(waiters.some.load(Ordering::SeqCst));
        drop(third);
        assert!(!waiters.some.load(Ordering::SeqCst));
    }
}
