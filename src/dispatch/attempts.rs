//! The attempts of one job: what they have come to so far, and how one is told to stop.

use super::Dispatcher;
use crate::clock::Timestamp;
use crate::job::{Event, EventKind, History, Job, State, Tried};
use crate::store::{EventFilter, Lease, StoreError};
use crate::workload::StopReason;

impl Dispatcher {
    /// Tells an attempt to stop that the store has marked.
    pub(super) async fn stop(&self, lease: Lease) {
        self.shared.running.stop(lease, StopReason::Cancelled);
        // If the attempt was settled just before, or another node runs it, nobody will take that note away any more.
        let runs = self.shared.store.may_run_here(lease)
            && match self.shared.store.job(lease.id).await {
                Ok(job) => job.is_some_and(|job| matches!(job.state, State::Running { .. })),
                // Then it is better that the note stays.
                Err(_) => true,
            };
        if !runs {
            self.shared.running.end(lease);
        }
    }

    /// The attempts of a job so far, the latest thousand of them.
    pub async fn attempts(&self, job: &Job) -> Result<Vec<Tried>, StoreError> {
        if let Some(first) = first(job) {
            return Ok(first);
        }
        let kinds = vec![EventKind::Running, EventKind::Retrying, EventKind::Finished];
        let filter = EventFilter { job: Some(job.id), kinds, ..EventFilter::default() };
        let (mut history, mut after) = (History::default(), Timestamp::from_micros(0));
        loop {
            let page = self.shared.store.events(&filter, after).await?;
            page.events.into_iter().for_each(|event: Event| history.add(event));
            match page.more {
                Some(more) => after = more,
                None => return Ok(history.into_attempts(job.attempt)),
            }
        }
    }
}

/// The attempts of a job that needs no look at what happened to it: it has had none, or its first one runs or was its last.
fn first(job: &Job) -> Option<Vec<Tried>> {
    let tried = |started_at| Tried { number: 1, started_at, finished_at: None, error: None, timing: None };
    match (job.attempt, &job.state) {
        (0, _) => Some(Vec::new()),
        (1, State::Running { claimed_at, .. }) => Some(vec![tried(*claimed_at)]),
        (1, State::Finished(finished)) => {
            let (finished_at, error) = (Some(finished.finished_at), finished.outcome.failure().cloned());
            finished.started_at.map(|at| vec![Tried { finished_at, error, timing: finished.timing, ..tried(at) }])
        }
        _ => None,
    }
}
