use std::collections::{HashMap, HashSet};
use std::time::Duration;

use async_trait::async_trait;

use super::StoreError;
use crate::job::{JobId, Owner};

/// For how long it counts what an owner submits, and how much of it, as a time, may come at once.
pub const MINUTE: Duration = Duration::from_mins(1);

/// What an owner has the server do just now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Jobs that wait, for whatever.
    pub queued: u64,
    /// Jobs that run.
    pub running: u64,
    /// The bytes of the workloads of those that wait.
    pub bytes: u64,
}

/// Whose jobs are.
#[async_trait]
pub trait OwnerStore {
    /// Those of these jobs that are there, wherever they are, and are this owner's.
    async fn owned(&self, owner: Owner, jobs: &[JobId]) -> Result<HashSet<JobId>, StoreError>;

    /// What this owner has the server do just now; comparisons that wait are jobs that wait.
    async fn usage(&self, owner: Owner) -> Result<Usage, StoreError>;

    /// How many jobs of these owners may run at once, in place of what was said before: of jobs that are accepted as
    /// [`confined`](crate::job::Submission::confined).
    async fn allow(&self, running: HashMap<Owner, u32>) -> Result<(), StoreError>;

    /// Counts something that this owner submits as the time after which it does not count any more, which adds up: there is room for a
    /// [`MINUTE`], of which as much comes back as passes. If there is none, how long until there is.
    async fn spend(&self, owner: Owner, span: Duration) -> Result<Option<Duration>, StoreError>;

    /// Counts so much less.
    async fn give_back(&self, owner: Owner, span: Duration) -> Result<(), StoreError>;

    /// How long until nothing of what this owner has submitted counts any more.
    async fn spent(&self, owner: Owner) -> Result<Duration, StoreError>;
}
