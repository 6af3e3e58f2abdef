//! The outermost layer: whatever happened to an attempt, its record has the same shape.

use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tower::{Layer, Service};

use super::attempt::{Attempt, Ran, Reading};
use crate::clock::{Monotonic, micros};
use crate::job::{Failure, FailureKind, Outcome, Timing};
use crate::workload::StopReason;

/// An attempt that has ended, with what was measured of it.
#[derive(Debug)]
pub struct Measured {
    /// How it ended.
    pub outcome: Outcome,
    /// Why it was told to stop, if that is what ended it.
    pub stopped: Option<StopReason>,
    /// The record; absent if the work never began.
    pub timing: Option<Timing>,
    /// The process that ran it, if it died under it by itself.
    pub crashed: Option<u32>,
    /// Whether the work may have begun.
    pub begun: bool,
}

impl Measured {
    /// Whether there was no process that its work could begin in.
    pub fn has_no_process(&self) -> bool {
        !self.begun && self.stopped.is_none() && self.outcome.failure().is_some_and(|failure| failure.kind == FailureKind::Lost)
    }

    /// An attempt whose work did not begin: for this reason, or because it was told to stop before.
    pub fn unbegun(failure: Failure, stopped: Option<StopReason>, deadline: Option<Duration>) -> Self {
        let failure = stopped.map_or(failure, |reason| stopped_by(reason, deadline, false));
        Self { outcome: Outcome::Error(failure), stopped, timing: None, crashed: None, begun: false }
    }
}

/// Makes [`Measured`] out of what an executor reports.
#[derive(Clone, Copy, Debug, Default)]
pub struct MeasureLayer;

impl<S> Layer<S> for MeasureLayer {
    type Service = Measure<S>;

    fn layer(&self, inner: S) -> Measure<S> {
        Measure { inner }
    }
}

/// See [`MeasureLayer`].
#[derive(Clone, Debug)]
pub struct Measure<S> {
    inner: S,
}

impl<S> Service<Attempt> for Measure<S>
where
    S: Service<Attempt, Response = Ran, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Measured;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Measured, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, attempt: Attempt) -> Self::Future {
        let (queued_for, claimed, stop, deadline) = (attempt.queued_for, attempt.claimed, attempt.stop.clone(), attempt.deadline);
        let running = self.inner.call(attempt);
        Box::pin(async move {
            let Ran { outcome, reading, crashed, begun } = running.await?;
            // Work that was told to stop, but ended well all the same, has ended well.
            let stopped = if outcome.is_success() { None } else { stop.reason() };
            let outcome = stopped.map_or(outcome, |reason| Outcome::Error(stopped_by(reason, deadline, begun)));
            let timing = timing(queued_for, claimed, &reading);
            Ok(Measured { outcome, stopped, timing, crashed, begun })
        })
    }
}

fn stopped_by(reason: StopReason, deadline: Option<Duration>, begun: bool) -> Failure {
    match reason {
        StopReason::Deadline => {
            let deadline = deadline.unwrap_or_default().as_millis();
            let what = if begun { "it ran longer than" } else { "it could not begin within" };
            Failure::new(FailureKind::Timeout, format!("{what} its deadline of {deadline} ms"))
        }
        StopReason::Cancelled => Failure::cancelled(),
        StopReason::HandBack => Failure::new(FailureKind::Lost, "the server hands it back"),
    }
}

fn timing(queued_for: Duration, claimed: Monotonic, reading: &Reading) -> Option<Timing> {
    let (began, wall) = (reading.began?, reading.wall?);
    Some(Timing {
        queue_us: micros(queued_for),
        dispatch_us: micros(began.started.since(claimed)),
        wall_us: micros(wall),
        cpu_user_us: reading.usage.map(|usage| usage.cpu_user_us),
        cpu_system_us: reading.usage.map(|usage| usage.cpu_system_us),
        polls: reading.polls.map(|(polls, _)| polls),
        longest_poll_us: reading.polls.map(|(_, longest)| micros(longest)),
        max_rss_bytes: reading.max_rss_bytes,
        ctx_voluntary: reading.usage.map(|usage| usage.ctx_voluntary),
        ctx_involuntary: reading.usage.map(|usage| usage.ctx_involuntary),
        gil: reading.gil,
        core_wait_us: reading.core_wait.map(micros),
        loop_wait_us: reading.loop_wait.map(micros),
        gil_wait_us: reading.gil_wait.map(micros),
        held_jobs: reading.held_jobs,
        longest_hold_us: reading.longest_hold.map(micros),
    })
}
