//! Claims: those that wait are served from the jobs that wait, and handed out after the commit.

use std::collections::VecDeque;
use std::sync::Arc;

use super::super::lanes;
use super::super::moves::{self, Released};
use super::super::rows::{Fresh, Taken};
use super::Writer;
use super::aside::Step;
use super::batch::Batch;
use super::transaction::Done;
use crate::job::{Queue, What};
use crate::store::counted::counted_of;
use crate::store::kept::LEFT;
use crate::store::kept::state::{QUEUED, RUNNING, SCHEDULED};
use crate::store::{Lease, StoreError};

/// The most jobs of one claim.
const MOST_CLAIMED: usize = 1_024;

impl Writer {
    /// Serves the claims that wait from the jobs that wait: with never more than they ask for.
    pub(super) async fn claim(&mut self, batch: &mut Batch, done: &mut Done) -> Result<(), StoreError> {
        for queue in Queue::ALL {
            if self.aside.has(Step::Claim(queue)) {
                continue;
            }
            batch.step = Some(Step::Claim(queue));
            let wanted = self.wanted(queue, done).min(MOST_CLAIMED);
            if wanted > 0 && done.shared.has_open_lanes(queue, &self.node) {
                self.claim_in_turn(queue, wanted, done).await?;
                continue;
            }
            if wanted == 0 || done.shared.depth(queue).queued == 0 {
                continue;
            }
            let (token, node, before) = (done.shared.next_token(), self.me(done), done.skip(wanted));
            let claimed = lanes::claim_next(&mut self.connection, queue, wanted, (token, node, before), done.now).await?;
            self.take(queue, QUEUED, claimed, done).await?;
        }
        Ok(())
    }

    /// The number of this node's start, also in the transaction that makes it.
    pub(super) fn me(&self, done: &Done) -> i64 {
        done.registered.unwrap_or_else(|| self.node.id())
    }

    /// Jobs have been claimed that waited in this state. Those that this version can't read wait a little, so that a node that can has them.
    pub(super) async fn take(&mut self, queue: Queue, state: i16, taken: Taken, done: &mut Done) -> Result<(), StoreError> {
        let Taken { fresh, unreadable } = taken;
        done.shared.leave(queue, state, (fresh.len() + unreadable.len()) as u64);
        Self::hold(queue, fresh, done);
        let due_at = done.now.after(LEFT);
        if unreadable.is_empty() {
            return Ok(());
        }
        for Released { expires_at, queued, .. } in moves::release(&mut self.connection, &unreadable, Some(due_at)).await? {
            done.shared.enter(queue, SCHEDULED, 1);
            done.shared.due(due_at);
            done.shared.expires(expires_at);
            if let Some(lane) = queued.lane {
                done.lanes.vacate(&counted_of(&lane.name));
            }
        }
        Ok(())
    }

    /// They have waited until now, however far moments are ahead of a clock that was set back.
    fn hold(queue: Queue, mut claimed: Vec<Fresh>, done: &mut Done) {
        for Fresh { claimed, claimed_at, .. } in &mut claimed {
            claimed.queued_for = claimed.queued_for.saturating_sub(claimed_at.since(done.now));
        }
        done.shared.enter(queue, RUNNING, claimed.len() as u64);
        for Fresh { claimed, claimed_at, run } in &claimed {
            done.tell(*claimed_at, claimed.lease.id, || run.known.subject.clone(), || What::Running { attempt: claimed.attempt });
        }
        done.claimed[queue as usize].extend(claimed);
    }

    /// Answers the claims that wait with nothing, if this node is to claim nothing more: they wait outside then.
    pub(super) fn turn_away(&mut self) {
        if self.node.gatekeeper.is_shut() || self.node.is_silent() {
            self.claims.turn_away();
        }
    }

    /// How many more jobs of a queue the waiting claims could take.
    pub(super) fn wanted(&self, queue: Queue, done: &Done) -> usize {
        // If nobody hears whether this was committed, nobody knows by which number of a start it would have been claimed.
        if done.registered.is_some() {
            return 0;
        }
        self.claims.wanted(queue).saturating_sub(done.claimed[queue as usize].len())
    }

    /// Answers the claims that wait; what nobody takes is returned.
    pub(super) fn hand_out(&mut self, claimed: [VecDeque<Fresh>; Queue::ALL.len()]) -> Vec<Lease> {
        self.node.hold_all(claimed.iter().flatten().map(|fresh| (fresh.claimed.lease.id, Arc::clone(&fresh.run))));
        let claimed = claimed.map(|fresh| fresh.into_iter().map(|fresh| fresh.claimed).collect::<VecDeque<_>>());
        self.claims.hand_out(claimed).into_iter().map(|claimed| claimed.lease).collect()
    }
}
