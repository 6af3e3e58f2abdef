use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;

use super::StoreError;
use crate::clock::Timestamp;
use crate::job::{JobId, NewJob};

/// A SHA-256.
pub type Digest = [u8; 32];

/// What is kept with jobs that are accepted, so that others like them are not.
#[derive(Clone, Debug, Default)]
pub struct Once {
    /// The request that they came with, if it has a key.
    pub request: Option<Answered>,
    /// The unique ones among them.
    pub unique: Vec<Unique>,
}

/// A unique job that is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unique {
    /// Of what others like it have in common.
    pub digest: Digest,
    /// The job.
    pub job: JobId,
    /// One that is like it and has not ended, but is too old to count.
    pub beside: Option<JobId>,
    /// How long one that is like it counts, whether it has ended or not; without it, as long as it has not.
    pub within: Option<Duration>,
}

/// A request with a key, and what was answered to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The key.
    pub key: String,
    /// Of what was sent with it.
    pub digest: Digest,
    /// The jobs of the answer, in its order; and whether each was there before.
    pub jobs: Vec<(JobId, bool)>,
    /// Until when this is kept.
    pub until: Timestamp,
}

/// The latest unique job of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Twin {
    /// The job.
    pub job: JobId,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// Whether it has not ended.
    pub unfinished: bool,
}

/// Keeps what is needed to accept a request, or a job, just once. Whoever looks and then accepts has to see to it that nobody else
/// does so with the same key or digest meanwhile.
#[async_trait]
pub trait OnceStore {
    /// What was answered to the request with this key, as long as that is kept.
    async fn answered(&self, key: &str) -> Result<Option<Answered>, StoreError>;

    /// The latest unique job for each of these digests, where there is one that is still known.
    async fn twins(&self, digests: &[Digest]) -> Result<HashMap<Digest, Twin>, StoreError>;

    /// Makes jobs durable together with what is kept of them: all, or nothing. Gives the jobs back after the commit, with the moment of
    /// their acceptance. There need not be any.
    async fn accept_once(&self, jobs: Vec<NewJob>, once: Once) -> Result<Vec<NewJob>, StoreError>;

    /// Forgets some of what is not needed any more at `now`; whether there may be more of it.
    async fn forget_once(&self, now: Timestamp) -> Result<bool, StoreError>;
}
