//! Measures a future: round each poll, on the thread that polls it.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::Usage;
use crate::clock::{Monotonic, Stopwatch};

/// A future that counts what its polls cost. A panic in a poll is its output.
pub struct Metered<F> {
    inner: F,
    meter: PollMeter,
}

/// What the polls of a future have cost so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct PollMeter {
    /// When it was polled first.
    pub began: Option<Stopwatch>,
    /// How often it was polled.
    pub polls: u64,
    /// The longest that one poll took.
    pub longest_poll: Duration,
    /// What the polling threads used meanwhile.
    pub usage: Usage,
}

impl<F: Future + Unpin> Metered<F> {
    /// A future that has not been polled.
    pub fn new(inner: F) -> Self {
        Self { inner, meter: PollMeter::default() }
    }
}

impl<F> Metered<F> {
    /// What its polls have cost so far.
    pub const fn meter(&self) -> PollMeter {
        self.meter
    }
}

impl<F: Future + Unpin> Future for Metered<F> {
    type Output = Result<F::Output, Box<dyn Any + Send>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { inner, meter } = &mut *self;
        let before = Usage::of_thread();
        let from = match &meter.began {
            Some(_) => Monotonic::now(),
            None => meter.began.insert(Stopwatch::start()).started,
        };
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(inner).poll(cx)));
        meter.polls += 1;
        meter.longest_poll = meter.longest_poll.max(from.elapsed());
        meter.usage += Usage::of_thread() - before;
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}
