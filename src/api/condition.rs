//! The header `If-None-Match` (RFC 9110, 13.1.2): what a client has already is not sent again.

use axum::http::HeaderMap;
use axum::http::header::IF_NONE_MATCH;

/// Whether a client that sends these headers has what this `ETag` stands for.
pub(super) fn has(headers: &HeaderMap, etag: &str) -> bool {
    let values = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = values.flat_map(|value| value.split(',')).map(str::trim);
    tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use rstest::rstest;

    #[rstest]
    #[case(&["\"a\""], true)]
    #[case(&["W/\"a\""], true)]
    #[case(&["\"b\", \"a\""], true)]
    #[case(&["\"b\"", "\"a\""], true)]
    #[case(&["*"], true)]
    #[case(&["\"b\""], false)]
    #[case(&["a"], false)]
    #[case(&[], false)]
    fn any_of_the_tags_will_do(#[case] values: &[&'static str], #[case] expected: bool) {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(IF_NONE_MATCH, HeaderValue::from_static(value));
        }
        assert_eq!(has(&headers, "\"a\""), expected);
    }
}
