//! The memory for long answers, until clients have taken them in.

use std::sync::Arc;

use axum::body::{Body, HttpBody as _};
use axum::http::header::CONTENT_LENGTH;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::{Kind, Problem};

/// What is no longer than this is not counted: there are no more such answers than connections.
const SHORT: u64 = 64 << 10;
/// All the others together, in bytes.
const MOST: usize = 256 << 20;
/// What they are counted in.
const PORTION: u64 = 1 << 10;

/// The long answers that clients have not taken in yet. Clones are handles to the same.
#[derive(Clone, Debug)]
pub struct Held(Arc<Semaphore>);

impl Default for Held {
    fn default() -> Self {
        Self::up_to(MOST)
    }
}

/// A part of an answer. Whoever writes it to the client lets go of it once it is written.
struct Part {
    bytes: Bytes,
    _room: Arc<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Held {
    fn up_to(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes >> PORTION.trailing_zeros())))
    }

    /// The same answer, or that there is no memory for it.
    pub(super) fn hold(&self, answer: Response) -> Response {
        let Some(length) = answer.body().size_hint().exact().filter(|length| *length > SHORT) else { return answer };
        let portions = u32::try_from(length.div_ceil(PORTION)).unwrap_or(u32::MAX);
        let Ok(room) = Arc::clone(&self.0).try_acquire_many_owned(portions) else {
            let full = "long answers that other clients have not taken in yet take all the memory that there is for them";
            return Problem::new(Kind::Unavailable, full).into_response();
        };
        let room = Arc::new(room);
        let (mut head, body) = answer.into_parts();
        head.headers.insert(CONTENT_LENGTH, length.into());
        let body =
            body.map_frame(move |frame| frame.map_data(|bytes| Bytes::from_owner(Part { bytes, _room: Arc::clone(&room) })));
        Response::from_parts(head, Body::new(body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn long_answers_have_room_until_they_are_written() {
        let held = Held::up_to(200 << 10);
        let answer = |kib: usize| held.hold(Response::new(Body::from(vec![b'x'; kib << 10])));
        let first = answer(100);
        assert_eq!(first.headers()[CONTENT_LENGTH], "102400");
        assert_eq!(answer(101).status(), 503);
        assert!(answer(64).headers().is_empty());
        let second = answer(100);
        assert_eq!(answer(65).status(), 503);
        drop(second);
        // What is on its way to the client is no part of the body any more.
        let frame = first.into_body().frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(frame.len() == 100 << 10 && frame.iter().all(|byte| *byte == b'x'));
        assert_eq!(answer(101).status(), 503);
        drop(frame);
        assert_eq!(answer(200).status(), 200);
    }
}
