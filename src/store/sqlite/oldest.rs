//! How long jobs have been waiting for a slot.

use std::time::Duration;

use async_trait::async_trait;

use super::SqliteStore;
use super::codes::Code as _;
use crate::clock::Timestamp;
use crate::job::Queue;
use crate::store::{OldestStore, Store as _, StoreError};

#[async_trait]
impl OldestStore for SqliteStore {
    async fn oldest(&self) -> Result<[Duration; Queue::ALL.len()], StoreError> {
        let (now, mut oldest) = (self.now(), [Duration::ZERO; Queue::ALL.len()]);
        // By the index that claims go by.
        let text = "SELECT due_at FROM jobs WHERE state = 1 AND queue = ? ORDER BY due_at - priority * 60000000, id LIMIT 1";
        for (oldest, queue) in oldest.iter_mut().zip(Queue::ALL) {
            let due_at: Option<i64> = sqlx::query_scalar(text).bind(queue.code()).fetch_optional(&self.readers).await?;
            *oldest = due_at.map_or(Duration::ZERO, |due_at| now.since(Timestamp::from_micros(due_at)));
        }
        Ok(oldest)
    }
}
