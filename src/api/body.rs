//! The body of a request: its media type, its length and the time that it may take.

use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::timeout;

use super::problem::{Kind, Problem};

/// What the server takes as the body of a request.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// The longest body, in bytes.
    pub max_bytes: usize,
    /// The longest that it may take to arrive.
    pub timeout: Duration,
}

impl BodyLimits {
    /// The same, with bodies of at most `max_bytes`.
    pub(super) fn at_most(self, max_bytes: usize) -> Self {
        Self { max_bytes: self.max_bytes.min(max_bytes), ..self }
    }
}

/// The media type in `Content-Type` if it is one of `taken`.
pub(super) fn media_type<T: Copy>(headers: &HeaderMap, taken: &[(&str, T)]) -> Result<T, Problem> {
    let refused = |what: &str| {
        let names: Vec<_> = taken.iter().map(|(name, _)| *name).collect();
        Problem::new(Kind::UnsupportedMediaType, format!("{what}; send {}", names.join(" or ")))
    };
    if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(refused("a compressed body is not taken"));
    }
    let sent = headers.get(CONTENT_TYPE).ok_or_else(|| refused("the header Content-Type is missing"))?;
    let essence = sent.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let found = taken.iter().find(|(name, _)| essence.eq_ignore_ascii_case(name));
    found.map(|&(_, value)| value).ok_or_else(|| refused("the media type of the body is not taken"))
}

/// Reads the whole body.
pub(super) async fn read(mut body: Body, limits: BodyLimits) -> Result<Bytes, Problem> {
    let too_large = match timeout(limits.timeout, Limited::new(&mut body, limits.max_bytes).collect()).await {
        Ok(Ok(read)) => return Ok(read.to_bytes()),
        Ok(Err(error)) => error.is::<LengthLimitError>(),
        Err(_) => {
            return Err(Problem::new(Kind::BodyTimeout, format!("the body took longer than {} s", limits.timeout.as_secs_f64())));
        }
    };
    if !too_large {
        return Err(Problem::new(Kind::MalformedJson, "the body ended before it was complete"));
    }
    // A client that is still sending when the connection closes may never see the answer, so the rest is read and thrown away.
    let rest = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = timeout(limits.timeout, rest).await;
    Err(Problem::new(Kind::TooLarge, format!("the body may have at most {} bytes", limits.max_bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use axum::response::IntoResponse;
    use futures_util::{Stream, StreamExt as _, stream};
    use rstest::rstest;
    use std::convert::Infallible;

    const LIMITS: BodyLimits = BodyLimits { max_bytes: 10, timeout: Duration::from_millis(50) };

    async fn status(body: Body) -> u16 {
        read(body, LIMITS).await.unwrap_err().into_response().status().as_u16()
    }

    fn chunks(texts: &'static [&'static str]) -> impl Stream<Item = Result<&'static str, Infallible>> + Unpin {
        stream::iter(texts).map(|&text| Ok(text))
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_the_limit() {
        assert_eq!(read(Body::from("0123456789"), LIMITS).await.unwrap(), "0123456789");
        assert_eq!(status(Body::from("0123456789!")).await, 413);
        assert_eq!(status(Body::from_stream(chunks(&["012345", "6789!"]))).await, 413);
    }

    #[tokio::test]
    async fn a_body_that_never_ends_is_given_up() {
        assert_eq!(status(Body::from_stream(chunks(&["0"]).chain(stream::pending()))).await, 408);
    }

    #[rstest]
    #[case("application/json", Some(1))]
    #[case("Application/JSON; charset=utf-8", Some(1))]
    #[case("application/x-ndjson", Some(2))]
    #[case("text/plain", None)]
    #[case("", None)]
    fn the_media_type_decides(#[case] sent: &str, #[case] expected: Option<u8>) {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_str(sent).unwrap());
        assert_eq!(media_type(&headers, &[("application/json", 1), ("application/x-ndjson", 2)]).ok(), expected);
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert!(media_type(&headers, &[("application/json", 1)]).is_err());
    }
}
