//! `/jobs/cancel` and `/jobs/retry`: what is done to every job that passes a filter.

use axum::extract::{Request, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::Caller;
use super::json::Json;
use super::list::{Labels, OneOrSeveral};
use super::problem::{Kind, Problem, answers};
use super::state::States;
use super::{ApiState, body, example, submission};
use crate::clock::Timestamp;
use crate::job::{Bound, Executor, FailureKind, Owner};
use crate::store::{Filter, StateFilter};
use crate::workload::Invalid;

/// The longest filter, in bytes.
const MAX_BYTES: usize = 64 << 10;

/// Which jobs: those that pass every condition. There must be one; `all` is one that every job passes.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = JobFilter)]
pub(super) struct Which {
    /// Where they are or how they ended: any of these, with commas between.
    state: Option<States>,
    /// Of which kind the error is with which they ended.
    error: Option<FailureKind>,
    /// How they are tagged.
    bound: Option<Bound>,
    /// Where they run.
    executor: Option<Executor>,
    /// Their workload's `type`.
    workload: Option<String>,
    /// A label, as `name:value`; or several, for jobs that have all of them: 16 at most, as a job has.
    #[serde(default)]
    #[schema(value_type = Option<OneOrSeveral>, inline, example = "team:search")]
    tag: Labels,
    /// Accepted at this time or later (RFC 3339).
    #[schema(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// Accepted before this time (RFC 3339).
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// Every job.
    #[serde(default)]
    #[schema(default = false)]
    all: bool,
}

impl Which {
    /// The filter in a body, if it is one that `check` takes.
    async fn read(api: &ApiState, request: Request, check: fn(&Filter) -> Result<(), Invalid>) -> Result<Filter, Problem> {
        let (parts, body) = request.into_parts();
        let Caller(owner) = Caller::of(&parts.extensions);
        let body = body::json(&parts.headers, body, api.bodies.at_most(MAX_BYTES)).await?;
        let filter = Self::parse(&body, owner).and_then(|filter| Ok(check(&filter).map(|()| filter)?));
        filter.map_err(|problem| problem.of_what(Kind::InvalidFilter))
    }

    fn parse(text: &[u8], owner: Option<Owner>) -> Result<Filter, Problem> {
        let Self { state, error, bound, executor, workload, tag, since, until, all } = submission::object(text, "")?;
        let states = States::of(state.as_ref());
        let tags: Vec<_> = tag.into();
        let any =
            [!states.is_empty(), error.is_some(), bound.is_some(), executor.is_some(), workload.is_some(), !tags.is_empty()];
        if !(all || since.is_some() || until.is_some() || any.contains(&true)) {
            return Err(Invalid::new("", "needs a condition; `all` is one that every job passes").into());
        }
        Ok(Filter { owner, states, error, bound, executor, workload, tags, since, until, findings: None })
    }
}

/// What came of cancelling many jobs.
#[derive(Serialize, ToSchema)]
#[schema(as = Cancelled)]
pub(super) struct CancelledView {
    /// Jobs that were waiting, and have ended.
    pub(super) cancelled: u64,
    /// Jobs that run, and are being stopped.
    pub(super) stopping: u64,
}

/// What came of running many jobs again.
#[derive(Serialize, ToSchema)]
#[schema(as = Retried)]
pub(super) struct RetriedView {
    /// Jobs that wait again.
    pub(super) retried: u64,
    /// Whether there may be more, for which the quota of the key has no room now: they are left for another request.
    pub(super) more: bool,
}

/// Cancel many jobs
///
/// Every job that has not ended, passes the filter and was there when the request came: those that wait have ended with the answer, those
/// that run are told to stop. They are cancelled in portions, while everything else goes on; the answer comes after the last one.
#[utoipa::path(
    post, path = "/jobs/cancel", tag = "jobs", operation_id = "cancelJobs",
    request_body(content = Which, content_type = "application/json", example = example::waiting_jobs),
    responses(
        (status = 200, description = "How many there were", body = CancelledView, example = example::cancelled_jobs),
        answers::MalformedJson, answers::BodyTimeout, answers::TooLarge, answers::UnsupportedMediaType, answers::InvalidFilter,
        answers::Unavailable,
    ),
)]
pub(super) async fn cancel(State(api): State<ApiState>, request: Request) -> Result<Json<CancelledView>, Problem> {
    let check = |filter: &Filter| {
        if filter.states.iter().any(|state| matches!(state, StateFilter::Ended(_))) {
            return Err(Invalid::new("/state", "a job that has ended can't be cancelled"));
        }
        if filter.error.is_some() {
            return Err(Invalid::new("/error", "a job that has not ended has no error"));
        }
        Ok(())
    };
    let filter = Which::read(&api, request, check).await?;
    let count = api.dispatcher.cancel_all(&filter).await?;
    Ok(Json(CancelledView { cancelled: count.cancelled, stopping: count.stopping }))
}

/// Run many jobs again
///
/// Every finished job that passes the filter and had ended when the request came; without `state`, those that failed and those that were
/// lost. Each keeps its id and waits again, its retry rule applies anew, and its result is gone until it has ended once more. If the quota of the
/// key is used up on the way, the answer says how many there were until then, and `more`; it is `429` if there was none.
#[utoipa::path(
    post, path = "/jobs/retry", tag = "jobs", operation_id = "retryJobs",
    request_body(content = Which, content_type = "application/json", example = example::dead_jobs),
    responses(
        (status = 200, description = "How many there were", body = RetriedView, example = example::retried_jobs),
        answers::MalformedJson, answers::BodyTimeout, answers::TooLarge, answers::UnsupportedMediaType, answers::InvalidFilter,
        answers::QuotaUsedUp, answers::Unavailable,
    ),
)]
pub(super) async fn retry(State(api): State<ApiState>, request: Request) -> Result<Json<RetriedView>, Problem> {
    let check = |filter: &Filter| {
        let wrong = filter.states.iter().any(|state| !matches!(state, StateFilter::Ended(_)));
        if wrong { Err(Invalid::new("/state", "only a job that has ended can be run again")) } else { Ok(()) }
    };
    let filter = Which::read(&api, request, check).await?;
    let count = api.dispatcher.retry_all(&filter).await?;
    Ok(Json(RetriedView { retried: count.retried, more: count.more }))
}
