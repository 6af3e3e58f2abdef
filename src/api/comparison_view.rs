//! What clients see of a comparison.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::problem::Problem;
use super::submission::{self, AnyWorkload, Head};
use crate::clock::Timestamp;
use crate::comparison::report::{Report, Verdict};
use crate::comparison::{Asked, Progress, Request};
use crate::job::{Bound, ComparisonId, Executor, Spec};
use crate::store::{Comparison, ComparisonState};
use crate::workload::depth;

/// What to compare.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ComparisonRequest, example = super::example::comparison_request)]
pub(super) struct Fields<'a> {
    /// What the work does most of the time. Native threads for `io` are many, those for `cpu` one for each core. Only a function that declares
    /// it may go without.
    bound: Option<Bound>,
    /// What to run: its `type`, and the parameters of that type.
    #[serde(borrow)]
    #[schema(value_type = AnyWorkload)]
    workload: &'a RawValue,
    /// How many tasks each executor runs at each concurrency in each repetition, at the most: fewer if that leaves time for more
    /// repetitions.
    #[schema(minimum = 1, maximum = 10_000, default = 64)]
    tasks: Option<u32>,
    /// How many tasks are under way at once: one row of the matrix for each. One, one for each core and four for each core by default. Up to
    /// 1,024, and no more than `tasks`, nor than have 256 MiB of workloads together.
    #[schema(min_items = 1, max_items = 8)]
    concurrency: Option<Vec<u32>>,
    /// Where to run it: everywhere by default.
    #[schema(min_items = 1, max_items = 3)]
    executors: Option<Vec<Executor>>,
    /// By which interpreters, for a workload of the type `python`; by the workload's own by default.
    interpreters: Option<Vec<String>>,
    /// How long it may take, in milliseconds. It ends earlier when the figures are precise, and takes longer where even three repetitions
    /// do not fit.
    #[schema(minimum = 1000, maximum = 3_600_000, default = 30_000)]
    budget_ms: Option<u64>,
}

/// Reads what to compare. The workload's parameters are not looked at yet, apart from `type`.
pub(super) fn parse(text: &[u8]) -> Result<Asked, Problem> {
    let Fields { bound, workload, tasks, concurrency, executors, interpreters, budget_ms } = submission::object(text, "")?;
    depth::check(workload.get().as_bytes()).map_err(|invalid| invalid.within("/workload"))?;
    let head: Head<'_> = submission::object(workload.get().as_bytes(), "/workload")?;
    let workload = Spec { kind: head.r#type.into_owned(), json: workload.to_owned() };
    Ok(Asked { bound, workload, tasks, concurrency, executors, interpreters, budget_ms })
}

/// A comparison. Once it has finished, it has a report: `matrix`, `controls`, `verdict` and what belongs to them.
#[derive(Serialize, ToSchema)]
#[schema(as = Comparison)]
pub(super) struct ComparisonView {
    #[serde(flatten)]
    head: ComparisonHead,
    /// How far it is; null unless it runs.
    #[schema(required)]
    progress: Option<ProgressView>,
    #[serde(flatten)]
    report: Reported,
}

/// What is known once it has finished.
#[derive(Serialize)]
#[serde(transparent)]
struct Reported(Option<Report>);

impl PartialSchema for Reported {
    /// The fields of a report, none of which has to be there: derived, it would be a report or null, and nothing is null here. Of a
    /// comparison that is the sum of a choice generators of clients would make nothing.
    fn schema() -> RefOr<Schema> {
        let mut schema = Report::schema();
        if let RefOr::T(Schema::Object(report)) = &mut schema {
            report.required.clear();
            report.description = Some("What is known once it has finished: all of it, or nothing.".into());
        }
        schema
    }
}

impl ToSchema for Reported {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Report::schemas(schemas);
    }
}

/// What lists show of a comparison.
#[derive(Serialize, ToSchema)]
pub(super) struct ComparisonSummary {
    #[serde(flatten)]
    head: ComparisonHead,
    /// What follows; null unless it has finished.
    #[schema(required)]
    verdict: Option<Verdict>,
}

/// What was asked, and where it is.
#[derive(Serialize, ToSchema)]
struct ComparisonHead {
    /// Its name for ever.
    #[schema(value_type = String, format = "uuid")]
    id: ComparisonId,
    /// Where it is, or how it ended.
    state: ComparisonState,
    /// Why there is no report; null unless it failed.
    #[schema(required)]
    error: Option<String>,
    /// The tag.
    bound: Bound,
    /// What is compared.
    #[schema(value_type = AnyWorkload)]
    workload: Box<RawValue>,
    /// How many tasks at the most.
    tasks: u32,
    /// How many of them at once.
    concurrency: Vec<u32>,
    /// Where.
    executors: Vec<Executor>,
    /// By which interpreters; none if the workload's own is meant.
    interpreters: Vec<String>,
    /// How long it may take, in milliseconds.
    budget_ms: u64,
    /// When it was asked for.
    #[schema(value_type = String, format = DateTime)]
    requested_at: Timestamp,
    /// When it began; null while it waits.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    started_at: Option<Timestamp>,
    /// When it ended; null before.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    finished_at: Option<Timestamp>,
}

/// How far a comparison is.
#[derive(Serialize, ToSchema)]
#[schema(as = ComparisonProgress)]
struct ProgressView {
    /// From 0 to 100, by time.
    percent: f64,
    /// What it does now.
    doing: String,
}

impl ComparisonView {
    /// One as it is kept, and how far it is.
    pub(super) fn of(kept: Comparison, progress: Option<Progress>) -> Result<Self, Problem> {
        let report = report(&kept)?;
        let progress = progress.map(|Progress { share, doing }| ProgressView { percent: (share * 1000.0).round() / 10.0, doing });
        Ok(Self { head: ComparisonHead::of(kept)?, progress, report: Reported(report) })
    }
}

impl ComparisonSummary {
    /// One as it is kept.
    pub(super) fn of(kept: Comparison) -> Result<Self, Problem> {
        let verdict = report(&kept)?.map(|report| report.verdict);
        Ok(Self { head: ComparisonHead::of(kept)?, verdict })
    }
}

impl ComparisonHead {
    fn of(kept: Comparison) -> Result<Self, Problem> {
        let Request { bound, workload, tasks, concurrency, executors, interpreters, budget_ms } = request(&kept)?;
        let Comparison { id, state, requested_at, started_at, finished_at, error, .. } = kept;
        Ok(Self {
            id,
            state,
            error,
            bound,
            workload,
            tasks,
            concurrency,
            executors,
            interpreters,
            budget_ms,
            requested_at,
            started_at,
            finished_at,
        })
    }
}

/// What was asked.
pub(super) fn request(kept: &Comparison) -> Result<Request, Problem> {
    serde_json::from_str(kept.request.get()).map_err(Problem::internal)
}

/// What was found, if it has finished.
pub(super) fn report(kept: &Comparison) -> Result<Option<Report>, Problem> {
    kept.report.as_ref().map(|report| serde_json::from_str(report.get())).transpose().map_err(Problem::internal)
}
