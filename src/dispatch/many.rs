//! What is done to many jobs at once: page by page, so that everything else goes on meanwhile.

use std::time::Duration;

use super::{Dispatcher, NoRoom, SubmitError};
use crate::clock::Timestamp;
use crate::job::Ending;
use crate::store::{Filter, StateFilter, Store, StoreError};

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
}

/// The latest moment of what has happened by now: moments may be ahead of a clock that was set back.
fn so_far(store: &dyn Store) -> Timestamp {
    store.now().max(store.latest_event())
}

/// Whatever comes in meanwhile is left alone, or there might be no end.
fn until(now: Timestamp, filter: &Filter) -> Filter {
    Filter { until: Some(filter.until.map_or(now, |until| until.min(now))), ..filter.clone() }
}
