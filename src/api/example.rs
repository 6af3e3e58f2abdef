//! The examples of the OpenAPI document: one job, shown by the same code that shows real ones.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::access::Caller;
use super::artifacts::ArtifactView;
use super::batch::BatchItem;
use super::cluster::ClusterView;
use super::comparison_view::{ComparisonSummary, ComparisonView};
use super::executors::{ExecutorsView, InterpreterView, ProgramsView, PythonView, SandboxView};
use super::functions::FunctionView;
use super::jobs::RouteExplanation;
use super::limits::LimitView;
use super::list::{Cursor, List};
use super::many::{CancelledView, RetriedView};
use super::profiles::{ProfileView, WhatIfView};
use super::schedules::ScheduleView;
use super::view::{AttemptView, JobView, ResultView};
use super::webhooks::{self, DeliveryView};
use super::workloads::WorkloadView;
use crate::artifact::Artifact;
use crate::clock::Timestamp;
use crate::dispatch::{Gain, Quarantined, QueueStatus, WhatIf};
use crate::executor::WorkerStatus;
use crate::function::{Defaults, Function, Kind, Limits};
use crate::job::{
    Bound, Choice, ComparisonId, Ending, Event, Executor, Failure, FailureKind, Finished, Form, Job, JobId, Labels, LogStream,
    NewJob, Observed, Outcome, ProfileKey, Queue, Retry, Role, Route, Rule, Runtime, Spec, State, Submission, Tags, Timing,
    Tried, What, Written,
};
use crate::profile::{Machine, Profiles, Sample};
use crate::sandbox;
use crate::schedule::{CatchUp, Fire, FireOutcome, Overlap, Schedule, Skip, Timetable};
use crate::store::{Bloat, Comparison, ComparisonState, DayTotals, Depth, NodeStatus, StateFilter, TableBloat};
use crate::webhook::{Delivery, DeliveryAttempt, DeliveryState};
use crate::workload::Registry;

/// 2026-01-31T12:00:00Z.
const NOON: Timestamp = Timestamp::from_micros(1_769_860_800_000_000);

/// A submission.
pub(super) fn submission() -> Value {
    json!({
        "bound": "cpu",
        "workload": { "type": "primes", "below": 1_000_000 },
        "executor": "auto",
        "priority": 0,
        "deadline_ms": 30_000,
        "retry": { "attempts": 3, "backoff_ms": 500 },
        "tags": { "team": "search" },
    })
}

/// Two submissions of a batch.
pub(super) fn batch() -> Value {
    json!([submission(), { "bound": "io", "workload": { "type": "sleep", "ms": 100 } }])
}

/// The same batch, one submission a line.
pub(super) fn batch_lines() -> Value {
    let lines: Vec<_> = batch().as_array().into_iter().flatten().map(ToString::to_string).collect();
    lines.join("\n").into()
}

/// Two limits.
pub(super) fn limits() -> Value {
    let limits = [
        LimitView::Concurrency { key: "customer-7".into(), limit: 3, running: 3, waiting: 120 },
        LimitView::Rate {
            key: "api.example.org".into(),
            limit: 10,
            per_ms: 1_000,
            started: 10,
            waiting: 5,
            opens_at: Some(NOON),
        },
    ];
    value(&List::whole(limits))
}

/// Two servers.
pub(super) fn cluster() -> Value {
    value(&ClusterView::of(nodes(false).into(), Some(bloat())))
}

/// The same while one of them is drained.
pub(super) fn draining_cluster() -> Value {
    value(&ClusterView::of(nodes(true).into(), Some(bloat())))
}

fn bloat() -> Bloat {
    let table = |name: &str, live, dead| TableBloat { name: name.into(), live, dead };
    let tables = vec![table("results", 1_200_000, 350), table("work", 4_100, 12_600)];
    Bloat { oldest_transaction: Some(Duration::from_millis(3)), tables }
}

fn nodes(is_draining: bool) -> [NodeStatus; 2] {
    let node = |name: &str, start, leases| NodeStatus {
        name: name.into(),
        start,
        role: Role::All,
        labels: Labels::from([("node".to_owned(), name.to_owned()), ("gpu".to_owned(), "a100".to_owned())]),
        version: "0.1.0".into(),
        started_at: NOON,
        seen_at: NOON.after(Duration::from_mins(10)),
        unheard_for: Duration::from_millis(4_200),
        expires_at: Some(NOON.after(Duration::from_mins(10) + Duration::from_secs(30))),
        has_expired: false,
        leases,
        is_draining: is_draining && start == 8,
        is_this: start == 7,
    };
    [node("worker-1", 7, 12), node("worker-2", 8, 9)]
}

/// The job right after it was accepted.
pub(super) fn job() -> Value {
    value(&JobView::from(&accepted()))
}

/// The job after it has ended.
pub(super) fn finished_job() -> Value {
    let (job, timing) = (finished(), timing());
    let (started_at, finished_at) = (NOON.after(Duration::from_micros(210)), NOON.after(Duration::from_micros(23_310)));
    let tried = Tried { number: 1, started_at, finished_at: Some(finished_at), error: None, timing: Some(timing) };
    let attempts = AttemptView::all(&job, vec![tried]);
    value(&JobView::from(&job).with(attempts))
}

/// The job after it was cancelled while it waited.
pub(super) fn cancelled_job() -> Value {
    let mut job = accepted();
    job.state = State::Finished(Box::new(Finished {
        ending: Ending::Cancelled,
        outcome: Outcome::Error(Failure::new(FailureKind::Cancelled, "cancelled before it was started")),
        timing: None,
        started_at: None,
        finished_at: NOON.after(Duration::from_micros(1_500)),
    }));
    value(&JobView::from(&job))
}

/// The job while its attempt is being stopped.
pub(super) fn stopping_job() -> Value {
    let mut job = accepted();
    job.attempt = 1;
    job.state = State::Running { claimed_at: NOON.after(Duration::from_micros(210)), stopping: true };
    value(&JobView::from(&job))
}

/// The job's result.
pub(super) fn result() -> Value {
    value(&ResultView::of(&finished()))
}

/// Which waiting jobs are to be cancelled.
pub(super) fn waiting_jobs() -> Value {
    json!({ "state": "queued", "tag": "team:search" })
}

/// How many were.
pub(super) fn cancelled_jobs() -> Value {
    value(&CancelledView { cancelled: 1_250, stopping: 0 })
}

/// Which dead jobs are to run again.
pub(super) fn dead_jobs() -> Value {
    json!({ "error": "timeout", "workload": "http" })
}

/// How many do.
pub(super) fn retried_jobs() -> Value {
    value(&RetriedView { retried: 17, more: false })
}

/// What happened to the job, as it is sent.
pub(super) fn events() -> Value {
    super::events::example(&happened()).into()
}

/// The lines that the job wrote.
pub(super) fn log() -> Value {
    value(&super::logs::lines(happened().into(), 50, None))
}

/// The files that the job left behind.
pub(super) fn artifacts() -> Value {
    let artifact = Artifact { name: "report.csv".into(), bytes: 1_024, kept_at: NOON };
    value(&List::whole([ArtifactView::of(id(), 1, artifact)]))
}

/// The same as text.
pub(super) fn log_text() -> Value {
    super::logs::text(&happened()).into()
}

/// A page of jobs.
pub(super) fn jobs() -> Value {
    value(&List { items: vec![value(&JobView::from(&finished())), job()], next_cursor: Some(Cursor::after(id()).into()) })
}

/// Jobs as lines of JSON.
pub(super) fn job_lines() -> Value {
    format!("{}\n{}\n", value(&JobView::from(&finished())), job()).into()
}

/// The answer to a batch.
pub(super) fn batch_items() -> Value {
    value(&List::whole([BatchItem::from(&accepted())]))
}

/// Why the job runs where it runs.
pub(super) fn route() -> Value {
    value(&RouteExplanation::of(
        &accepted(),
        Some(Written { runtime: Runtime::Native, form: Form::Blocking, gil: false, needs_a_process: false }),
    ))
}

/// A page of results.
pub(super) fn results() -> Value {
    value(&List { items: vec![result()], next_cursor: None })
}

/// Results as lines of JSON.
pub(super) fn result_lines() -> Value {
    format!("{}\n", result()).into()
}

/// Results as CSV.
pub(super) fn result_rows() -> Value {
    super::table::csv(&[finished()], true).into()
}

/// A summary of results.
pub(super) fn summary() -> Value {
    value(&super::summary::example())
}

/// What to compare.
pub(super) fn comparison_request() -> Value {
    json!({
        "bound": "cpu",
        "workload": { "type": "primes", "below": 300_000 },
        "tasks": 64,
        "concurrency": [1, 2],
        "executors": ["async", "threads", "processes"],
    })
}

/// A comparison that waits.
pub(super) fn queued_comparison() -> Value {
    ComparisonView::of(compared(ComparisonState::Queued), None).map_or(Value::Null, |view| value(&view))
}

/// A comparison that has finished.
pub(super) fn comparison() -> Value {
    ComparisonView::of(compared(ComparisonState::Finished), None).map_or(Value::Null, |view| value(&view))
}

/// Comparisons, as lists show them.
pub(super) fn comparisons() -> Value {
    ComparisonSummary::of(compared(ComparisonState::Finished)).map_or(Value::Null, |view| value(&List::whole([view])))
}

/// The source of a function.
pub(super) fn source() -> Value {
    "def main(width, height):\n    return {\"pixels\": width * height}\n".into()
}

/// A version of a function.
pub(super) fn function() -> Value {
    value(&FunctionView::of(&resize(), true))
}

/// Functions.
pub(super) fn functions() -> Value {
    value(&List::whole([FunctionView::of(&resize(), true)]))
}

/// A schedule to be made.
pub(super) fn new_schedule() -> Value {
    json!({
        "name": "nightly",
        "cron": "30 3 * * *",
        "timezone": "Europe/Paris",
        "catch_up": "once",
        "overlap": "skip",
        "job": { "bound": "io", "workload": { "type": "http", "url": "https://example.com/" } },
    })
}

/// A schedule.
pub(super) fn schedule() -> Value {
    value(&ScheduleView::of(&nightly(), Caller::default(), NOON))
}

/// The schedule while it is paused.
pub(super) fn paused_schedule() -> Value {
    value(&ScheduleView::of(&Schedule { paused: true, next_at: None, ..nightly() }, Caller::default(), NOON))
}

/// The schedule with what came of it.
pub(super) fn schedule_with_runs() -> Value {
    let due_at = NOON.before(Duration::from_secs(34_200));
    let at = |ms| due_at.after(Duration::from_millis(ms));
    let fire = Fire { due_at, at: at(2), by_hand: false, outcome: FireOutcome::Submitted(id()) };
    let succeeded = HashMap::from([(id(), StateFilter::Ended(Ending::Succeeded))]);
    let day = Duration::from_secs(86_400);
    let skipped =
        Fire { due_at: due_at.before(day), at: at(1).before(day), by_hand: false, outcome: FireOutcome::Skipped(Skip::Overlap) };
    value(&ScheduleView::of(&nightly(), Caller::default(), NOON).with(&[fire, skipped], &succeeded))
}

/// A page of schedules.
pub(super) fn schedules() -> Value {
    value(&List::whole([ScheduleView::of(&nightly(), Caller::default(), NOON)]))
}

/// A message on its second attempt.
pub(super) fn delivery() -> Value {
    value(&DeliveryView::from(told()))
}

/// A page of deliveries.
pub(super) fn deliveries() -> Value {
    value(&List::whole([DeliveryView::from(told())]))
}

/// What was learned of a workload.
pub(super) fn profile() -> Value {
    value(&learned())
}

/// A page of profiles.
pub(super) fn profiles() -> Value {
    value(&List::whole([learned()]))
}

/// What was found.
pub(super) fn findings() -> Value {
    json!({ "items": value(&learned())["findings"], "next_cursor": null })
}

/// What measured routing would have changed.
pub(super) fn what_if() -> Value {
    let totals = DayTotals {
        runs: 1_260,
        wall_us: 113_400_000,
        cpu_us: 112_100_000,
        held_runs: 1_260,
        held_us: 113_400_000,
        longest_us: 412_000,
        held_jobs: 47_880,
        ..DayTotals::default()
    };
    let found = WhatIf {
        key: ProfileKey::from("function:resize@6b23c0d5f35d".to_owned()),
        executor: Executor::Async,
        bound: Bound::Io,
        totals,
        observed: Some(Observed::Cpu),
        would: Executor::Processes,
        rule: Rule::MeasuredCpu,
        gain: Gain { loop_us: 113_400_000, slot_us: 0, faster_us: None },
    };
    value(&WhatIfView::of(NOON, NOON.after(Duration::from_secs(604_800)), vec![found]))
}

fn learned() -> ProfileView {
    let (profiles, key) = (Profiles::default(), ProfileKey::from("primes:below~2^20".to_owned()));
    profiles.digest(&key, Written { runtime: Runtime::Native, form: Form::Blocking, gil: false, needs_a_process: false });
    let State::Finished(finished) = finished().state else { unreachable!("it has ended") };
    let timing = finished.timing.unwrap_or_default();
    let sample = Sample::new(Bound::Io, Executor::Threads, timing, finished.finished_at);
    (0..40).for_each(|_| profiles.record(Some(&key), &sample));
    let profile = profiles.get(key.as_str()).unwrap_or_default();
    ProfileView::of(key, &profile, &Machine::default())
}

/// What can be run.
pub(super) fn workloads(registry: &Registry) -> Value {
    value(&WorkloadView::all(registry))
}

/// The executors at a quiet moment.
pub(super) fn executors() -> Value {
    let queues = Queue::ALL.map(|queue| {
        let worker = (queue.executor() == Executor::Processes).then_some(WorkerStatus {
            pid: 4211,
            busy: true,
            jobs: 17,
            interpreter: None,
        });
        let depth = Depth { running: 3, ..Depth::default() };
        QueueStatus { queue, slots: 256, depth, workers: worker.into_iter().collect() }
    });
    let kernel = sandbox::Report { landlock_abi: 6, signal_scope: true, seccomp: true, no_new_privs: true, missing: Vec::new() };
    let sandbox = SandboxView { mode: sandbox::Mode::On, kernel };
    let interpreter = InterpreterView {
        name: "python3".into(),
        version: "3.13.0".into(),
        implementation: "cpython".into(),
        gil: true,
        cloudpickle: Some("3.1.2".into()),
    };
    let python = PythonView { interpreters: vec![interpreter], network: false, pickles: true };
    let until = NOON.after(Duration::from_secs(30));
    let quarantined = Quarantined { key: String::from("function:resize@0123456789ab").into(), deaths: 3, until };
    value(&ExecutorsView::new(&queues, 140, vec![quarantined], ProgramsView { sandbox, python }))
}

/// The message itself.
pub(super) fn message() -> Value {
    serde_json::from_slice(&webhooks::message(&told(), Some(&finished()))).unwrap_or_default()
}

fn told() -> Delivery {
    let finished_at = NOON.after(Duration::from_micros(23_310));
    let attempt = |ms, status: Option<u16>, error: Option<&str>| DeliveryAttempt {
        at: finished_at.after(Duration::from_millis(ms)),
        took_us: 18_204,
        status,
        error: error.map(str::to_owned),
    };
    Delivery {
        place: 1,
        id: "msg_2b1c7a0f3d5e4896a7b8c9d0e1f20314".into(),
        job: id(),
        ending: Ending::Succeeded,
        finished_at,
        url: "https://example.com/hooks/trine".into(),
        state: DeliveryState::Pending,
        due_at: finished_at.after(Duration::from_secs(27)),
        attempts: vec![attempt(100, None, Some("Connection refused (os error 111)")), attempt(5_400, Some(503), None)],
    }
}

fn nightly() -> Schedule {
    // What is written above is a timetable.
    let timetable = Timetable::parse("30 3 * * *", "Europe/Paris").unwrap_or_else(|error| unreachable!("{error}"));
    Schedule {
        name: "nightly".into(),
        next_at: timetable.from(NOON).next(),
        timetable,
        catch_up: CatchUp::Once,
        overlap: Overlap::Skip,
        job: raw(&new_schedule()["job"]),
        paused: false,
        created_at: NOON,
        changed_at: NOON,
    }
}

fn resize() -> Function {
    Function {
        name: "resize".into(),
        version: "6b23c0d5f35d1b11f9b683f0b0a617355deb11277d91ae091d399c655b87940d".into(),
        created_at: NOON,
        deployed_at: NOON,
        kind: Kind::Source,
        bytes: 67,
        entrypoint: "main".into(),
        form: Form::Blocking,
        interpreter: None,
        defaults: Defaults { bound: Some(Bound::Cpu), executor: Choice::Auto, deadline: Some(Duration::from_secs(30)) },
        limits: Limits { output_bytes: Some(65_536), ..Limits::default() },
    }
}

fn compared(state: ComparisonState) -> Comparison {
    let mut request = comparison_request();
    request["interpreters"] = json!([]);
    request["budget_ms"] = 30_000.into();
    let ended = (state == ComparisonState::Finished).then_some(());
    Comparison {
        owner: None,
        id: ComparisonId::from_bytes(*id().as_bytes()),
        state,
        requested_at: NOON,
        started_at: ended.map(|()| NOON.after(Duration::from_millis(3))),
        finished_at: ended.map(|()| NOON.after(Duration::from_millis(24_210))),
        request: raw(&request),
        report: ended.map(|()| raw(&value(&crate::comparison::example_report()))),
        error: None,
    }
}

pub(super) fn accepted() -> Job {
    let workload = Spec { kind: "primes".into(), json: raw(&json!({ "type": "primes", "below": 1_000_000 })) };
    let submission = Submission {
        deadline: Some(Duration::from_secs(30)),
        retry: Some(Arc::new(Retry { attempts: 3, ..Retry::DEFAULT })),
        tags: Tags::from([("team".into(), "search".into())]),
        ..Submission::new(Bound::Cpu, workload)
    };
    let route = Route {
        executor: Executor::Threads,
        queue: Executor::Threads.queue(Runtime::Native, Bound::Cpu),
        rule: Rule::CpuThreads,
        evidence: None,
    };
    let submission = Box::new(submission);
    NewJob { id: id(), submission, route, after: Vec::new(), accepted_at: NOON, due_at: None, profile: None }.into_job()
}

fn timing() -> Timing {
    Timing {
        queue_us: 210,
        dispatch_us: 60,
        wall_us: 23_040,
        cpu_user_us: Some(22_610),
        cpu_system_us: Some(70),
        ctx_voluntary: Some(0),
        ctx_involuntary: Some(3),
        core_wait_us: Some(290),
        ..Timing::default()
    }
}

fn finished() -> Job {
    let finished = Finished {
        ending: Ending::Succeeded,
        outcome: Outcome::Output(raw(&json!({ "count": 78_498 }))),
        timing: Some(timing()),
        started_at: Some(NOON.after(Duration::from_micros(210))),
        finished_at: NOON.after(Duration::from_micros(23_310)),
    };
    Job { attempt: 1, state: State::Finished(Box::new(finished)), ..accepted() }
}

fn happened() -> [Event; 5] {
    let State::Finished(finished) = finished().state else { unreachable!("it has ended") };
    let (progress, line) = (raw(&json!({ "share": 0.5 })), "half of them are counted".to_owned());
    let events = [
        (0, What::Accepted),
        (210, What::Running { attempt: 1 }),
        (12_000, What::Progress { attempt: 1, value: progress }),
        (12_001, What::Log { attempt: 1, stream: LogStream::Stdout, line }),
        (23_310, What::Finished { attempt: 1, finished }),
    ];
    events.map(|(us, what)| Event {
        at: NOON.after(Duration::from_micros(us)),
        job: id(),
        bound: Bound::Cpu,
        executor: Executor::Threads,
        what,
    })
}

/// A UUID of version 7 with the time of [`NOON`].
const fn id() -> JobId {
    JobId::from_bytes([0x01, 0x9c, 0x13, 0xec, 0x9e, 0x00, 0x70, 0x00, 0x80, 0, 0, 0, 0, 0, 0, 0x01])
}

/// Numbers, text and lists of them always can be written as JSON, so the defaults are not reached.
fn value(view: &impl Serialize) -> Value {
    serde_json::to_value(view).unwrap_or_default()
}

fn raw(value: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap_or_default()
}
