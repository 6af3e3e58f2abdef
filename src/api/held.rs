//! The memory for long answers, until clients have taken them in.

use std::sync::Arc;

use axum::body::{Body, HttpBody as _};
use axum::http::header::CONTENT_LENGTH;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::{Kind, Problem};
use crate::store::StoreError;

/// What is no longer than this is not counted: there are no more such answers than connections.
const SHORT: u64 = 64 << 10;
/// All the others together, in bytes.
const MOST: usize = 256 << 20;
/// What they are counted in.
const PORTION: u64 = 1 << 10;
/// So many pieces are read at once, or wait for room.
const READING: usize = 16;

/// The long answers that clients have not taken in yet. Clones are handles to the same.
#[derive(Clone, Debug)]
pub struct Held {
    room: Arc<Semaphore>,
    /// Who may read a piece before it is known how long it is.
    reading: Arc<Semaphore>,
}

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

impl Part {
    #[expect(clippy::new_ret_no_self, reason = "it is seen as bytes alone")]
    fn new(bytes: Bytes, room: &Arc<OwnedSemaphorePermit>) -> Bytes {
        Bytes::from_owner(Self { bytes, _room: Arc::clone(room) })
    }
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Held {
    fn up_to(bytes: usize) -> Self {
        let room = Arc::new(Semaphore::new(bytes >> PORTION.trailing_zeros()));
        Self { room, reading: Arc::new(Semaphore::new(READING)) }
    }

    /// The same answer, or that there is no memory for it. One that comes in pieces has its room for each of them.
    pub(super) fn hold(&self, answer: Response) -> Response {
        let Some(length) = answer.body().size_hint().exact().filter(|length| *length > SHORT) else { return answer };
        let Some(room) = self.room_now(length).map(Arc::new) else { return full().into_response() };
        let (mut head, body) = answer.into_parts();
        head.headers.insert(CONTENT_LENGTH, length.into());
        let body = body.map_frame(move |frame| frame.map_data(|bytes| Part::new(bytes, &room)));
        Response::from_parts(head, Body::new(body))
    }

    /// An answer that is read from the store while the client takes it in: `first`, or that there is no memory for it, and the `others`, which
    /// wait for room.
    pub(super) fn in_pieces<B>(
        &self,
        first: Bytes,
        others: impl Stream<Item = Result<B, StoreError>> + Send + 'static,
    ) -> Result<Body, Problem>
    where
        B: Into<Bytes>,
    {
        let first = match first.len() as u64 {
            ..=SHORT => first,
            length => Part::new(first, &Arc::new(self.room_now(length).ok_or_else(full)?)),
        };
        let held = self.clone();
        let others = stream::try_unfold(Box::pin(others), move |mut others| {
            let held = held.clone();
            async move {
                // Neither is ever closed.
                let _reading = held.reading.acquire().await;
                let piece: Option<Bytes> = others.try_next().await?.map(Into::into);
                let Some(piece) = piece else { return Ok::<_, StoreError>(None) };
                let room = Arc::clone(&held.room).acquire_many_owned(portions(piece.len() as u64)).await;
                Ok(Some((room.map_or_else(|_| Bytes::new(), |room| Part::new(piece, &Arc::new(room))), others)))
            }
        });
        let pieces = stream::iter([Ok(first)]).chain(others);
        // The client sees no more of it than that the connection ends.
        Ok(Body::from_stream(pieces.inspect_err(|error| tracing::warn!(%error, "an answer broke off"))))
    }

    fn room_now(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.room).try_acquire_many_owned(portions(bytes)).ok()
    }
}

fn portions(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(PORTION)).unwrap_or(u32::MAX)
}

fn full() -> Problem {
    Problem::new(
        Kind::Unavailable,
        "long answers that other clients have not taken in yet take all the memory that there is for them",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

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

    #[tokio::test]
    async fn pieces_wait_for_room() {
        let held = Held::up_to(200 << 10);
        let piece = || Bytes::from(vec![b'x'; 80 << 10]);
        let others = stream::iter([piece(), piece()]).map(Ok::<_, StoreError>);
        let mut body = held.in_pieces(piece(), others).unwrap().into_data_stream();
        let first = body.next().await.unwrap().unwrap();
        let second = body.next().await.unwrap().unwrap();
        assert!(held.in_pieces(piece(), stream::empty::<Result<Bytes, _>>()).is_err());
        assert!(held.in_pieces(Bytes::from("short"), stream::empty::<Result<Bytes, _>>()).is_ok());
        // The client has not taken in what came before.
        assert!(body.next().now_or_never().is_none());
        drop(first);
        assert_eq!(body.next().await.unwrap().unwrap().len(), 80 << 10);
        drop(second);
        assert!(body.next().await.is_none());
    }
}
