//! How long jobs have been waiting for a slot.

use std::time::Duration;

use async_trait::async_trait;

use super::PostgresStore;
use super::rows::Cells;
use crate::job::Queue;
use crate::store::kept::code;
use crate::store::{OldestStore, Store as _, StoreError};

#[async_trait]
impl OldestStore for PostgresStore {
    async fn oldest(&self) -> Result<[Duration; Queue::ALL.len()], StoreError> {
        // The first of each queue, by the index that claims go by.
        let text = "SELECT first.due_at FROM unnest($1::SMALLINT[]) WITH ORDINALITY AS queues (queue, n) LEFT JOIN LATERAL \
                    (SELECT due_at FROM work WHERE state = 1 AND work.queue = queues.queue ORDER BY turn, id LIMIT 1) AS first ON true \
                    ORDER BY queues.n";
        let rows = sqlx::query(text).bind(Queue::ALL.map(code).to_vec()).fetch_all(&self.pool).await?;
        let (now, mut oldest) = (self.now(), [Duration::ZERO; Queue::ALL.len()]);
        for (oldest, row) in oldest.iter_mut().zip(&rows) {
            *oldest = Cells::new(row).time_or_none()?.map_or(Duration::ZERO, |due_at| now.since(due_at));
        }
        Ok(oldest)
    }
}
