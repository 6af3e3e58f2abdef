//! Delivers the messages that the ends of jobs leave behind: at least once, each with the same id at every attempt.

use std::collections::HashMap;
use std::num::IntErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Method, Response};
use tokio::task::JoinSet;
use url::Url;

use super::counts::Counts;
use crate::clock::{Timestamp, micros};
use crate::job::{Job, Secret};
use crate::outbound::{Outbound, root_cause};
use crate::store::{Store, StoreError};
use crate::telemetry::Sparing;
use crate::webhook::{Delivery, DeliveryAttempt, DueDelivery, Rules, Verdict, signature, verdict};

/// How many messages are on their way at once, and how many of them to one host.
const AT_ONCE: (usize, usize) = (64, 8);
/// How often to look for messages.
const LOOK: Duration = Duration::from_millis(250);
/// How long to wait for those that are on their way when the server goes down. What is cut off is sent again.
const LAST_WAIT: Duration = Duration::from_secs(5);
/// How long to wait after the store failed.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// How messages are delivered.
#[derive(Clone, Debug)]
pub struct DeliverySettings {
    /// What signs those whose job has no secret of its own: the present one, and those that are still accepted.
    pub secrets: Vec<Secret>,
    /// When one is tried again.
    pub rules: Rules,
    /// How long a receiver may take to answer.
    pub timeout: Duration,
}

/// Writes the message of a delivery, as it is sent. The job is absent if its result is not the one that the message is about any more.
pub type WriteMessage = fn(&Delivery, Option<&Job>) -> Vec<u8>;

/// Delivers messages.
pub struct Deliverer {
    store: Arc<dyn Store>,
    outbound: Arc<Outbound>,
    settings: DeliverySettings,
    write: WriteMessage,
    /// What came of attempts.
    attempts: Counts<4>,
    /// A message was given up.
    given_up: Sparing,
}

impl Deliverer {
    /// Of this store, by this way out.
    pub fn new(store: Arc<dyn Store>, outbound: Arc<Outbound>, settings: DeliverySettings, write: WriteMessage) -> Arc<Self> {
        let attempts = Counts::of(["delivered", "again", "failed", "gone"]);
        Arc::new(Self { store, outbound, settings, write, attempts, given_up: Sparing::default() })
    }

    /// How many attempts of this server, since it was started, were taken, are followed by another, were the last one, or found that nothing is
    /// wanted any more.
    pub fn attempts(&self) -> [(&'static str, u64); 4] {
        self.attempts.all()
    }

    /// Delivers until `end`.
    pub async fn keep(self: Arc<Self>, end: impl Future<Output = ()>) {
        let mut end = std::pin::pin!(end);
        let mut on_their_way = JoinSet::new();
        let failures = Sparing::default();
        // Their places, with their hosts.
        let mut hosts: HashMap<i64, String> = HashMap::new();
        loop {
            let sleep = match self.start(&mut on_their_way, &mut hosts).await {
                Ok(()) => LOOK,
                Err(StoreError::Closed) => return,
                Err(error) => {
                    if let Some(more) = failures.tell() {
                        tracing::error!(%error, more, "webhooks can't be delivered");
                    }
                    STORE_RETRY
                }
            };
            tokio::select! {
                () = &mut end => break,
                () = tokio::time::sleep(sleep) => {}
                Some(place) = on_their_way.join_next() => forget(&mut hosts, place),
            }
            while let Some(place) = on_their_way.try_join_next() {
                forget(&mut hosts, place);
            }
        }
        let _ = tokio::time::timeout(LAST_WAIT, async { while on_their_way.join_next().await.is_some() {} }).await;
    }

    /// Sends what is due, as far as there is room.
    async fn start(
        self: &Arc<Self>,
        on_their_way: &mut JoinSet<i64>,
        hosts: &mut HashMap<i64, String>,
    ) -> Result<(), StoreError> {
        let (most, per_host) = AT_ONCE;
        if hosts.len() >= most {
            return Ok(());
        }
        let places: Vec<i64> = hosts.keys().copied().collect();
        for due in self.store.due_deliveries(self.store.now(), (most - places.len(), per_host), &places).await? {
            let place = due.delivery.place;
            if hosts.values().filter(|host| **host == due.host).count() >= per_host {
                continue;
            }
            hosts.insert(place, due.host.clone());
            let deliverer = Arc::clone(self);
            on_their_way.spawn(async move {
                deliverer.deliver(due).await;
                place
            });
        }
        Ok(())
    }

    async fn deliver(&self, due: DueDelivery) {
        let DueDelivery { delivery, secret, tries, host } = due;
        let job = match self.store.job(delivery.job).await {
            Ok(job) => job.filter(|job| job.state.finished().is_some_and(|end| end.finished_at == delivery.finished_at)),
            Err(error) => {
                tracing::warn!(%error, id = delivery.id, "a message can't be written; it is tried again");
                // What this server can't read, another one may.
                if matches!(error, StoreError::Corrupt(_)) && self.store.leave_deliveries(&[delivery.place]).await.is_ok() {
                    return;
                }
                // It is still due, and its place is taken meanwhile.
                return tokio::time::sleep(STORE_RETRY).await;
            }
        };
        let body = (self.write)(&delivery, job.as_ref());
        drop(job);
        let (at, began) = (Timestamp::now(), Instant::now());
        let sent = self.send(&delivery, secret.as_ref(), at, body).await;
        let (status, error, asked) = match sent {
            Ok(response) => (Some(response.status().as_u16()), None, asked_to_wait(&response)),
            Err(error) => (None, Some(error), None),
        };
        let verdict = verdict(self.settings.rules, &delivery.id, tries + 1, status, asked, self.store.now());
        self.attempts.count(match verdict {
            Verdict::Delivered => "delivered",
            Verdict::Again(_) => "again",
            Verdict::GivenUp => "failed",
            Verdict::Gone => "gone",
        });
        // Nobody but an operator can do something about it. The URL itself may have a secret in it.
        if verdict == Verdict::GivenUp
            && let Some(more) = self.given_up.tell()
        {
            let (id, job) = (&delivery.id, delivery.job);
            tracing::warn!(id, %job, host, status, error, more, "a message was not taken as often as it may be tried; it is given up");
        }
        let attempt = DeliveryAttempt { at, took_us: micros(began.elapsed()), status, error };
        if let Err(error) = self.store.note_delivery(&delivery, attempt, verdict).await {
            tracing::warn!(%error, id = delivery.id, "what came of a message can't be written down; it may be sent again");
            tokio::time::sleep(STORE_RETRY).await;
        }
    }

    async fn send(&self, delivery: &Delivery, secret: Option<&Secret>, at: Timestamp, body: Vec<u8>) -> Result<Response, String> {
        let url = Url::parse(&delivery.url).map_err(|error| error.to_string())?;
        let timestamp = at.as_micros() / 1_000_000;
        let secrets = secret.map_or(&self.settings.secrets[..], std::slice::from_ref);
        let signature = signature(secrets, &delivery.id, timestamp, &body);
        let request = self
            .outbound
            .request(Method::POST, url)
            .map_err(|refused| refused.to_string())?
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", &delivery.id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature)
            .timeout(self.settings.timeout)
            .body(body);
        request.send().await.map_err(|error| {
            if error.is_timeout() {
                format!("no answer within {} ms", self.settings.timeout.as_millis())
            } else {
                root_cause(&error).to_string()
            }
        })
    }
}

fn forget(hosts: &mut HashMap<i64, String>, place: Result<i64, tokio::task::JoinError>) {
    match place {
        Ok(place) => drop(hosts.remove(&place)),
        // Nobody knows which: those that are still on their way are at worst sent twice.
        Err(error) => {
            tracing::error!(%error, "a delivery broke off");
            hosts.clear();
        }
    }
}

/// How long the receiver asks to wait, in the one form of `Retry-After` that needs no clock. However long that is, it has said so.
fn asked_to_wait(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    match seconds.parse::<u64>() {
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => Some(Duration::MAX),
        seconds => seconds.ok().map(Duration::from_secs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_that_asks_for_very_long_has_asked() {
        let asked =
            |seconds: &str| asked_to_wait(&axum::http::Response::builder().header(RETRY_AFTER, seconds).body("").unwrap().into());
        assert_eq!(asked("600"), Some(Duration::from_mins(10)));
        assert_eq!(asked("99999999999999999999"), Some(Duration::MAX));
        assert_eq!(asked("Wed, 21 Oct 2026 07:28:00 GMT"), None);
    }
}
