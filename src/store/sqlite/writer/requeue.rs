//! Finished jobs that are to run again.

use super::super::moves;
use super::super::rollups::Count;
use super::super::statements::Queued;
use super::Writer;
use super::transaction::Done;
use crate::clock::Timestamp;
use crate::job::{JobId, What};
use crate::store::StoreError;

impl Writer {
    /// Makes those of these jobs wait again that have ended, `by` this moment if there is one; which they were.
    pub(super) async fn requeue(
        &mut self,
        ids: &[JobId],
        by: Option<Timestamp>,
        done: &mut Done,
    ) -> Result<Vec<JobId>, StoreError> {
        for id in ids {
            self.published.marks().touch(*id);
        }
        let before = self.moments.skip(ids.len());
        let back = moves::requeue(&mut self.connection, ids, by, before).await?;
        let requeued = back.iter().map(|back| back.id).collect();
        for back in back {
            if back.blocked {
                done.depths.at(back.queue).blocked += 1;
            } else {
                done.queue(Queued { queue: back.queue, lane: back.lane });
            }
            done.counts.push(Count::taken_out(back.subject.key(back.ending), back.timing.as_ref()));
            done.tell(back.at, back.id, || back.subject, || What::Requeued);
        }
        // Those whose time is not over yet have it still.
        done.next_expiry = moves::next_expiry(&mut self.connection).await?;
        Ok(requeued)
    }
}
