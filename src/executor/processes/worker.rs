//! The server's side of one worker process.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::super::pool;
use super::ProcessSettings;
use super::protocol::{Channel, FromWorker, ProtocolError, Report, RunRequest, ToWorker};
use crate::job::Spec;
use crate::workload::{Reporter, Stop};

/// How long a worker may take until it is ready.
const START: Duration = Duration::from_secs(20);

/// A worker process that waits for work or does some. Dropped, it and all that it started are killed.
#[derive(Debug)]
pub(in crate::executor) struct Worker {
    child: Child,
    pid: Pid,
    channel: Channel,
    jobs: u64,
}

/// Why a worker could not be started.
#[derive(Debug, thiserror::Error)]
pub(in crate::executor) enum StartError {
    #[error("can't start {program}: {error}")]
    Spawn { program: String, error: std::io::Error },
    #[error("{0}")]
    Unable(String),
    #[error("it ended before it was ready: {0}")]
    Died(ProtocolError),
    #[error("it was not ready after {} s", START.as_secs())]
    Late,
}

/// How an attempt on a worker ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The worker says how; it can be used again.
    Reported(Box<Report>),
    /// It did not stop when it was told to, and was killed.
    Killed,
    /// It died.
    Died(Option<ExitStatus>),
}

impl pool::Worker for Worker {
    type Settings = ProcessSettings;
    type Key = ();
    type Error = StartError;

    async fn start(settings: &ProcessSettings, (): &()) -> Result<Self, StartError> {
        let failed = |error| StartError::Spawn { program: settings.program.display().to_string(), error };
        let (ours, theirs) = StdUnixStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let child = Command::new(&settings.program)
            .arg("worker")
            // What the operator's environment holds is none of a job's business.
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            // Its own group, so that all that it starts can be killed with it and Ctrl-C does not reach it.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let pid = Pid::from_raw(child.id().and_then(|id| i32::try_from(id).ok()).unwrap_or_default());
        let channel = Channel::new(UnixStream::from_std(ours).map_err(failed)?);
        let mut worker = Self { child, pid, channel, jobs: 0 };
        let ready = async {
            worker.channel.send(&ToWorker::Setup(settings.workloads.clone())).await?;
            worker.channel.receive().await
        };
        match tokio::time::timeout(START, ready).await {
            Ok(Ok(FromWorker::Ready)) => Ok(worker),
            Ok(Ok(FromWorker::Unable(reason))) => Err(StartError::Unable(reason)),
            Ok(Ok(FromWorker::Note(_) | FromWorker::Done(_))) => Err(StartError::Died(ProtocolError::Gone)),
            Ok(Err(error)) => Err(StartError::Died(error)),
            Err(_) => Err(StartError::Late),
        }
    }

    fn key(&self) -> &() {
        &()
    }

    fn pid(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    fn jobs(&self) -> u64 {
        self.jobs
    }

    fn can_serve(&mut self, settings: &ProcessSettings) -> bool {
        self.jobs < settings.max_jobs && matches!(self.child.try_wait(), Ok(None))
    }
}

impl Worker {
    /// Runs a workload: to its end, or until `grace` after it was told to stop. What it says is passed on; a worker that says more than
    /// can be written waits.
    pub(super) async fn run(&mut self, workload: Spec, stop: &Stop, reporter: &Reporter, grace: Duration) -> Ended {
        self.jobs += 1;
        let request = RunRequest { kind: workload.kind, workload: workload.json };
        let request = ToWorker::Run(Box::new(request));
        let sent = tokio::select! {
            biased;
            sent = self.channel.send(&request) => Some(sent),
            _ = stop.stopped() => None,
        };
        match sent {
            Some(Ok(())) => {}
            Some(Err(_)) => return self.died().await,
            // It has read a part of it, and can't be told anything else any more.
            None => return self.killed().await,
        }
        tokio::select! {
            biased;
            last = last(&mut self.channel, stop, reporter) => return self.ended(last).await,
            reason = stop.stopped() => if self.channel.send(&ToWorker::Stop(reason)).await.is_err() {
                return self.died().await;
            },
        }
        if let Ok(last) = tokio::time::timeout(grace, last(&mut self.channel, stop, reporter)).await {
            return self.ended(last).await;
        }
        self.killed().await
    }

    async fn killed(&mut self) -> Ended {
        self.kill();
        let _ = self.child.wait().await;
        Ended::Killed
    }

    async fn ended(&mut self, last: Result<FromWorker, ProtocolError>) -> Ended {
        match last {
            Ok(FromWorker::Done(report)) => Ended::Reported(report),
            _ => self.died().await,
        }
    }

    async fn died(&mut self) -> Ended {
        self.kill();
        Ended::Died(self.child.wait().await.ok())
    }

    /// Kills it with all that it started.
    fn kill(&self) {
        // A pid of 0 would be our own group; it means that the child was already collected.
        if self.pid.as_raw() > 0 {
            let _ = killpg(self.pid, Signal::SIGKILL);
        }
    }
}

/// Passes notes on until there is another message. One that is to stop has only so long to say that it has, and says so behind its notes.
async fn last(channel: &mut Channel, stop: &Stop, reporter: &Reporter) -> Result<FromWorker, ProtocolError> {
    loop {
        match channel.receive().await? {
            FromWorker::Note(note) => reporter.note_until(note, stop.stopped()).await,
            other => return Ok(other),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Once it was collected, its number may already be somebody else's.
        if self.child.id().is_some() {
            self.kill();
        }
    }
}
