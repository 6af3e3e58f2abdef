//! Ends that no attempt brings about: of jobs that wait, and of those whose attempt is not heard any more.

use super::super::moves::{self, Place};
use super::super::rollups::Count;
use super::Writer;
use super::transaction::Done;
use crate::job::{Conclusion, Ending, Failure, FailureKind, JobId, Outcome, What};
use crate::store::StoreError;
use crate::store::kept::state::LIMITED;

/// The most jobs that one transaction ends because their time is over.
const MOST_EXPIRED: usize = 1_000;

impl Writer {
    /// Ends jobs with this failure; the places that they had among the running are given back by whoever took them.
    pub(super) async fn end(
        &mut self,
        ids: &[JobId],
        ending: Ending,
        failure: &Failure,
        done: &mut Done,
    ) -> Result<(), StoreError> {
        let before = self.moments.skip(ids.len());
        for ended in moves::end(&mut self.connection, ids, ending, failure, before).await? {
            done.counts.push(Count::new(ended.subject.key(ending), None));
            if ended.children {
                done.unblocking.push_back(ended.id);
            }
            let conclusion = Conclusion { ending, outcome: Outcome::Error(failure.clone()), timing: None };
            let finished = || Box::new(conclusion.at(ended.started_at, ended.finished_at));
            let what = || What::Finished { attempt: ended.attempt, finished: finished() };
            done.tell(ended.finished_at, ended.id, || ended.subject, what);
        }
        Ok(())
    }

    /// Ends jobs that wait.
    pub(super) async fn end_waiting(
        &mut self,
        places: &[Place],
        ending: Ending,
        failure: &Failure,
        done: &mut Done,
    ) -> Result<Vec<JobId>, StoreError> {
        let ids: Vec<JobId> = places.iter().map(|place| place.id).collect();
        if !ids.is_empty() {
            self.end(&ids, ending, failure, done).await?;
            for Place { queue, state, lane, .. } in places {
                done.depths.leave(*queue, *state);
                if let (LIMITED, Some(lane)) = (*state, lane) {
                    done.lanes.may_go_on(*queue, lane.clone());
                }
            }
        }
        Ok(ids)
    }

    /// Ends the jobs that wait although their time is over: so many of them that others need not wait for long.
    pub(super) async fn expire(&mut self, done: &mut Done) -> Result<(), StoreError> {
        if done.next_expiry.is_none_or(|at| at > done.now) {
            return Ok(());
        }
        let places = moves::expired(&mut self.connection, done.now, MOST_EXPIRED).await?;
        let failure = Failure::new(FailureKind::Expired, "it was not started before its time was over");
        let ended = self.end_waiting(&places, Ending::Failed, &failure, done).await?;
        done.unasked.extend(ended);
        done.next_expiry = moves::next_expiry(&mut self.connection).await?;
        Ok(())
    }
}
