//! Which attempts run on this node, so that they can be told to stop.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::job::JobId;
use crate::workload::{Stop, StopReason};

/// The attempts that run, by job.
#[derive(Debug, Default)]
pub(super) struct Running {
    stops: Mutex<HashMap<JobId, Stop>>,
}

impl Running {
    /// An attempt begins.
    pub(super) fn begin(&self, id: JobId) -> Stop {
        // It may have been told to stop between its claim and now.
        self.stops().entry(id).or_default().clone()
    }

    /// An attempt has been settled.
    pub(super) fn end(&self, id: JobId) {
        self.stops().remove(&id);
    }

    /// Tells an attempt to stop: one that runs, or one that was claimed and is about to begin.
    pub(super) fn stop(&self, id: JobId, reason: StopReason) {
        self.stops().entry(id).or_default().stop(reason);
    }

    /// Tells all of them to stop.
    pub(super) fn stop_all(&self, reason: StopReason) {
        self.stops().values().for_each(|stop| stop.stop(reason));
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.stops().len()
    }

    fn stops(&self) -> MutexGuard<'_, HashMap<JobId, Stop>> {
        self.stops.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
