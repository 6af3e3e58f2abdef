//! New jobs.

use std::sync::Arc;

use foldhash::HashMap;

use super::super::rows::{Fresh, payload_of};
use super::super::script::{Insertion, Script};
use super::super::statements::Claim;
use super::Writer;
use super::batch::Batch;
use super::transaction::Done;
use crate::clock::Timestamp;
use crate::job::{NewJob, Queue, What};
use crate::store::counted::counted_of;
use crate::store::kept::job::claimed_at_once;
use crate::store::kept::state::{LIMITED, RUNNING, SCHEDULED};

impl Writer {
    /// Inserts what is new. Where nothing waits and a claim does, the first of the new jobs are claimed at once.
    pub(super) fn accept<'b>(&mut self, batch: &'b Batch, now: Timestamp, script: &mut Script<'b>, done: &mut Done) {
        if batch.accepts.is_empty() {
            return;
        }
        let token = self.token();
        let jobs: Vec<&NewJob> = batch.new_jobs().collect();
        let mut at_once = HashMap::default();
        for queue in Queue::ALL {
            let wanted = self.wanted(queue, done);
            let depth = done.depths.of(queue);
            if wanted == 0 || depth.queued > 0 || self.has_open_lanes(queue, depth.limited) {
                continue;
            }
            let ready = |job: &&NewJob| {
                job.route.queue == queue
                    && job.after.is_empty()
                    && !job.submission.is_limited()
                    && job.due_at.is_none()
                    && job.submission.expires_at.is_none_or(|at| at > now)
            };
            let mut here: Vec<&NewJob> = jobs.iter().copied().filter(ready).collect();
            here.sort_by_key(|job| (job.submission.turn(job.accepted_at), job.id));
            here.truncate(wanted);
            done.claimed[queue as usize].reserve(here.len());
            for job in here {
                let claim = Claim { token, at: self.moments.next() };
                at_once.insert(job.id, claim);
                done.tell(claim.at, job.id, || self.subject(&job.submission, queue), || What::Running { attempt: 1 });
                done.claimed[queue as usize].push_back(fresh(job, claim));
            }
        }
        for job in jobs {
            let payload = payload_of(job.submission.workload.json.get(), &mut self.latest_payload);
            script.jobs.push(Insertion { job, claim: at_once.get(&job.id).copied(), payload });
        }
        for insertion in &script.jobs {
            let (job, state) = (insertion.job, insertion.state());
            *done.depths.of_state(job.route.queue, state) += 1;
            if state == RUNNING {
                continue;
            }
            if let (LIMITED, Some(lane)) = (state, job.submission.lane()) {
                let limit = job.submission.concurrency.as_ref().map(|concurrency| concurrency.limit);
                let has_room = counted_of(&lane).iter().all(|counted| self.has_room(counted, limit, done));
                done.lanes.enter(job.route.queue, lane, has_room);
            }
            if let (SCHEDULED, Some(due_at)) = (state, job.due_at) {
                done.due(due_at);
            }
            done.expires(job.submission.expires_at);
        }
    }

    /// What new jobs are told of as.
    pub(super) fn tell_of_accepted(&self, batch: &Batch, done: &mut Done) {
        for job in batch.new_jobs() {
            done.tell(job.accepted_at, job.id, || self.subject(&job.submission, job.route.queue), || What::Accepted);
        }
    }
}

/// A new job as its claim hands it over.
fn fresh(job: &NewJob, claim: Claim) -> Fresh {
    let tags = &job.submission.tags;
    // If another one of the batch comes after it, that is found out when the two are linked.
    let tags = (!tags.is_empty()).then(|| Arc::new(tags.clone()));
    Fresh {
        claimed: claimed_at_once(job, claim.token, claim.at),
        claimed_at: claim.at,
        tags,
        owner: job.submission.owner,
        children: false,
        counted: Vec::new(),
    }
}
