//! `/functions`: users' own code, registered under a name.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::header::{CONTENT_TYPE, ETAG, LOCATION, VARY};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::body::{self, Binary};
use super::format::preferred;
use super::json::Json;
use super::list::List;
use super::problem::{Kind as ProblemKind, Problem, answers};
use super::query::Query;
use super::submission::DAY_MS;
use super::{ApiState, condition, example};
use crate::clock::{Timestamp, millis};
use crate::dispatch::{Catalogue, DeployError, Deployment};
use crate::executor::python::SourceFault;
use crate::function::{Defaults, Function, Kind, LEAST_MEMORY, Limits};
use crate::job::{Bound, Choice, Form};

/// The longest content of a function, in bytes.
const MAX_BYTES: usize = 8 << 20;

/// A version of a function.
#[derive(Serialize, ToSchema)]
#[schema(as = Function)]
pub(super) struct FunctionView {
    /// By what jobs name it.
    name: String,
    /// SHA-256 of its content, its entry point and its interpreter; jobs may name it by 8 or more of its first digits.
    version: String,
    /// Whether jobs that name no version get this one.
    latest: bool,
    /// Whether its content is a `source` or a `zip`.
    kind: &'static str,
    /// How long its content is.
    bytes: u64,
    /// What is called.
    entrypoint: String,
    /// How that is written.
    form: Form,
    /// The interpreter that runs it; null for the server's default.
    #[schema(required)]
    interpreter: Option<String>,
    /// What it does most of the time; null if each job has to say so.
    #[schema(required)]
    bound: Option<Bound>,
    /// The executor that runs it where a job does not ask for one.
    executor: Choice,
    /// The longest that one attempt may run where a job does not say, in milliseconds.
    #[schema(required)]
    deadline_ms: Option<u64>,
    /// The most resident memory of the process of one call, in bytes; null for what the server gives every call.
    #[schema(required)]
    memory_bytes: Option<u64>,
    /// The most CPU time of one call, in milliseconds.
    #[schema(required)]
    cpu_ms: Option<u64>,
    /// The longest output of one call, in bytes of JSON; null for what the server takes of every call.
    #[schema(required)]
    output_bytes: Option<u64>,
    /// When it was deployed first.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it was deployed last.
    #[schema(value_type = String, format = DateTime)]
    deployed_at: Timestamp,
}

impl FunctionView {
    /// A version as it is known.
    pub(super) fn of(function: &Function, latest: bool) -> Self {
        let Function { name, version, created_at, deployed_at, kind, bytes, entrypoint, form, interpreter, defaults, limits } =
            function.clone();
        let Defaults { bound, executor, deadline } = defaults;
        let Limits { memory_bytes, cpu_ms, output_bytes } = limits;
        Self {
            name,
            version,
            latest,
            kind: kind.as_str(),
            bytes,
            entrypoint,
            form,
            interpreter,
            bound,
            executor,
            deadline_ms: deadline.map(millis),
            memory_bytes,
            cpu_ms,
            output_bytes,
            created_at,
            deployed_at,
        }
    }
}

/// What a function is declared with.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Declaration {
    /// What to call: `main`, or `main:main` of a zip, by default.
    entrypoint: Option<String>,
    /// What it does most of the time. Without it, each job has to say so.
    bound: Option<Bound>,
    /// The executor that runs it where a job does not ask for one.
    #[serde(default)]
    #[param(inline, value_type = Option<Choice>)]
    executor: Choice,
    /// The name of the interpreter that runs it; without it the server's default.
    interpreter: Option<String>,
    /// The longest that one attempt may run where a job does not say, in milliseconds.
    #[param(minimum = 1, maximum = 86_400_000)]
    deadline_ms: Option<u64>,
    /// The most resident memory of the process of one call, in bytes. With it, `executor` must be `processes`.
    #[param(minimum = 67_108_864)]
    memory_bytes: Option<u64>,
    /// The most CPU time of one call, in milliseconds. With it, `executor` must be `processes`.
    #[param(minimum = 1, maximum = 86_400_000)]
    cpu_ms: Option<u64>,
    /// The longest output of one call, in bytes of JSON.
    #[param(minimum = 1)]
    output_bytes: Option<u64>,
}

/// Deploy a function
///
/// The body is the source of a module, or a zip with several. The module of the entry point is looked at by the interpreter, and refused
/// if that can't compile it, or if it defines no such function. Its content, entry point and interpreter make its version, which is the
/// latest of its name from here on; earlier ones can still be called. The same once more makes no new version.
#[utoipa::path(
    put, path = "/functions/{name}", tag = "functions", operation_id = "deployFunction",
    params(("name" = String, Path, description = "Its name", pattern = "^[a-z0-9][a-z0-9_-]{0,63}$"), Declaration),
    request_body(description = "Up to 8 MiB", content(
        (String = "text/x-python", example = example::source),
        (Binary = "application/zip"),
    )),
    responses(
        (status = 200, description = "The version was there, and is the latest now", body = FunctionView,
            headers(("Location" = String, description = "The version")), example = example::function),
        (status = 201, description = "The version is new", body = FunctionView,
            headers(("Location" = String, description = "The version")), example = example::function),
        answers::BadQuery, answers::BodyTimeout, answers::TooLarge, answers::UnsupportedMediaType, answers::InvalidFunction,
        answers::Unavailable,
    ),
)]
pub(super) async fn deploy(
    State(api): State<ApiState>,
    Path(name): Path<String>,
    Query(declaration): Query<Declaration>,
    request: Request,
) -> Result<Response, Problem> {
    let Declaration { entrypoint, bound, executor, interpreter, deadline_ms, memory_bytes, cpu_ms, output_bytes } = declaration;
    for (parameter, ms) in [("deadline_ms", deadline_ms), ("cpu_ms", cpu_ms)] {
        if ms.is_some_and(|ms| !(1..=DAY_MS).contains(&ms)) {
            return Err(Problem::bad_query(parameter, format!("must be 1 to {DAY_MS}")));
        }
    }
    for (parameter, bytes, least) in [("memory_bytes", memory_bytes, LEAST_MEMORY), ("output_bytes", output_bytes, 1)] {
        if bytes.is_some_and(|bytes| bytes < least) {
            return Err(Problem::bad_query(parameter, format!("must be {least} or more")));
        }
    }
    let limits = Limits { memory_bytes, cpu_ms, output_bytes };
    let (parts, body) = request.into_parts();
    let kind = body::media_type(&parts.headers, &Kind::ALL.map(|kind| (kind.media_type(), kind)))?;
    let content = body::read(&parts.headers, body, api.bodies.at_most(MAX_BYTES)).await?;
    let defaults = Defaults { bound, executor, deadline: deadline_ms.map(Duration::from_millis) };
    let deployment = Deployment { name, kind, content: content.to_vec(), entrypoint, interpreter, defaults, limits };
    let function = api.dispatcher.deploy(deployment).await?;
    let status = if function.is_new() { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, [(LOCATION, location(&function))], Json(FunctionView::of(&function, true))).into_response())
}

/// List functions
///
/// The latest version of each.
#[utoipa::path(
    get, path = "/functions", tag = "functions", operation_id = "listFunctions",
    responses((status = 200, description = "All functions, by name", body = List<FunctionView>, example = example::functions)),
)]
pub(super) async fn list(State(api): State<ApiState>) -> Json<List<FunctionView>> {
    let latest = api.dispatcher.functions().catalogue().latest();
    Json(List::whole(latest.iter().map(|function| FunctionView::of(function, true))))
}

/// List the versions of a function
///
/// The latest first.
#[utoipa::path(
    get, path = "/functions/{name}", tag = "functions", operation_id = "listFunctionVersions",
    params(("name" = String, Path, description = "Its name")),
    responses(
        (status = 200, description = "All of its versions", body = List<FunctionView>, example = example::functions),
        answers::UnknownFunction, answers::Unavailable,
    ),
)]
pub(super) async fn versions(State(api): State<ApiState>, Path(name): Path<String>) -> Result<Response, Problem> {
    api.dispatcher.functions().catch_up().await?;
    let versions = api.dispatcher.functions().catalogue().versions(&name);
    if versions.is_empty() {
        return Err(unknown(format!("no function is called {name:?}")));
    }
    let views = versions.iter().enumerate().map(|(place, function)| FunctionView::of(function, place == 0));
    Ok(Json(List::whole(views)).into_response())
}

/// Look at a version of a function
///
/// What is known of it; its content for whoever accepts the media type of that.
#[utoipa::path(
    get, path = "/functions/{name}/versions/{version}", tag = "functions", operation_id = "getFunctionVersion",
    params(
        ("name" = String, Path, description = "Its name"),
        ("version" = String, Path, description = "Its version, or at least 8 of its first digits"),
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of content that is not to be sent again"),
    ),
    responses(
        (status = 304, description = "It is the content that the client has", headers(("ETag" = String, description = "The version"))),
        (status = 200, description = "The version, or its content", headers(("ETag" = String, description = "The version, with its content only")), content(
            (FunctionView = "application/json", example = example::function),
            (String = "text/x-python", example = example::source),
            (Binary = "application/zip"),
        )),
        answers::UnknownFunction, answers::NotAcceptable, answers::Unavailable,
    ),
)]
pub(super) async fn get(
    State(api): State<ApiState>,
    Path((name, version)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let function = find(&api, &name, &version).await?;
    let own = function.kind.media_type();
    let wants_content = preferred(&headers, &[("application/json", false), (own, true)])?;
    let vary = [(VARY, "accept")];
    if !wants_content {
        return Ok((vary, Json(view(&api, &function))).into_response());
    }
    // The version is the content's digest. What is known of it changes, as with whether it is the latest.
    let etag = format!("\"{}\"", function.version);
    if condition::has(&headers, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, vary, [(ETAG, etag)]).into_response());
    }
    let content = api.dispatcher.functions().content(&function).await?;
    let content = content.ok_or_else(|| unknown(format!("{name} was removed")))?;
    Ok((vary, [(ETAG, etag)], [(CONTENT_TYPE, own)], content).into_response())
}

/// Make a version the latest
///
/// Jobs that name no version get this one from here on: the way back from a deployment that was wrong.
#[utoipa::path(
    post, path = "/functions/{name}/versions/{version}/latest", tag = "functions", operation_id = "redeployFunction",
    params(
        ("name" = String, Path, description = "Its name"),
        ("version" = String, Path, description = "Its version, or at least 8 of its first digits"),
    ),
    responses(
        (status = 200, description = "It is the latest", body = FunctionView, example = example::function),
        answers::UnknownFunction, answers::Unavailable,
    ),
)]
pub(super) async fn redeploy(
    State(api): State<ApiState>,
    Path((name, version)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let function = api.dispatcher.functions().redeploy(&*find(&api, &name, &version).await?).await?;
    let function = function.ok_or_else(|| unknown(format!("{name} was removed")))?;
    Ok(Json(FunctionView::of(&function, true)).into_response())
}

/// Remove a function
///
/// All of its versions. Jobs that wait to call it fail, and say so; those that run go on.
#[utoipa::path(
    delete, path = "/functions/{name}", tag = "functions", operation_id = "removeFunction",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 204, description = "It is gone"), answers::UnknownFunction, answers::Unavailable),
)]
pub(super) async fn remove(State(api): State<ApiState>, Path(name): Path<String>) -> Result<StatusCode, Problem> {
    if api.dispatcher.functions().remove(&name).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(unknown(format!("no function is called {name:?}")))
    }
}

async fn find(api: &ApiState, name: &str, version: &str) -> Result<Arc<Function>, Problem> {
    let find = |functions: &Catalogue| functions.find(name, Some(version)).map_err(|invalid| unknown(invalid.message));
    api.dispatcher.functions().read(find).await
}

fn view(api: &ApiState, function: &Function) -> FunctionView {
    let latest = api.dispatcher.functions().catalogue().find(&function.name, None);
    FunctionView::of(function, latest.is_ok_and(|latest| latest.version == function.version))
}

fn location(function: &Function) -> String {
    format!("/functions/{}/versions/{}", function.name, function.version)
}

fn unknown(detail: String) -> Problem {
    Problem::new(ProblemKind::UnknownFunction, detail)
}

impl From<DeployError> for Problem {
    fn from(error: DeployError) -> Self {
        match error {
            DeployError::Entrypoint(detail) => Self::bad_query("entrypoint", detail),
            DeployError::Limits => Self::bad_query("executor", error.to_string()),
            DeployError::Interpreter(detail) => Self::bad_query("interpreter", detail),
            DeployError::Name(_) | DeployError::Content(_) => Self::new(ProblemKind::InvalidFunction, error.to_string()),
            DeployError::Source(SourceFault { line, column, .. }) => {
                Self::new(ProblemKind::InvalidFunction, error.to_string()).in_line(line, column)
            }
            DeployError::Unchecked(_) => Self::new(ProblemKind::Unavailable, error.to_string()),
            DeployError::Store(error) => error.into(),
        }
    }
}
