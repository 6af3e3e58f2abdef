//! Cancellations.

use super::super::rows::{QUEUED, RUNNING};
use super::super::statements;
use super::Writer;
use super::transaction::Done;
use crate::job::{Conclusion, Ending, Failure, JobId, Outcome, State, What};
use crate::store::{Cancellation, Lease, StoreError};

impl Writer {
    pub(super) async fn cancel(&mut self, id: JobId, done: &mut Done) -> Result<Cancellation, StoreError> {
        let Some((queue, state)) = statements::place(&mut self.connection, id).await? else {
            let result = statements::result(&mut self.connection, id).await?;
            return Ok(match result.map(|job| job.state) {
                Some(State::Finished(finished)) => Cancellation::Finished(finished.ending),
                _ => Cancellation::Unknown,
            });
        };
        if state == RUNNING {
            statements::mark_stopping(&mut self.connection, id).await?;
            done.stopping.push(id);
            return Ok(self
                .held
                .get(&id)
                .map_or(Cancellation::Unknown, |held| Cancellation::Stopping(Lease { id, token: held.token })));
        }
        self.end_cancelled(id, done).await?;
        let depth = done.depths.at(queue);
        let waiting = if state == QUEUED { &mut depth.queued } else { &mut depth.scheduled };
        *waiting = waiting.saturating_sub(1);
        Ok(Cancellation::Cancelled)
    }

    /// Ends a job as cancelled that is not ended by an attempt of its own.
    pub(super) async fn end_cancelled(&mut self, id: JobId, done: &mut Done) -> Result<(), StoreError> {
        let (ending, failure, at) = (Ending::Cancelled, Failure::cancelled(), self.moments.next());
        let ended = statements::end(&mut self.connection, id, ending, &failure, at).await?;
        self.sketches(ended.subject.key(ending), done).add(None);
        let conclusion = Conclusion { ending, outcome: Outcome::Error(failure), timing: None };
        let finished = || Box::new(conclusion.at(ended.started_at, at));
        done.tell(at, id, || ended.subject, || What::Finished { attempt: ended.attempt, finished: finished() });
        Ok(())
    }
}
