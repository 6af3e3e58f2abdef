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
mod condition;
mod cors;
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
mod held;
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
mod state;
mod streams;
mod submission;
mod summary;
mod table;
mod traffic;
mod view;
mod waiting;
mod webhooks;
mod workloads;

pub use access::Keyring;
pub use body::{BodyLimits, Memory};
pub use executors::{InterpreterView, ProgramsView, PythonView, SandboxView};
pub use held::Held;
pub use origin::Pages;
pub use schedules::job_maker;
pub use streams::Streams;
pub use traffic::Traffic;
pub use webhooks::message;

use std::any::Any;
use std::ops::Deref;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use bytes::Bytes;
use tokio::sync::OnceCell;
use tower::ServiceBuilder;
use tower::util::MapResponse;
use tower_http::catch_panic::{CatchPanic, CatchPanicLayer};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};
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
    /// What was asked of it.
    pub traffic: Traffic,
    /// What it has answered at length.
    pub held: Held,
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
    let (mut router, mut known) = (Router::new(), Operations::default());
    operations(&mut |(_, mut paths, methods)| {
        known.add(&mut paths);
        for path in paths.paths.keys() {
            router = std::mem::take(&mut router).route(path, methods.clone());
        }
    });
    let cors = cors::layer(&state.pages);
    let mut router = router.route_layer(Entrance::new(state.clone(), known));
    if state.dispatcher.role() != Role::Work {
        let written = Arc::default();
        router = router
            .route("/", get(|| async { Redirect::to("/docs/") }))
            .route("/openapi.json", get(move |State(api)| document(api, written)))
            .merge(SwaggerUi::new("/docs").config(Config::from("/openapi.json")));
    }
    let router = router.with_state(state);
    guard(match cors {
        Some(cors) => router.layer(cors),
        None => router,
    })
}

/// The OpenAPI document of a server with these workloads.
pub fn openapi(registry: &Registry) -> OpenApi {
    let mut described = OpenApiRouter::with_openapi(openapi::frame());
    operations(&mut |operation| described = std::mem::take(&mut described).routes(operation));
    let mut document = described.into_openapi();
    openapi::complete(&mut document, registry);
    document
}

/// Sends the document. It is made when it is first asked for: made with the routes, it would leave a server that nobody asks some
/// megabytes larger.
async fn document(api: ApiState, written: Arc<OnceCell<Bytes>>) -> Result<impl IntoResponse, Problem> {
    let write = move || Bytes::from(openapi::written(&openapi(api.dispatcher.registry())));
    let document = written.get_or_try_init(|| tokio::task::spawn_blocking(write)).await.map_err(Problem::internal)?;
    Ok(([(CONTENT_TYPE, "application/json")], document.clone()))
}

/// Gives each group of operations on one path, with what is said of it.
fn operations(to: &mut dyn FnMut(UtoipaMethodRouter<ApiState>)) {
    to(routes!(jobs::submit, jobs::list));
    to(routes!(batch::submit));
    to(routes!(jobs::get, jobs::cancel));
    to(routes!(jobs::route));
    to(routes!(jobs::retry));
    to(routes!(many::cancel));
    to(routes!(many::retry));
    to(routes!(events::of_job));
    to(routes!(logs::get));
    to(routes!(events::all));
    to(routes!(results::list));
    to(routes!(summary::get));
    to(routes!(results::get, results::remove));
    to(routes!(comparisons::ask, comparisons::list));
    to(routes!(comparisons::get, comparisons::cancel));
    to(routes!(comparisons::report));
    to(routes!(comparisons::chart_svg));
    to(routes!(comparisons::chart_png));
    to(routes!(profiles::list));
    to(routes!(profiles::what_if));
    to(routes!(profiles::get));
    to(routes!(findings::list));
    to(routes!(functions::list));
    to(routes!(functions::deploy, functions::versions, functions::remove));
    to(routes!(functions::get));
    to(routes!(functions::redeploy));
    to(routes!(schedules::list, schedules::create));
    to(routes!(schedules::get, schedules::put, schedules::remove));
    to(routes!(schedules::pause));
    to(routes!(schedules::resume));
    to(routes!(schedules::run));
    to(routes!(artifacts::list));
    to(routes!(artifacts::get));
    to(routes!(webhooks::of_job));
    to(routes!(webhooks::list));
    to(routes!(webhooks::redeliver));
    to(routes!(keys::list, keys::create));
    to(routes!(keys::get, keys::revoke));
    to(routes!(keys::rotate));
    to(routes!(quota::get, quota::set));
    to(routes!(quota::own));
    to(routes!(audit::list));
    to(routes!(workloads::list));
    to(routes!(executors::list));
    to(routes!(limits::list));
    to(routes!(cluster::get));
    to(routes!(cluster::drain));
    to(routes!(cluster::resume));
    to(routes!(health::live));
    to(routes!(health::ready));
    to(routes!(metrics::get));
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
