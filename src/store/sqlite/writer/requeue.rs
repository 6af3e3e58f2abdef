//! Finished jobs that are to run again.

use super::super::events::{self, EventRow};
use super::super::statements;
use super::Writer;
use super::transaction::Done;
use crate::job::{JobId, State, What};
use crate::store::{Requeue, StoreError};

impl Writer {
    pub(super) async fn requeue(&mut self, id: JobId, done: &mut Done) -> Result<Requeue, StoreError> {
        let Some(job) = statements::result(&mut self.connection, id).await? else {
            let unfinished = statements::place(&mut self.connection, id).await?.is_some();
            return Ok(if unfinished { Requeue::Unfinished } else { Requeue::Unknown });
        };
        self.published.marks().touch(id);
        let at = self.moments.next();
        events::keep_result(&mut self.connection, id).await?;
        events::insert(&mut self.connection, &[EventRow::requeued(at, id, job.attempt)]).await?;
        statements::requeue(&mut self.connection, id, at).await?;
        done.depths.at(job.route.queue).queued += 1;
        let subject = self.subject(&job.submission, job.route.queue);
        if let State::Finished(finished) = job.state {
            self.sketches(subject.key(finished.ending), done).remove(finished.timing.as_ref());
        }
        done.tell(at, id, || subject, || What::Requeued);
        Ok(Requeue::Queued)
    }
}
