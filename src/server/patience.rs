//! How long a connection may keep the server waiting.
//!
//! The HTTP library has one timer, for the headers of a request, and starts it as soon as it waits for the next request. It can't tell
//! a client that has nothing to ask from one that sends headers a byte a minute; the stream below it can.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt::Timer;
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// What a client may keep the server waiting for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From the beginning of a request to the end of its headers; for the first request, from the connection on.
    pub headers: Duration,
    /// From an answer to the next request.
    pub idle: Duration,
    /// While it takes in nothing of an answer.
    pub answer: Duration,
}

/// The two sides of one connection that know how far it is.
pub(super) fn watch<S>(stream: S, patience: Patience) -> (Watched<S>, HeadTimer) {
    let arrival = Arc::new(Arrival { opened: Instant::now(), micros: AtomicU64::new(0) });
    let timer = HeadTimer { arrival: Arc::clone(&arrival), answered: AtomicU64::new(0), patience };
    (Watched { stream, arrival, patience: patience.answer, stalled: None }, timer)
}

/// When the first byte came since the server waits for a request, in microseconds since the connection was opened; 0 if none has.
struct Arrival {
    opened: Instant,
    micros: AtomicU64,
}

impl Arrival {
    fn expect(&self) {
        self.micros.store(0, Ordering::Relaxed);
    }

    fn note(&self) {
        if self.micros.load(Ordering::Relaxed) == 0 {
            let micros = u64::try_from(self.opened.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.micros.store(micros.max(1), Ordering::Relaxed);
        }
    }

    fn moment(&self) -> Option<Instant> {
        match self.micros.load(Ordering::Relaxed) {
            0 => None,
            micros => Some(self.opened + Duration::from_micros(micros)),
        }
    }
}

/// The timer of one connection, for the headers of its requests.
pub(super) struct HeadTimer {
    arrival: Arc<Arrival>,
    /// How often it was set before: once for each request that has been answered.
    answered: AtomicU64,
    patience: Patience,
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    /// The moment is the library's: that of the headers' end, if their first byte came now.
    fn sleep_until(&self, _: Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        self.arrival.expect();
        let first = self.answered.fetch_add(1, Ordering::Relaxed) == 0;
        let until = Instant::now() + if first { self.patience.headers } else { self.patience.idle };
        let sleep = tokio::time::sleep_until(until.into());
        Box::pin(HeadSleep { sleep, arrival: Arc::clone(&self.arrival), headers: self.patience.headers, first })
    }
}

pin_project! {
    /// Ends when a client has taken too long, for nothing or for its headers.
    struct HeadSleep {
        #[pin]
        sleep: Sleep,
        arrival: Arc<Arrival>,
        headers: Duration,
        first: bool,
    }
}

impl Future for HeadSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        // Of the first request's headers the connection itself is the beginning.
        if let Some(begun) = this.arrival.moment().filter(|_| !*this.first) {
            let until = (begun + *this.headers).into();
            if this.sleep.deadline() != until {
                this.sleep.as_mut().reset(until);
            }
        }
        this.sleep.poll(context)
    }
}

impl hyper::rt::Sleep for HeadSleep {}

/// A stream that notes when something arrives, and breaks when the other side takes in nothing for too long.
pub(super) struct Watched<S> {
    stream: S,
    arrival: Arc<Arrival>,
    patience: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Watched<S> {
    /// The same result, unless it has been nothing for too long.
    fn unless_stalled<T>(&mut self, context: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.stalled = None;
            return result;
        }
        let patience = self.patience;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes in nothing of the answer")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            self.arrival.note();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.unless_stalled(context, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.unless_stalled(context, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(context);
        self.unless_stalled(context, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_shutdown(context);
        self.unless_stalled(context, result)
    }
}
