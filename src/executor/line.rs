//! The line before an executor whose jobs are claimed ahead of its slots.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use tower::{Layer, Service};

use super::attempt::{Attempt, Ran};

/// Lets attempts through as slots become free, in the order in which they came. One that is told to stop leaves the line.
///
/// One that already has a slot, as a comparison's do, does not stand in it.
#[derive(Clone, Debug)]
pub struct LineLayer {
    slots: Arc<Semaphore>,
}

impl LineLayer {
    /// A line before so many slots.
    pub fn new(slots: usize) -> Self {
        Self { slots: Arc::new(Semaphore::new(slots)) }
    }
}

impl<S> Layer<S> for LineLayer {
    type Service = Line<S>;

    fn layer(&self, inner: S) -> Line<S> {
        Line { inner, slots: Arc::clone(&self.slots) }
    }
}

/// See [`LineLayer`].
#[derive(Clone, Debug)]
pub struct Line<S> {
    inner: S,
    slots: Arc<Semaphore>,
}

impl<S> Service<Attempt> for Line<S>
where
    S: Service<Attempt, Response = Ran, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Ran;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Ran, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut attempt: Attempt) -> Self::Future {
        let next = self.inner.clone();
        let (mut inner, slots) = (std::mem::replace(&mut self.inner, next), Arc::clone(&self.slots));
        Box::pin(async move {
            if attempt.slot.permit.is_none() {
                attempt.slot.permit = tokio::select! {
                    biased;
                    permit = slots.acquire_owned() => permit.ok(),
                    _ = attempt.stop.stopped() => return Ok(Ran::unbegun("stopped while it stood in the line")),
                };
            }
            inner.call(attempt).await
        })
    }
}
