//! Pages of other origins that may read answers (CORS). None, unless the operator names them.

use axum::http::header::{ACCEPT, AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, ETAG, LINK, LOCATION, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, Method};
use std::time::Duration;
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::idempotency::{IDEMPOTENCY_KEY, REPLAYED};
use super::origin::Pages;
use super::preference::PREFERENCE_APPLIED;

/// How long a browser may remember what it was told.
const MAX_AGE: Duration = Duration::from_mins(10);

/// What tells browsers about it, if there is anything to tell. Cookies are not among it: there are none.
pub(super) fn layer(pages: &Pages) -> Option<CorsLayer> {
    if pages.origins.is_empty() {
        return None;
    }
    let origins = if pages.origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(pages.origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()))
    };
    let sent = ["if-none-match", "if-range", "last-event-id", "prefer", "range"]
        .map(HeaderName::from_static)
        .into_iter()
        .chain([IDEMPOTENCY_KEY]);
    Some(
        CorsLayer::new()
            .allow_origin(origins)
            .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE])
            .allow_headers([ACCEPT, AUTHORIZATION, CONTENT_TYPE].into_iter().chain(sent).collect::<Vec<_>>())
            .expose_headers([CONTENT_RANGE, ETAG, LINK, LOCATION, RETRY_AFTER, PREFERENCE_APPLIED, REPLAYED])
            .max_age(MAX_AGE),
    )
}
