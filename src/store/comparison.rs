use async_trait::async_trait;
use serde_json::value::RawValue;

use super::StoreError;
use crate::clock::Timestamp;
use crate::job::{ComparisonId, Owner};

/// Where a comparison is, or how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ComparisonState {
    /// It waits: one runs at a time.
    Queued,
    /// It runs.
    Running,
    /// It has a report.
    Finished,
    /// It has none, and says why.
    Failed,
    /// A client did not want it any more.
    Cancelled,
}

/// A comparison as it is kept. What is asked and what was found are JSON that the store does not look into.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// Whose it is.
    pub owner: Option<Owner>,
    /// Its name for ever.
    pub id: ComparisonId,
    /// Where it is.
    pub state: ComparisonState,
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// When it began to run.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// What was asked.
    pub request: Box<RawValue>,
    /// What was found.
    pub report: Option<Box<RawValue>>,
    /// Why nothing was found.
    pub error: Option<String>,
}

/// How a comparison ends.
#[derive(Clone, Debug)]
pub enum ComparisonEnd {
    /// With this report.
    Finished(Box<RawValue>),
    /// Without one, for this reason.
    Failed(String),
    /// At a client's wish.
    Cancelled,
}

/// Where comparisons are kept.
#[async_trait]
pub trait ComparisonStore {
    /// Keeps a new one, which waits. Its id is later than those of all before.
    async fn add_comparison(
        &self,
        id: ComparisonId,
        owner: Option<Owner>,
        request: Box<RawValue>,
    ) -> Result<Comparison, StoreError>;

    /// The one that waits longest; behind the one with the id `after`, if it is given. `None` if none waits.
    async fn waiting_comparison(&self, after: Option<ComparisonId>) -> Result<Option<Comparison>, StoreError>;

    /// Begins one that waits. `None` if it does not, as when another node has begun it.
    async fn begin_comparison(&self, id: ComparisonId) -> Result<Option<Comparison>, StoreError>;

    /// Ends one that waits or runs. Whether there was such a one.
    async fn end_comparison(&self, id: ComparisonId, end: ComparisonEnd) -> Result<bool, StoreError>;

    /// Ends all that are marked as running, for this reason: whoever ran them is gone. How many.
    async fn interrupt_comparisons(&self, reason: &str) -> Result<u64, StoreError>;

    /// The oldest of those that ended before a moment.
    async fn comparison_ended_before(&self, moment: Timestamp) -> Result<Option<ComparisonId>, StoreError>;

    /// Removes one that has ended. Whether there was such a one.
    async fn remove_comparison(&self, id: ComparisonId) -> Result<bool, StoreError>;

    /// One of them.
    async fn comparison(&self, id: ComparisonId) -> Result<Option<Comparison>, StoreError>;

    /// Up to `limit` of them, the latest first; behind the one with the id `after`, if it is given.
    async fn comparisons(
        &self,
        owner: Option<Owner>,
        after: Option<ComparisonId>,
        limit: usize,
    ) -> Result<Vec<Comparison>, StoreError>;
}
