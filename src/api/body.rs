//! The body of a request: its media type, its length, the time that it may take, and the memory.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, EXPECT};
use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::problem::{Kind, Problem};

/// In which portions memory is given out.
const PORTION: usize = 1024;

/// What the server takes as the body of a request.
#[derive(Clone, Debug)]
pub struct BodyLimits {
    /// The longest body, in bytes.
    pub max_bytes: usize,
    /// The longest that it may take to arrive.
    pub timeout: Duration,
    /// The memory for all bodies that are being read, one permit a portion.
    pub memory: Memory,
}

/// The memory for all bodies that are being read.
#[derive(Clone, Debug)]
pub struct Memory(Arc<Semaphore>);

impl Memory {
    /// As many bytes as this.
    pub fn new(bytes: usize) -> Self {
        // The last portion is a whole one, or a body as long as all of this would have no room.
        Self(Arc::new(Semaphore::new(bytes.div_ceil(PORTION).min(Semaphore::MAX_PERMITS))))
    }

    /// Room for so many bytes beyond what was taken for those before them, `taken`, if there is any.
    fn take(&self, bytes: usize, taken: usize) -> Option<OwnedSemaphorePermit> {
        let portions = u32::try_from(bytes.div_ceil(PORTION).saturating_sub(taken)).ok()?;
        Arc::clone(&self.0).try_acquire_many_owned(portions).ok()
    }
}

/// A body that is no text, in the OpenAPI document. Of a list of bytes, that would make a list of numbers.
pub(super) struct Binary;

impl PartialSchema for Binary {
    /// `format` is what Swagger UI offers a file chooser for, and what generators of clients go by.
    fn schema() -> RefOr<Schema> {
        let format = SchemaFormat::KnownFormat(KnownFormat::Binary);
        ObjectBuilder::new().schema_type(Type::String).format(Some(format)).description(Some("Bytes as they are.")).into()
    }
}

impl ToSchema for Binary {}

/// A body that was read. Its memory is taken until it is dropped.
#[derive(Debug)]
pub(super) struct Content {
    bytes: Bytes,
    _memory: Option<OwnedSemaphorePermit>,
}

impl Deref for Content {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        &self.bytes
    }
}

/// Why a body is not read.
enum Unread {
    TooLong,
    NoMemory,
    BrokeOff,
}

impl BodyLimits {
    /// The same, with bodies of at most `max_bytes`.
    pub(super) fn at_most(&self, max_bytes: usize) -> Self {
        Self { max_bytes: self.max_bytes.min(max_bytes), ..self.clone() }
    }

    /// Whether what has not come of a body is known to be too long.
    fn are_exceeded_by(&self, body: &Body) -> bool {
        body.size_hint().lower() > self.max_bytes as u64
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

/// Reads the whole body of a request with these headers, if it is said to be JSON.
pub(super) async fn json(headers: &HeaderMap, body: Body, limits: BodyLimits) -> Result<Content, Problem> {
    media_type(headers, &[("application/json", ())])?;
    read(headers, body, limits).await
}

/// Reads the whole body of a request with these headers.
pub(super) async fn read(headers: &HeaderMap, mut body: Body, limits: BodyLimits) -> Result<Content, Problem> {
    let problem = match timeout(limits.timeout, collect(&mut body, &limits)).await {
        Ok(Ok(content)) => return Ok(content),
        Ok(Err(Unread::BrokeOff)) => {
            return Err(Problem::new(Kind::MalformedJson, "the body ended before it was complete"));
        }
        Ok(Err(Unread::TooLong)) => Problem::new(Kind::TooLarge, format!("the body may have at most {} bytes", limits.max_bytes)),
        Ok(Err(Unread::NoMemory)) => {
            Problem::new(Kind::Unavailable, "the bodies of other requests take all the memory that there is for them")
        }
        Err(_) => {
            return Err(Problem::new(Kind::BodyTimeout, format!("the body took longer than {} s", limits.timeout.as_secs_f64())));
        }
    };
    // One that asks first has not been told to send.
    if limits.are_exceeded_by(&body) && headers.contains_key(EXPECT) {
        return Err(problem);
    }
    // A client that is still sending when the connection closes may never see the answer, so the rest is read and thrown away.
    let rest = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = timeout(limits.timeout, rest).await;
    Err(problem)
}

async fn collect(body: &mut Body, limits: &BodyLimits) -> Result<Content, Unread> {
    if limits.are_exceeded_by(body) {
        return Err(Unread::TooLong);
    }
    let (mut whole, mut memory) = (Whole::default(), None::<OwnedSemaphorePermit>);
    while let Some(frame) = body.frame().await {
        // Trailers say nothing that is asked for.
        let Ok(bytes) = frame.map_err(|_| Unread::BrokeOff)?.into_data() else { continue };
        let length = whole.len() + bytes.len();
        if length > limits.max_bytes {
            return Err(Unread::TooLong);
        }
        // By how much the whole has grown: frames are put together, and one may be a single byte.
        let taken = memory.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = limits.memory.take(length, taken).ok_or(Unread::NoMemory)?;
        match &mut memory {
            Some(memory) => memory.merge(more),
            None => memory = Some(more),
        }
        whole.add(bytes);
    }
    Ok(Content { bytes: whole.into_bytes(), _memory: memory })
}

/// What has come of a body. Most come in one piece, which is not copied.
#[derive(Default)]
struct Whole {
    first: Bytes,
    all: Vec<u8>,
}

impl Whole {
    fn len(&self) -> usize {
        self.first.len().max(self.all.len())
    }

    fn add(&mut self, bytes: Bytes) {
        if self.len() == 0 {
            self.first = bytes;
        } else {
            if self.all.is_empty() {
                self.all.extend_from_slice(&std::mem::take(&mut self.first));
            }
            self.all.extend_from_slice(&bytes);
        }
    }

    fn into_bytes(self) -> Bytes {
        if self.all.is_empty() { self.first } else { self.all.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use axum::response::IntoResponse;
    use futures_util::{Stream, StreamExt as _, stream};
    use rstest::rstest;
    use std::convert::Infallible;
    use std::iter::repeat_n;

    fn limits() -> BodyLimits {
        BodyLimits { max_bytes: 10, timeout: Duration::from_millis(50), memory: Memory::new(4 * PORTION) }
    }

    async fn read_all(body: Body, limits: BodyLimits) -> Result<Content, Problem> {
        read(&HeaderMap::new(), body, limits).await
    }

    async fn status(body: Body) -> u16 {
        read_all(body, limits()).await.unwrap_err().into_response().status().as_u16()
    }

    fn chunks(texts: &'static [&'static str]) -> impl Stream<Item = Result<&'static str, Infallible>> + Unpin {
        stream::iter(texts).map(|&text| Ok(text))
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_the_limit() {
        assert_eq!(&**read_all(Body::from("0123456789"), limits()).await.unwrap(), b"0123456789");
        assert_eq!(&**read_all(Body::from_stream(chunks(&["012", "34", "", "56789"])), limits()).await.unwrap(), b"0123456789");
        assert_eq!(&**read_all(Body::empty(), limits()).await.unwrap(), b"");
        assert_eq!(status(Body::from("0123456789!")).await, 413);
        assert_eq!(status(Body::from_stream(chunks(&["012345", "6789!"]))).await, 413);
    }

    #[tokio::test]
    async fn a_body_that_never_ends_is_given_up() {
        assert_eq!(status(Body::from_stream(chunks(&["0"]).chain(stream::pending()))).await, 408);
    }

    #[tokio::test]
    async fn all_bodies_share_one_memory() {
        let limits = BodyLimits { max_bytes: 4 * PORTION, ..limits() };
        let kept =
            [read_all(Body::from("0"), limits.clone()).await.unwrap(), read_all(Body::from("1"), limits.clone()).await.unwrap()];
        let pieces = |count| Body::from_stream(stream::iter(repeat_n(Ok::<_, Infallible>("x".repeat(PORTION)), count)));
        let refused = read_all(pieces(3), limits.clone()).await.unwrap_err().into_response();
        assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (503, &HeaderValue::from_static("2")));
        // What was refused has given its part back; what is dropped gives back all.
        assert!(read_all(pieces(2), limits.clone()).await.is_ok());
        drop(kept);
        assert!(read_all(pieces(4), limits).await.is_ok());
    }

    #[tokio::test]
    async fn a_body_in_many_pieces_takes_no_more_memory_than_in_one() {
        let limits = BodyLimits { max_bytes: PORTION + 1, ..limits() };
        let pieces = Body::from_stream(stream::iter(repeat_n(Ok::<_, Infallible>("x"), PORTION + 1)));
        let whole = read_all(pieces, limits.clone()).await.unwrap();
        assert_eq!((whole.len(), limits.memory.0.available_permits()), (PORTION + 1, 2));
        drop(whole);
        assert_eq!(limits.memory.0.available_permits(), 4);
    }

    #[tokio::test]
    async fn one_body_may_take_all_the_memory() {
        let limits = BodyLimits { max_bytes: PORTION + 1, memory: Memory::new(PORTION + 1), ..limits() };
        assert!(read_all(Body::from("x".repeat(PORTION + 1)), limits).await.is_ok());
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
