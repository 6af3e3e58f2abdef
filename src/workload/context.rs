//! What a workload is given besides its parameters.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore};

use super::python::PythonRules;
use super::workspace::Workspace;
use super::{Reporter, image};
use crate::clock::Monotonic;
use crate::command::Commands;
use crate::job::{Failure, LogStream};
use crate::outbound::{Outbound, OutboundError, OutboundSettings};

/// What workloads may reach, as the operator configured it. Worker processes get it as it is, but for what stands in the environments of
/// commands: the server starts those itself, and there may be secrets in them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadSettings {
    /// Where `http` may go.
    pub outbound: OutboundSettings,
    /// The longest body that `http` accepts, in bytes.
    pub http_max_bytes: u64,
    /// The folder that `file` and `image` work in; created if it is missing.
    pub workspace: PathBuf,
    /// What jobs in Python may use.
    pub python: PythonRules,
    /// The programs that jobs may run.
    pub commands: Commands,
}

/// What all workloads of a process share: clients and folders, opened once.
#[derive(Debug)]
pub struct Environment {
    pub(super) outbound: Arc<Outbound>,
    pub(super) http_max_bytes: u64,
    pub(super) workspace: Workspace,
    pub(super) image_room: Semaphore,
    pub(super) python: PythonRules,
    pub(super) commands: Commands,
}

/// The environment can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// The workspace folder can't be created or opened.
    #[error("the workspace folder {} can't be opened: {source}", path.display())]
    Workspace {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no way out to the network.
    #[error(transparent)]
    Outbound(#[from] OutboundError),
}

impl Environment {
    /// Opens the clients and folders. Needs no running async runtime.
    pub fn open(settings: &WorkloadSettings) -> Result<Self, EnvironmentError> {
        let workspace = Workspace::open(&settings.workspace)
            .map_err(|source| EnvironmentError::Workspace { path: settings.workspace.clone(), source })?;
        let outbound = Arc::new(Outbound::new(&settings.outbound)?);
        let (python, commands) = (settings.python.clone(), settings.commands.clone());
        let (http_max_bytes, image_room) = (settings.http_max_bytes, image::room());
        Ok(Self { outbound, http_max_bytes, workspace, image_room, python, commands })
    }

    /// The way out to the network.
    pub const fn outbound(&self) -> &Arc<Outbound> {
        &self.outbound
    }

    /// What jobs in Python may use.
    pub const fn python(&self) -> &PythonRules {
        &self.python
    }

    /// The programs that jobs may run.
    pub const fn commands(&self) -> &Commands {
        &self.commands
    }
}

/// What one attempt of a workload may use.
#[derive(Clone, Debug)]
pub struct Context {
    /// Clients and folders.
    pub environment: Arc<Environment>,
    /// Whether to end early.
    pub stop: Stop,
    /// Takes what it says while it runs.
    pub reporter: Reporter,
}

impl Context {
    /// How far the attempt is: see [`Reporter::progress`].
    pub fn progress(&self, value: &(impl Serialize + ?Sized)) {
        self.reporter.progress(value);
    }

    /// A line of log: see [`Reporter::log`].
    pub fn log(&self, line: impl Into<String>) {
        self.reporter.log(LogStream::Stdout, line);
    }
}

/// Tells one attempt to end early. Clones share the signal; the first reason stays.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    // One allocation: thousands of attempts may wait, each with a signal.
    signal: Arc<Signal>,
}

#[derive(Debug, Default)]
struct Signal {
    reason: OnceLock<StopReason>,
    /// When it has run as long as it may.
    deadline: OnceLock<Monotonic>,
    given: Notify,
}

/// Why an attempt should end early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// It has run as long as it may.
    Deadline,
    /// A client cancelled it.
    Cancelled,
    /// The server is going down, or its right to run this has ended or soon will: it hands it back.
    HandBack,
}

impl Stop {
    /// Asks the attempt to end.
    pub fn stop(&self, reason: StopReason) {
        // The first reason stays; a second one changes nothing.
        let _ = self.signal.reason.set(reason);
        self.signal.given.notify_waiters();
    }

    /// It should end by this time, which it is told also where no timer comes to its turn: while it holds an event loop.
    pub fn stop_at(&self, deadline: Monotonic) {
        // An attempt has one deadline.
        let _ = self.signal.deadline.set(deadline);
    }

    /// Whether the attempt should end: for blocking work to ask now and then. Costs a look at the clock if there is a deadline.
    pub fn is_stopped(&self) -> bool {
        if self.reason().is_none() && self.signal.deadline.get().is_some_and(|deadline| Monotonic::now() >= *deadline) {
            self.stop(StopReason::Deadline);
        }
        self.reason().is_some()
    }

    /// The failure with which blocking work ends early, if it should. Whoever runs it knows the reason and puts it in its place.
    pub fn check(&self) -> Result<(), Failure> {
        if self.is_stopped() { Err(Failure::error("stopped")) } else { Ok(()) }
    }

    /// Resolves when the attempt should end.
    pub async fn stopped(&self) -> StopReason {
        // Made before looking: it is woken from here on, though it has not been polled.
        let given = self.signal.given.notified();
        if let Some(reason) = self.reason() {
            return reason;
        }
        given.await;
        self.reason().unwrap_or(StopReason::Cancelled)
    }

    /// The reason, once there is one.
    pub fn reason(&self) -> Option<StopReason> {
        self.signal.reason.get().copied()
    }
}
