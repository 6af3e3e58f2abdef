//! `processes`: warm worker processes, one job each at a time. What goes wrong in one hurts nobody else, and it can be killed.

pub mod child;
mod protocol;
mod worker;

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;

#[cfg(any(test, fuzzing))]
pub(super) use self::protocol::understand;

use self::protocol::Report;
use self::worker::{Ended, Worker};
use super::attempt::{Attempt, Ran, Reading};
use super::pool::{Pool, Worker as _};
use crate::job::{Failure, FailureKind};
use crate::workload::WorkloadSettings;

/// The worker processes of native work.
#[derive(Clone, Debug)]
pub struct ProcessSettings {
    /// The program that is started with the argument `worker`: this one, unless Trine is embedded in another.
    pub program: PathBuf,
    /// How many at once.
    pub size: usize,
    /// A worker is replaced after so many jobs.
    pub max_jobs: u64,
    /// What workloads may reach.
    pub workloads: WorkloadSettings,
}

/// The workers of native work.
pub(super) type ProcessPool = Pool<Worker>;

/// Runs an attempt in a worker process that it has to itself meanwhile, which is killed if it has not stopped `grace` after it was told to.
pub(super) async fn run(pool: ProcessPool, grace: Duration, attempt: Attempt) -> Ran {
    let Attempt { workload, stop, reporter, slot, .. } = attempt;
    let slot = Arc::new(slot);
    let mut taken = tokio::select! {
        taken = pool.take(&(), &slot) => taken,
        _ = stop.stopped() => return Ran::unbegun("stopped before a worker process was there"),
    };
    let pid = taken.worker.pid();
    let ended = taken.worker.run(workload, &stop, &reporter, grace).await;
    if matches!(ended, Ended::Reported(_)) {
        taken.give_back();
    } else {
        drop(taken);
    }
    drop(slot);
    match ended {
        Ended::Reported(report) => reported(*report),
        Ended::Killed => Ran::failed(Failure::error("it did not stop when it was told to, and was killed")),
        Ended::Died(status) => {
            let how = status.map_or_else(|| "disappeared".into(), describe);
            Ran::crashed(pid, Failure::new(FailureKind::Lost, format!("worker process {pid} {how} while it ran this job")))
        }
    }
}

fn reported(report: Report) -> Ran {
    let reading = Reading {
        began: Some(report.began),
        wall: Some(Duration::from_micros(report.wall_us)),
        usage: Some(report.usage),
        max_rss_bytes: report.max_rss_bytes,
        core_wait: report.core_wait_us.map(Duration::from_micros),
        ..Reading::default()
    };
    Ran { outcome: report.result.into(), reading, crashed: None, begun: true }
}

/// What became of a process, in words.
pub(super) fn describe(status: ExitStatus) -> String {
    match status.signal().map(Signal::try_from) {
        Some(Ok(signal)) => format!("was ended by {signal}"),
        Some(Err(_)) => "was ended by a signal".into(),
        None => status.code().map_or_else(|| "ended".into(), |code| format!("ended with exit status {code}")),
    }
}
