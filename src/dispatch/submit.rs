//! What is submitted: validated, routed, and made durable where there is room for it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::router::{Facts, Unable, choose};
use super::{Dispatcher, Full, NoRoom, Wanted, if_light, labels, outputs, to_the_end};
use crate::clock::Timestamp;
use crate::job::{
    After, Dependency, Job, JobId, NewJob, Owner, Parent, ProfileKey, Route, Runtime, Spec, Submission, Written, parents_first,
};
use crate::store::{Once, Requeue, StoreError};
use crate::workload::{Invalid, Likeness, Prepared, is_function, likeness_of_function, may_have_placeholders};

/// From so many submissions on, or so many bytes, see [`take_long`].
const MANY: usize = 256;
const LONG: usize = 256 << 10;

/// Whether it would hold up other requests to read or validate so many submissions of so many bytes together. Others take a millisecond at the
/// most: where all cores are at work, another thread would take longer to begin.
pub const fn take_long(submissions: usize, bytes: usize) -> bool {
    submissions >= MANY || bytes >= LONG
}

/// Why a batch of submissions was not accepted. Nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// Submissions are wrong.
    #[error("submissions {:?} are not valid", .0.iter().map(|wrong| wrong.index).collect::<Vec<_>>())]
    Invalid(Vec<Wrong>),
    /// The server is going down.
    #[error("the server is shutting down")]
    Draining,
    /// Another request came with this key before.
    #[error("the key came before with another request")]
    KeyUsed,
    /// What was accepted is not kept any more.
    #[error("a job that was accepted by this request is not kept any more")]
    Gone,
    /// Too many jobs wait.
    #[error(transparent)]
    Full(#[from] Full),
    /// The owner has too much already, or what there is can't be counted.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is wrong with a submission.
#[derive(Debug)]
pub struct Wrong {
    /// Its place in the batch, from 0.
    pub index: usize,
    /// The pointer is relative to the submission.
    pub invalid: Invalid,
}

impl From<Wrong> for SubmitError {
    fn from(wrong: Wrong) -> Self {
        Self::Invalid(vec![wrong])
    }
}

impl Dispatcher {
    /// Validates and routes, off the caller's thread if there are many, or long ones.
    pub(super) async fn prepared(&self, submissions: Vec<Box<Submission>>) -> Result<Vec<NewJob>, SubmitError> {
        let bytes: usize = submissions.iter().map(|submission| submission.workload.json.get().len()).sum();
        if !take_long(submissions.len(), bytes) {
            return self.prepare(submissions);
        }
        let dispatcher = self.clone();
        let prepared = tokio::task::spawn_blocking(move || dispatcher.prepare(submissions)).await;
        // It ends early only if the runtime does, or if a workload's validation panics.
        prepared.map_err(|error| StoreError::Refused(error.to_string()))?
    }

    /// Makes durable what there is room for.
    pub(super) async fn accept(&self, jobs: Vec<NewJob>, once: Option<Once>) -> Result<Vec<NewJob>, SubmitError> {
        let with_parents = jobs.iter().enumerate().filter(|(_, job)| !job.after.is_empty());
        let after: Vec<_> = with_parents.map(|(index, job)| (index, job.id, job.after.clone())).collect();
        let store = &self.shared.store;
        let misplaced = |error| match error {
            StoreError::UnknownParent { job, parent } => {
                let child = after.iter().find(|(_, id, _)| *id == job);
                let place = child.and_then(|(_, _, after)| after.iter().position(|after| after.parent == parent));
                let invalid =
                    Invalid::new(format!("/after/{}/job", place.unwrap_or_default()), format!("there is no job {parent}"));
                Wrong { index: child.map_or(0, |(index, ..)| *index), invalid }.into()
            }
            error => error.into(),
        };
        self.check_parents(&jobs).await.map_err(misplaced)?;
        // A request's jobs have one owner.
        let owner = jobs.first().and_then(|job| job.submission.owner);
        let quota = self.shared.quotas.take(owner, Wanted::by(&jobs)).await?;
        let room = match self.shared.room.take(&jobs, |queue| store.depth(queue)) {
            Ok(room) => room,
            Err(full) => {
                quota.came(0).await;
                return Err(full.into());
            }
        };
        let (is_limited, store) = (!room.is_empty() || !quota.is_empty(), Arc::clone(store));
        let accepting = async move {
            let accepted = match once {
                Some(once) => store.accept_once(jobs, once).await,
                None => store.accept(jobs).await,
            };
            if let Err(error) = &accepted {
                quota.failed(error).await;
            }
            drop((room, quota));
            accepted
        };
        // What was found stays taken until the store has answered, also where the client hangs up: the store may take it all the same.
        let accepted = if is_limited { to_the_end(accepting).await.unwrap_or(Err(StoreError::Closed)) } else { accepting.await };
        accepted.map_err(misplaced)
    }

    /// Somebody else's job is none that a job could come after.
    async fn check_parents(&self, jobs: &[NewJob]) -> Result<(), StoreError> {
        let children = jobs.iter().filter(|job| !job.after.is_empty());
        // A request's jobs have one owner.
        let Some(owner) = children.clone().find_map(|job| job.submission.owner) else { return Ok(()) };
        let here: HashSet<JobId> = jobs.iter().map(|job| job.id).collect();
        let edges = children.flat_map(|job| job.after.iter().map(|after| (job.id, after.parent)));
        let edges: Vec<_> = edges.filter(|(_, parent)| !here.contains(parent)).collect();
        let parents: Vec<_> = edges.iter().map(|(_, parent)| *parent).collect();
        let owned = self.shared.store.owned(owner, &parents).await?;
        match edges.into_iter().find(|(_, parent)| !owned.contains(parent)) {
            Some((job, parent)) => Err(StoreError::UnknownParent { job, parent }),
            None => Ok(()),
        }
    }

    /// [`Dispatcher::submit_once`] of one job without a key, then [`Dispatcher::wait`] for it, without a gap in between in which its end could
    /// be missed.
    pub async fn submit_and_wait(&self, submission: Box<Submission>, limit: Duration) -> Result<Job, SubmitError> {
        let jobs = self.prepared(vec![submission]).await?;
        let waiters: Vec<_> = jobs.iter().map(|job| self.shared.waiters.watch(job.id)).collect();
        let accepted = self.accept(jobs, None).await?;
        // One submission makes one job, and a store gives back what it was given.
        let Some(job) = accepted.into_iter().next().map(NewJob::into_job) else { return Err(StoreError::Closed.into()) };
        let (id, light) = (job.id, if_light(job));
        let mut end = None;
        for waiter in waiters {
            end = waiter.ended(limit).await;
        }
        match (end, light) {
            (Some(end), Some(job)) => Ok(end.of(job)),
            // If it is gone already, there is nothing to show of a long one.
            (_, light) => self.shared.store.job(id).await?.or(light).ok_or(SubmitError::Gone),
        }
    }

    /// Runs a finished job again, for this owner.
    pub async fn retry(&self, id: JobId, owner: Option<Owner>) -> Result<Requeue, SubmitError> {
        let quota = self.shared.quotas.take(owner, Wanted { jobs: 1, bytes: 0 }).await?;
        let requeue = self.shared.store.requeue(id).await;
        match &requeue {
            Ok(Requeue::Queued) => {}
            Ok(_) => quota.came(0).await,
            Err(error) => quota.failed(error).await,
        }
        Ok(requeue?)
    }

    /// Validates a workload, and finds out how it is written and which runs are like it. One that calls a function gets the whole
    /// version of it written in.
    ///
    /// # Errors
    /// The first thing that is wrong, pointing into the workload.
    pub fn written(&self, workload: &mut Spec) -> Result<(Written, Option<Likeness>), Invalid> {
        let registry = &self.shared.registry;
        let prepared = if may_have_placeholders(workload.json.get()) {
            // Which other runs it will be like is not known before it has the outputs.
            registry.foresee(workload)?.map(|prepared| Prepared { likeness: None, ..prepared })
        } else {
            Some(registry.prepare(workload)?)
        };
        let (runtime, form, gil, likeness) = match (prepared, registry.get(&workload.kind)) {
            (Some(Prepared { runtime, form, gil, likeness, .. }), _) => (runtime, form, gil, likeness),
            // What it is depends on the outputs of other jobs, so it is taken for what its kind mostly is.
            (None, Some(kind)) => (kind.runtime, kind.form, kind.runtime == Runtime::Python, None),
            (None, None) => return Err(Invalid::new("/type", "there is no such workload")),
        };
        if !is_function(workload) {
            return Ok((Written { runtime, form, gil, needs_a_process: false }, likeness));
        }
        let function = self.shared.functions.catalogue().pin(workload)?;
        let interpreter = registry.environment().python().interpreter(function.interpreter.as_deref());
        let gil = interpreter.map_err(|Invalid { message, .. }| Invalid::new("/name", message))?.gil;
        let likeness = Some(likeness_of_function(&function.name, &function.version));
        let needs_a_process = function.limits.need_a_process();
        Ok((Written { runtime, form: function.form, gil, needs_a_process }, likeness))
    }

    /// Looks for what would be wrong with a submission that is not to be accepted.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self, mut submission: Box<Submission>) -> Result<(), Invalid> {
        self.route(&mut submission).map(drop)
    }

    /// Validates and routes one submission, which is not accepted by that.
    pub fn make(&self, submission: Box<Submission>) -> Result<NewJob, SubmitError> {
        // One submission makes one job.
        self.prepare(vec![submission])?.pop().ok_or_else(|| StoreError::Closed.into())
    }

    /// Refuses a webhook that would be refused when it is to be told.
    fn check_webhook(&self, submission: &Submission) -> Result<(), Invalid> {
        let Some(webhook) = &submission.webhook else { return Ok(()) };
        let url = Url::parse(&webhook.url).map_err(|error| error.to_string());
        let outbound = self.shared.registry.environment().outbound();
        let checked = url.and_then(|url| outbound.check(&url).map_err(|refused| refused.to_string()));
        checked.map_err(|message| Invalid::new("/webhook/url", message))
    }

    /// Validates and routes.
    pub(super) fn prepare(&self, submissions: Vec<Box<Submission>>) -> Result<Vec<NewJob>, SubmitError> {
        if self.shared.draining.is_cancelled() {
            return Err(SubmitError::Draining);
        }
        let accepted_at = self.shared.store.now();
        let ids = self.ids(&submissions, accepted_at);
        // Collected into a result they would be moved each time that there are twice as many.
        let mut jobs = Vec::with_capacity(submissions.len());
        let mut wrong = Vec::new();
        for (index, mut submission) in submissions.into_iter().enumerate() {
            let (route, profile) = match self.route(&mut submission) {
                Ok(chosen) => chosen,
                Err(invalid) => {
                    wrong.push(Wrong { index, invalid });
                    continue;
                }
            };
            let after = std::mem::take(&mut submission.after).into_iter().filter_map(|after| dependency(after, &ids)).collect();
            jobs.push(NewJob { id: ids[index], submission, route, after, accepted_at, due_at: None, profile });
        }
        if wrong.is_empty() { Ok(jobs) } else { Err(SubmitError::Invalid(wrong)) }
    }

    /// Ids for the jobs of a batch, in their order; but those that others come after have theirs before them, so that what goes by ids comes to
    /// parents first.
    fn ids(&self, submissions: &[Box<Submission>], now: Timestamp) -> Vec<JobId> {
        let mut ids = self.shared.ids.some(submissions.len(), now);
        if submissions.iter().all(|submission| submission.after.is_empty()) {
            return ids;
        }
        let siblings = |submission: &Submission| submission.after.iter().filter_map(|after| after.parent.sibling()).collect();
        let parents: Vec<Vec<usize>> = submissions.iter().map(|submission| siblings(submission)).collect();
        // Whoever reads submissions refuses those that come after each other.
        let sorted = parents_first(&parents).unwrap_or_default();
        let made = ids.clone();
        for (at, id) in sorted.into_iter().zip(made) {
            ids[at] = id;
        }
        ids
    }

    /// Validates a submission and chooses its executor, perhaps by the profile that its runs belong to, which is told as well.
    fn route(&self, submission: &mut Submission) -> Result<(Route, Option<ProfileKey>), Invalid> {
        let of_workload = |invalid: Invalid| invalid.within("/workload");
        outputs::check(&submission.workload, &submission.after).map_err(of_workload)?;
        let (written, likeness) = self.written(&mut submission.workload).map_err(of_workload)?;
        labels::require(submission, &*self.shared.store, self.shared.functions.catalogue())?;
        submission.confined = self.shared.quotas.confines(submission.owner);
        self.check_webhook(submission)?;
        let profile = likeness.map(|likeness| likeness.key());
        let digest = profile.as_ref().map(|key| self.shared.profiles.digest(key, written));
        let facts = Facts { bound: submission.bound, choice: submission.executor, isolated: submission.isolated, written };
        let unable = |unable: Unable| Invalid::new(unable.pointer(), unable.to_string());
        let route = choose(facts, submission.routing.unwrap_or(self.shared.routing), digest.as_ref()).map_err(unable)?;
        Ok((route, profile))
    }
}

/// What comes after a job of the same batch, comes after the id that it got.
fn dependency(After { parent, on_failure }: After, ids: &[JobId]) -> Option<Dependency> {
    match parent {
        Parent::Job(parent) => Some(Dependency { parent, name: None, on_failure }),
        Parent::Sibling { index, name } => Some(Dependency { parent: *ids.get(index)?, name: Some(name), on_failure }),
    }
}
