//! `/comparisons`: one workload on all executors, with a verdict.

use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::access::Caller;
use super::body::{self, Binary};
use super::comparison_view::{self, ComparisonSummary, ComparisonView, Fields};
use super::format::preferred;
use super::json::Json;
use super::list::{Cursor, Limit, List, first, linked};
use super::preference::WaitQuery;
use super::problem::{Kind, Problem, answers};
use super::query::Query;
use super::{ApiState, example};
use crate::comparison::picture::{self, Figure};
use crate::comparison::report::Report;
use crate::comparison::{CompareError, Unwanted, page};
use crate::job::ComparisonId;
use crate::store::{Comparison, on_page};

/// The longest request, in bytes: its workload may come with code.
const MAX_BYTES: usize = 12 << 20;

const SVG: &str = "image/svg+xml";
const PNG: &str = "image/png";
const HTML: &str = "text/html; charset=utf-8";

/// Compare the executors
///
/// Runs one workload serially, then on each executor at each concurrency, all in turn and again and again, beside two controls: pure
/// waiting and pure computing. One comparison runs at a time; the others wait. The tasks are no jobs: they leave no results.
#[utoipa::path(
    post, path = "/comparisons", tag = "comparisons", operation_id = "compare",
    request_body(content = Fields, content_type = "application/json", example = example::comparison_request),
    responses(
        (status = 202, description = "It is kept, and runs when it is its turn", body = ComparisonView,
            headers(("Location" = String, description = "The comparison")), example = example::queued_comparison),
        answers::MalformedJson, answers::BodyTimeout, answers::TooLarge, answers::UnsupportedMediaType, answers::InvalidComparison,
        answers::QuotaUsedUp, answers::Unavailable,
    ),
)]
pub(super) async fn ask(State(api): State<ApiState>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let body = body::json(&parts.headers, body, api.bodies.at_most(MAX_BYTES)).await?;
    let invalid = |problem: Problem| problem.of_what(Kind::InvalidComparison);
    let asked = comparison_view::parse(&body).map_err(invalid)?;
    let Caller(owner) = Caller::of(&parts.extensions);
    let kept = api.comparisons.ask(owner, asked).await.map_err(|error| match error {
        CompareError::Invalid(wrong) => invalid(wrong.into()),
        CompareError::Draining => Problem::new(Kind::Unavailable, error.to_string()),
        CompareError::NoRoom(no_room) => no_room.into(),
        CompareError::Store(error) => error.into(),
    })?;
    let location = location(kept.id);
    Ok((StatusCode::ACCEPTED, [(LOCATION, location)], Json(ComparisonView::of(kept, None)?)).into_response())
}

/// Which page of the list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PageQuery {
    /// How many on a page.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000, default = 50)]
    limit: Limit,
    /// The `next_cursor` of the page before.
    #[param(value_type = Option<String>, pattern = "^[A-Za-z0-9_-]{8}[c-f][A-Za-z0-9_-]{12}[AQgw]$")]
    cursor: Option<Cursor>,
}

/// List comparisons
///
/// The latest first, each with its verdict.
#[utoipa::path(
    get, path = "/comparisons", tag = "comparisons", operation_id = "listComparisons",
    params(PageQuery),
    responses(
        (status = 200, description = "A page of comparisons", body = List<ComparisonSummary>,
            headers(("Link" = String, description = "The next page, if there is one")), example = example::comparisons),
        answers::BadQuery, answers::Unavailable,
    ),
)]
pub(super) async fn list(
    State(api): State<ApiState>,
    Caller(owner): Caller,
    Query(PageQuery { limit, cursor }): Query<PageQuery>,
    uri: Uri,
) -> Result<Response, Problem> {
    let after = cursor.map(|cursor| ComparisonId::from_bytes(cursor.bytes()));
    let found = api.comparisons.list(owner, after, limit.0 + 1).await?;
    let most = on_page(limit.0, &found);
    let (shown, next_cursor) = first(found, most, |last| Cursor::from_bytes(*last.id.as_bytes()));
    let items = shown.into_iter().map(ComparisonSummary::of).collect::<Result<_, _>>()?;
    Ok(linked(Json(List { items, next_cursor: next_cursor.map(String::from) }).into_response(), &uri, next_cursor))
}

/// How a comparison is shown.
#[derive(Clone, Copy)]
enum Shown {
    Json,
    Page,
    Svg,
    Png,
}

/// Look at a comparison
///
/// With `wait` the answer comes when it has ended, or after that many seconds as it is then. As HTML it is a page that stands alone, as
/// SVG or PNG the chart of the speed-ups.
#[utoipa::path(
    get, path = "/comparisons/{id}", tag = "comparisons", operation_id = "getComparison",
    params(("id" = String, Path, description = "Its id", format = "uuid"), WaitQuery),
    responses(
        (status = 200, description = "The comparison as it is", content(
            (ComparisonView = "application/json", example = example::comparison),
            (String = "text/html", example = "<!doctype html>…"),
            (String = "image/svg+xml", example = "<svg>…"),
            (Binary = "image/png"),
        )),
        answers::BadQuery, answers::UnknownComparison, answers::NoReport, answers::NotAcceptable, answers::Unavailable,
    ),
)]
pub(super) async fn get(
    State(api): State<ApiState>,
    Id(id): Id,
    Query(query): Query<WaitQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let offers = [("application/json", Shown::Json), ("text/html", Shown::Page), (SVG, Shown::Svg), (PNG, Shown::Png)];
    let shown = preferred(&headers, &offers)?;
    let found = match query.limit()? {
        Some(limit) => api.comparisons.wait(id, limit).await?,
        None => api.comparisons.get(id).await?,
    };
    let (kept, progress) = found.ok_or_else(|| unknown(id))?;
    match shown {
        Shown::Json => Ok(Json(ComparisonView::of(kept, progress)?).into_response()),
        Shown::Page => page_of(&kept),
        Shown::Svg => svg(&kept, Figure::Speedup),
        Shown::Png => png(&kept, Figure::Speedup).await,
    }
}

/// Cancel or remove a comparison
///
/// One that waits will not run. One that runs is told to stop, and ends without a report. One that has ended is removed, with its request
/// and its report.
#[utoipa::path(
    delete, path = "/comparisons/{id}", tag = "comparisons", operation_id = "cancelComparison",
    params(("id" = String, Path, description = "Its id", format = "uuid")),
    responses(
        (status = 200, description = "It was waiting, and is cancelled", body = ComparisonView, example = example::queued_comparison),
        (status = 202, description = "It runs, and is being stopped", body = ComparisonView, example = example::queued_comparison),
        (status = 204, description = "It had ended, and is gone"),
        answers::UnknownComparison, answers::Unavailable,
    ),
)]
pub(super) async fn cancel(State(api): State<ApiState>, Id(id): Id) -> Result<Response, Problem> {
    let (status, kept) = match api.comparisons.discard(id).await? {
        Unwanted::Cancelled(kept) => (StatusCode::OK, kept),
        Unwanted::Stopping(kept) => (StatusCode::ACCEPTED, kept),
        Unwanted::Removed => return Ok(StatusCode::NO_CONTENT.into_response()),
        Unwanted::Unknown => return Err(unknown(id)),
    };
    Ok((status, Json(ComparisonView::of(kept, None)?)).into_response())
}

/// The report of a comparison
///
/// One page that stands alone: the verdict, the charts, the table.
#[utoipa::path(
    get, path = "/comparisons/{id}/report.html", tag = "comparisons", operation_id = "getComparisonReport",
    params(("id" = String, Path, description = "Its id", format = "uuid")),
    responses(
        (status = 200, description = "The page", body = String, content_type = "text/html", example = "<!doctype html>…"),
        answers::UnknownComparison, answers::NoReport, answers::Unavailable,
    ),
)]
pub(super) async fn report(State(api): State<ApiState>, Id(id): Id) -> Result<Response, Problem> {
    page_of(&find(&api, id).await?)
}

/// Which chart.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ChartQuery {
    /// What it shows.
    #[serde(default)]
    #[param(inline, value_type = Option<ChartOf>)]
    of: ChartOf,
}

/// What a chart shows.
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum ChartOf {
    /// How many times as fast as one task after the other.
    #[default]
    Speedup,
    /// How long a task takes from asking to the answer.
    Latency,
    /// How long a short wait on the event loop takes meanwhile.
    Bystander,
}

impl From<ChartOf> for Figure {
    fn from(of: ChartOf) -> Self {
        match of {
            ChartOf::Speedup => Self::Speedup,
            ChartOf::Latency => Self::Latency,
            ChartOf::Bystander => Self::Bystander,
        }
    }
}

/// A chart of a comparison, as SVG
///
/// Bars for each executor at each concurrency, with their spread.
#[utoipa::path(
    get, path = "/comparisons/{id}/chart.svg", tag = "comparisons", operation_id = "getComparisonSvg",
    params(("id" = String, Path, description = "Its id", format = "uuid"), ChartQuery),
    responses(
        (status = 200, description = "The chart", body = String, content_type = "image/svg+xml", example = "<svg>…"),
        answers::BadQuery, answers::UnknownComparison, answers::NoReport, answers::Unavailable,
    ),
)]
pub(super) async fn chart_svg(
    State(api): State<ApiState>,
    Id(id): Id,
    Query(ChartQuery { of }): Query<ChartQuery>,
) -> Result<Response, Problem> {
    svg(&find(&api, id).await?, of.into())
}

/// A chart of a comparison, as PNG
///
/// The same chart for where SVG can't be shown.
#[utoipa::path(
    get, path = "/comparisons/{id}/chart.png", tag = "comparisons", operation_id = "getComparisonPng",
    params(("id" = String, Path, description = "Its id", format = "uuid"), ChartQuery),
    responses(
        (status = 200, description = "The chart", body = Binary, content_type = "image/png"),
        answers::BadQuery, answers::UnknownComparison, answers::NoReport, answers::Unavailable,
    ),
)]
pub(super) async fn chart_png(
    State(api): State<ApiState>,
    Id(id): Id,
    Query(ChartQuery { of }): Query<ChartQuery>,
) -> Result<Response, Problem> {
    png(&find(&api, id).await?, of.into()).await
}

/// The id in the path. What is no id is the id of no comparison.
pub(super) struct Id(ComparisonId);

impl FromRequestParts<ApiState> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &ApiState) -> Result<Self, Problem> {
        let Path(text) = Path::<String>::from_request_parts(parts, api).await.map_err(|_| unknown("in the path"))?;
        let id = text.parse().map_err(|_| unknown(text))?;
        let caller = Caller::of(&parts.extensions);
        if caller.0.is_some() && !caller.sees(find(api, id).await?.owner) {
            return Err(unknown(id));
        }
        Ok(Self(id))
    }
}

async fn find(api: &ApiState, id: ComparisonId) -> Result<Comparison, Problem> {
    api.comparisons.get(id).await?.map(|(kept, _)| kept).ok_or_else(|| unknown(id))
}

fn unknown(id: impl std::fmt::Display) -> Problem {
    Problem::new(Kind::UnknownComparison, format!("no comparison has the id {id}"))
}

fn location(id: ComparisonId) -> String {
    format!("/comparisons/{id}")
}

/// What was found.
fn found(kept: &Comparison) -> Result<Report, Problem> {
    let none = || {
        let state = serde_json::to_value(kept.state).unwrap_or_default();
        Problem::new(Kind::NoReport, format!("the comparison is {}", state.as_str().unwrap_or_default()))
    };
    comparison_view::report(kept)?.ok_or_else(none)
}

fn page_of(kept: &Comparison) -> Result<Response, Problem> {
    let html = page::html(kept.id, kept.finished_at, &comparison_view::request(kept)?, &found(kept)?);
    Ok(([(CONTENT_TYPE, HTML)], html.map_err(Problem::internal)?).into_response())
}

fn svg(kept: &Comparison, figure: Figure) -> Result<Response, Problem> {
    let svg = picture::svg(&found(kept)?, figure).map_err(Problem::internal)?;
    Ok(([(CONTENT_TYPE, SVG)], svg).into_response())
}

async fn png(kept: &Comparison, figure: Figure) -> Result<Response, Problem> {
    let report = found(kept)?;
    // Drawing and packing pixels takes longer than other requests should wait for this thread.
    let drawn = tokio::task::spawn_blocking(move || picture::png(&report, figure)).await;
    let png = drawn.map_err(Problem::internal)?.map_err(Problem::internal)?;
    Ok(([(CONTENT_TYPE, PNG)], png).into_response())
}
