use trine::clock::Timestamp;
use trine::job::{Ending, FailureKind, JobId, NewJob, PRIORITY_LEVEL};
use trine::store::{Claimed, Lease, Settlement, StateFilter};

/// What the tests' stores are opened with.
const MAX_LOSSES: u32 = 3;

/// Where a job is, as far as others may want to know.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Life {
    Waiting,
    Running { lease: Lease, stopping: bool },
    Ended(Ending),
}

/// Since when it may run, in microseconds; what the store's clock added to tell moments apart; and the id.
type Due = (i64, u64, JobId);

struct Job {
    id: JobId,
    priority: i64,
    life: Life,
    due: Due,
    /// It waits for `due`.
    scheduled: bool,
    expires: Option<i64>,
    submitted_expires: Option<i64>,
    survives: bool,
    attempt: u32,
    losses: u32,
    earlier: u32,
}

/// What a store of one queue does, without a database, without batches, without anything that is fast.
pub(super) struct Model {
    jobs: Vec<Job>,
    /// How many moments the store made of the same time.
    moments: u64,
    now: i64,
}

impl Job {
    fn turn(&self) -> (i64, u64, JobId) {
        let (at, moment, id) = self.due;
        (at - self.priority * i64::try_from(PRIORITY_LEVEL.as_micros()).unwrap(), moment, id)
    }

    fn waits(&self) -> bool {
        self.life == Life::Waiting
    }
}

impl Model {
    pub(super) fn new(now: Timestamp) -> Self {
        Self { jobs: Vec::new(), moments: 0, now: now.as_micros() }
    }

    fn moment(&mut self) -> u64 {
        self.moments += 1;
        self.moments
    }

    fn at(&self, id: JobId) -> usize {
        self.jobs.iter().position(|job| job.id == id).unwrap()
    }

    fn job(&self, id: JobId) -> &Job {
        &self.jobs[self.at(id)]
    }

    pub(super) fn ids(&self) -> Vec<JobId> {
        self.jobs.iter().map(|job| job.id).collect()
    }

    pub(super) fn life(&self, id: JobId) -> Life {
        self.job(id).life
    }

    pub(super) fn accept(&mut self, new: &NewJob) {
        let submission = &new.submission;
        let scheduled = submission.run_at.map(Timestamp::as_micros).filter(|at| *at > self.now);
        let moment = self.moment();
        let expires = submission.expires_at.map(Timestamp::as_micros);
        self.jobs.push(Job {
            id: new.id,
            priority: submission.priority.into(),
            life: Life::Waiting,
            due: scheduled.map_or((self.now, moment, new.id), |at| (at, 0, new.id)),
            scheduled: scheduled.is_some(),
            expires,
            submitted_expires: expires,
            survives: submission.retry().on.contains(&FailureKind::Lost),
            attempt: 0,
            losses: 0,
            earlier: 0,
        });
    }

    /// What comes with time.
    pub(super) fn tick(&mut self, now: Timestamp) {
        let now = now.as_micros();
        self.now = now;
        for job in self.jobs.iter_mut().filter(|job| job.waits()) {
            job.scheduled &= job.due.0 > now;
            if job.expires.is_some_and(|at| at <= now) {
                job.life = Life::Ended(Ending::Failed);
            }
        }
    }

    fn queued(&self) -> Vec<usize> {
        let mut queued: Vec<usize> =
            (0..self.jobs.len()).filter(|at| self.jobs[*at].waits() && !self.jobs[*at].scheduled).collect();
        queued.sort_by_key(|at| self.jobs[*at].turn());
        queued
    }

    /// How many could be claimed.
    pub(super) fn ready(&self) -> usize {
        self.queued().len()
    }

    /// Claims as many as the store has given leases for.
    pub(super) fn claim(&mut self, given: &[Claimed]) -> Vec<(JobId, u32, u32, u32)> {
        let mut claimed = Vec::new();
        for at in self.queued().into_iter().take(given.len()) {
            let job = &mut self.jobs[at];
            job.attempt += 1;
            let lease = given.iter().map(|one| one.lease).find(|lease| lease.id == job.id);
            let lease = lease.unwrap_or(Lease { id: job.id, token: -1 });
            job.life = Life::Running { lease, stopping: false };
            claimed.push((job.id, job.attempt, job.losses, job.earlier));
        }
        claimed
    }

    /// Whether the lease is valid.
    pub(super) fn settle(&mut self, lease: Lease, settlement: &Settlement) -> bool {
        let at = self.at(lease.id);
        let job = &mut self.jobs[at];
        let Life::Running { lease: held, stopping } = job.life else { return false };
        if held != lease {
            return false;
        }
        job.life = match settlement {
            Settlement::Finish(conclusion) => Life::Ended(conclusion.ending),
            _ if stopping => Life::Ended(Ending::Cancelled),
            Settlement::Again { due_at, lost, .. } => {
                (job.due, job.scheduled) = ((due_at.as_micros(), 0, job.id), true);
                job.losses += u32::from(*lost);
                Life::Waiting
            }
            Settlement::Release { .. } => {
                job.attempt -= 1;
                Life::Waiting
            }
            Settlement::Later { due_at } => {
                (job.due, job.scheduled) = ((due_at.as_micros(), 0, job.id), true);
                job.attempt -= 1;
                Life::Waiting
            }
        };
        true
    }

    /// Cancels; where the job was.
    pub(super) fn cancel(&mut self, id: JobId) -> Life {
        let at = self.at(id);
        let before = self.jobs[at].life;
        match &mut self.jobs[at].life {
            Life::Running { stopping, .. } => *stopping = true,
            life @ Life::Waiting => *life = Life::Ended(Ending::Cancelled),
            Life::Ended(_) => {}
        }
        before
    }

    /// Cancels all that are in one of these states, or anywhere if there are none; those that waited, and those that run.
    pub(super) fn cancel_all(&mut self, states: &[StateFilter]) -> (Vec<JobId>, Vec<Lease>) {
        let (mut ended, mut stopping) = (Vec::new(), Vec::new());
        for id in self.ids() {
            let job = self.job(id);
            let stands = match job.life {
                Life::Ended(_) => continue,
                Life::Running { .. } => StateFilter::Running,
                Life::Waiting if job.scheduled => StateFilter::Scheduled,
                Life::Waiting => StateFilter::Queued,
            };
            let there = states.is_empty() || states.contains(&stands);
            match there.then(|| self.cancel(id)) {
                Some(Life::Waiting) => ended.push(id),
                Some(Life::Running { lease, .. }) => stopping.push(lease),
                _ => {}
            }
        }
        (ended, stopping)
    }

    /// Whether the job has ended, and so waits again.
    pub(super) fn requeue(&mut self, id: JobId, now: Timestamp) -> bool {
        let (at, moment, now) = (self.at(id), self.moment(), now.as_micros());
        let job = &mut self.jobs[at];
        if !matches!(job.life, Life::Ended(_)) {
            return false;
        }
        (job.life, job.scheduled, job.due) = (Life::Waiting, false, (now, moment, id));
        (job.earlier, job.losses) = (job.attempt, 0);
        job.expires = job.submitted_expires.filter(|at| *at > now);
        true
    }

    /// The store was shut: what runs is handed back.
    pub(super) fn close(&mut self) {
        let running: Vec<Lease> = self.jobs.iter().filter_map(|job| lease(job.life)).collect();
        for lease in running {
            self.settle(lease, &Settlement::Release { begun: true });
        }
    }

    /// The store went down under what runs.
    pub(super) fn crash(&mut self, now: Timestamp) {
        let (moment, now) = (self.moment(), now.as_micros());
        for job in &mut self.jobs {
            let Life::Running { stopping, .. } = job.life else { continue };
            if stopping {
                job.life = Life::Ended(Ending::Cancelled);
            } else if job.survives && job.losses + 1 < MAX_LOSSES {
                (job.life, job.scheduled, job.due) = (Life::Waiting, true, (now, moment, job.id));
                job.losses += 1;
            } else {
                job.life = Life::Ended(Ending::Lost);
            }
        }
    }

    /// What the store has to say of a job: its state, whether it is being stopped, its attempts and its losses.
    pub(super) fn seen(&self, id: JobId) -> (&'static str, bool, u32, u32) {
        let job = self.job(id);
        let (state, stopping) = match job.life {
            Life::Waiting if job.scheduled => ("scheduled", false),
            Life::Waiting => ("queued", false),
            Life::Running { stopping, .. } => ("running", stopping),
            Life::Ended(ending) => (ending.as_str(), false),
        };
        (state, stopping, job.attempt, job.losses)
    }

    /// How many are queued, scheduled and running.
    pub(super) fn depth(&self) -> (u64, u64, u64) {
        let count = |state| self.jobs.iter().filter(|job| self.seen(job.id).0 == state).count() as u64;
        (count("queued"), count("scheduled"), count("running"))
    }
}

fn lease(life: Life) -> Option<Lease> {
    match life {
        Life::Running { lease, .. } => Some(lease),
        _ => None,
    }
}
