//! Ends attempts that run too long, or that somebody told to stop, whether or not they listen; but on an event loop not before it is
//! their turn there.

use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tower::{Layer, Service};

use super::attempt::{Attempt, Ran};
use crate::clock::Monotonic;
use crate::job::{Failure, Outcome};
use crate::workload::{Stop, StopReason};

/// Whoever kills by itself what does not stop in time gets so much longer: this only guards against a kernel that does not let it.
pub(super) const BEYOND: Duration = Duration::from_secs(10);

/// Tells an attempt to stop when its deadline has passed, and waits at most `grace` longer for one that was told to stop.
///
/// What does not stop is left behind: its job is settled, but its slot stays taken until it is really over.
#[derive(Clone, Copy, Debug)]
pub struct DeadlineLayer {
    grace: Duration,
}

impl DeadlineLayer {
    /// Leaves attempts behind that have not stopped after `grace`.
    pub const fn new(grace: Duration) -> Self {
        Self { grace }
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline { inner, grace: self.grace }
    }
}

/// See [`DeadlineLayer`].
#[derive(Clone, Debug)]
pub struct Deadline<S> {
    inner: S,
    grace: Duration,
}

impl<S> Service<Attempt> for Deadline<S>
where
    S: Service<Attempt, Response = Ran, Error = Infallible>,
    S::Future: Send + Unpin + 'static,
{
    type Response = Ran;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Ran, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, attempt: Attempt) -> Self::Future {
        let (stop, deadline, grace) = (attempt.stop.clone(), attempt.deadline, self.grace);
        Box::pin(limited(self.inner.call(attempt), stop, deadline, grace))
    }
}

/// Waits for so long, if that has an end.
pub(super) async fn passed(limit: Option<Duration>) {
    match limit {
        // Timers are large and few attempts need one, so they are kept apart.
        Some(limit) => Box::pin(tokio::time::sleep(limit)).await,
        None => std::future::pending().await,
    }
}

/// Waits for an attempt that begins now, for as long as it may run.
pub(super) async fn limited<F, E>(mut running: F, stop: Stop, deadline: Option<Duration>, grace: Duration) -> Result<Ran, E>
where
    F: Future<Output = Result<Ran, E>> + Unpin,
{
    deadline.inspect(|deadline| stop.stop_at(Monotonic::now().after(*deadline)));
    let left_behind = || Failure::error("it did not stop when it was told to");
    tokio::select! {
        biased;
        ran = &mut running => {
            let mut ran = ran?;
            // It has held an event loop by itself until after it would have been left behind elsewhere.
            let held = ran.reading.polls.map(|(_, longest)| longest);
            if stop.reason().is_none() && deadline.is_some_and(|deadline| held > Some(deadline.saturating_add(grace))) {
                stop.stop(StopReason::Deadline);
                ran.outcome = Outcome::Error(left_behind());
            }
            return Ok(ran);
        }
        _ = stop.stopped() => {}
        () = passed(deadline) => stop.stop(StopReason::Deadline),
    }
    Box::pin(tokio::time::timeout(grace, running)).await.unwrap_or_else(|_| Ok(Ran::failed(left_behind())))
}
