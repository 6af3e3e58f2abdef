//! What is done to many jobs at once: page by page, so that everything else goes on meanwhile.

use std::time::Duration;

use super::{Dispatcher, NoRoom, SubmitError};
use crate::clock::Timestamp;
use crate::job::{Ending, Event, EventKind, History, Job, State, Tried};
use crate::store::{EventFilter, Filter, Lease, StateFilter, Store, StoreError};
use crate::workload::StopReason;

/// The most jobs that are run again by one transaction.
const MOST_RETRIED: u64 = 1_000;

/// How many jobs were cancelled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cancelling {
    /// Jobs that waited, and have ended.
    pub cancelled: u64,
    /// Jobs that run, and have been told to stop.
    pub stopping: u64,
}

/// How many jobs were run again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retrying {
    /// Jobs that wait again.
    pub retried: u64,
    /// Whether there may be more, for which a quota has no room.
    pub more: bool,
}

impl Dispatcher {
    /// Cancels every unfinished job that passes the filter and was there when this began.
    pub async fn cancel_all(&self, filter: &Filter) -> Result<Cancelling, StoreError> {
        let filter = until(so_far(&*self.shared.store).after(Duration::from_micros(1)), filter);
        let (mut count, mut after) = (Cancelling::default(), None);
        loop {
            let portion = self.shared.store.cancel_page(&filter, after).await?;
            count.cancelled += portion.done.ended.len() as u64;
            count.stopping += portion.done.stopping.len() as u64;
            for id in portion.done.ended {
                self.shared.quotas.freed();
                self.shared.waiters.ended(id, None);
            }
            for lease in portion.done.stopping {
                self.stop(lease).await;
            }
            after = portion.last;
            if after.is_none() {
                return Ok(count);
            }
        }
    }

    /// Runs every job again that passes the filter and had ended when this began, as far as the quota of their owner has room. Without states,
    /// those that failed and those that were lost.
    pub async fn retry_all(&self, filter: &Filter) -> Result<Retrying, SubmitError> {
        let store = &self.shared.store;
        // Whatever this itself runs again ends later.
        let by = so_far(&**store);
        let mut endings = vec![Ending::Lost, Ending::Failed];
        if !filter.states.is_empty() {
            endings.extend([Ending::Cancelled, Ending::Succeeded]);
            endings.retain(|ending| filter.states.contains(&StateFilter::Ended(*ending)));
        }
        let mut count = Retrying::default();
        if endings.is_empty() {
            return Ok(count);
        }
        // However they have ended, all together in the order in which they came: what comes after others waits for those that run again before it.
        let filter = Filter { states: endings.into_iter().map(StateFilter::Ended).collect(), ..filter.clone() };
        let mut after = None;
        loop {
            let (most, quota) = match self.shared.quotas.take_some(filter.owner, MOST_RETRIED).await {
                // Whoever is refused takes it that nothing was done.
                Err(NoRoom::Over(_)) if count.retried > 0 => {
                    count.more = true;
                    return Ok(count);
                }
                taken => taken?,
            };
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            let portion = match store.requeue_page(&filter, Some(by), after, most).await {
                Ok(portion) => portion,
                Err(error) => {
                    quota.failed(&error).await;
                    return Err(error.into());
                }
            };
            quota.came(portion.done.len() as u64).await;
            count.retried += portion.done.len() as u64;
            after = portion.last;
            if after.is_none() {
                return Ok(count);
            }
        }
    }

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

/// The latest moment of what has happened by now: moments may be ahead of a clock that was set back.
fn so_far(store: &dyn Store) -> Timestamp {
    store.now().max(store.latest_event())
}

/// Whatever comes in meanwhile is left alone, or there might be no end.
fn until(now: Timestamp, filter: &Filter) -> Filter {
    Filter { until: Some(filter.until.map_or(now, |until| until.min(now))), ..filter.clone() }
}
