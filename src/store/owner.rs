use std::collections::HashSet;

use async_trait::async_trait;

use super::StoreError;
use crate::job::{JobId, Owner};

/// Whose jobs are.
#[async_trait]
pub trait OwnerStore {
    /// Those of these jobs that are there, wherever they are, and are this owner's.
    async fn owned(&self, owner: Owner, jobs: &[JobId]) -> Result<HashSet<JobId>, StoreError>;
}
