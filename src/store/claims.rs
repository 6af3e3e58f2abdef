//! The claims that wait for jobs.

use std::collections::VecDeque;

use super::Claimed;
use super::acceptance::Reply;
use crate::job::Queue;

/// The most bytes of workloads that are claimed from the jobs that wait in a queue by one transaction, unless a single job has more.
pub(super) const MOST_BYTES: i64 = 32 << 20;

/// A claim that waits.
pub(super) struct Waiting {
    pub(super) most: usize,
    pub(super) reply: Reply<Vec<Claimed>>,
}

/// The claims that wait, of each queue in the order in which they came.
#[derive(Default)]
pub(super) struct Claims([VecDeque<Waiting>; Queue::ALL.len()]);

impl Claims {
    pub(super) fn push(&mut self, queue: Queue, most: usize, reply: Reply<Vec<Claimed>>) {
        self.of(queue).push_back(Waiting { most, reply });
    }

    pub(super) const fn of(&mut self, queue: Queue) -> &mut VecDeque<Waiting> {
        &mut self.0[queue as usize]
    }

    /// Whether none waits for a queue.
    pub(super) fn is_empty(&self, queue: Queue) -> bool {
        self.0[queue as usize].is_empty()
    }

    /// How many jobs of a queue they could take.
    pub(super) fn wanted(&self, queue: Queue) -> usize {
        self.0[queue as usize].iter().map(|claim| claim.most).sum()
    }

    /// Answers them with nothing: they wait outside then.
    pub(super) fn turn_away(&mut self) {
        for Waiting { reply, .. } in self.0.iter_mut().flat_map(|waiting| waiting.drain(..)) {
            // Nobody may be waiting any more.
            let _ = reply.send(Ok(Vec::new()));
        }
    }

    /// Answers them with what was claimed of each queue; what nobody takes is returned.
    pub(super) fn hand_out(&mut self, claimed: [VecDeque<Claimed>; Queue::ALL.len()]) -> Vec<Claimed> {
        let mut unwanted = Vec::new();
        for (waiting, mut claimed) in self.0.iter_mut().zip(claimed) {
            while !claimed.is_empty() {
                let Some(Waiting { most, reply }) = waiting.pop_front() else { break };
                let share = claimed.drain(..most.min(claimed.len())).collect();
                if let Err(Ok(share)) = reply.send(Ok(share)) {
                    unwanted.extend(share);
                }
            }
            unwanted.extend(claimed);
        }
        unwanted
    }

    /// Forgets those for whose answer nobody waits any more.
    pub(super) fn forget_closed(&mut self) {
        for waiting in &mut self.0 {
            waiting.retain(|claim| !claim.reply.is_closed());
        }
    }
}
