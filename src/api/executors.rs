//! `/executors`: what runs jobs, what it can do and how busy it is.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::list::List;
use super::{ApiState, example};
use crate::dispatch::QueueStatus;
use crate::executor::processes::WorkerStatus;
use crate::executor::{Capabilities, capabilities};
use crate::job::Executor;

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

impl ExecutorView {
    /// Every executor, with what is known of it now.
    pub(super) fn all(queues: &[QueueStatus], loop_lag_us: u64, workers: &[WorkerStatus]) -> List<Self> {
        List::whole(Executor::ALL.map(|executor| Self {
            name: executor,
            capabilities: capabilities(executor),
            queues: queues.iter().filter(|status| status.queue.executor() == executor).map(QueueView::from).collect(),
            loop_lag_us: (executor == Executor::Async).then_some(loop_lag_us),
            workers: (executor == Executor::Processes).then(|| workers.to_vec()),
        }))
    }
}

/// List executors
///
/// What each can do with a job, how many jobs wait for it and run on it, how late its event loop is, and its worker processes.
#[utoipa::path(
    get, path = "/executors", tag = "service", operation_id = "listExecutors",
    responses((status = 200, description = "All three executors", body = List<ExecutorView>, example = example::executors)),
)]
pub(super) async fn list(State(api): State<ApiState>) -> Json<List<ExecutorView>> {
    let dispatcher = &api.dispatcher;
    Json(ExecutorView::all(&dispatcher.queues(), dispatcher.loop_lag_us(), &dispatcher.workers()))
}
