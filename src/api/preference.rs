//! The header `Prefer` (RFC 7240), of which `wait` is understood.

use axum::http::{HeaderMap, HeaderName};

/// The longest that a request waits for a job, in seconds.
pub(super) const MAX_WAIT_SECONDS: u64 = 60;

/// Names what was preferred.
pub(super) const PREFER: HeaderName = HeaderName::from_static("prefer");
/// Says which preference was followed.
pub(super) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// How many seconds the client prefers to wait, at most [`MAX_WAIT_SECONDS`]. What can't be understood is not preferred.
pub(super) fn wait(headers: &HeaderMap) -> Option<u64> {
    headers
        .get_all(PREFER)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|preference| preference.split(';').next()?.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("wait"))
        .and_then(|(_, seconds)| seconds.trim().trim_matches('"').parse().ok())
        .map(|seconds: u64| seconds.min(MAX_WAIT_SECONDS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use rstest::rstest;

    #[rstest]
    #[case(&["wait=10"], Some(10))]
    #[case(&["respond-async, Wait = \"5\"; x=1"], Some(5))]
    #[case(&["return=minimal", "wait=7", "wait=9"], Some(7))]
    #[case(&["wait=3600"], Some(60))]
    #[case(&["wait=0"], Some(0))]
    #[case(&["wait"], None)]
    #[case(&["wait=soon"], None)]
    #[case(&["wait=-1"], None)]
    #[case(&["respond-async"], None)]
    #[case(&[], None)]
    fn the_first_wait_counts(#[case] values: &[&'static str], #[case] expected: Option<u64>) {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(PREFER, HeaderValue::from_static(value));
        }
        assert_eq!(wait(&headers), expected);
    }
}
