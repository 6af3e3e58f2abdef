//! After a commit: what was done is published, then those who wait for it are answered.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use tokio::sync::oneshot;

use super::super::rollups;
use super::super::rows::Fresh;
use super::batch::Batch;
use super::held::Held;
use super::transaction::Done;
use super::{Acceptance, Writer};
use crate::job::Queue;
use crate::store::{Lease, Settlement, Subject};

impl Writer {
    /// Publishes what was committed, then answers those who wait for it.
    pub(super) async fn answer(&mut self, batch: Batch, done: Done) {
        self.claims_blocked = false;
        if !batch.accepts.is_empty() {
            self.full.is_over();
        }
        self.next_due = done.next_due;
        self.next_expiry = done.next_expiry;
        self.unblocking = done.unblocking;
        self.lanes.apply(&done.lanes);
        self.allowed = done.allowed;
        self.published.count_running(done.lanes.running);
        self.depths = done.depths;
        *self.published.depths.lock().unwrap_or_else(PoisonError::into_inner) = self.depths;
        rollups::count(&done.counts, &mut self.published.rollups(), &mut self.counted);
        self.published.latest_event.store(self.moments.latest.as_micros(), Ordering::SeqCst);
        self.published.hub.publish(done.news);
        self.published.unasked.add(done.unasked);
        self.begun();
        for (id, said) in done.said {
            if let Some(held) = self.held.get_mut(&id) {
                held.said = Some(said);
            }
        }
        for id in done.ended {
            self.held.remove(&id);
        }
        for id in done.stopping {
            if let Some(held) = self.held.get_mut(&id) {
                held.stopping = true;
            }
        }
        for queue in Queue::ALL {
            self.claimed_from[queue as usize] |= !done.claimed[queue as usize].is_empty();
            for Fresh { claimed, claimed_at, tags, owner, children, counted } in &done.claimed[queue as usize] {
                let workload = self.kind(&claimed.workload.kind);
                let (bound, executor) = (claimed.bound, queue.executor());
                let subject = Subject { bound, executor, workload, tags: tags.clone(), owner: *owner };
                let held = Held {
                    token: claimed.lease.token,
                    queue,
                    subject,
                    attempt: claimed.attempt,
                    claimed_at: *claimed_at,
                    stopping: false,
                    children: *children,
                    counted: counted.clone(),
                    said: None,
                };
                self.held.insert(claimed.lease.id, held);
            }
        }
        for id in done.parents {
            if let Some(held) = self.held.get_mut(&id) {
                held.children = true;
            }
        }
        // Nobody may be waiting for an answer any more; that changes nothing about what was done.
        for Acceptance { jobs, with, reply } in batch.accepts {
            let _ = reply.send(Ok(jobs));
            if let Some(edit) = with {
                edit.answer(Ok(()));
            }
        }
        for ((_, _, reply), settled) in batch.settles.into_iter().zip(done.settled) {
            let _ = reply.send(Ok(settled));
        }
        for ((_, _, reply), cancelled) in batch.cancels.into_iter().zip(done.cancelled) {
            let _ = reply.send(Ok(cancelled));
        }
        for ((_, _, reply), requeued) in batch.requeues.into_iter().zip(done.requeued) {
            let _ = reply.send(Ok(requeued));
        }
        batch.edits.into_iter().for_each(|edit| edit.answer(Ok(())));
        for (_, reply) in batch.allows {
            let _ = reply.send(Ok(()));
        }
        for reply in batch.checks {
            let _ = reply.send(self.full.check());
        }
        for reply in batch.looks {
            let _ = reply.send(Ok(()));
        }
        // Whoever claimed them went away in the meantime.
        let unwanted = self.hand_out(done.claimed);
        Box::pin(self.release(unwanted.into_iter().map(|claimed| claimed.lease).collect())).await;
    }

    /// Makes claimed jobs wait again as if they had not been claimed.
    pub(super) async fn release(&mut self, leases: Vec<Lease>) {
        if leases.is_empty() {
            return;
        }
        let release = |lease| (lease, Arc::new(Settlement::Release { begun: false }), oneshot::channel().0);
        self.write(Batch { settles: leases.into_iter().map(release).collect(), ..Batch::default() }).await;
    }
}
