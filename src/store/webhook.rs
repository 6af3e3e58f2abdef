use async_trait::async_trait;

use super::StoreError;
use crate::clock::Timestamp;
use crate::job::{JobId, Owner};
use crate::webhook::{Delivery, DeliveryAttempt, DeliveryState, DueDelivery, Verdict};

/// Where counting ends of what may be without end: whoever asks every few seconds is not to read all of it.
pub const MANY: u64 = 10_000;

/// Which deliveries a list holds: those that pass every condition that is set.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeliveryFilter {
    /// Those about jobs of this owner.
    pub owner: Option<Owner>,
    /// Of this job.
    pub job: Option<JobId>,
    /// That stand so.
    pub state: Option<DeliveryState>,
}

/// Where it is kept what is to be told to whom. The transaction that records the end of a job with a webhook adds it.
#[async_trait]
pub trait WebhookStore {
    /// The pending deliveries that are due by then: of each host the most overdue, `per_host` of them at most with those that are
    /// `on_their_way` already, which are left out; and no more than `most` of all, hosts taking turns.
    async fn due_deliveries(
        &self,
        now: Timestamp,
        (most, per_host): (usize, usize),
        on_their_way: &[i64],
    ) -> Result<Vec<DueDelivery>, StoreError>;

    /// Puts pending deliveries off for a moment, which this server can't read or write, so that another one may take them.
    async fn leave_deliveries(&self, places: &[i64]) -> Result<(), StoreError>;

    /// Writes down an attempt and what becomes of the delivery, if it is still as it was read for that attempt: pending, and due when it was, not
    /// wanted again meanwhile. That it was taken holds in any case. If the receiver wants nothing more, no pending delivery to the same URL is
    /// tried again. What is not pending any more goes if its job is gone.
    async fn note_delivery(&self, read: &Delivery, attempt: DeliveryAttempt, verdict: Verdict) -> Result<(), StoreError>;

    /// How many deliveries are pending; of very many, that it is [`MANY`].
    async fn pending_deliveries(&self) -> Result<u64, StoreError>;

    /// Deliveries before this place, the latest first.
    async fn deliveries(&self, filter: DeliveryFilter, before: Option<i64>, limit: usize) -> Result<Vec<Delivery>, StoreError>;

    /// Makes a delivery due now, with all of its attempts before it. `None` if there is no such delivery.
    async fn redeliver(&self, id: &str, owner: Option<Owner>) -> Result<Option<Delivery>, StoreError>;
}
