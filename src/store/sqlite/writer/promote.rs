//! Scheduled jobs that are due.

use super::super::statements;
use super::Writer;
use super::transaction::Done;
use crate::clock::Timestamp;
use crate::store::StoreError;

impl Writer {
    /// Queues the jobs that are due.
    pub(super) async fn promote(&mut self, now: Timestamp, done: &mut Done) -> Result<(), StoreError> {
        if done.next_due.is_none_or(|due| due > now) {
            return Ok(());
        }
        for queue in statements::promote(&mut self.connection, now).await? {
            let depth = done.depths.at(queue);
            depth.scheduled = depth.scheduled.saturating_sub(1);
            depth.queued += 1;
        }
        done.next_due = statements::next_due(&mut self.connection).await?;
        Ok(())
    }
}
