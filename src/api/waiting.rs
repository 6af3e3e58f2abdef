//! Why a job does not run yet.

use serde::Serialize;
use utoipa::ToSchema;

use super::ApiState;
use super::problem::Problem;
use crate::clock::Timestamp;
use crate::dispatch::{Quarantined, has_runtime};
use crate::job::{Concurrency, Job, Labels, Rate, State};
use crate::store::Gate;

/// What a job waits for.
#[derive(Serialize, ToSchema)]
#[serde(tag = "reason", rename_all = "snake_case")]
#[schema(as = Waiting)]
pub(super) enum WaitingView {
    /// Its time.
    Time {
        /// When that is.
        #[schema(value_type = String, format = DateTime)]
        until: Timestamp,
    },
    /// Whatever runs work like it has died under it again and again, so such work is kept out for a while.
    Quarantine {
        /// How many processes have died under it in a row.
        deaths: u32,
        /// When it is tried again.
        #[schema(value_type = String, format = DateTime)]
        until: Timestamp,
    },
    /// Other jobs to end: `graph` says which.
    Jobs,
    /// A node that may run it to be resumed, or to come: those that there are have been drained, or are about to end.
    Drained,
    /// A node that runs jobs and has the labels that it requires, and for Python an interpreter: there is none now.
    Node {
        /// The labels.
        requires: Required,
    },
    /// A slot of its executor, behind those whose turn it is before.
    Slot,
    /// That a job with the same key ends.
    Concurrency {
        /// The key.
        key: String,
        /// How many may run at once.
        limit: u32,
        /// How many run.
        running: u64,
    },
    /// That another job of the same owner ends, whose quota does not let more of them run.
    Quota {
        /// How many of its jobs run.
        running: u64,
    },
    /// That another job with the same key may start.
    Rate {
        /// The key.
        key: String,
        /// How many may start within a period.
        limit: u32,
        /// The period, in milliseconds.
        per_ms: u64,
        /// When the next one may start.
        #[schema(value_type = String, format = DateTime)]
        until: Timestamp,
    },
}

// Of a map within one of several variants, generators of clients would make a type whose name they make up, more than once.
/// Labels that a node must have, as values by name.
#[derive(Serialize, ToSchema)]
#[serde(transparent)]
#[schema(as = RequiredLabels, value_type = std::collections::BTreeMap<String, String>)]
pub(super) struct Required(Labels);

impl WaitingView {
    /// `None` if the job does not wait.
    pub(super) async fn of(api: &ApiState, job: &Job) -> Result<Option<Self>, Problem> {
        let store = api.dispatcher.store();
        let requires = job.submission.requires.as_deref();
        let runtime = job.route.queue.runtime();
        // Without labels any node will do that has an interpreter for Python, and as long as this one is such and claims jobs, there is one.
        let is_for_this = requires.is_none() && api.dispatcher.begins_work() && has_runtime(store.labels(), runtime);
        if !is_for_this && matches!(job.state, State::Queued | State::Scheduled { .. }) {
            let requires = requires.cloned().unwrap_or_default();
            let mut nodes = store.nodes().await?;
            nodes.retain(|node| node.may_run(&requires) && has_runtime(&node.labels, runtime));
            if nodes.is_empty() {
                return Ok(Some(Self::Node { requires: Required(requires) }));
            }
            if nodes.iter().all(|node| node.is_draining) {
                return Ok(Some(Self::Drained));
            }
        }
        let gate = match job.state {
            State::Scheduled { due_at } => {
                let time = Self::Time { until: due_at };
                // What a client has put off waits for that, whatever becomes of its kind meanwhile.
                let kept_out = if job.submission.run_at == Some(due_at) { None } else { api.dispatcher.kept_out(job) };
                return Ok(Some(kept_out.map_or(time, |Quarantined { deaths, .. }| Self::Quarantine { deaths, until: due_at })));
            }
            State::Blocked => return Ok(Some(Self::Jobs)),
            State::Running { .. } | State::Finished(_) => return Ok(None),
            State::Queued if !job.submission.is_limited() => return Ok(Some(Self::Slot)),
            State::Queued => store.gate(job.id).await?,
        };
        Ok(Some(match (gate, job.submission.concurrency.as_deref().cloned(), job.submission.rate.as_deref().cloned()) {
            (Some(Gate::Full { running }), Some(Concurrency { key, limit }), _) => Self::Concurrency { key, limit, running },
            (Some(Gate::OverQuota { running }), ..) => Self::Quota { running },
            (Some(Gate::Until(until)), _, Some(Rate { key, limit, per_ms })) => Self::Rate { key, limit, per_ms, until },
            _ => Self::Slot,
        }))
    }
}
