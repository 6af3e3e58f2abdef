//! The HTTP API: a file a resource, what clients see of it beside the handlers that show it.
//!
//! A handler reads the request, calls the dispatcher and shows what comes back. Whatever goes wrong becomes a [`problem::Problem`].

mod batch;
mod body;
mod example;
mod executors;
mod format;
mod health;
mod jobs;
mod list;
mod openapi;
mod preference;
mod problem;
mod query;
mod results;
mod submission;
mod summary;
mod table;
mod view;
mod workloads;

pub use body::BodyLimits;

use std::any::Any;

use axum::Router;
use axum::http::HeaderValue;
use axum::http::header::X_CONTENT_TYPE_OPTIONS;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::SwaggerUi;

use self::problem::Problem;
use crate::dispatch::Dispatcher;
use crate::workload::Registry;

/// What handlers work with.
#[derive(Clone)]
pub struct ApiState {
    /// Takes, runs and knows jobs.
    pub dispatcher: Dispatcher,
    /// What is taken as the body of a request.
    pub bodies: BodyLimits,
}

/// The whole API, with its documentation.
pub fn router(state: ApiState) -> Router {
    let (router, mut document) = operations().split_for_parts();
    openapi::complete(&mut document, state.dispatcher.registry());
    let every_answer = ServiceBuilder::new().layer(CatchPanicLayer::custom(panicked)).map_response(guarded);
    router
        .with_state(state)
        .route("/", get(|| async { Redirect::to("/docs/") }))
        .merge(SwaggerUi::new("/docs").url("/openapi.json", document))
        .layer(every_answer)
}

/// The OpenAPI document of a server with these workloads.
pub fn openapi(registry: &Registry) -> OpenApi {
    let mut document = operations().into_openapi();
    openapi::complete(&mut document, registry);
    document
}

fn operations() -> OpenApiRouter<ApiState> {
    OpenApiRouter::with_openapi(openapi::frame())
        .routes(routes!(jobs::submit, jobs::list))
        .routes(routes!(batch::submit))
        .routes(routes!(jobs::get, jobs::cancel))
        .routes(routes!(jobs::route))
        .routes(routes!(jobs::retry))
        .routes(routes!(results::list))
        .routes(routes!(summary::get))
        .routes(routes!(results::get))
        .routes(routes!(workloads::list))
        .routes(routes!(executors::list))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
}

/// What all answers have in common: errors are problems, and no browser guesses a media type.
fn guarded(response: Response) -> Response {
    let mut response = problem::complete(response);
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A handler that panics fails one request, not its connection.
fn panicked(panic: Box<dyn Any + Send>) -> Response {
    guarded(Problem::of_panic(&*panic).into_response())
}
