//! What every operation asks of a request before it is looked at.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::ApiState;
use super::problem::{Kind, Problem};

/// The longest path with its query, in bytes. Filters and cursors are far shorter.
const MAX_URI_BYTES: usize = 8192;

/// Lets a request pass to its handler, or answers in its place.
pub(super) async fn pass(State(api): State<ApiState>, request: Request, next: Next) -> Response {
    match check(&api, &request) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

fn check(api: &ApiState, request: &Request) -> Result<(), Problem> {
    let uri = request.uri();
    if uri.path().len() + uri.query().map_or(0, str::len) > MAX_URI_BYTES {
        return Err(Problem::new(Kind::UriTooLong, format!("a URL may have at most {MAX_URI_BYTES} bytes")));
    }
    api.pages.check(request.headers())
}
