//! The header `Idempotency-Key`: a request that came before is answered as it was then.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;

use super::access::Caller;
use super::problem::{Kind, Problem};
use crate::dispatch::RequestKey;

/// Names the key that a client gives a request.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Says that the request came before.
pub(super) const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The longest key.
const MAX_KEY: usize = 255;

/// The key of a request to `path` with this body, if the client gave it one. Others may have given the same key to theirs.
pub(super) fn key(caller: Caller, headers: &HeaderMap, path: &str, body: &[u8]) -> Result<Option<RequestKey>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let key = value.to_str().unwrap_or_default();
    let is_visible = key.bytes().all(|byte| byte.is_ascii_graphic());
    if key.is_empty() || key.len() > MAX_KEY || !is_visible || values.next().is_some() {
        let detail = format!("Idempotency-Key: must be one header with 1 to {MAX_KEY} visible characters");
        return Err(Problem::new(Kind::BadIdempotencyKey, detail));
    }
    Ok(Some(match caller {
        // No client can send a line break within a key.
        Caller(Some(owner)) => RequestKey::new(&format!("{owner}\n{key}"), path, body),
        Caller(None) => RequestKey::new(key, path, body),
    }))
}

/// That the client gave the request no key, where none is looked at.
pub(super) fn refuse(headers: &HeaderMap) -> Result<(), Problem> {
    if !headers.contains_key(IDEMPOTENCY_KEY) {
        return Ok(());
    }
    let detail = "Idempotency-Key: is for POST /jobs and POST /jobs/batch; what is asked here is done each time";
    Err(Problem::new(Kind::BadIdempotencyKey, detail))
}

/// The same answer, which says so if the request came before.
pub(super) fn told(mut response: Response, replayed: bool) -> Response {
    if replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(&[], "none")]
    #[case(&["a-1"], "a-1")]
    #[case(&["\"8e03978e\""], "\"8e03978e\"")]
    #[case(&[""], "refused")]
    #[case(&["a", "b"], "refused")]
    #[case(&["ü"], "refused")]
    #[case(&["a b"], "refused")]
    #[case(&["a\tb"], "refused")]
    fn a_key_is_short_and_visible(#[case] sent: &[&'static str], #[case] expected: &str) {
        let mut headers = HeaderMap::new();
        for value in sent {
            headers.append(IDEMPOTENCY_KEY, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let read = key(Caller::default(), &headers, "/jobs", b"{}").map(|key| key.map_or("none".to_owned(), |key| key.key));
        assert_eq!(read.unwrap_or_else(|_| "refused".to_owned()), expected);
    }

    #[test]
    fn another_path_or_body_is_another_request() {
        let digest = |path, body: &[u8]| RequestKey::new("k", path, body).digest;
        assert_eq!(digest("/jobs", b"{}"), digest("/jobs", b"{}"));
        assert_ne!(digest("/jobs", b"{}"), digest("/jobs", b"{ }"));
        assert_ne!(digest("/jobs", b"[]"), digest("/jobs/batch", b"[]"));
    }
}
