//! What all answers have in common, whatever they say.

use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;

use super::problem;

const CROSS_ORIGIN_OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Pages have their scripts, styles and pictures from this server alone, and stand in no frame of another page. Swagger UI writes styles
/// into its elements, draws its icons from `data:` and shows a picture that was answered from `blob:`.
const OF_PAGES: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; object-src 'none'; \
    base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
/// A picture may have styles of its own, and nothing else.
const OF_PICTURES: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox";
/// Data is no page. Whoever makes a browser show it as one gets nothing to run.
const OF_DATA: &str = "default-src 'none'; frame-ancestors 'none'";

/// Errors are problems, no browser guesses a media type, runs what is data, keeps what is somebody's own, or tells others where it was.
pub(super) fn complete(response: Response) -> Response {
    let mut response = problem::complete(response);
    let headers = response.headers_mut();
    let (policy, cache) = match essence(headers) {
        b"text/html" => {
            for (name, value) in
                [(X_FRAME_OPTIONS, "DENY"), (REFERRER_POLICY, "no-referrer"), (CROSS_ORIGIN_OPENER_POLICY, "same-origin")]
            {
                headers.insert(name, HeaderValue::from_static(value));
            }
            (OF_PAGES, "no-cache")
        }
        b"text/css" | b"text/javascript" | b"application/javascript" | b"image/png" => (OF_DATA, "no-cache"),
        b"image/svg+xml" => (OF_PICTURES, "no-store"),
        _ => (OF_DATA, "no-store"),
    };
    for (name, value) in [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CROSS_ORIGIN_RESOURCE_POLICY, "same-origin"),
        (CONTENT_SECURITY_POLICY, policy),
        (CACHE_CONTROL, cache),
    ] {
        // A handler that knows better has said so.
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// The media type without its parameters.
fn essence(headers: &HeaderMap) -> &[u8] {
    let media_type = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    media_type.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii()
}
