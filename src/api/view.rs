//! What clients see of a job.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::example;
use super::graph::GraphView;
use super::list::Shown;
use super::state::StateName;
use super::submission::AnyWorkload;
use super::waiting::WaitingView;
use super::webhooks::WebhookView;
use crate::clock::{Timestamp, millis};
use crate::job::{
    Bound, Choice, Concurrency, Ending, Evidence, Executor, Failure, FailureKind, Job, JobId, Labels, Observed, Outcome, Rate,
    Retry, Route, Routing, Rule, State, Tags, Timing, Tried, Unique,
};
use crate::measure::advice::advice;

/// A job: what was asked for, where it is and, once it has ended, what came of it.
#[derive(Serialize, ToSchema)]
#[schema(as = Job, example = example::job)]
pub(super) struct JobView<'a> {
    /// Its name for ever, a UUID of version 7.
    #[schema(value_type = String, format = "uuid")]
    pub(super) id: JobId,
    /// Where it is or how it ended.
    pub(super) state: StateName,
    /// The client's tag.
    bound: Bound,
    /// What was submitted to run.
    #[schema(value_type = AnyWorkload)]
    workload: &'a RawValue,
    /// The executor that the client asked for.
    executor: Choice,
    /// What the choice of its executor was to go by; null for the server's setting.
    #[schema(required)]
    routing: Option<Routing>,
    /// The executor that runs it, and why.
    pub(super) route: RouteView,
    /// Higher runs first among the jobs that wait for the same executor.
    priority: i16,
    /// The longest that one attempt may run, in milliseconds.
    #[schema(required)]
    deadline_ms: Option<u64>,
    /// When a failed attempt is followed by another.
    retry: &'a Retry,
    /// The moment before which it is not to be started, as it was submitted.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    run_at: Option<Timestamp>,
    /// The moment from which on it is not started any more, but ends as failed with an error of the kind `expired`.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// When another submission like it is taken for this job.
    #[schema(required)]
    unique: Option<Unique>,
    /// Whom to tell when it has ended.
    #[schema(required)]
    webhook: Option<WebhookView<'a>>,
    /// Free labels.
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    tags: &'a Tags,
    /// The number of its latest attempt; 0 before the first.
    attempt: u32,
    /// How often it was run again because whatever ran it had died under it: the death with which it ended is not among them.
    losses: u32,
    /// A client has cancelled it, and its attempt is being stopped.
    stopping: bool,
    /// What the workload returned, once it has succeeded.
    #[schema(required, value_type = Option<serde_json::Value>)]
    output: Option<&'a RawValue>,
    /// Why there is no output, once it has ended without one.
    #[schema(required)]
    error: Option<ErrorView<'a>>,
    /// What was measured of its last attempt, once it has ended.
    #[schema(required)]
    timing: Option<TimingView>,
    /// When it was accepted.
    #[schema(value_type = String, format = DateTime)]
    accepted_at: Timestamp,
    /// When it may run, while it waits for its time.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    due_at: Option<Timestamp>,
    /// When its latest attempt was claimed; null while it waits.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    started_at: Option<Timestamp>,
    /// When it ended.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    finished_at: Option<Timestamp>,
    /// Its attempts so far, also those before it was run again by hand: the latest thousand. Only where one job is looked at, or was waited for as it was submitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<Vec<AttemptView>>,
    /// The submission is unique, and this job was there before it. Only in the answer to a submission, and only if it is so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    existing: bool,
    /// At most so many jobs with the same key run at once.
    #[schema(required)]
    concurrency: Option<&'a Concurrency>,
    /// At most so many jobs with the same key start within any period of that length.
    #[schema(required)]
    rate: Option<&'a Rate>,
    /// The labels that a node must have to run it. Only where there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<std::collections::BTreeMap<String, String>>)]
    requires: Option<&'a Labels>,
    /// The jobs that it comes after, and those that come after it. Only where one job is looked at that has any.
    #[serde(skip_serializing_if = "Option::is_none")]
    graph: Option<GraphView>,
    /// What it waits for. Only where one job is looked at that waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<WaitingView>,
    /// Whose it is: the id of the key that it was submitted with, or of the one that was rotated into that. Only where it is somebody's.
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
}

impl JobView<'_> {
    /// The same with its attempts.
    pub(super) fn with(self, attempts: Vec<AttemptView>) -> Self {
        Self { attempts: Some(attempts), ..self }
    }

    /// The same as the answer to a submission: whether it was there before.
    pub(super) fn existing(self, existing: bool) -> Self {
        Self { existing, ..self }
    }

    /// The same with its parents and children, and what it waits for.
    pub(super) fn explained(self, graph: Option<GraphView>, waiting: Option<WaitingView>) -> Self {
        Self { graph, waiting, ..self }
    }
}

impl<'a> From<&'a Job> for JobView<'a> {
    fn from(job: &'a Job) -> Self {
        let submission = &job.submission;
        let finished = job.state.finished();
        let outcome = finished.map(|finished| &finished.outcome);
        Self {
            id: job.id,
            state: (&job.state).into(),
            bound: submission.bound,
            workload: &submission.workload.json,
            executor: submission.executor,
            routing: submission.routing,
            route: job.route.into(),
            priority: submission.priority,
            deadline_ms: submission.deadline.map(millis),
            retry: submission.retry(),
            run_at: submission.run_at,
            expires_at: submission.expires_at,
            unique: submission.unique,
            webhook: submission.webhook.as_deref().map(WebhookView::from),
            tags: &submission.tags,
            attempt: job.attempt,
            losses: job.losses,
            stopping: matches!(job.state, State::Running { stopping: true, .. }),
            output: outcome.and_then(Outcome::output),
            error: outcome.and_then(Outcome::failure).map(ErrorView::from),
            timing: TimingView::of_last(job),
            accepted_at: job.accepted_at,
            due_at: match job.state {
                State::Scheduled { due_at } => Some(due_at),
                _ => None,
            },
            started_at: match &job.state {
                State::Running { claimed_at, .. } => Some(*claimed_at),
                State::Finished(finished) => finished.started_at,
                State::Scheduled { .. } | State::Blocked | State::Queued => None,
            },
            finished_at: finished.map(|finished| finished.finished_at),
            attempts: None,
            existing: false,
            concurrency: submission.concurrency.as_deref(),
            rate: submission.rate.as_deref(),
            requires: submission.requires.as_deref(),
            graph: None,
            waiting: None,
            owner: submission.owner.map(|owner| owner.to_string()),
        }
    }
}

impl Shown for JobView<'_> {
    type View<'a> = JobView<'a>;

    fn view(job: &Job) -> Option<JobView<'_>> {
        Some(job.into())
    }
}

/// A finished job's outcome and timing.
#[derive(Serialize, ToSchema)]
#[schema(as = Result, example = example::result)]
pub(super) struct ResultView<'a> {
    /// The job's id.
    #[schema(value_type = String, format = "uuid")]
    id: JobId,
    /// How it ended.
    #[schema(value_type = Ending)]
    state: Ending,
    /// The client's tag.
    bound: Bound,
    /// What was submitted to run.
    #[schema(value_type = AnyWorkload)]
    workload: &'a RawValue,
    /// The executor that ran it, and why.
    route: RouteView,
    /// The number of its last attempt; 0 if there was none.
    attempt: u32,
    /// What the workload returned, if it succeeded.
    #[schema(required, value_type = Option<serde_json::Value>)]
    output: Option<&'a RawValue>,
    /// Why there is no output, if it did not.
    #[schema(required)]
    error: Option<ErrorView<'a>>,
    /// What was measured of its last attempt; null if no attempt was run to its end.
    #[schema(required)]
    timing: Option<TimingView>,
    /// Free labels.
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    tags: &'a Tags,
    /// When it was accepted.
    #[schema(value_type = String, format = DateTime)]
    accepted_at: Timestamp,
    /// When its last attempt was claimed; its work began `timing.dispatch_us` later. Null if it waited when it ended.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    started_at: Option<Timestamp>,
    /// When it ended.
    #[schema(value_type = String, format = DateTime)]
    finished_at: Timestamp,
    /// Its attempts, also those before it was run again by hand: the latest thousand. Only where one result is looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<Vec<AttemptView>>,
    /// Whose it is: the id of the key that it was submitted with, or of the one that was rotated into that. Only where it is somebody's.
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
}

impl Shown for ResultView<'_> {
    type View<'a> = ResultView<'a>;

    fn view(job: &Job) -> Option<ResultView<'_>> {
        ResultView::of(job)
    }
}

impl<'a> ResultView<'a> {
    /// The same with its attempts.
    pub(super) fn with(self, attempts: Vec<AttemptView>) -> Self {
        Self { attempts: Some(attempts), ..self }
    }

    /// The result of a job, if it has ended.
    pub(super) fn of(job: &'a Job) -> Option<Self> {
        let finished = job.state.finished()?;
        Some(Self {
            id: job.id,
            state: finished.ending,
            bound: job.submission.bound,
            workload: &job.submission.workload.json,
            route: job.route.into(),
            attempt: job.attempt,
            output: finished.outcome.output(),
            error: finished.outcome.failure().map(ErrorView::from),
            timing: TimingView::of_last(job),
            tags: &job.submission.tags,
            accepted_at: job.accepted_at,
            started_at: finished.started_at,
            finished_at: finished.finished_at,
            attempts: None,
            owner: job.submission.owner.map(|owner| owner.to_string()),
        })
    }
}

/// One attempt of a job.
#[derive(Serialize, ToSchema)]
#[schema(as = Attempt)]
pub(super) struct AttemptView {
    /// Its number, from 1.
    attempt: u32,
    /// How it ended, or that it runs: `running`, `succeeded`, `failed`, `cancelled` or `lost`.
    state: &'static str,
    /// When it was claimed.
    #[schema(value_type = String, format = DateTime)]
    started_at: Timestamp,
    /// When its end was recorded; null while it runs.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    finished_at: Option<Timestamp>,
    /// Why it gave no output; null if it did, or runs.
    #[schema(required, value_type = Option<ErrorView>)]
    error: Option<Failure>,
    /// What was measured of it; null if its work never began, or it runs.
    #[schema(required)]
    timing: Option<TimingView>,
}

impl AttemptView {
    /// The attempts of a job.
    pub(super) fn all(job: &Job, attempts: Vec<Tried>) -> Vec<Self> {
        let timing = |timing: &Timing| TimingView::of(job.submission.bound, job.route.executor, timing);
        let view = |tried: Tried| Self {
            attempt: tried.number,
            state: tried.state(),
            started_at: tried.started_at,
            finished_at: tried.finished_at,
            timing: tried.timing.as_ref().map(timing),
            error: tried.error,
        };
        attempts.into_iter().map(view).collect()
    }
}

/// The executor that was chosen, and why.
#[derive(Serialize, ToSchema)]
#[schema(as = Route)]
pub(super) struct RouteView {
    /// How the job is run.
    executor: Executor,
    /// The rule that chose it.
    rule: Rule,
    /// The rule in words, with the numbers behind it.
    #[schema(value_type = String)]
    reason: Cow<'static, str>,
    /// What was measured of earlier runs, where that chose the executor, would have chosen another, or was asked in vain; else null.
    #[schema(required)]
    evidence: Option<Evidence>,
}

impl From<Route> for RouteView {
    fn from(route: Route) -> Self {
        Self { executor: route.executor, rule: route.rule, reason: route.reason(), evidence: route.evidence }
    }
}

/// Why there is no output.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub(super) struct ErrorView<'a> {
    /// The kind, by which a retry rule selects.
    pub(super) kind: FailureKind,
    /// One sentence.
    pub(super) message: &'a str,
    /// An exception as Python tells it: its type, message, frames, traceback and cause; and what of it JSON can bring unchanged: its
    /// `args` (absent if that is its message alone, null if JSON can't bring them) and `attributes` if it is one of Python's own, its
    /// `notes`, and the `exceptions` of a group.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub(super) python: Option<&'a RawValue>,
}

impl<'a> From<&'a Failure> for ErrorView<'a> {
    fn from(failure: &'a Failure) -> Self {
        Self { kind: failure.kind, message: &failure.message, python: failure.python.as_deref() }
    }
}

/// What was measured of one attempt. Durations are in microseconds. A figure is of this attempt alone, or it is null.
#[derive(Serialize, ToSchema)]
#[schema(as = Timing)]
pub(super) struct TimingView {
    /// From accepted (or due) until claimed.
    pub(super) queue_us: u64,
    /// From claimed until the work itself began: serialising, hand-over, the process hop.
    pub(super) dispatch_us: u64,
    /// The work itself.
    pub(super) wall_us: u64,
    /// CPU time in user mode.
    #[schema(required)]
    pub(super) cpu_user_us: Option<u64>,
    /// CPU time in the kernel.
    #[schema(required)]
    pub(super) cpu_system_us: Option<u64>,
    /// CPU time over wall time; over 1 if the work used several cores. Null below 100 µs, where the clocks tell too little.
    #[schema(required)]
    pub(super) cpu_share: Option<f64>,
    /// How often the future was polled (`async` only).
    #[schema(required)]
    pub(super) polls: Option<u64>,
    /// The longest that one poll held the event loop (`async` only).
    #[schema(required)]
    pub(super) longest_poll_us: Option<u64>,
    /// Peak resident memory in bytes (`processes` only).
    #[schema(required)]
    pub(super) max_rss_bytes: Option<u64>,
    /// Context switches because the work waited.
    #[schema(required)]
    pub(super) ctx_voluntary: Option<u64>,
    /// Context switches because the kernel took the core away.
    #[schema(required)]
    pub(super) ctx_involuntary: Option<u64>,
    /// Whether a global lock kept the runtime's threads from computing at once (Python only).
    #[schema(required)]
    pub(super) gil: Option<bool>,
    /// How long it could have run but had no core, because others had them: at least so long on the event loop. Null for programs.
    #[schema(required)]
    pub(super) core_wait_us: Option<u64>,
    /// How long it was ready to go on while others held the event loop (`async` only).
    #[schema(required)]
    pub(super) loop_wait_us: Option<u64>,
    /// How long it may have waited for the global lock, by estimate (Python on `threads`, and on `async` where it used threads or blocked).
    #[schema(required)]
    pub(super) gil_wait_us: Option<u64>,
    /// How many other jobs were on the event loop during the longest poll, if that took 50 ms or more (`async` only).
    #[schema(required)]
    pub(super) held_jobs: Option<u64>,
    /// What the work turned out to be, by its share of a core while others did not keep it from running; null if that can't be told.
    #[schema(required)]
    pub(super) observed: Option<Observed>,
    /// One sentence if the figures speak against the tag or the executor.
    #[schema(required)]
    pub(super) advice: Option<String>,
}

impl TimingView {
    /// What was measured of the last attempt of a job that has ended, and what follows from it.
    pub(super) fn of_last(job: &Job) -> Option<Self> {
        let timing = job.state.finished()?.timing.as_ref()?;
        Some(Self::of(job.submission.bound, job.route.executor, timing))
    }

    /// What was measured of an attempt of a job that is tagged so and runs here, and what follows from it.
    pub(super) fn of(bound: Bound, executor: Executor, timing: &Timing) -> Self {
        let Timing { queue_us, dispatch_us, wall_us, cpu_user_us, cpu_system_us, .. } = *timing;
        let Timing { polls, longest_poll_us, max_rss_bytes, ctx_voluntary, ctx_involuntary, gil, .. } = *timing;
        let Timing { core_wait_us, loop_wait_us, gil_wait_us, held_jobs, .. } = *timing;
        Self {
            queue_us,
            dispatch_us,
            wall_us,
            cpu_user_us,
            cpu_system_us,
            cpu_share: timing.cpu_share(),
            polls,
            longest_poll_us,
            max_rss_bytes,
            ctx_voluntary,
            ctx_involuntary,
            gil,
            core_wait_us,
            loop_wait_us,
            gil_wait_us,
            held_jobs,
            observed: timing.observed(),
            advice: advice(bound, executor, timing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_result_has_what_was_measured_and_what_follows_from_it() {
        let result = example::result();
        assert_eq!((&result["state"], &result["output"]), (&json!("succeeded"), &json!({ "count": 78498 })));
        assert_eq!(result["timing"]["cpu_share"], 0.984);
        assert_eq!(result["timing"]["observed"], "cpu");
        assert_eq!(result["timing"]["advice"], serde_json::Value::Null);
        assert_eq!(result["finished_at"], "2026-01-31T12:00:00.023310Z");
    }

    #[test]
    fn a_job_that_waits_has_no_result() {
        let job = example::job();
        assert_eq!((&job["state"], &job["attempt"]), (&json!("queued"), &json!(0)));
        assert!(["output", "error", "timing", "started_at", "finished_at"].iter().all(|field| job[field].is_null()));
    }
}
