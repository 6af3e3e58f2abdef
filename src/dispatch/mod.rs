//! Who runs next, and where: from an accepted submission to a recorded result.

mod attempts;
mod bloat;
mod catalogue;
mod counts;
mod deliver;
mod ended;
mod functions;
mod keep_profiles;
mod labels;
mod listen;
mod many;
mod once;
mod outputs;
mod patience;
mod postponed;
mod quarantine;
mod quota;
mod retention;
mod room;
pub mod router;
mod running;
mod schedules;
mod serve_queue;
mod settle;
mod status;
mod submit;
mod sweep;
mod to_the_end;
mod waiters;
mod what_if;

pub use bloat::watch_bloat;
pub use catalogue::Catalogue;
pub use deliver::{Deliverer, DeliverySettings, WriteMessage};
pub use ended::Ends;
pub use functions::{DeployError, Deployment, Functions};
pub use labels::{has_runtime, interpreter_label, named_interpreter};
pub use many::{Cancelling, Retrying};
pub use once::{Receipt, RequestKey, Submitted};
pub use quarantine::Quarantined;
pub use quota::{NoRoom, OverQuota, QuotaStatus, Quotas, Taken, Wanted};
pub use retention::Retention;
pub use room::{Full, PerQueue};
pub use schedules::{MakeJob, NotMade, RunError, Schedules};
pub use status::{NotReady, QueueStatus};
pub use submit::{SubmitError, Wrong, take_long};
pub use sweep::sweep_artifacts;
pub use to_the_end::to_the_end;
pub use what_if::{Gain, WhatIf};

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::ended::Ended;
use self::once::Turns;
use self::postponed::Postponed;
use self::quarantine::Quarantine;
use self::room::Room;
use self::running::Running;
use self::waiters::Waiters;
use crate::clock::Timestamp;
use crate::executor::{Executors, Slots};
use crate::function::Function;
use crate::job::{Job, JobId, JobIds, Queue, Role, Routing};
use crate::measure::memory;
use crate::profile::{Machine, Profiles};
use crate::store::{Cancellation, EventFilter, Follower, StateFilter, Store, StoreError, Weight as _};
use crate::telemetry::Sparing;
use crate::workload::{Invalid, Registry, StopReason};

/// How long attempts that a shut-down stopped may take to be handed back.
const LAST_WAIT: Duration = Duration::from_secs(10);
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
    ended: Ended,
    routing: Routing,
    role: Role,
    max_losses: u32,
    /// How long it is kept what was answered to a request with a key.
    keys_kept: Duration,
    ids: JobIds,
    running: Running,
    waiters: Waiters,
    turns: Turns,
    room: Room,
    quotas: Arc<Quotas>,
    quarantine: Quarantine,
    postponed: Postponed,
    /// Where this was started, not an executor's.
    home: Handle,
    /// Of the workloads that outputs are put into.
    putting_in: Arc<Semaphore>,
    /// A result could not be recorded.
    unrecorded: Sparing,
    /// The profiles could not be written.
    unkept_profiles: Sparing,
    /// The loops that claim.
    loops: TaskTracker,
    /// The attempts that run.
    attempts: TaskTracker,
    /// Set when the server is to go, before it drains.
    leaving: CancellationToken,
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

/// The job, if it is small enough to be held for as long as somebody waits for it: of others there could be thousands.
fn if_light(job: Job) -> Option<Job> {
    /// In bytes.
    const LIGHT: usize = 16 << 10;
    (job.weight() <= LIGHT).then_some(job)
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
            waiters: Waiters::new(store.somebody_waits()),
            store,
            registry,
            functions,
            // Without slots, as those of Python without an interpreter, the loops wait for ever, and so do jobs of an earlier server.
            slots: Queue::ALL.map(|queue| Slots::new(executors.slots(queue), executors.line(queue))),
            executors,
            profiles: Arc::new(profiles),
            ended: Ended::default(),
            routing: rules.routing,
            role: rules.role,
            max_losses: rules.max_losses,
            keys_kept: rules.keys_kept,
            ids: JobIds::default(),
            running: Running::default(),
            turns: Turns::default(),
            room: Room::new(rules.most_waiting),
            quotas,
            quarantine: Quarantine::default(),
            postponed: Postponed::default(),
            home: Handle::current(),
            putting_in: Arc::new(Semaphore::new(outputs::AT_ONCE)),
            unrecorded: Sparing::default(),
            unkept_profiles: Sparing::default(),
            loops: TaskTracker::new(),
            attempts: TaskTracker::new(),
            leaving: CancellationToken::new(),
            draining: CancellationToken::new(),
            giving_up: CancellationToken::new(),
        });
        for queue in Queue::ALL.into_iter().filter(|_| rules.role.works()) {
            for _ in 0..serve_queue::LOOPS {
                let serving = serve_queue::serve_queue(Arc::clone(&shared), queue);
                shared.loops.spawn_on(serving, shared.executors.serving(queue));
            }
        }
        shared.loops.spawn(listen::tell_of_unasked(Arc::clone(&shared)));
        shared.loops.spawn(listen::follow_functions(Arc::clone(&shared)));
        tokio::spawn(listen::stop_revoked(Arc::clone(&shared)));
        tokio::spawn(listen::tell_of_leaving(Arc::clone(&shared)));
        shared.loops.spawn(once::forget(Arc::clone(&shared)));
        shared.loops.spawn(keep_profiles::run(Arc::clone(&shared)));
        Self { shared }
    }

    /// Waits until the job has ended, at most `limit`; then the job as it is. `None` if there is no such job.
    pub async fn wait(&self, id: JobId, limit: Duration) -> Result<Option<Job>, StoreError> {
        let waiter = self.shared.waiters.watch(id);
        // All who waited were told when it began to drain. Nobody would tell whoever comes later.
        let limit = if self.is_draining() { Duration::ZERO } else { limit };
        match self.shared.store.job(id).await? {
            Some(job) if job.state.finished().is_none() && !limit.is_zero() => {
                let light = if_light(job);
                match (waiter.ended(limit).await, light) {
                    (Some(end), Some(job)) => Ok(Some(end.of(job))),
                    _ => self.shared.store.job(id).await,
                }
            }
            job => Ok(job),
        }
    }

    /// Cancels a job; tells its attempt to stop if one runs.
    pub async fn cancel(&self, id: JobId, only: &[StateFilter]) -> Result<Cancellation, StoreError> {
        let cancellation = self.shared.store.cancel(id, only).await?;
        match cancellation {
            Cancellation::Cancelled => {
                self.shared.quotas.freed();
                self.shared.waiters.ended(id, None);
            }
            Cancellation::Stopping(lease) => self.stop(lease).await,
            Cancellation::Finished(_) | Cancellation::Elsewhere | Cancellation::Unknown => {}
        }
        Ok(cancellation)
    }

    /// Is not ready from here on, so that clients turn elsewhere; else all goes on until it drains.
    pub fn leave(&self) {
        self.shared.leaving.cancel();
    }

    /// Takes nothing new from here on: submissions are refused, and nothing more is claimed.
    pub fn drain(&self) {
        self.leave();
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
                let left = self.shared.running.leases();
                tracing::error!(attempts = left.len(), "what still runs is left; it is taken for lost");
                self.shared.store.leave_behind(left);
            }
        }
        self.shared.giving_up.cancel();
        keep_profiles::keep(&self.shared).await;
        self.shared.executors.close();
    }

    /// After that: closes the store, and waits until what users' code has left is gone.
    pub async fn end(&self) {
        self.shared.store.close().await;
        self.shared.executors.end().await;
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

    /// What this server has run to its end since it was started.
    pub fn ended(&self) -> Ends {
        self.shared.ended.all()
    }

    /// How many attempts that this server has run since it was started were followed by another, by executor.
    pub fn retried(&self) -> [(&'static str, u64); 3] {
        self.shared.ended.retried()
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
}
