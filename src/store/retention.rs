use async_trait::async_trait;

use super::StoreError;
use crate::clock::Timestamp;
use crate::job::JobId;

/// What a step of removing did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// How many results are gone, each with its labels, events and deliveries.
    pub results: u64,
    /// Whether there was anything to remove: if so, there may be more.
    pub any: bool,
}

/// What the removal of one result did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It is gone.
    Removed,
    /// The job has not ended.
    Unfinished,
    /// There is no such job.
    Unknown,
}

/// How results are removed. What was counted of them in the summary stays.
#[async_trait]
pub trait RetentionStore {
    /// How many results are kept.
    async fn kept(&self) -> Result<u64, StoreError>;

    /// Removes some of the oldest results in one small transaction, at most `most`: those that ended before a moment, or any. What is
    /// still to be told of, or waited for by other jobs, stays. Those of a day may go together, up to a day later, however many they are.
    async fn remove_results(&self, ended_before: Option<Timestamp>, most: usize) -> Result<Removed, StoreError>;

    /// Removes some of the oldest results like that, if more than `count` are kept: at most `most`, and no more than are too many, though
    /// several nodes do so.
    async fn remove_beyond(&self, count: u64, most: usize) -> Result<Removed, StoreError>;

    /// Which of these are no jobs any more.
    async fn gone(&self, jobs: &[JobId]) -> Result<Vec<JobId>, StoreError>;

    /// Makes ready what results of the next days are to be kept in, if that has to be made; and does what a migration has left to be done.
    async fn look_ahead(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Removes one result, with all that belongs to it.
    async fn remove_result(&self, id: JobId) -> Result<Removal, StoreError>;
}
