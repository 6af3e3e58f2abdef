//! Ends that no attempt brings about: of jobs that wait, and of those whose attempt is not heard any more.

use super::super::moves::{self, Ended};
use super::super::rollups::Count;
use super::Writer;
use super::transaction::Done;
use crate::job::{Conclusion, Ending, Failure, FailureKind, JobId, Outcome, What};
use crate::store::StoreError;
use crate::store::kept::edge::Doom;
use crate::store::kept::state::{LIMITED, RUNNING};

/// The most jobs that one transaction ends because their time is over.
const MOST_EXPIRED: usize = 1_000;

impl Writer {
    /// Ends jobs, wherever they are, or only those in this state. The places that they had among the running are given back by whoever
    /// took them.
    pub(super) async fn end(&mut self, dooms: Vec<Doom>, only: Option<i16>, done: &mut Done) -> Result<Vec<JobId>, StoreError> {
        if dooms.is_empty() {
            return Ok(Vec::new());
        }
        let before = self.moments.skip(dooms.len());
        let mut ids = Vec::with_capacity(dooms.len());
        for ended in moves::end(&mut self.connection, &dooms, only, before).await? {
            let Ended { id, state, lane, queue, subject, ending, failure, attempt, started_at, finished_at, children } = ended;
            ids.push(id);
            if state != RUNNING {
                done.depths.leave(queue, state);
            }
            if let (LIMITED, Some(lane)) = (state, lane) {
                done.lanes.may_go_on(queue, lane);
            }
            done.counts.push(Count::new(subject.key(ending), None));
            if children {
                done.unblocking.push_back(id);
            }
            let conclusion = Conclusion { ending, outcome: Outcome::Error(failure), timing: None };
            let finished = || Box::new(conclusion.at(started_at, finished_at));
            done.tell(finished_at, id, || subject, || What::Finished { attempt, finished: finished() });
        }
        Ok(ids)
    }

    /// Ends the jobs that wait although their time is over: so many of them that others need not wait for long.
    pub(super) async fn expire(&mut self, done: &mut Done) -> Result<(), StoreError> {
        if done.next_expiry.is_none_or(|at| at > done.now) {
            return Ok(());
        }
        let failure = Failure::new(FailureKind::Expired, "it was not started before its time was over");
        let ids = moves::expired(&mut self.connection, done.now, MOST_EXPIRED).await?;
        let dooms = ids.into_iter().map(|id| Doom { id, ending: Ending::Failed, failure: failure.clone() });
        let ended = self.end(dooms.collect(), None, done).await?;
        done.unasked.extend(ended);
        done.next_expiry = moves::next_expiry(&mut self.connection).await?;
        Ok(())
    }
}
