use async_trait::async_trait;

use super::StoreError;
use crate::clock::Timestamp;
use crate::job::{Concurrency, JobId, Rate};

/// What a limit is known by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LimitKey {
    /// How many jobs with this key run at once.
    Concurrency(String),
    /// How many jobs with this key start within a period.
    Rate(String),
}

/// A limit, as far as jobs with its key run, wait or have started lately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitStatus {
    /// How many run at once.
    Concurrency {
        /// The key, and the limit that one of its jobs has.
        limit: Concurrency,
        /// How many run.
        running: u64,
        /// How many wait in a queue: a hundred thousand stands for more.
        waiting: u64,
    },
    /// How many start within a period.
    Rate {
        /// The key, and the limit that one of its jobs has.
        limit: Rate,
        /// How many have started within the last period.
        started: u64,
        /// How many wait in a queue: a hundred thousand stands for more.
        waiting: u64,
        /// When the next one may start, unless it may now.
        opens_at: Option<Timestamp>,
    },
}

/// What a queued job waits for that has a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// For a slot, or its turn.
    Open,
    /// That a job of its owner ends: so many run, which is all that the quota allows.
    OverQuota {
        /// How many.
        running: u64,
    },
    /// That a job with its key of `concurrency` ends: so many run.
    Full {
        /// How many.
        running: u64,
    },
    /// That its limit of `rate` allows another start.
    Until(Timestamp),
}

/// What is known of limits.
#[async_trait]
pub trait LimitStore {
    /// What keeps a queued job waiting; `None` if it has no limit, or is not queued.
    async fn gate(&self, id: JobId) -> Result<Option<Gate>, StoreError>;

    /// The limits behind that one, in the order of their kinds and keys: so many at most.
    async fn limits(&self, after: Option<&LimitKey>, most: usize) -> Result<Vec<LimitStatus>, StoreError>;
}

impl LimitStatus {
    /// What it is known by.
    pub fn key(&self) -> LimitKey {
        match self {
            Self::Concurrency { limit, .. } => LimitKey::Concurrency(limit.key.clone()),
            Self::Rate { limit, .. } => LimitKey::Rate(limit.key.clone()),
        }
    }
}
