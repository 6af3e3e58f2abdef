use std::collections::VecDeque;
use std::sync::Arc;

use super::event::Heard;
use super::{EventFilter, EventPage, Store, StoreError, Subscription};
use crate::clock::Timestamp;
use crate::job::{Event, JobId, What};

/// Gives each event that passes a filter exactly once, in order: those of the past from the store, then those of the present as
/// they are recorded. Whoever takes them too slowly gets them from the store again.
pub struct Follower {
    store: Arc<dyn Store>,
    filter: EventFilter,
    /// Everything up to here was given or does not pass.
    last: Timestamp,
    subscription: Subscription,
    page: VecDeque<Event>,
    /// There may be more in the store than was read of it.
    replaying: bool,
    /// An event that was heard of, but is to be read from the store.
    owed: Option<(JobId, Timestamp)>,
    /// The last event of its job was given.
    ended: bool,
}

impl Follower {
    /// Begins behind the event with the id `after`; without it, at the present.
    pub fn new(store: Arc<dyn Store>, filter: EventFilter, after: Option<Timestamp>) -> Self {
        let subscription = store.subscribe();
        let last = after.unwrap_or_else(|| store.latest_event());
        Self { store, filter, last, subscription, page: VecDeque::new(), replaying: after.is_some(), owed: None, ended: false }
    }

    /// The id behind which it goes on.
    pub const fn position(&self) -> Timestamp {
        self.last
    }

    /// The next event, once there is one. `None` if there will be no more: the one job that is followed has ended, or the store is
    /// shut. Dropping the future loses no event.
    pub async fn next(&mut self) -> Result<Option<Event>, StoreError> {
        loop {
            if let Some(event) = self.page.pop_front() {
                self.last = self.last.max(event.at);
                self.ended = matches!(event.what, What::Finished { .. });
                return Ok(Some(event));
            }
            if let Some((job, at)) = self.owed {
                let own = EventFilter { job: Some(job), ..self.filter.clone() };
                let found = self.store.events(&own, Timestamp::from_micros(at.as_micros() - 1)).await?.events;
                // What is not kept any more went with its job.
                self.ended |= !found.iter().any(|event| event.at == at);
                self.page.extend(found.into_iter().filter(|event| event.at == at));
                (self.last, self.owed) = (at, None);
                continue;
            }
            if self.replaying {
                // All that was heard of by now is in the store.
                self.subscription.skip();
                let EventPage { events, more } = self.store.events(&self.filter, self.last).await?;
                self.replaying = more.is_some();
                self.page = events.into();
                if self.page.is_empty() {
                    self.last = more.unwrap_or(self.last);
                }
                continue;
            }
            if self.ended && self.filter.job.is_some() {
                return Ok(None);
            }
            match self.subscription.next().await {
                Some(Heard::News(news)) => {
                    if news.event.at <= self.last {
                        // It was replayed.
                    } else if !self.filter.wants(&news) {
                        self.last = news.event.at;
                    } else if news.whole {
                        self.page.push_back(news.event.clone());
                    } else {
                        self.owed = Some((news.event.job, news.event.at));
                    }
                }
                Some(Heard::Missed) => self.replaying = true,
                None => return Ok(None),
            }
        }
    }
}
