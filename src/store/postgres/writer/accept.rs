//! New jobs.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::moves::Insertion;
use super::super::rows::{Fresh, Known, Lane, Run, subject};
use super::Writer;
use super::batch::Batch;
use super::transaction::Done;
use crate::clock::Timestamp;
use crate::job::{JobId, NewJob, Queue, What};
use crate::store::kept::job::claimed_at_once;
use crate::store::kept::state::{self, LIMITED, RUNNING, SCHEDULED};

impl Writer {
    /// What is new. Where nothing waits and a claim does, the first of the new jobs are claimed at once.
    pub(super) fn insertions<'b>(&self, batch: &'b Batch, done: &mut Done) -> Vec<Insertion<'b>> {
        if batch.accepts.is_empty() {
            return Vec::new();
        }
        let jobs: Vec<&NewJob> = batch.new_jobs().collect();
        for job in &jobs {
            done.tell(job.accepted_at, job.id, || subject(&job.submission, job.route.queue), || What::Accepted);
        }
        let token = done.shared.next_token();
        let at_once = self.at_once(&jobs, token, done);
        let mut insertions = Vec::with_capacity(jobs.len());
        for job in jobs {
            let claim = at_once.get(&job.id).map(|at| (token, *at));
            let state = state::first(job, claim.is_some());
            done.shared.enter(job.route.queue, state, 1);
            insertions.push(Insertion { job, state, claim });
            if state == RUNNING {
                continue;
            }
            if let (LIMITED, Some(lane)) = (state, Lane::of(&job.submission)) {
                let limit = job.submission.concurrency.as_ref().map(|concurrency| concurrency.limit);
                done.lanes.enter(job.route.queue, lane, limit);
            }
            if let (SCHEDULED, Some(due_at)) = (state, job.due_at) {
                done.shared.due(due_at);
            }
            done.shared.expires(job.submission.expires_at.map(Timestamp::as_micros));
        }
        insertions
    }

    /// Claims the first of the new jobs where nothing waits and a claim does; when.
    fn at_once(&self, jobs: &[&NewJob], token: i64, done: &mut Done) -> HashMap<JobId, Timestamp> {
        let mut at_once = HashMap::new();
        for queue in Queue::ALL {
            let wanted = self.wanted(queue, done);
            if wanted == 0 || done.shared.depth(queue).queued > 0 || done.shared.has_open_lanes(queue, &self.node) {
                continue;
            }
            let ready = |job: &&NewJob| {
                job.route.queue == queue
                    && job.after.is_empty()
                    && !job.submission.is_limited()
                    && job.due_at.is_none()
                    && job.submission.expires_at.is_none_or(|at| at > done.now)
            };
            let mut here: Vec<&NewJob> = jobs.iter().copied().filter(ready).collect();
            here.sort_by_key(|job| (job.submission.turn(job.accepted_at), job.id));
            for job in here.into_iter().take(wanted) {
                let at = done.moment();
                at_once.insert(job.id, at);
                done.tell(at, job.id, || subject(&job.submission, queue), || What::Running { attempt: 1 });
                done.claimed[queue as usize].push_back(fresh(job, queue, token, at));
            }
        }
        at_once
    }
}

/// A new job as its claim hands it over.
fn fresh(job: &NewJob, queue: Queue, token: i64, at: Timestamp) -> Fresh {
    let run = Arc::new(Run { token, known: Known::of(&job.submission, queue) });
    Fresh { claimed: claimed_at_once(job, token, at), claimed_at: at, run }
}
