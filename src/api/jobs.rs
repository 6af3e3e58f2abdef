//! `/jobs`: submit, list, look at, cancel, run again.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::access::Caller;
use super::graph::{self, GraphView};
use super::json::Json;
use super::list::{List, ListQuery};
use super::preference::{self, PREFERENCE_APPLIED, Preferences, WaitQuery};
use super::problem::{Kind, Problem, answers};
use super::query::{Id, Query};
use super::state::{StateName, States};
use super::view::{AttemptView, JobView};
use super::waiting::WaitingView;
use super::{ApiState, body, example, idempotency, submission};
use crate::dispatch::router::{Considered, considered};
use crate::dispatch::{Receipt, SubmitError, Submitted};
use crate::executor::Capabilities;
use crate::job::{Bound, Choice, Evidence, Executor, Form, Job, JobId, Rule, Written};
use crate::store::{Cancellation, Requeue};

/// Submit a job
///
/// The job is on stable storage when the answer comes: `202` with the job and its address. With `Prefer: wait=N` the answer waits up
/// to N seconds (60 at most) for the job to end, and is then `200` with all of the job, its attempts included. With
/// `Prefer: return=minimal` a `202` has no more of the job than its `id` and `state`, which costs the server less.
///
/// A request with an `Idempotency-Key` that came before is answered with the job of that time, and `Idempotent-Replayed: true`; with
/// another body, it is a problem. A `unique` submission with another job like it is answered with that job: `200`, `existing` is true.
#[utoipa::path(
    post, path = "/jobs", tag = "jobs", operation_id = "submitJob",
    params(
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds for the job to end. `return=minimal`: a short `202`"),
        ("Idempotency-Key" = Option<String>, Header, description = "A name for this request, unlike all others, such as `order-4711`", pattern = "^[!-~]{1,255}$"),
    ),
    request_body(content = submission::Fields, content_type = "application/json", example = example::submission),
    responses(
        (status = 200, description = "It has ended while the answer waited, or it was there before", body = JobView,
            headers(("Location" = String, description = "The job"), ("Preference-Applied" = String, description = "The wait, such as `wait=10`")),
            example = example::finished_job),
        (status = 202, description = "It is accepted", body = AcceptedView,
            headers(("Location" = String, description = "The job"), ("Preference-Applied" = String, description = "What was preferred")),
            example = example::job),
        answers::MalformedJson, answers::BodyTimeout, answers::TooLarge, answers::UnsupportedMediaType, answers::InvalidJob,
        answers::UnknownJob, answers::QueueFull, answers::Unavailable,
    ),
)]
pub(super) async fn submit(State(api): State<ApiState>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let body = body::json(&parts.headers, body, api.bodies.at_most(submission::MAX_BYTES)).await?;
    let preferences = preference::of(&parts.headers);
    let caller = Caller::of(&parts.extensions);
    let key = idempotency::key(caller, &parts.headers, "/jobs", &body)?;
    if let Some(key) = &key
        && let Some(receipt) = Box::pin(api.dispatcher.answered(key)).await?
    {
        // Others may want its room while this one waits.
        drop(body);
        return answer(&api, receipt, preferences).await;
    }
    let now = api.dispatcher.store().now();
    let mut submission = api.dispatcher.functions().read(|functions| submission::parse(&body, functions, now)).await?;
    submission.owner = caller.0;
    drop(body);
    match preferences.wait {
        // The shortest way, on which the end of the job can't be missed.
        Some(seconds) if key.is_none() && submission.unique.is_none() => {
            let job = Box::pin(api.dispatcher.submit_and_wait(submission, Duration::from_secs(seconds))).await?;
            let ended = ended(&api, &job, false).await?;
            Ok(waited(ended.unwrap_or_else(|| accepted(&job, preferences.minimal)), seconds))
        }
        _ => answer(&api, api.dispatcher.submit_once(vec![submission], key).await?, preferences).await,
    }
}

/// The answer to a submission.
async fn answer(api: &ApiState, receipt: Receipt, Preferences { wait, minimal }: Preferences) -> Result<Response, Problem> {
    let gone = || Problem::from(SubmitError::Gone);
    let Submitted { mut job, existing } = receipt.jobs.into_iter().next().ok_or_else(gone)?;
    if let Some(seconds) = wait {
        let id = job.id;
        // It may be long, and there may be many that wait.
        drop(job);
        job = Box::pin(api.dispatcher.wait(id, Duration::from_secs(seconds))).await?.ok_or_else(gone)?;
    }
    let ended = if wait.is_some() { ended(api, &job, existing).await? } else { None };
    let response = match ended {
        Some(ended) => ended,
        None if existing => found(JobView::from(&job).existing(true)),
        None => accepted(&job, minimal),
    };
    Ok(wait.into_iter().fold(idempotency::told(response, receipt.replayed), waited))
}

/// The job with its attempts, if it has ended.
async fn ended(api: &ApiState, job: &Job, existing: bool) -> Result<Option<Response>, Problem> {
    if job.state.finished().is_none() {
        return Ok(None);
    }
    let attempts = AttemptView::all(job, api.dispatcher.attempts(job).await?);
    Ok(Some(found(JobView::from(job).with(attempts).existing(existing))))
}

/// A job that needs not be asked for again.
fn found(job: JobView) -> Response {
    (StatusCode::OK, [(LOCATION, location(job.id))], Json(job)).into_response()
}

/// The same answer, which says how long it was waited for.
fn waited(mut response: Response, seconds: u64) -> Response {
    if let Ok(applied) = HeaderValue::try_from(format!("wait={seconds}")) {
        response.headers_mut().append(PREFERENCE_APPLIED, applied);
    }
    response
}

/// List jobs
///
/// All jobs, wherever they are, in the order of their ids: that of acceptance, but for jobs that are accepted within a moment of each
/// other. Whoever reads page by page from the oldest on meanwhile can pass one by, and misses none with `GET /events`. In CSV, an
/// `error_message` that begins like a formula has a `'` before it.
#[utoipa::path(
    get, path = "/jobs", tag = "jobs", operation_id = "listJobs",
    params(ListQuery),
    responses(
        (status = 200, description = "A page of jobs", headers(("Link" = String, description = "The next page, if there is one")), content(
            (List<JobView> = "application/json", example = example::jobs),
            (String = "text/csv", example = example::result_rows),
            (String = "application/x-ndjson", example = example::job_lines),
        )),
        answers::BadQuery, answers::NotAcceptable, answers::Unavailable,
    ),
)]
pub(super) async fn list(
    State(api): State<ApiState>,
    caller: Caller,
    Query(query): Query<ListQuery>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    let format = query.format(&headers)?;
    let (filter, page) = (Arc::new(query.filter(caller)?), query.page(format));
    let dispatcher = api.dispatcher.clone();
    let read = move |page| {
        let (dispatcher, filter) = (dispatcher.clone(), Arc::clone(&filter));
        async move { dispatcher.store().jobs(&filter, page).await }
    };
    let jobs = read(page).await?;
    query.answer::<JobView<'_>, _>(&api.held, format, &uri, (page, &jobs), read)
}

/// Look at a job
///
/// The job as it is, with its attempts so far. With `wait` the answer comes when the job has ended, or after that many seconds with the job as it is then.
#[utoipa::path(
    get, path = "/jobs/{id}", tag = "jobs", operation_id = "getJob",
    params(("id" = String, Path, description = "The job's id", format = "uuid"), WaitQuery),
    responses(
        (status = 200, description = "The job as it is", body = JobView, example = example::finished_job),
        answers::BadQuery, answers::UnknownJob, answers::Unavailable,
    ),
)]
pub(super) async fn get(
    State(api): State<ApiState>,
    Caller(owner): Caller,
    Id(id): Id,
    Query(query): Query<WaitQuery>,
) -> Result<Response, Problem> {
    let job = match query.limit()? {
        Some(limit) => api.dispatcher.wait(id, limit).await?,
        None => api.dispatcher.store().job(id).await?,
    };
    let job = job.ok_or_else(|| Problem::unknown_job(id))?;
    let attempts = AttemptView::all(&job, api.dispatcher.attempts(&job).await?);
    let graph = GraphView::of(api.dispatcher.store().graph(id, owner, graph::MOST).await?);
    let waiting = WaitingView::of(&api, &job).await?;
    Ok(Json(JobView::from(&job).with(attempts).explained(graph, waiting)).into_response())
}

/// Why a job runs where it runs.
#[derive(Serialize, ToSchema)]
pub(super) struct RouteExplanation {
    /// The executor that runs it.
    executor: Executor,
    /// The rule that chose it.
    rule: Rule,
    /// The rule in words, with the numbers behind it.
    #[schema(value_type = String)]
    reason: Cow<'static, str>,
    /// What was measured of earlier runs, where that chose the executor, would have chosen another, or was asked in vain; else null.
    #[schema(required)]
    evidence: Option<Evidence>,
    /// The client's tag.
    bound: Bound,
    /// The executor that the client asked for.
    asked: Choice,
    /// How the workload is written; null if this server no longer has it.
    #[schema(required)]
    form: Option<Form>,
    /// Every executor, with what speaks for or against it.
    considered: Vec<ConsideredView>,
}

/// An executor that was looked at.
#[derive(Serialize, ToSchema)]
#[schema(as = Considered)]
struct ConsideredView {
    /// Which.
    executor: Executor,
    /// Whether it was chosen.
    chosen: bool,
    /// What speaks for or against it.
    because: &'static str,
    /// What it can do.
    capabilities: Capabilities,
}

impl RouteExplanation {
    /// Why this job runs where it runs, if its workload is written in this language and form, and with a global lock or without.
    pub(super) fn of(job: &Job, written: Option<Written>) -> Self {
        let bound = job.submission.bound;
        let route = job.route;
        let view = |Considered { executor, because, capabilities }| ConsideredView {
            executor,
            chosen: executor == route.executor,
            because,
            capabilities,
        };
        Self {
            executor: route.executor,
            rule: route.rule,
            reason: route.reason(),
            evidence: route.evidence,
            bound,
            asked: job.submission.executor,
            form: written.map(|written| written.form),
            considered: written.into_iter().flat_map(|written| considered(bound, &route, written)).map(view).collect(),
        }
    }
}

/// Explain a job's route
///
/// The rule that chose its executor, what it rests on, and what spoke for or against each of the others.
#[utoipa::path(
    get, path = "/jobs/{id}/route", tag = "jobs", operation_id = "explainRoute",
    params(("id" = String, Path, description = "The job's id", format = "uuid")),
    responses(
        (status = 200, description = "The route", body = RouteExplanation, example = example::route),
        answers::UnknownJob, answers::Unavailable,
    ),
)]
pub(super) async fn route(State(api): State<ApiState>, Id(id): Id) -> Result<Response, Problem> {
    let mut job = find(&api, id).await?;
    let written = api.dispatcher.written(&mut job.submission.workload).ok().map(|(written, _)| written);
    Ok(Json(RouteExplanation::of(&job, written)).into_response())
}

/// Where a job must be to be cancelled.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct CancelQuery {
    /// Only if it is in this state, or in one of several with commas between, such as `scheduled,blocked,queued`.
    state: Option<States>,
}

/// Cancel a job
///
/// A job that waits has ended with the answer. One that runs is told to stop; how soon it does depends on its executor. With `state`, it is
/// cancelled only if it is there: `scheduled,blocked,queued` never stops one that has begun.
#[utoipa::path(
    delete, path = "/jobs/{id}", tag = "jobs", operation_id = "cancelJob",
    params(("id" = String, Path, description = "The job's id", format = "uuid"), CancelQuery),
    responses(
        (status = 200, description = "It was waiting, and is cancelled", body = JobView, example = example::cancelled_job),
        (status = 202, description = "It runs, and is being stopped", body = JobView, example = example::stopping_job),
        answers::BadQuery, answers::UnknownJob, answers::AlreadyFinished, answers::InAnotherState, answers::Unavailable,
    ),
)]
pub(super) async fn cancel(
    State(api): State<ApiState>,
    Id(id): Id,
    Query(CancelQuery { state }): Query<CancelQuery>,
) -> Result<Response, Problem> {
    let status = match api.dispatcher.cancel(id, &States::of(state.as_ref())).await? {
        Cancellation::Cancelled => StatusCode::OK,
        Cancellation::Stopping(_) => StatusCode::ACCEPTED,
        Cancellation::Finished(ending) => {
            return Err(Problem::new(Kind::AlreadyFinished, format!("the job ended as {ending}")));
        }
        Cancellation::Elsewhere => {
            return Err(Problem::new(Kind::InAnotherState, "the job is left alone: it is in another state"));
        }
        Cancellation::Unknown => return Err(Problem::unknown_job(id)),
    };
    Ok((status, Json(JobView::from(&find(&api, id).await?))).into_response())
}

/// Run a job again
///
/// A finished job waits again, with the same id and workload, and its retry rule applies anew. Its result is gone until it has ended once
/// more; what its attempts were stays among its `attempts`. It runs even if its time was over.
#[utoipa::path(
    post, path = "/jobs/{id}/retry", tag = "jobs", operation_id = "retryJob",
    params(("id" = String, Path, description = "The job's id", format = "uuid")),
    responses(
        (status = 202, description = "It waits again", body = JobView,
            headers(("Location" = String, description = "The job")), example = example::job),
        answers::UnknownJob, answers::NotFinished, answers::QuotaUsedUp, answers::Unavailable,
    ),
)]
pub(super) async fn retry(State(api): State<ApiState>, Caller(owner): Caller, Id(id): Id) -> Result<Response, Problem> {
    match api.dispatcher.retry(id, owner).await? {
        Requeue::Queued => Ok(accepted(&find(&api, id).await?, false)),
        Requeue::Unfinished => Err(Problem::new(Kind::NotFinished, "only a job that has ended can be run again")),
        Requeue::Unknown => Err(Problem::unknown_job(id)),
    }
}

/// One job, wherever it is.
pub(super) async fn find(api: &ApiState, id: JobId) -> Result<Job, Problem> {
    api.dispatcher.store().job(id).await?.ok_or_else(|| Problem::unknown_job(id))
}

/// A job that was accepted: the whole of it, or what has to be known of it.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = Accepted)]
#[expect(clippy::large_enum_variant, reason = "it lives as long as it takes to write it down")]
enum AcceptedView<'a> {
    Whole(JobView<'a>),
    Minimal(MinimalView),
}

/// What has to be known of a job.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = MinimalJob)]
struct MinimalView {
    /// Its name for ever, a UUID of version 7.
    #[schema(value_type = String, format = "uuid")]
    id: JobId,
    /// Where it is.
    state: StateName,
}

fn accepted(job: &Job, minimal: bool) -> Response {
    if !minimal {
        let view = AcceptedView::Whole(job.into());
        return (StatusCode::ACCEPTED, [(LOCATION, location(job.id))], Json(view)).into_response();
    }
    let view = AcceptedView::Minimal(MinimalView { id: job.id, state: (&job.state).into() });
    let headers = [(LOCATION, location(job.id)), (PREFERENCE_APPLIED, "return=minimal".into())];
    (StatusCode::ACCEPTED, headers, Json(view)).into_response()
}

fn location(id: JobId) -> String {
    format!("/jobs/{id}")
}
