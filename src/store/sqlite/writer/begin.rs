//! Jobs that were claimed from the front of their queue: that they run is written here, and the fronts are filled up again.

use foldhash::HashSet;

use super::super::front::{self, Ahead, Begun};
use super::super::script::Script;
use super::super::statements::{self, Claim};
use super::Writer;
use super::batch::Batch;
use super::held::Held;
use super::transaction::Done;
use crate::clock::Monotonic;
use crate::job::{JobId, Queue, What};
use crate::store::{Lease, StoreError, Subject};

impl Writer {
    /// Takes note of what was claimed since the last transaction. Where the next one changes what waits, nothing more is claimed
    /// from the fronts.
    pub(super) fn begin(&mut self, batch: &Batch, due: bool, done: &mut Done) {
        for job in batch.new_jobs() {
            // Lanes take turns with all that have no limit.
            let turn = if job.submission.is_limited() { i64::MIN } else { job.submission.turn(job.accepted_at) };
            self.fronts.make_way(job.route.queue, turn, job.id);
        }
        self.begun.append(&mut self.fronts.begin(due || batch.changes_what_waits()));
        let begun = std::mem::take(&mut self.begun);
        for Begun { queue, lease, bound, workload, attempt, tags, owner, children } in &begun {
            let claimed_at = self.moments.next();
            let (queue, attempt) = (*queue, *attempt);
            let (executor, workload) = (queue.executor(), self.kind(workload));
            let subject = Subject { bound: *bound, executor, workload, tags: tags.clone(), owner: *owner };
            done.tell(claimed_at, lease.id, || subject.clone(), || What::Running { attempt });
            // Jobs with a limit are never at a front: they count for nothing.
            let (token, children) = (lease.token, *children);
            let counted = Vec::new();
            let held = Held { token, queue, subject, attempt, claimed_at, stopping: false, children, counted, said: None };
            self.held.insert(lease.id, held);
            let depth = done.depths.at(queue);
            depth.queued = depth.queued.saturating_sub(1);
            depth.running += 1;
        }
        self.begun = begun;
    }

    /// Writes that they run, but for those that end in the same transaction.
    pub(super) fn write_begun(&self, script: &mut Script<'_>) {
        if self.begun.is_empty() {
            return;
        }
        let ended: HashSet<JobId> = script.ends.iter().map(|end| end.id).collect();
        for Begun { lease, .. } in self.begun.iter().filter(|begun| !ended.contains(&begun.lease.id)) {
            if let Some(held) = self.held.get(&lease.id) {
                script.begins.push((lease.id, Claim { token: lease.token, at: held.claimed_at }));
            }
        }
    }

    /// They are written.
    pub(super) fn begun(&mut self) {
        self.fronts.written(self.begun.len());
        for begun in self.begun.drain(..) {
            self.claimed_from[begun.queue as usize] = true;
        }
    }

    /// Serves the claims that wait from the fronts. What nobody takes is returned.
    pub(super) fn serve_from_fronts(&mut self) -> Vec<Lease> {
        self.claims.forget_closed();
        let mut unwanted = Vec::new();
        for queue in Queue::ALL {
            let waiting = self.claims.of(queue);
            while let Some(most) = waiting.front().map(|claim| claim.most) {
                let Some((claimed, _)) = self.fronts.claim(queue, most) else { break };
                if let Some(Err(Ok(claimed))) = waiting.pop_front().map(|claim| claim.reply.send(Ok(claimed))) {
                    unwanted.extend(claimed.into_iter().map(|claimed| claimed.lease));
                }
            }
        }
        unwanted
    }

    /// Fills up the fronts from which jobs are being claimed.
    pub(super) async fn fill_fronts(&mut self) -> Result<(), StoreError> {
        for queue in Queue::ALL.into_iter().filter(|queue| queue.is_apart()) {
            let claimed_from = std::mem::take(&mut self.claimed_from[queue as usize]);
            let depth = self.depths.of(queue);
            if !claimed_from || depth.queued == 0 || !self.begun.is_empty() || self.has_open_lanes(queue, depth.limited) {
                continue;
            }
            let Some(most) = self.fronts.lacks(queue) else { continue };
            let (claim, max_losses) = (Claim { token: self.token(), at: self.clock.now() }, self.max_losses);
            let read = Monotonic::now();
            let most = (most, front::MOST_BYTES);
            // What must not be repeated is written as running before it runs.
            let next = statements::next(&mut self.connection, queue, most, claim, |claimed| {
                claimed.retry().survives_loss(claimed.losses + 1, max_losses)
            });
            let next = next.await?.into_iter().map(|(turn, fresh)| Ahead { fresh, turn, read });
            self.fronts.fill(queue, next.collect());
        }
        Ok(())
    }
}
