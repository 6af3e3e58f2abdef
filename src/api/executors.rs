//! `/executors`: what runs jobs, what it can do and how busy it is.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::json::Json;
use super::{ApiState, example};
use crate::clock::Timestamp;
use crate::dispatch::{Quarantined, QueueStatus};
use crate::executor::{Capabilities, WorkerStatus, capabilities};
use crate::job::Executor;
use crate::sandbox;

/// What runs jobs.
#[derive(Serialize, ToSchema)]
#[schema(as = Executors)]
pub(super) struct ExecutorsView {
    /// The executors.
    items: Vec<ExecutorView>,
    /// Null: all are on one page.
    #[schema(required)]
    next_cursor: Option<String>,
    /// Work that is kept out for a while, because whatever runs it dies under it. Its jobs wait.
    quarantined: Vec<QuarantinedView>,
    #[serde(flatten)]
    programs: ProgramsView,
}

/// Work that is kept out.
#[derive(Serialize, ToSchema)]
#[schema(as = Quarantined)]
pub(super) struct QuarantinedView {
    /// The key of its profile.
    key: String,
    /// How many processes have died under it in a row.
    deaths: u32,
    /// When one attempt is let in, to see.
    #[schema(value_type = String, format = DateTime)]
    until: Timestamp,
}

impl From<Quarantined> for QuarantinedView {
    fn from(Quarantined { key, deaths, until }: Quarantined) -> Self {
        Self { key: key.into(), deaths, until }
    }
}

/// What users' own programs can use.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Programs)]
pub struct ProgramsView {
    /// How users' programs are kept from the rest of the machine, on whichever executor they run.
    pub sandbox: SandboxView,
    /// Python on this server.
    pub python: PythonView,
}

/// Python on this server.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Python)]
pub struct PythonView {
    /// The interpreters; the first is used where a job names none.
    pub interpreters: Vec<InterpreterView>,
    /// Whether a job may ask for the network.
    pub network: bool,
    /// Whether functions may come by pickle.
    pub pickles: bool,
}

/// An interpreter.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Interpreter)]
pub struct InterpreterView {
    /// By what jobs name it.
    pub name: String,
    /// Such as 3.13.0.
    pub version: String,
    /// Such as `cpython`.
    pub implementation: String,
    /// Whether it has a global lock, which lets one of its threads compute at a time.
    pub gil: bool,
    /// The version of the package `cloudpickle` that it has, without which no function comes by value in a pickle; null if it has none.
    #[schema(required)]
    pub cloudpickle: Option<String>,
}

/// How users' programs are confined.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Sandbox)]
pub struct SandboxView {
    /// What the operator wants.
    pub mode: sandbox::Mode,
    /// What the kernel gives.
    pub kernel: sandbox::Report,
}

/// One executor.
#[derive(Serialize, ToSchema)]
#[schema(as = ExecutorStatus)]
pub(super) struct ExecutorView {
    /// Which.
    name: Executor,
    /// What it can do with a job.
    capabilities: Capabilities,
    /// The queues that it serves.
    queues: Vec<QueueView>,
    /// How late a timer fires on its event loop, or is by now, in microseconds: the latest of the last second. That of native work:
    /// Python has others. Null without an event loop.
    #[schema(required)]
    loop_lag_us: Option<u64>,
}

/// One queue.
#[derive(Serialize, ToSchema)]
#[schema(as = QueueStatus)]
struct QueueView {
    /// Its name.
    name: &'static str,
    /// How many of its jobs run at once at the most.
    slots: usize,
    /// How many wait for a slot.
    queued: u64,
    /// How many wait for their time.
    scheduled: u64,
    /// How many wait for other jobs.
    blocked: u64,
    /// How many run.
    running: u64,
    /// The processes that serve it, where there are any.
    workers: Vec<WorkerStatus>,
}

impl From<&QueueStatus> for QueueView {
    fn from(QueueStatus { queue, slots, depth, workers }: &QueueStatus) -> Self {
        Self {
            name: queue.as_str(),
            slots: *slots,
            queued: depth.queued,
            scheduled: depth.scheduled,
            blocked: depth.blocked,
            running: depth.running,
            workers: workers.clone(),
        }
    }
}

impl ExecutorsView {
    /// Every executor, with what is known of it now.
    pub(super) fn new(queues: &[QueueStatus], loop_lag_us: u64, quarantined: Vec<Quarantined>, programs: ProgramsView) -> Self {
        let items = Executor::ALL.map(|executor| ExecutorView {
            name: executor,
            capabilities: capabilities(executor),
            queues: queues.iter().filter(|status| status.queue.executor() == executor).map(QueueView::from).collect(),
            loop_lag_us: (executor == Executor::Async).then_some(loop_lag_us),
        });
        let quarantined = quarantined.into_iter().map(Into::into).collect();
        Self { items: items.into(), next_cursor: None, quarantined, programs }
    }
}

/// List executors
///
/// What each can do with a job, how many jobs wait for it and run on it, how late its event loop is, and its worker processes;
/// which work is kept out since it takes them down; and how users' programs are confined.
#[utoipa::path(
    get, path = "/executors", tag = "service", operation_id = "listExecutors",
    responses((status = 200, description = "All three executors", body = ExecutorsView, example = example::executors)),
)]
pub(super) async fn list(State(api): State<ApiState>) -> Json<ExecutorsView> {
    let dispatcher = &api.dispatcher;
    Json(ExecutorsView::new(
        &dispatcher.queues(),
        dispatcher.loop_lag_us(),
        dispatcher.quarantined(),
        ProgramsView::clone(&api.programs),
    ))
}
