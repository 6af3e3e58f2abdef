//! Nodes that come, and those that are gone: what ran there waits again, or has ended as lost.

use super::super::events;
use super::super::moves;
use super::super::node;
use super::super::rows;
use super::Writer;
use super::aside::Step;
use super::batch::Batch;
use super::transaction::Done;
use crate::job::{Ending, Failure, FailureKind, JobId, What};
use crate::store::fate::{again_at, fate};
use crate::store::kept::edge::Doom;
use crate::store::kept::event::EventRow;
use crate::store::kept::state::{RUNNING, SCHEDULED};
use crate::store::{Revocation, StoreError};

/// The most jobs of nodes that are gone that one transaction deals with.
const MOST_LOST: usize = 1_000;

impl Writer {
    /// Takes a place among the nodes if this one has none and no other has it, and gives back claims that it never heard of.
    pub(super) async fn take_place(&mut self, known: bool, batch: &mut Batch, done: &mut Done) -> Result<(), StoreError> {
        let held = self.node.leases();
        if known {
            if self.aside.has(Step::GiveBack) {
                done.may_have_claimed = true;
                return Ok(());
            }
            batch.step = Some(Step::GiveBack);
            let unheard = node::unheard(&mut self.connection, self.node.id(), &held).await?;
            let ids: Vec<JobId> = unheard.iter().map(|(id, _)| *id).collect();
            for (queue, counted) in self.give_back(&ids, None, false, done).await? {
                done.shared.leave(queue, RUNNING, 1);
                done.lanes.vacate(&counted);
            }
            // Those that were to stop meanwhile end where they wait now.
            let stopping = unheard.into_iter().filter(|(_, stopping)| *stopping);
            let doom = |(id, _)| Doom { id, ending: Ending::Cancelled, failure: Failure::cancelled() };
            let ended = self.end(stopping.map(doom).collect(), None, done).await?;
            done.unasked.extend(ended);
            batch.step = None;
            return Ok(());
        }
        // Whatever it held was lost with its place.
        self.node.revoke(held, Revocation::Lost);
        let replaced = self.node.is_replaced(&mut self.connection).await?;
        self.node.set_replaced(replaced);
        if replaced {
            return Ok(());
        }
        let id = self.node.register(&mut self.connection).await?;
        done.shared.nodes.push(id);
        done.registered = Some(id);
        self.registered = Some(id);
        Ok(())
    }

    /// Whether there may be more jobs of nodes that are gone than one transaction could deal with.
    pub(super) const fn more_lost(&self) -> bool {
        self.latest_lost == MOST_LOST
    }

    /// Looks after nodes that are gone: those that were not heard of in time, and earlier starts of this one.
    pub(super) async fn reap(&mut self, done: &mut Done) -> Result<(), StoreError> {
        // If this fails, the next heartbeat asks again.
        self.latest_lost = 0;
        let me = self.me(done);
        let (gone, names): (Vec<_>, Vec<_>) = node::gone(&mut self.connection, me, &self.node.name).await?.into_iter().unzip();
        if gone.is_empty() {
            return Ok(());
        }
        let lost = node::running(&mut self.connection, &gone, MOST_LOST).await?;
        done.shared.nodes.retain(|node| !gone.contains(node));
        // The next transaction goes on with the rest of them, and until then none of these nodes can say that it is there after all.
        self.latest_lost = lost.len();
        done.gone = Some((names.join(" "), lost.len()));
        if self.more_lost() {
            node::shut_out(&mut self.connection, &gone).await?;
        } else {
            node::interrupt(&mut self.connection, &gone, &self.node.name, done.now).await?;
            node::forget(&mut self.connection, &gone).await?;
        }
        let mut dooms = Vec::new();
        let (mut again, mut rows) = (Vec::new(), Vec::new());
        let due_at = again_at(done.moment(), done.now);
        for job in lost {
            let known = rows::Known::of(&job.submission, job.route.queue);
            done.shared.leave(known.queue, RUNNING, 1);
            done.lanes.vacate(&known.counted);
            if let Some((ending, failure)) = fate(&job, self.max_losses) {
                dooms.push(Doom { id: job.id, ending, failure });
                continue;
            }
            let error = Failure::new(FailureKind::Lost, "the server went down while this attempt ran");
            let at = done.moment();
            rows.push(EventRow::retrying(at, job.id, job.attempt, &error, None, due_at));
            let what = || What::Retrying { attempt: job.attempt, error, timing: None, due_at };
            done.tell(at, job.id, || known.subject, what);
            done.shared.enter(known.queue, SCHEDULED, 1);
            again.push(job.id);
        }
        if !again.is_empty() {
            events::keep_attempts(&mut self.connection, &again).await?;
            self.keep_events(&rows).await?;
            let expires_at = moves::again(&mut self.connection, &again, due_at, true).await?;
            done.shared.expires(expires_at);
            done.shared.due(due_at);
        }
        let ended: Vec<JobId> = self.end(dooms, None, done).await?;
        done.unasked.extend(ended);
        Ok(())
    }
}
