//! One suite for every driver of the store trait, and what is special to each.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on fails")]

mod backlog;
mod claims;
mod comparisons;
mod copies;
mod drain;
mod events;
mod failover;
mod faults;
mod functions;
mod graph;
mod keys;
mod labels;
mod life;
mod limits;
mod lists;
mod long;
mod migrations;
mod model;
mod nodes;
mod oldest;
mod once;
mod opening;
mod owners;
mod partitions;
#[path = "../patience/mod.rs"]
mod patience;
mod plans;
mod pooler;
#[path = "../port/mod.rs"]
mod port;
mod postgres;
mod profiles;
mod proxy;
mod quotas;
mod rates;
mod restart;
mod retention;
mod schedules;
mod scheduling;
#[path = "../postgres/mod.rs"]
mod server;
mod settling;
mod sqlite;
mod summary;
mod synced;
mod versions;
mod webhooks;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde_json::json;
use serde_json::value::to_raw_value;
use trine::clock::{Clock, Timestamp};
use trine::dispatch::router::{Facts, route};
use trine::job::{
    Bound, Choice, Conclusion, Ending, Executor, Failure, FailureKind, Form, JobId, NewJob, Outcome, Queue, Retry, Runtime, Spec,
    Submission, Timing, Written,
};
use trine::store::{Claimed, Lease, Settled, Settlement, Store, StoreError, Urgency};

pub(crate) use crate::patience::{PATIENCE, until};

/// A place where a driver keeps its data; it can be opened again and again.
pub(crate) trait Place: Send {
    /// How many cases made up at random there is time for in a test, of some dozen steps each.
    const CASES: u64;

    fn open(&self) -> impl Future<Output = Arc<dyn Store>> + Send;

    /// Another one that is empty.
    fn another(&self) -> Self;

    /// The same where nothing has to reach a disk, for tests of very many steps.
    fn light(self) -> Self;

    /// What the driver takes for the time.
    fn clock(&self) -> &TestClock;
}

/// The machine's clock until it is stopped; from then on, a test says what time it is.
#[derive(Debug, Default)]
pub(crate) struct TestClock(AtomicI64);

impl TestClock {
    pub(crate) fn stop(&self) {
        self.0.store(Timestamp::now().as_micros(), Ordering::SeqCst);
    }

    /// Lets time pass on a clock that is stopped.
    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_micros().try_into().unwrap(), Ordering::SeqCst);
    }

    /// Sets a clock back that is stopped.
    pub(crate) fn set_back(&self, by: Duration) {
        self.0.fetch_sub(by.as_micros().try_into().unwrap(), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        match self.0.load(Ordering::SeqCst) {
            0 => Timestamp::now(),
            stopped => Timestamp::from_micros(stopped),
        }
    }
}

/// Makes a test of each function for each driver.
#[macro_export]
macro_rules! for_every_driver {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::sqlite::Folder::new()).await;
            })*
        }

        $crate::on_postgres!($($name),*);
    };
}

/// The same for a PostgreSQL that is reached directly, and through a pooler that keeps no sessions.
#[macro_export]
macro_rules! on_postgres {
    ($($name:ident),* $(,)?) => {
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::postgres::Schema::new()).await;
            })*
        }

        mod pooled {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::postgres::Schema::pooled()).await;
            })*
        }
    };
}

/// The same for a PostgreSQL whose tables are in partitions.
#[macro_export]
macro_rules! in_partitions {
    ($($name:ident),* $(,)?) => {
        mod partitioned {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::postgres::Schema::divided()).await;
            })*
        }
    };
}

/// For each driver, and in partitions as well: what most of the store's statements are for.
#[macro_export]
macro_rules! for_every_form {
    ($($name:ident),* $(,)?) => {
        $crate::for_every_driver!($($name),*);
        $crate::in_partitions!($($name),*);
    };
}

pub(crate) fn new_job(bound: Bound) -> NewJob {
    let form = if bound == Bound::Io { Form::Async } else { Form::Blocking };
    let written = Written { runtime: Runtime::Native, form, gil: false, needs_a_process: false };
    NewJob {
        id: JobId::new(),
        submission: Box::new(Submission::new(
            bound,
            Spec { kind: "sleep".into(), json: to_raw_value(&json!({"type": "sleep", "ms": 5})).unwrap() },
        )),
        route: route(Facts { bound, choice: Choice::Auto, isolated: false, written }).unwrap(),
        after: Vec::new(),
        accepted_at: Timestamp::now(),
        due_at: None,
        profile: None,
    }
}

/// The rule of a job that must not run a second time after what ran it died.
pub(crate) fn not_after_a_loss() -> Arc<Retry> {
    Arc::new(Retry { on: vec![FailureKind::Error].into(), ..Retry::DEFAULT })
}

/// A job for `async`.
pub(crate) fn io_job() -> NewJob {
    new_job(Bound::Io)
}

/// The same for worker processes, whose queue has its next jobs ready in memory.
pub(crate) fn apart(mut job: NewJob) -> NewJob {
    job.route.executor = Executor::Processes;
    job.route.queue = Queue::Processes;
    job
}

pub(crate) fn with_priority(priority: i16) -> NewJob {
    let mut job = io_job();
    job.submission.priority = priority;
    job
}

pub(crate) async fn accept(store: &Arc<dyn Store>, jobs: &[NewJob]) -> Vec<NewJob> {
    store.accept(jobs.to_vec()).await.unwrap()
}

/// Claims jobs of which one at least is known to be there, or to come.
pub(crate) async fn claim<S: Store + ?Sized>(store: &Arc<S>, queue: Queue, most: usize) -> Vec<Claimed> {
    tokio::time::timeout(PATIENCE, store.claim(queue, most)).await.expect("a job to claim").unwrap()
}

/// The same of one for `async`.
pub(crate) async fn claim_one<S: Store + ?Sized>(store: &Arc<S>) -> Claimed {
    claim(store, Queue::Async, 1).await.remove(0)
}

/// Settles as the dispatcher does.
pub(crate) async fn settle<S: Store + ?Sized>(
    store: &Arc<S>,
    lease: Lease,
    settlement: Settlement,
) -> Result<Settled, StoreError> {
    store.settle(lease, Arc::new(settlement), Urgency::Awaited).await
}

/// Has one job for `async` succeed that is known to be there, or to come.
pub(crate) async fn end_one<S: Store + ?Sized>(store: &Arc<S>) -> Lease {
    let lease = claim_one(store).await.lease;
    assert!(matches!(settle(store, lease, succeeded()).await.unwrap(), Settled::Ended { .. }));
    lease
}

pub(crate) fn timing(wall_us: u64) -> Timing {
    Timing { queue_us: 7, dispatch_us: 3, wall_us, cpu_user_us: Some(2), cpu_system_us: Some(1), ..Timing::default() }
}

pub(crate) fn succeeded() -> Settlement {
    gave(&json!({"slept_ms": 5}))
}

/// The same with this output.
pub(crate) fn gave(output: &serde_json::Value) -> Settlement {
    finished(Ending::Succeeded, Outcome::Output(to_raw_value(output).unwrap()))
}

pub(crate) fn failed(message: &str) -> Settlement {
    finished(Ending::Failed, Outcome::Error(Failure::error(message)))
}

fn finished(ending: Ending, outcome: Outcome) -> Settlement {
    Settlement::Finish(Conclusion { ending, outcome, timing: Some(timing(5_000)) })
}

/// Accepts jobs, claims them and records a result for each.
pub(crate) async fn finish_all(store: &Arc<dyn Store>, jobs: &[NewJob]) {
    accept(store, jobs).await;
    let mut left = jobs.len();
    while left > 0 {
        for claimed in store.claim(Queue::Async, left).await.unwrap() {
            settle(store, claimed.lease, succeeded()).await.unwrap();
            left -= 1;
        }
    }
}

pub(crate) async fn state(store: &Arc<dyn Store>, id: JobId) -> &'static str {
    store.job(id).await.unwrap().map_or("unknown", |job| job.state.as_str())
}
