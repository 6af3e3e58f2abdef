//! Which attempts run on this node, so that they can be told to stop.

use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::HashMap;

use crate::job::JobId;
use crate::store::Lease;
use crate::workload::{Stop, StopReason};

/// The attempts that run, by job. Each belongs to a lease: the next attempt of a job may begin before the one before is forgotten.
#[derive(Debug, Default)]
pub(super) struct Running {
    stops: Mutex<HashMap<JobId, (i64, Stop)>>,
}

impl Running {
    /// An attempt begins.
    pub(super) fn begin(&self, lease: Lease) -> Stop {
        // It may have been told to stop between its claim and now.
        Self::of(&mut self.stops(), lease)
    }

    /// An attempt has been settled.
    pub(super) fn end(&self, lease: Lease) {
        let mut stops = self.stops();
        if stops.get(&lease.id).is_some_and(|(token, _)| *token == lease.token) {
            stops.remove(&lease.id);
        }
    }

    /// Tells an attempt to stop: one that runs, or one that was claimed and is about to begin.
    pub(super) fn stop(&self, lease: Lease, reason: StopReason) {
        Self::of(&mut self.stops(), lease).stop(reason);
    }

    /// Tells all of them to stop.
    pub(super) fn stop_all(&self, reason: StopReason) {
        self.stops().values().for_each(|(_, stop)| stop.stop(reason));
    }

    /// Their leases.
    pub(super) fn leases(&self) -> Vec<Lease> {
        self.stops().iter().map(|(id, (token, _))| Lease { id: *id, token: *token }).collect()
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.stops().len()
    }

    /// The signal of this lease; the one of an earlier lease on the same job makes way. Nobody looks for that of an earlier one any more.
    fn of(stops: &mut HashMap<JobId, (i64, Stop)>, lease: Lease) -> Stop {
        let (token, stop) = stops.entry(lease.id).or_insert_with(|| (lease.token, Stop::default()));
        if lease.token < *token {
            return Stop::default();
        }
        if lease.token > *token {
            (*token, *stop) = (lease.token, Stop::default());
        }
        stop.clone()
    }

    fn stops(&self) -> MutexGuard<'_, HashMap<JobId, (i64, Stop)>> {
        self.stops.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_neither_inherits_nor_ends_the_signal_of_another() {
        let (running, id) = (Running::default(), JobId::new());
        let (first, second) = (Lease { id, token: 1 }, Lease { id, token: 2 });
        running.begin(first).stop(StopReason::Deadline);
        let stop = running.begin(second);
        assert!(!stop.is_stopped());
        running.end(first);
        running.stop(first, StopReason::Cancelled);
        assert!(!stop.is_stopped());
        running.stop(second, StopReason::Cancelled);
        assert_eq!(stop.reason(), Some(StopReason::Cancelled));
        running.end(second);
        assert_eq!(running.count(), 0);
    }

    #[test]
    fn a_stop_before_the_beginning_is_not_missed() {
        let (running, lease) = (Running::default(), Lease { id: JobId::new(), token: 1 });
        running.stop(lease, StopReason::Cancelled);
        assert!(running.begin(lease).is_stopped());
    }
}
