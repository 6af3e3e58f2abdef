//! Claims: those that wait are served from the jobs that wait, and handed out after the commit.

use std::collections::VecDeque;

use super::super::rows::Fresh;
use super::super::statements::{self, Claim};
use super::Writer;
use super::transaction::Done;
use crate::job::{Queue, What};
use crate::store::{Claimed, StoreError, Subject};

/// The most jobs of one claim.
const MOST_CLAIMED: usize = 512;

impl Writer {
    /// Serves the claims that wait from the jobs that wait.
    pub(super) async fn claim(&mut self, done: &mut Done) -> Result<(), StoreError> {
        for queue in Queue::ALL {
            let wanted = self.wanted(queue, done).min(MOST_CLAIMED);
            let depth = done.depths.of(queue);
            if wanted > 0 && self.has_open_lanes(queue, depth.limited) {
                self.claim_in_turn(queue, wanted, done).await?;
                continue;
            }
            if wanted == 0 || depth.queued == 0 {
                continue;
            }
            let claim = Claim { token: self.token(), at: self.moments.skip(wanted) };
            let claimed = statements::claim(&mut self.connection, queue, wanted, claim, self.clock.now()).await?;
            let depth = done.depths.at(queue);
            depth.queued = depth.queued.saturating_sub(claimed.len() as u64);
            self.hold(queue, claimed, done);
        }
        Ok(())
    }

    /// Jobs that waited have been claimed: until now, however far moments are ahead of a clock that was set back.
    pub(super) fn hold(&self, queue: Queue, mut claimed: Vec<Fresh>, done: &mut Done) {
        let now = self.clock.now();
        for Fresh { claimed, claimed_at, .. } in &mut claimed {
            claimed.queued_for = claimed.queued_for.saturating_sub(claimed_at.since(now));
        }
        done.depths.at(queue).running += claimed.len() as u64;
        for Fresh { claimed, claimed_at, tags, owner, .. } in &claimed {
            let subject = || Subject {
                bound: claimed.bound,
                executor: queue.executor(),
                workload: claimed.workload.kind.as_str().into(),
                tags: tags.clone(),
                owner: *owner,
            };
            done.tell(*claimed_at, claimed.lease.id, subject, || What::Running { attempt: claimed.attempt });
        }
        done.claimed[queue as usize].extend(claimed);
    }

    /// Answers the claims that wait with nothing, if this server is to claim nothing more: they wait outside then.
    pub(super) fn turn_away(&mut self) {
        if self.gatekeeper.is_shut() {
            self.claims.turn_away();
        }
    }

    /// How many more jobs of a queue the waiting claims could take.
    pub(super) fn wanted(&self, queue: Queue, done: &Done) -> usize {
        self.claims.wanted(queue).saturating_sub(done.claimed[queue as usize].len())
    }

    /// Answers the claims that wait; what nobody takes is returned.
    pub(super) fn hand_out(&mut self, claimed: [VecDeque<Fresh>; Queue::ALL.len()]) -> Vec<Claimed> {
        self.claims.hand_out(claimed.map(|fresh| fresh.into_iter().map(|fresh| fresh.claimed).collect()))
    }
}
