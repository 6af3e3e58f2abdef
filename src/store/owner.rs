use std::collections::{HashMap, HashSet};

use async_trait::async_trait;

use super::StoreError;
use crate::job::{JobId, Owner};

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
}
