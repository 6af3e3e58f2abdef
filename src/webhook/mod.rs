//! Webhooks: what is told to whom when a job has ended, how it is signed, and when it is tried again.

mod secret_file;
mod sign;
mod verdict;

pub use secret_file::secret_in;
pub use sign::signature;
pub use verdict::{Rules, Verdict, verdict};

use crate::clock::Timestamp;
use crate::job::{Ending, JobId, Secret};

/// A message that is to be delivered, or was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its place among all; later ones have higher ones.
    pub place: i64,
    /// The message's id, the same at every attempt.
    pub id: String,
    /// The job that has ended.
    pub job: JobId,
    /// How.
    pub ending: Ending,
    /// When.
    pub finished_at: Timestamp,
    /// Where it is sent to.
    pub url: String,
    /// How it stands.
    pub state: DeliveryState,
    /// When it is tried next, while it is pending.
    pub due_at: Timestamp,
    /// What was tried.
    pub attempts: Vec<DeliveryAttempt>,
}

/// A message that is to be sent now.
#[derive(Clone, Debug)]
pub struct DueDelivery {
    /// It.
    pub delivery: Delivery,
    /// The host of its URL.
    pub host: String,
    /// What signs it, unless the server's own secrets do.
    pub secret: Option<Secret>,
    /// How often it was tried since it was made, or was wanted again.
    pub tries: u32,
}

/// How the delivery of a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// It will be tried, for the first time or again.
    Pending,
    /// The receiver has taken it.
    Delivered,
    /// It was tried as often as it may be.
    Failed,
    /// The receiver said that nothing is to be sent there any more.
    Gone,
}

/// One try to deliver a message.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DeliveryAttempt {
    /// When it began.
    pub at: Timestamp,
    /// How long it took, in microseconds.
    pub took_us: u64,
    /// The status of the answer, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
