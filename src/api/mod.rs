//! The HTTP API: a file a resource, what clients see of it beside the handlers that show it.
//!
//! A handler reads the request, calls the dispatcher and shows what comes back. Whatever goes wrong becomes a `Problem`.

mod access;
mod answer;
mod artifacts;
mod audit;
mod batch;
mod body;
mod cluster;
mod comparison_view;
mod comparisons;
mod cors;
mod depth;
mod entrance;
mod events;
mod example;
mod executors;
mod findings;
mod format;
mod functions;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod graph;
mod health;
mod idempotency;
mod jobs;
mod json;
mod keys;
mod limits;
mod list;
mod logs;
mod many;
mod metrics;
mod openapi;
mod origin;
mod preference;
mod problem;
mod profiles;
mod query;
mod quota;
mod results;
mod schedules;
mod streams;
mod submission;
mod summary;
mod table;
mod view;
mod waiting;
mod webhooks;
mod workloads;

pub use access::Keyring;
pub use body::{BodyLimits, Memory};
pub use executors::{InterpreterView, ProgramsView, PythonView, SandboxView};
pub use origin::Pages;
pub use schedules::job_maker;
pub use streams::Streams;
pub use webhooks::message;

use std::any::Any;
use std::ops::Deref;
use std::sync::Arc;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use bytes::Bytes;
use tower::ServiceBuilder;
use tower::util::MapResponse;
use tower_http::catch_panic::{CatchPanic, CatchPanicLayer};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::{Config, SwaggerUi};

use self::access::Operations;
use self::entrance::Entrance;
use self::problem::Problem;
use crate::artifact::Artifacts;
use crate::comparison::Comparisons;
use crate::dispatch::{Deliverer, Dispatcher, Schedules};
use crate::job::Role;
use crate::workload::Registry;

/// What handlers work with. Clones are handles to the same.
#[derive(Clone)]
pub struct ApiState(Arc<Parts>);

/// What the API is made of.
pub struct Parts {
    /// Takes, runs and knows jobs.
    pub dispatcher: Dispatcher,
    /// Compares the executors.
    pub comparisons: Comparisons,
    /// Submits jobs when it is time.
    pub schedules: Arc<Schedules>,
    /// Sends webhooks.
    pub deliverer: Arc<Deliverer>,
    /// What is taken as the body of a request.
    pub bodies: BodyLimits,
    /// How programs are confined.
    pub programs: Arc<ProgramsView>,
    /// Who may call it.
    pub keyring: Arc<Keyring>,
    /// Which pages may call the API.
    pub pages: Pages,
    /// The streams of events that are open.
    pub streams: Arc<Streams>,
    /// The files that jobs have left behind.
    pub artifacts: Artifacts,
}

impl From<Parts> for ApiState {
    fn from(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Deref for ApiState {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// The API as a service: the routes, and round them what all requests have in common. As one service it costs a request
/// less than as a layer of each route, which would be a box more.
pub type Api = CatchPanic<MapResponse<Router, fn(Response) -> Response>, fn(Box<dyn Any + Send>) -> Response>;

/// The whole API, with its documentation.
pub fn service(state: ApiState) -> Api {
    let (router, mut document) = operations().split_for_parts();
    openapi::complete(&mut document, state.dispatcher.registry());
    let cors = cors::layer(&state.pages);
    let entrance = Entrance::new(state.clone(), Operations::of(&mut document));
    let has_api = state.dispatcher.role() != Role::Work;
    let mut router = router.route_layer(entrance).with_state(state);
    if has_api {
        let document = Bytes::from(openapi::written(&document));
        router = router
            .route("/", get(|| async { Redirect::to("/docs/") }))
            .route("/openapi.json", get(move || async { ([(CONTENT_TYPE, "application/json")], document) }))
            .merge(SwaggerUi::new("/docs").config(Config::from("/openapi.json")));
    }
    guard(match cors {
        Some(cors) => router.layer(cors),
        None => router,
    })
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
        .routes(routes!(many::cancel))
        .routes(routes!(many::retry))
        .routes(routes!(events::of_job))
        .routes(routes!(logs::get))
        .routes(routes!(events::all))
        .routes(routes!(results::list))
        .routes(routes!(summary::get))
        .routes(routes!(results::get, results::remove))
        .routes(routes!(comparisons::ask, comparisons::list))
        .routes(routes!(comparisons::get, comparisons::cancel))
        .routes(routes!(comparisons::report))
        .routes(routes!(comparisons::chart_svg))
        .routes(routes!(comparisons::chart_png))
        .routes(routes!(profiles::list))
        .routes(routes!(profiles::what_if))
        .routes(routes!(profiles::get))
        .routes(routes!(findings::list))
        .routes(routes!(functions::list))
        .routes(routes!(functions::deploy, functions::versions, functions::remove))
        .routes(routes!(functions::get))
        .routes(routes!(functions::redeploy))
        .routes(routes!(schedules::list, schedules::create))
        .routes(routes!(schedules::get, schedules::put, schedules::remove))
        .routes(routes!(schedules::pause))
        .routes(routes!(schedules::resume))
        .routes(routes!(schedules::run))
        .routes(routes!(artifacts::list))
        .routes(routes!(artifacts::get))
        .routes(routes!(webhooks::of_job))
        .routes(routes!(webhooks::list))
        .routes(routes!(webhooks::redeliver))
        .routes(routes!(keys::list, keys::create))
        .routes(routes!(keys::get, keys::revoke))
        .routes(routes!(keys::rotate))
        .routes(routes!(quota::get, quota::set))
        .routes(routes!(quota::own))
        .routes(routes!(audit::list))
        .routes(routes!(workloads::list))
        .routes(routes!(executors::list))
        .routes(routes!(limits::list))
        .routes(routes!(cluster::get))
        .routes(routes!(cluster::drain))
        .routes(routes!(cluster::resume))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(metrics::get))
}

/// Sees to it that each request gets an answer, and each answer what all have in common.
fn guard(router: Router) -> Api {
    ServiceBuilder::new()
        .layer(CatchPanicLayer::custom(panicked as fn(_) -> _))
        .map_response(answer::complete as fn(_) -> _)
        .service(router)
}

/// A handler that panics fails one request, not its connection.
fn panicked(panic: Box<dyn Any + Send>) -> Response {
    answer::complete(Problem::of_panic(panic).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::header::{ALLOW, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
    use axum::http::{Method, Request};
    use rstest::rstest;
    use tower::ServiceExt as _;

    #[rstest]
    #[case(Method::GET, "/panic", 500, None)]
    #[case(Method::POST, "/panic", 405, Some("GET,HEAD"))]
    #[case(Method::GET, "/nothing", 404, None)]
    #[tokio::test]
    async fn whatever_goes_wrong_is_a_problem(
        #[case] method: Method,
        #[case] path: &str,
        #[case] status: u16,
        #[case] allow: Option<&str>,
    ) {
        async fn panics() {
            panic!("at {}", "once");
        }

        let router = guard(Router::new().route("/panic", get(panics)));
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        let header = |name| response.headers().get(name).map(|value| value.to_str().unwrap());
        assert_eq!(response.status(), status);
        assert_eq!(header(CONTENT_TYPE), Some("application/problem+json"));
        assert_eq!(header(X_CONTENT_TYPE_OPTIONS), Some("nosniff"));
        assert_eq!(header(ALLOW), allow);
    }
}
