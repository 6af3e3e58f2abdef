//! What goes into an executor and what comes out.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::slots::Slot;
use crate::artifact::ArtifactError;
use crate::clock::{Monotonic, Stopwatch};
use crate::job::{Failure, FailureKind, JobId, Outcome, Spec};
use crate::measure::Usage;
use crate::workload::{Reporter, Stop, Work};

/// One try at running a job.
#[derive(Debug)]
pub struct Attempt {
    /// Of which job.
    pub job: JobId,
    /// Its number, from 1.
    pub number: u32,
    /// What to run.
    pub workload: Spec,
    /// The longest that it may run.
    pub deadline: Option<Duration>,
    /// How long it was waiting before it was claimed.
    pub queued_for: Duration,
    /// When it was claimed.
    pub claimed: Monotonic,
    /// Whether the files that it leaves are kept.
    pub keeps_files: bool,
    /// Tells it to end early.
    pub stop: Stop,
    /// Takes what it says while it runs.
    pub reporter: Reporter,
    /// The slot that it takes up. It travels to where the work is done, and is free again when the work is really over - not when
    /// somebody has stopped waiting for it.
    pub slot: Slot,
}

impl Attempt {
    /// One of a job that is not in the store: the first, claimed now, without a deadline; its files are not kept.
    pub fn alone(workload: Spec) -> Self {
        Self {
            job: JobId::new(),
            number: 1,
            workload,
            deadline: None,
            queued_for: Duration::ZERO,
            claimed: Monotonic::now(),
            keeps_files: false,
            stop: Stop::default(),
            reporter: Reporter::default(),
            slot: Slot::default(),
        }
    }
}

/// What an executor says of an attempt that has ended: how, and what was measured where it ran.
#[derive(Debug)]
pub struct Ran {
    /// How it ended.
    pub outcome: Outcome,
    /// What was measured.
    pub reading: Reading,
    /// The process that ran it, if it died under it by itself.
    pub crashed: Option<u32>,
    /// Whether the work may have begun.
    pub begun: bool,
}

/// What was measured of an attempt, where it ran. What could not be measured is absent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    /// When the work began; absent if it never did.
    pub began: Option<Stopwatch>,
    /// How long the work took.
    pub wall: Option<Duration>,
    /// What it used.
    pub usage: Option<Usage>,
    /// How often it was polled, and the longest that a poll took.
    pub polls: Option<(u64, Duration)>,
    /// Peak resident memory in bytes.
    pub max_rss_bytes: Option<u64>,
    /// Whether a global lock kept the runtime's threads from computing at once.
    pub gil: Option<bool>,
    /// How long it could have run and had no core.
    pub core_wait: Option<Duration>,
    /// How long it was ready to be polled and was not.
    pub loop_wait: Option<Duration>,
    /// How long it may have waited for the global lock at most.
    pub gil_wait: Option<Duration>,
    /// How many others were on the event loop during the longest poll, if that was long.
    pub held_jobs: Option<u64>,
    /// The longest that a poll took, but for the time in which it had no core.
    pub longest_hold: Option<Duration>,
}

impl Ran {
    /// An attempt that failed without anything measured.
    pub fn failed(failure: Failure) -> Self {
        Self { outcome: Outcome::Error(failure), reading: Reading::default(), crashed: None, begun: true }
    }

    /// One that failed since its process died under it.
    pub fn crashed(pid: u32, failure: Failure) -> Self {
        Self { crashed: Some(pid), ..Self::failed(failure) }
    }

    /// One whose work has surely not begun.
    pub fn unbegun(why: &str) -> Self {
        Self { begun: false, ..Self::failed(Failure::error(why)) }
    }

    /// The same, once it was tried to keep the files that it has left behind: without them, it has not done what it should.
    pub(super) fn but(mut self, kept: Result<(), ArtifactError>) -> Self {
        if let Err(error) = kept {
            tracing::info!(%error, "artifacts are not kept");
            if self.outcome.is_success() {
                self.outcome = Outcome::Error(Failure::error(format!("its artifacts can't be kept: {error}")));
            }
        }
        self
    }
}

/// Work, or why there is none: a workload may panic as it makes it.
pub(super) fn made(make: impl FnOnce() -> Result<Work, Failure>) -> Result<Work, Failure> {
    catch_unwind(AssertUnwindSafe(make)).unwrap_or_else(|panic| Err(panicked(&*panic)))
}

/// The failure that a panic is.
pub(super) fn panicked(panic: &(dyn Any + Send)) -> Failure {
    let message = panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".into());
    Failure::new(FailureKind::Panic, message)
}
