//! Who runs next, and where: from an accepted submission to a recorded result.

mod bloat;
mod catalogue;
mod deliver;
mod functions;
mod keep_profiles;
mod many;
mod once;
mod outputs;
mod place;
mod quarantine;
mod quota;
mod retention;
mod room;
pub mod router;
mod running;
mod schedules;
mod serve_queue;
mod settle;
mod waiters;
mod what_if;

pub use bloat::watch_bloat;
pub use catalogue::Catalogue;
pub use deliver::{Deliverer, DeliverySettings, WriteMessage};
pub use functions::{DeployError, Deployment, Functions};
pub use many::Cancelling;
pub use once::{Receipt, RequestKey, Submitted};
pub use place::interpreter_label;
pub use quarantine::Quarantined;
pub use quota::{NoRoom, OverQuota, QuotaStatus, Quotas, Taken, Wanted};
pub use retention::Retention;
pub use room::{Full, PerQueue};
pub use schedules::{MakeJob, NotMade, RunError, Schedules};
pub use what_if::{Gain, WhatIf};

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use self::once::Turns;
use self::quarantine::Quarantine;
use self::room::Room;
use self::router::{Facts, Unable, choose};
use self::running::Running;
use self::waiters::Waiters;
use crate::clock::Timestamp;
use crate::executor::{Executors, Slots, WorkerStatus};
use crate::function::Function;
use crate::job::{
    After, Dependency, Executor, Job, JobId, NewJob, Owner, Parent, Queue, Role, Routing, Runtime, Spec, State, Submission,
    Written,
};
use crate::measure::memory;
use crate::profile::{Machine, Profiles};
use crate::store::{Cancellation, Depth, EventFilter, Follower, Once, Requeue, Revocation, Store, StoreError};
use crate::workload::{
    Invalid, Likeness, Prepared, Registry, StopReason, is_function, likeness_of_function, may_have_placeholders,
};

/// How long attempts that a shut-down stopped may take to be handed back.
const LAST_WAIT: Duration = Duration::from_secs(10);
/// From so many submissions on, validating them would hold up other requests.
const MANY: usize = 64;

/// Takes submissions, runs them, records their results. Clones are handles to the same one.
#[derive(Clone)]
pub struct Dispatcher {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn Store>,
    registry: Arc<Registry>,
    functions: Arc<Functions>,
    executors: Executors,
    /// By queue.
    slots: [Arc<Slots>; Queue::ALL.len()],
    profiles: Arc<Profiles>,
    routing: Routing,
    role: Role,
    max_losses: u32,
    /// How long it is kept what was answered to a request with a key.
    keys_kept: Duration,
    running: Running,
    waiters: Waiters,
    turns: Turns,
    room: Room,
    quotas: Arc<Quotas>,
    quarantine: Quarantine,
    /// The loops that claim.
    loops: TaskTracker,
    /// The attempts that run.
    attempts: TaskTracker,
    /// Set when nothing new is to be accepted or claimed.
    draining: CancellationToken,
    /// Set when results that can't be written are given up, so that the program can end.
    giving_up: CancellationToken,
}

/// What an operator decides of jobs.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// A job whose runner died this often under it is not run again.
    pub max_losses: u32,
    /// How many jobs may wait in each queue, where there is a limit.
    pub most_waiting: PerQueue<Option<u64>>,
    /// How long it is kept what was answered to a request with a key.
    pub keys_kept: Duration,
    /// What the choice of an executor goes by, where a job does not say.
    pub routing: Routing,
    /// What the server does: where it runs nothing, no jobs are claimed.
    pub role: Role,
}

/// Why a batch of submissions was not accepted. Nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The submission with this index is wrong; the pointer is relative to that submission.
    #[error("submission {index}: {invalid}")]
    Invalid {
        /// Its place in the batch, from 0.
        index: usize,
        /// What is wrong.
        invalid: Invalid,
    },
    /// The server is going down.
    #[error("the server is shutting down")]
    Draining,
    /// Another request came with this key before.
    #[error("the key came before with another request")]
    KeyUsed,
    /// Too many jobs wait.
    #[error(transparent)]
    Full(#[from] Full),
    /// The owner has too much already.
    #[error(transparent)]
    OverQuota(#[from] OverQuota),
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<NoRoom> for SubmitError {
    fn from(error: NoRoom) -> Self {
        match error {
            NoRoom::Over(over) => over.into(),
            NoRoom::Store(error) => error.into(),
        }
    }
}

/// Why the server can't take work.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// It is going down.
    #[error("the server is shutting down")]
    Draining,
    /// The store can't write.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An administrator had it claim nothing more.
    #[error("this node is drained: it claims no more jobs until it is resumed")]
    Drained,
    /// Worker processes die as soon as they start.
    #[error("worker processes die as soon as they start: {0}")]
    Workers(String),
}

/// One queue as it is now.
#[derive(Clone, Debug)]
pub struct QueueStatus {
    /// Which.
    pub queue: Queue,
    /// How many jobs run at once at the most.
    pub slots: usize,
    /// How many wait and run.
    pub depth: Depth,
    /// The processes that serve it.
    pub workers: Vec<WorkerStatus>,
}

impl Dispatcher {
    /// Begins to serve all queues. Must be called on a tokio runtime.
    pub fn start(
        store: Arc<dyn Store>,
        registry: Arc<Registry>,
        functions: Arc<Functions>,
        executors: Executors,
        rules: Rules,
        profiles: Profiles,
        quotas: Arc<Quotas>,
    ) -> Self {
        let shared = Arc::new(Shared {
            store,
            registry,
            functions,
            // Without slots, as those of Python without an interpreter, the loops wait for ever, and so do jobs of an earlier server.
            slots: Queue::ALL.map(|queue| Slots::new(executors.slots(queue), Executors::has_line(queue))),
            executors,
            profiles: Arc::new(profiles),
            routing: rules.routing,
            role: rules.role,
            max_losses: rules.max_losses,
            keys_kept: rules.keys_kept,
            running: Running::default(),
            waiters: Waiters::default(),
            turns: Turns::default(),
            room: Room::new(rules.most_waiting),
            quotas,
            quarantine: Quarantine::default(),
            loops: TaskTracker::new(),
            attempts: TaskTracker::new(),
            draining: CancellationToken::new(),
            giving_up: CancellationToken::new(),
        });
        for queue in Queue::ALL.into_iter().filter(|_| rules.role.works()) {
            for _ in 0..serve_queue::LOOPS {
                shared.loops.spawn(serve_queue::serve_queue(Arc::clone(&shared), queue));
            }
        }
        shared.loops.spawn(tell_of_unasked(Arc::clone(&shared)));
        shared.loops.spawn(follow_functions(Arc::clone(&shared)));
        tokio::spawn(stop_revoked(Arc::clone(&shared)));
        shared.loops.spawn(once::forget(Arc::clone(&shared)));
        shared.loops.spawn(keep_profiles::run(Arc::clone(&shared)));
        Self { shared }
    }

    /// Validates, routes and makes durable: all of them, or none. A job for each, in their order.
    pub async fn submit(&self, submissions: Vec<Box<Submission>>) -> Result<Vec<Job>, SubmitError> {
        let receipt = self.submit_once(submissions, None).await?;
        Ok(receipt.jobs.into_iter().map(|submitted| submitted.job).collect())
    }

    /// Validates and routes, off the caller's thread if there are many.
    async fn prepared(&self, submissions: Vec<Box<Submission>>) -> Result<Vec<NewJob>, SubmitError> {
        if submissions.len() < MANY {
            return self.prepare(submissions);
        }
        let dispatcher = self.clone();
        let prepared = tokio::task::spawn_blocking(move || dispatcher.prepare(submissions)).await;
        // It ends early only if the runtime does, or if a workload's validation panics.
        prepared.map_err(|error| StoreError::Refused(error.to_string()))?
    }

    /// Makes durable what there is room for.
    async fn accept(&self, jobs: Vec<NewJob>, once: Option<Once>) -> Result<Vec<NewJob>, SubmitError> {
        let with_parents = jobs.iter().enumerate().filter(|(_, job)| !job.after.is_empty());
        let after: Vec<_> = with_parents.map(|(index, job)| (index, job.id, job.after.clone())).collect();
        let store = &self.shared.store;
        let misplaced = |error| match error {
            StoreError::UnknownParent { job, parent } => {
                let child = after.iter().find(|(_, id, _)| *id == job);
                let place = child.and_then(|(_, _, after)| after.iter().position(|after| after.parent == parent));
                let invalid =
                    Invalid::new(format!("/after/{}/job", place.unwrap_or_default()), format!("there is no job {parent}"));
                SubmitError::Invalid { index: child.map_or(0, |(index, ..)| *index), invalid }
            }
            error => error.into(),
        };
        self.check_parents(&jobs).await.map_err(misplaced)?;
        // A request's jobs have one owner.
        let owner = jobs.first().and_then(|job| job.submission.owner);
        let _quota = self.shared.quotas.take(owner, Wanted::by(&jobs)).await?;
        let _room = self.shared.room.take(&jobs, |queue| store.depth(queue))?;
        let accepted = match once {
            Some(once) => store.accept_once(jobs, once).await,
            None => store.accept(jobs).await,
        };
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

    /// [`Dispatcher::submit`] of one job, then [`Dispatcher::wait`] for it, without a gap in between in which its end could be missed.
    pub async fn submit_and_wait(&self, submission: Box<Submission>, limit: Duration) -> Result<Job, SubmitError> {
        let jobs = self.prepare(vec![submission])?;
        let waiters: Vec<_> = jobs.iter().map(|job| self.shared.waiters.watch(job.id)).collect();
        let accepted = self.accept(jobs, None).await?;
        let mut end = None;
        for waiter in waiters {
            end = waiter.ended(limit).await;
        }
        // One submission makes one job, and a store gives back what it was given.
        let Some(job) = accepted.into_iter().next().map(NewJob::into_job) else { return Err(StoreError::Closed.into()) };
        match end {
            Some(end) => Ok(end.of(job)),
            None => Ok(self.shared.store.job(job.id).await?.unwrap_or(job)),
        }
    }

    /// Waits until the job has ended, at most `limit`; then the job as it is. `None` if there is no such job.
    pub async fn wait(&self, id: JobId, limit: Duration) -> Result<Option<Job>, StoreError> {
        let waiter = self.shared.waiters.watch(id);
        match self.shared.store.job(id).await? {
            Some(job) if !matches!(job.state, State::Finished(_)) && !limit.is_zero() => match waiter.ended(limit).await {
                Some(end) => Ok(Some(end.of(job))),
                None => self.shared.store.job(id).await,
            },
            job => Ok(job),
        }
    }

    /// Cancels a job; tells its attempt to stop if one runs.
    pub async fn cancel(&self, id: JobId) -> Result<Cancellation, StoreError> {
        let cancellation = self.shared.store.cancel(id).await?;
        match cancellation {
            Cancellation::Cancelled => self.shared.waiters.ended(id, None),
            Cancellation::Stopping(lease) => self.stop(lease).await?,
            Cancellation::Finished(_) | Cancellation::Unknown => {}
        }
        Ok(cancellation)
    }

    /// Runs a finished job again, for this owner.
    pub async fn retry(&self, id: JobId, owner: Option<Owner>) -> Result<Requeue, SubmitError> {
        let _quota = self.shared.quotas.take(owner, Wanted { jobs: 1, bytes: 0 }).await?;
        Ok(self.shared.store.requeue(id).await?)
    }

    /// The queues as they are now, in the order of [`Queue::ALL`].
    pub fn queues(&self) -> Vec<QueueStatus> {
        let Shared { executors, store, .. } = &*self.shared;
        let status = |queue| QueueStatus {
            queue,
            slots: executors.slots(queue),
            depth: store.depth(queue),
            workers: executors.workers(queue),
        };
        Queue::ALL.into_iter().map(status).collect()
    }

    /// What is kept out, because whatever runs it dies under it.
    pub fn quarantined(&self) -> Vec<Quarantined> {
        self.shared.quarantine.list()
    }

    /// How late a timer fired on the event loop of the `async` executor, in microseconds: the latest of the last second.
    pub fn loop_lag_us(&self) -> u64 {
        self.shared.executors.loop_lag_us()
    }

    /// Whether it can take work.
    pub async fn ready(&self) -> Result<(), NotReady> {
        if self.shared.draining.is_cancelled() {
            return Err(NotReady::Draining);
        }
        if self.shared.store.is_draining() {
            return Err(NotReady::Drained);
        }
        self.shared.executors.trouble().map_or(Ok(()), |trouble| Err(NotReady::Workers(trouble)))?;
        // On a server with much to write that may take a while.
        let check = self.shared.draining.run_until_cancelled(self.shared.store.check()).await;
        Ok(check.ok_or(NotReady::Draining)??)
    }

    /// Takes nothing new from here on: submissions are refused, and nothing more is claimed.
    pub fn drain(&self) {
        self.shared.draining.cancel();
        // Who waits for a job to end should hear now where it is, while there still is an API to say so.
        self.shared.waiters.end_all();
    }

    /// Drains; waits at most `grace`, or until it is hurried, for what runs; then stops it and hands it back to the queue.
    pub async fn shut_down(&self, grace: Duration, hurried: &CancellationToken) {
        self.drain();
        self.shared.loops.close();
        self.shared.loops.wait().await;
        self.shared.attempts.close();
        let ended = hurried.run_until_cancelled(tokio::time::timeout(grace, self.shared.attempts.wait())).await;
        if !matches!(ended, Some(Ok(()))) {
            tracing::info!(attempts = self.shared.running.count(), "the grace period is over; what still runs is handed back");
            self.shared.running.stop_all(StopReason::HandBack);
            if tokio::time::timeout(LAST_WAIT, self.shared.attempts.wait()).await.is_err() {
                tracing::error!(attempts = self.shared.running.count(), "what still runs is left; it will run again");
            }
        }
        self.shared.giving_up.cancel();
        keep_profiles::keep(&self.shared).await;
        self.shared.executors.close();
    }

    /// Follows what happens to jobs, behind the event with the id `after`; without it, from now on.
    pub fn follow(&self, filter: EventFilter, after: Option<Timestamp>) -> Follower {
        Follower::new(Arc::clone(&self.shared.store), filter, after)
    }

    /// Resolves when nothing new is taken any more.
    pub fn drained(&self) -> impl Future<Output = ()> + Send + 'static {
        self.shared.draining.clone().cancelled_owned()
    }

    /// Whether work may be begun here: it is what the server is there for, and nobody had it stop.
    pub fn begins_work(&self) -> bool {
        self.shared.role.works() && !self.is_draining() && !self.shared.store.is_draining()
    }

    /// What the server does.
    pub fn role(&self) -> Role {
        self.shared.role
    }

    /// Whether nothing new is taken any more.
    pub fn is_draining(&self) -> bool {
        self.shared.draining.is_cancelled()
    }

    /// What can be read of the store.
    pub fn store(&self) -> &dyn Store {
        &*self.shared.store
    }

    /// What can be run.
    pub fn registry(&self) -> &Registry {
        &self.shared.registry
    }

    /// What runs the jobs.
    pub fn executors(&self) -> &Executors {
        &self.shared.executors
    }

    /// The registered functions.
    pub fn functions(&self) -> &Functions {
        &self.shared.functions
    }

    /// Checks and keeps a version of a function, which becomes the latest of its name. The same again is no new version.
    pub async fn deploy(&self, deployment: Deployment) -> Result<Arc<Function>, DeployError> {
        let rules = self.shared.registry.environment().python();
        let interpreter = rules.interpreter(deployment.interpreter.as_deref());
        let interpreter = interpreter.map_err(|Invalid { message, .. }| DeployError::Interpreter(message))?;
        let candidate = Functions::look_at(deployment).await?;
        let looking = self.shared.executors.check_python(&interpreter.name, &candidate.source, candidate.entrypoint());
        match looking.await.map_err(DeployError::Unchecked)? {
            Some(fault) => Err(DeployError::Source(fault)),
            None => self.shared.functions.keep(candidate).await,
        }
    }

    /// How much each key may have the server do.
    pub fn quotas(&self) -> &Arc<Quotas> {
        &self.shared.quotas
    }

    /// What was learned of workloads.
    pub fn profiles(&self) -> &Profiles {
        &self.shared.profiles
    }

    /// What the choice of an executor goes by, where a job does not say.
    pub fn routing(&self) -> Routing {
        self.shared.routing
    }

    /// What there is for all jobs to share.
    pub fn machine(&self) -> Machine {
        let slots = Queue::ALL.map(|queue| self.shared.executors.slots(queue));
        Machine { memory_bytes: memory::machine_bytes(), slots }
    }

    /// What measured routing would have changed in the days from this one to that one.
    pub async fn what_if(&self, first_day: i64, last_day: i64) -> Result<Vec<WhatIf>, StoreError> {
        let days = self.shared.store.profile_days(first_day, last_day).await?;
        Ok(what_if::what_if(&days, &self.shared.profiles))
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
    fn prepare(&self, submissions: Vec<Box<Submission>>) -> Result<Vec<NewJob>, SubmitError> {
        if self.shared.draining.is_cancelled() {
            return Err(SubmitError::Draining);
        }
        let accepted_at = Timestamp::now();
        let ids: Vec<JobId> = submissions.iter().map(|_| JobId::new()).collect();
        let prepare = |(index, mut submission): (usize, Box<Submission>)| {
            let invalid = |invalid: Invalid| SubmitError::Invalid { index, invalid: invalid.within("/workload") };
            outputs::check(&submission.workload, &submission.after).map_err(invalid)?;
            let (written, likeness) = self.written(&mut submission.workload).map_err(invalid)?;
            let wrong_place = |invalid| SubmitError::Invalid { index, invalid };
            place::settle(&mut submission, &*self.shared.store, self.shared.functions.catalogue()).map_err(wrong_place)?;
            submission.confined = self.shared.quotas.confines(submission.owner);
            self.check_webhook(&submission).map_err(|invalid| SubmitError::Invalid { index, invalid })?;
            let profile = likeness.map(|likeness| likeness.key());
            let digest = profile.as_ref().map(|key| self.shared.profiles.digest(key, written));
            let Written { runtime, form, gil, needs_a_process } = written;
            let facts =
                Facts { bound: submission.bound, choice: submission.executor, isolated: submission.isolated, runtime, form, gil };
            // What its limits need a process for is not moved.
            let routing = submission.routing.unwrap_or(self.shared.routing);
            let routing = if needs_a_process { Routing::Declared } else { routing };
            let unable =
                |unable: Unable| SubmitError::Invalid { index, invalid: Invalid::new(unable.pointer(), unable.to_string()) };
            let route = choose(facts, routing, digest.as_ref()).map_err(unable)?;
            if needs_a_process && route.executor != Executor::Processes {
                let message = format!("{} can't keep a call of this function within its limits", route.executor);
                return Err(SubmitError::Invalid { index, invalid: Invalid::new("/executor", message) });
            }
            let after = std::mem::take(&mut submission.after).into_iter().filter_map(|after| dependency(after, &ids)).collect();
            Ok(NewJob { id: ids[index], submission, route, after, accepted_at, profile })
        };
        submissions.into_iter().enumerate().map(prepare).collect()
    }
}

/// Takes over what other servers change of the functions.
async fn follow_functions(shared: Arc<Shared>) {
    shared.draining.run_until_cancelled(shared.functions.follow()).await;
}

/// Tells those who wait for jobs of the ends that the store brought about by itself.
async fn tell_of_unasked(shared: Arc<Shared>) {
    let listening = async {
        loop {
            shared.store.ended_unasked().await.into_iter().for_each(|id| shared.waiters.ended(id, None));
        }
    };
    shared.draining.run_until_cancelled(listening).await;
}

/// Stops attempts that this node was not asked to stop, as long as any may run. What they still say is refused if the lease has ended.
async fn stop_revoked(shared: Arc<Shared>) {
    let listening = async {
        loop {
            for (lease, why) in shared.store.revoked().await {
                let reason = match why {
                    Revocation::Cancelled => StopReason::Cancelled,
                    Revocation::Lost => StopReason::HandBack,
                };
                shared.running.stop(lease, reason);
            }
        }
    };
    shared.giving_up.run_until_cancelled(listening).await;
}

/// What comes after a job of the same batch, comes after the id that it got.
fn dependency(After { parent, on_failure }: After, ids: &[JobId]) -> Option<Dependency> {
    match parent {
        Parent::Job(parent) => Some(Dependency { parent, name: None, on_failure }),
        Parent::Sibling { index, name } => Some(Dependency { parent: *ids.get(index)?, name: Some(name), on_failure }),
    }
}
