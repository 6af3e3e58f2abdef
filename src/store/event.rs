//! Events as the store gives them: which ones somebody wants, pages of those that were, and those that are being recorded.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::broadcast;

use super::{StateFilter, SummaryKey};
use crate::clock::Timestamp;
use crate::job::{Bound, Ending, Event, EventKind, Executor, JobId, Outcome, Owner, Tags, What};

/// Events that are kept for listeners who are not there yet; whoever is later reads them from the store.
const KEPT: usize = 16_384;
/// The longest output or error of a job, in bytes, that such an event carries: with the line above, a bound on memory.
const CARRIED: usize = 4 << 10;

/// Which events somebody wants: those that pass every condition that is set.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// Those of jobs of this owner.
    pub owner: Option<Owner>,
    /// Those of this job.
    pub job: Option<JobId>,
    /// Those of these kinds; empty for all of them.
    pub kinds: Vec<EventKind>,
    /// Those that leave the job in one of these; empty for all of them.
    pub states: Vec<StateFilter>,
    /// Those of jobs that are tagged so.
    pub bound: Option<Bound>,
    /// Those of jobs that run here.
    pub executor: Option<Executor>,
    /// Those of jobs whose workload has this `type`.
    pub workload: Option<String>,
    /// Those of jobs that have all these labels.
    pub tags: Vec<(String, String)>,
}

/// Events in their order.
#[derive(Debug)]
pub struct EventPage {
    /// The events.
    pub events: Vec<Event>,
    /// The id of the last event that was looked at; `None` if nothing was recorded behind this page.
    pub more: Option<Timestamp>,
}

/// What events are filtered by besides what they say themselves.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) bound: Bound,
    pub(super) executor: Executor,
    pub(super) workload: Arc<str>,
    /// `None` if there are none.
    pub(super) tags: Option<Arc<Tags>>,
    pub(super) owner: Option<Owner>,
}

/// An event that was recorded just now.
#[derive(Debug)]
pub(super) struct News {
    pub(super) event: Event,
    subject: Subject,
    /// Whether the event is all there; if not, it is to be read from the store.
    pub(super) whole: bool,
}

/// What listeners hear.
#[derive(Clone, Debug)]
pub(super) enum Heard {
    /// The next event.
    News(Arc<News>),
    /// Events were recorded that nobody kept for this listener, who had only just come.
    Missed,
}

/// Tells listeners what was recorded, in the order in which it was.
#[derive(Debug)]
pub(super) struct Hub {
    sender: broadcast::Sender<Heard>,
    listeners: AtomicUsize,
}

/// A place among the listeners.
#[derive(Debug)]
pub struct Subscription {
    hub: Arc<Hub>,
    receiver: broadcast::Receiver<Heard>,
}

impl EventFilter {
    /// Whether an event passes, as far as it says so itself.
    pub(super) fn takes(&self, event: &Event) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&event.kind()))
            && (self.states.is_empty() || self.states.contains(&left(&event.what)))
    }

    /// Whether an event that was recorded just now passes.
    pub(super) fn wants(&self, News { event, subject, .. }: &News) -> bool {
        let has = |(key, value): &(String, String)| {
            subject.tags.as_ref().and_then(|tags| tags.get(key)).is_some_and(|found| found == value)
        };
        self.takes(event)
            && self.job.is_none_or(|job| job == event.job)
            && self.owner.is_none_or(|owner| subject.owner == Some(owner))
            && self.bound.is_none_or(|bound| bound == subject.bound)
            && self.executor.is_none_or(|executor| executor == subject.executor)
            && self.workload.as_ref().is_none_or(|workload| **workload == *subject.workload)
            && self.tags.iter().all(has)
    }
}

/// Where an event leaves its job, as far as it says so itself: one that is accepted, or run again, may first wait for its time or for others.
const fn left(what: &What) -> StateFilter {
    match what {
        What::Accepted | What::Requeued => StateFilter::Queued,
        What::Running { .. } | What::Progress { .. } | What::Log { .. } => StateFilter::Running,
        What::Retrying { .. } => StateFilter::Scheduled,
        What::Finished { finished, .. } => StateFilter::Ended(finished.ending),
    }
}

impl Subject {
    /// What a result of such a job is counted as.
    pub(super) fn key(&self, ending: Ending) -> SummaryKey {
        let Self { bound, executor, ref workload, owner, .. } = *self;
        SummaryKey { workload: Arc::clone(workload), bound, executor, ending, owner }
    }
}

impl News {
    pub(super) fn new(at: Timestamp, job: JobId, subject: Subject, mut what: What) -> Self {
        let mut whole = true;
        if let What::Finished { finished, .. } = &mut what {
            whole = match &finished.outcome {
                Outcome::Output(output) => output.get().len() <= CARRIED,
                Outcome::Error(failure) => serde_json::to_vec(failure).is_ok_and(|json| json.len() <= CARRIED),
            };
            if !whole {
                finished.outcome = Outcome::Output(serde_json::value::RawValue::NULL.to_owned());
            }
        }
        let event = Event { at, job, bound: subject.bound, executor: subject.executor, what };
        Self { event, subject, whole }
    }
}

impl Hub {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { sender: broadcast::Sender::new(KEPT), listeners: AtomicUsize::new(0) })
    }

    /// Whether somebody listens.
    pub(super) fn is_heard(&self) -> bool {
        self.listeners.load(Ordering::SeqCst) > 0
    }

    /// Tells what was just committed; `None` if nobody listened while it was carried out.
    pub(super) fn publish(&self, news: Option<Vec<News>>) {
        if !self.is_heard() {
            return;
        }
        // That the last listener has just left is no error.
        match news {
            Some(news) => news.into_iter().for_each(|news| drop(self.sender.send(Heard::News(Arc::new(news))))),
            None => drop(self.sender.send(Heard::Missed)),
        }
    }

    /// Listens from here on: what a reader of the store does not see after this call is heard.
    pub(super) fn subscribe(self: &Arc<Self>) -> Subscription {
        self.listeners.fetch_add(1, Ordering::SeqCst);
        Subscription { hub: Arc::clone(self), receiver: self.sender.subscribe() }
    }
}

impl Subscription {
    /// The next event; [`Heard::Missed`] if some were missed, `None` if there will be no more. Dropping the future loses none.
    pub(super) async fn next(&mut self) -> Option<Heard> {
        match self.receiver.recv().await {
            Ok(heard) => Some(heard),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Heard::Missed),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }

    /// Leaves out all that was told by now and has not been heard.
    pub(super) fn skip(&mut self) {
        self.receiver = self.receiver.resubscribe();
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.hub.listeners.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_skips_hears_only_what_is_told_from_then_on() {
        let hub = Hub::new();
        let mut subscription = hub.subscribe();
        (0..50).for_each(|_| hub.publish(None));
        subscription.skip();
        assert!(futures_util::poll!(std::pin::pin!(subscription.next())).is_pending());
        hub.publish(None);
        assert!(matches!(subscription.next().await, Some(Heard::Missed)));
    }
}
