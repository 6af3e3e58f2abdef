//! `/results`: finished jobs with their outcome and timing.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};

use super::access::Caller;
use super::jobs::find;
use super::json::Json;
use super::list::{List, ListQuery};
use super::problem::{Kind, Problem, answers};
use super::query::{Id, Query};
use super::state::States;
use super::view::{AttemptView, ResultView};
use super::{ApiState, example};
use crate::store::Removal;

/// How long whoever removes a result waits for its artifacts to go.
const PATIENCE: Duration = Duration::from_secs(5);

/// List results
///
/// Finished jobs in the order of `GET /jobs`, as JSON, CSV or a JSON object a line. In CSV, an `error_message` that begins like a formula has a
/// `'` before it.
#[utoipa::path(
    get, path = "/results", tag = "results", operation_id = "listResults",
    params(ListQuery),
    responses(
        (status = 200, description = "A page of results", headers(("Link" = String, description = "The next page, if there is one")), content(
            (List<ResultView> = "application/json", example = example::results),
            (String = "text/csv", example = example::result_rows),
            (String = "application/x-ndjson", example = example::result_lines),
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
    let filter = Arc::new(query.filter(caller)?);
    query.state.iter().try_for_each(States::are_endings)?;
    let page = query.page(format);
    let dispatcher = api.dispatcher.clone();
    let read = move |page| {
        let (dispatcher, filter) = (dispatcher.clone(), Arc::clone(&filter));
        async move { dispatcher.store().results(&filter, page).await }
    };
    let jobs = read(page).await?;
    query.answer::<ResultView<'_>, _>(&api.held, format, &uri, (page, &jobs), read)
}

/// Look at a result
///
/// The outcome and the timing of one finished job, and of each of its attempts.
#[utoipa::path(
    get, path = "/results/{id}", tag = "results", operation_id = "getResult",
    params(("id" = String, Path, description = "The job's id", format = "uuid")),
    responses(
        (status = 200, description = "The result", body = ResultView, example = example::result),
        answers::UnknownJob, answers::NotFinished, answers::Unavailable,
    ),
)]
pub(super) async fn get(State(api): State<ApiState>, Id(id): Id) -> Result<Response, Problem> {
    let job = find(&api, id).await?;
    let unfinished = || Problem::new(Kind::NotFinished, format!("the job is {}", job.state.as_str()));
    let result = ResultView::of(&job).ok_or_else(unfinished)?;
    let attempts = AttemptView::all(&job, api.dispatcher.attempts(&job).await?);
    Ok(Json(result.with(attempts)).into_response())
}

/// Remove a result
///
/// The finished job with its output, artifacts, labels, events and deliveries; from then on its id is that of no job. It stays counted in the summary.
/// An unfinished job that comes after it and asks for its output fails, unless it has a default for that.
#[utoipa::path(
    delete, path = "/results/{id}", tag = "results", operation_id = "removeResult",
    params(("id" = String, Path, description = "The job's id", format = "uuid")),
    responses(
        (status = 204, description = "It is gone"),
        answers::UnknownJob, answers::NotFinished, answers::Unavailable,
    ),
)]
pub(super) async fn remove(State(api): State<ApiState>, Id(id): Id) -> Result<StatusCode, Problem> {
    match api.dispatcher.store().remove_result(id).await? {
        Removal::Removed => {
            // What is not removed now is so with those of other jobs that are gone.
            let removed = tokio::time::timeout(PATIENCE, api.artifacts.remove(id)).await;
            if !matches!(removed, Ok(Ok(()))) {
                tracing::warn!(job = %id, "the artifacts of a job that was removed are still there for a while");
            }
            Ok(StatusCode::NO_CONTENT)
        }
        Removal::Unfinished => Err(Problem::new(Kind::NotFinished, "only a job that has ended can be removed; cancel it first")),
        Removal::Unknown => Err(Problem::unknown_job(id)),
    }
}
