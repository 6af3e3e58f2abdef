//! `/executors`: what runs jobs, what it can do and how busy it is.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::list::Cursor;
use super::{ApiState, example};
use crate::dispatch::QueueStatus;
use crate::executor::processes::WorkerStatus;
use crate::executor::{Capabilities, capabilities};
use crate::job::Executor;
use crate::sandbox;

/// What runs jobs.
#[derive(Serialize, ToSchema)]
#[schema(as = Executors)]
pub(super) struct ExecutorsView {
    /// The executors.
    items: Vec<ExecutorView>,
    /// Null: all are on one page.
    #[schema(required, value_type = Option<String>)]
    next_cursor: Option<Cursor>,
    /// How users' programs are kept from the rest of the machine, on whichever executor they run.
    sandbox: SandboxView,
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
    /// How late a timer fires on its event loop, in microseconds: the latest of the last second. Null without an event loop.
    #[schema(required)]
    loop_lag_us: Option<u64>,
    /// Its worker processes. Null without them.
    #[schema(required)]
    workers: Option<Vec<WorkerStatus>>,
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
    /// How many run.
    running: u64,
}

impl From<&QueueStatus> for QueueView {
    fn from(QueueStatus { queue, slots, depth }: &QueueStatus) -> Self {
        Self { name: queue.as_str(), slots: *slots, queued: depth.queued, scheduled: depth.scheduled, running: depth.running }
    }
}

impl ExecutorsView {
    /// Every executor, with what is known of it now.
    pub(super) fn new(queues: &[QueueStatus], loop_lag_us: u64, workers: &[WorkerStatus], sandbox: SandboxView) -> Self {
        let items = Executor::ALL.map(|executor| ExecutorView {
            name: executor,
            capabilities: capabilities(executor),
            queues: queues.iter().filter(|status| status.queue.executor() == executor).map(QueueView::from).collect(),
            loop_lag_us: (executor == Executor::Async).then_some(loop_lag_us),
            workers: (executor == Executor::Processes).then(|| workers.to_vec()),
        });
        Self { items: items.into(), next_cursor: None, sandbox }
    }
}

/// List executors
///
/// What each can do with a job, how many jobs wait for it and run on it, how late its event loop is, and its worker processes;
/// and how users' programs are confined.
#[utoipa::path(
    get, path = "/executors", tag = "service", operation_id = "listExecutors",
    responses((status = 200, description = "All three executors", body = ExecutorsView, example = example::executors)),
)]
pub(super) async fn list(State(api): State<ApiState>) -> Json<ExecutorsView> {
    let dispatcher = &api.dispatcher;
    let sandbox = SandboxView::clone(&api.sandbox);
    Json(ExecutorsView::new(&dispatcher.queues(), dispatcher.loop_lag_us(), &dispatcher.workers(), sandbox))
}
