use std::time::Duration;

use async_trait::async_trait;

use super::StoreError;
use crate::job::Queue;

/// How long jobs have been waiting for a slot.
#[async_trait]
pub trait OldestStore {
    /// For how long the job of each queue whose turn is next has been waiting, in the order of [`Queue::ALL`]; nothing where none waits. What
    /// waits for a limit, a time, another job or a node with certain labels does not count: more slots would not help it.
    async fn oldest(&self) -> Result<[Duration; Queue::ALL.len()], StoreError>;
}
