//! How the queues are, and whether work can be taken.

use super::{Dispatcher, Quarantined, Shared};
use crate::executor::WorkerStatus;
use crate::job::{Job, Queue, Submission};
use crate::store::{Depth, StoreError};

/// Why the server can't take work.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// It is going down.
    #[error("the server is shutting down")]
    Draining,
    /// The store can't write.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An administrator had it claim nothing more.
    #[error("this node is drained: it claims no more jobs until it is resumed")]
    Drained,
    /// Worker processes die as soon as they start.
    #[error("worker processes die as soon as they start: the server's log says how")]
    Workers,
}

/// One queue as it is now.
#[derive(Clone, Debug)]
pub struct QueueStatus {
    /// Which.
    pub queue: Queue,
    /// How many jobs run at once at the most.
    pub slots: usize,
    /// How many wait and run.
    pub depth: Depth,
    /// The processes that serve it.
    pub workers: Vec<WorkerStatus>,
}

impl Dispatcher {
    /// The queues as they are now, in the order of [`Queue::ALL`].
    pub fn queues(&self) -> Vec<QueueStatus> {
        let Shared { executors, store, .. } = &*self.shared;
        let status = |queue| QueueStatus {
            queue,
            slots: executors.slots(queue),
            depth: store.depth(queue),
            workers: executors.workers(queue),
        };
        Queue::ALL.into_iter().map(status).collect()
    }

    /// What is kept out, because whatever runs it dies under it.
    pub fn quarantined(&self) -> Vec<Quarantined> {
        self.shared.quarantine.list()
    }

    /// Whether work like that of a job is kept out here, of the same owner.
    pub fn kept_out(&self, job: &Job) -> Option<Quarantined> {
        let Submission { owner, workload, .. } = &*job.submission;
        let key = || Some(self.shared.registry.likeness(workload)?.key());
        self.shared.quarantine.case(*owner, key)
    }

    /// How late a timer fired on the event loop of the `async` executor, or is by now, in microseconds: the latest of the last second.
    pub fn loop_lag_us(&self) -> u64 {
        self.shared.executors.loop_lag_us()
    }

    /// Whether it can take work.
    pub async fn ready(&self) -> Result<(), NotReady> {
        if self.shared.leaving.is_cancelled() {
            return Err(NotReady::Draining);
        }
        if self.shared.store.is_draining() {
            return Err(NotReady::Drained);
        }
        if self.shared.executors.can_not_start() {
            return Err(NotReady::Workers);
        }
        // On a server with much to write that may take a while.
        let check = self.shared.leaving.run_until_cancelled(self.shared.store.check()).await;
        Ok(check.ok_or(NotReady::Draining)??)
    }
}
