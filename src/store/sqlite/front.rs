//! The next jobs of a queue in memory, so that a slot that becomes free has one at once: a very short job takes less time than the
//! transaction that would claim it.
//!
//! In the database, and for everybody who looks, a job at the front is queued. Who claims it has it at once; that it runs is written
//! with the next transaction, some milliseconds later, or never if it has ended by then. A server that dies in between
//! runs the job again, without a loss counted. So there are no jobs here that must not be repeated, and none whose work could take the
//! server along.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::rows::Fresh;
use crate::clock::Monotonic;
use crate::job::{Bound, JobId, Owner, Queue, Tags};
use crate::store::{Claimed, Lease};

/// A front is filled up when it has fewer jobs than the first, to no more than the second.
pub(super) const JOBS: (usize, usize) = (48, 128);
/// The most bytes of workloads at one front.
pub(super) const MOST_BYTES: usize = 1 << 20;

/// The fronts of the queues, and what was claimed from them. Of each queue it holds the jobs that are next, without a gap, or none.
#[derive(Default)]
pub(super) struct Fronts {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: [VecDeque<Ahead>; Queue::ALL.len()],
    /// Claimed, and not yet known to the writer.
    begun: Vec<Begun>,
    /// Claimed, but not written.
    unwritten: usize,
}

/// A job that waits, with a token for whoever claims it.
pub(super) struct Ahead {
    pub(super) fresh: Fresh,
    /// When it is its turn.
    pub(super) turn: i64,
    pub(super) read: Monotonic,
}

/// A job that was claimed, as far as the writer has to know of it.
pub(super) struct Begun {
    pub(super) queue: Queue,
    pub(super) lease: Lease,
    pub(super) bound: Bound,
    pub(super) workload: String,
    pub(super) attempt: u32,
    pub(super) tags: Option<Arc<Tags>>,
    pub(super) owner: Option<Owner>,
    /// Whether other jobs may wait for its end.
    pub(super) children: bool,
}

impl Ahead {
    /// Where it stands: the lower, the sooner.
    const fn place(&self) -> (i64, JobId) {
        (self.turn, self.fresh.claimed.lease.id)
    }

    fn bytes(&self) -> usize {
        self.fresh.claimed.workload.json.get().len()
    }

    /// The claim, and what the writer has to know of it.
    fn split(self, queue: Queue) -> (Claimed, Begun) {
        let Self { fresh: Fresh { claimed, tags, owner, children, .. }, read, .. } = self;
        let Claimed { lease, bound, attempt, .. } = claimed;
        let begun = Begun { queue, lease, bound, workload: claimed.workload.kind.clone(), attempt, tags, owner, children };
        (Claimed { queued_for: claimed.queued_for + read.elapsed(), ..claimed }, begun)
    }
}

impl Fronts {
    /// Claims up to `most` jobs, if there are any; and whether the writer is to be told that there is something to write.
    pub(super) fn claim(&self, queue: Queue, most: usize) -> Option<(Vec<Claimed>, bool)> {
        let mut state = self.state();
        let State { waiting, begun, unwritten } = &mut *state;
        let waiting = &mut waiting[queue as usize];
        if waiting.is_empty() {
            return None;
        }
        let first = begun.is_empty();
        let count = most.min(waiting.len());
        *unwritten += count;
        let mut claimed = Vec::with_capacity(count);
        for ahead in waiting.drain(..count) {
            let (claim, news) = ahead.split(queue);
            claimed.push(claim);
            begun.push(news);
        }
        Some((claimed, first))
    }

    /// Whether jobs were claimed that still are queued in the database.
    pub(super) fn has_unwritten(&self) -> bool {
        self.state().unwritten > 0
    }

    /// What was claimed since the last time. `clear`: what is still here may not be next any more, so it is forgotten.
    pub(super) fn begin(&self, clear: bool) -> Vec<Begun> {
        let mut state = self.state();
        if clear {
            state.waiting.iter_mut().for_each(VecDeque::clear);
        }
        std::mem::take(&mut state.begun)
    }

    /// A job comes into a queue: what is here and would have to stand behind it is forgotten.
    pub(super) fn make_way(&self, queue: Queue, turn: i64, id: JobId) {
        let waiting = &mut self.state().waiting[queue as usize];
        let behind = waiting.partition_point(|ahead| ahead.place() < (turn, id));
        waiting.truncate(behind);
    }

    /// Others take turns with this queue's jobs: what is here may not be next any more.
    pub(super) fn clear(&self, queue: Queue) {
        self.state().waiting[queue as usize].clear();
    }

    /// So many of those that were claimed are written.
    pub(super) fn written(&self, count: usize) {
        self.state().unwritten -= count;
    }

    /// How many jobs of a queue to read, if it is time to fill up its front: among them are those that are here.
    pub(super) fn lacks(&self, queue: Queue) -> Option<usize> {
        let state = self.state();
        let here = state.waiting[queue as usize].len();
        (here < JOBS.0).then(|| state.begun.len() + JOBS.1)
    }

    /// Adds the jobs of a queue that were read from its beginning, in their order.
    pub(super) fn fill(&self, queue: Queue, jobs: Vec<Ahead>) {
        let mut state = self.state();
        let State { waiting, begun, .. } = &mut *state;
        let waiting = &mut waiting[queue as usize];
        let mut known: HashSet<JobId> = begun.iter().map(|begun| begun.lease.id).collect();
        known.extend(waiting.iter().map(|ahead| ahead.fresh.claimed.lease.id));
        let mut bytes: usize = waiting.iter().map(Ahead::bytes).sum();
        for ahead in jobs.into_iter().filter(|ahead| !known.contains(&ahead.fresh.claimed.lease.id)) {
            bytes += ahead.bytes();
            if bytes > MOST_BYTES {
                return;
            }
            waiting.push_back(ahead);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
