//! Scheduled jobs that are due.

use super::super::statements;
use super::Writer;
use super::transaction::Done;
use crate::store::StoreError;
use crate::store::kept::state::SCHEDULED;

/// The most jobs that one transaction queues because they are due.
const MOST_PROMOTED: usize = 4_096;

impl Writer {
    /// Queues the jobs that are due: so many of them that others need not wait for long.
    pub(super) async fn promote(&mut self, done: &mut Done) -> Result<(), StoreError> {
        if done.next_due.is_none_or(|due| due > done.now) {
            return Ok(());
        }
        for queued in statements::promote(&mut self.connection, done.now, MOST_PROMOTED).await? {
            done.depths.leave(queued.queue, SCHEDULED);
            done.queue(queued);
        }
        done.next_due = statements::next_due(&mut self.connection).await?;
        Ok(())
    }
}
