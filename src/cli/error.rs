use std::io;
use std::process::ExitCode;
use std::time::Duration;

use crate::config::FileError;
use crate::telemetry::TelemetryError;

use super::client::Problem;
use super::print;

/// A function may be deployed without saying what its jobs are.
const NO_BOUND: &str =
    "Say whether it mostly waits or computes: --bound io or --bound cpu, here or when the function is deployed.";

/// A folder may hold more than code.
const TOO_LONG: &str = "All that is in the folder is sent, apart from hidden things and __pycache__: a virtual environment such as venv, or \
    data, does not belong there.";

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// The settings' file is wrong.
    #[error(transparent)]
    File(#[from] FileError),
    /// The command line parses but makes no sense.
    #[error("{0}")]
    Usage(String),
    /// No connection, or it broke.
    #[error("can't reach a server at {server}: {reason}\nStart one with `trine serve`, or name another one with --server.")]
    Unreachable {
        /// Its URL.
        server: String,
        /// What the network says.
        reason: String,
    },
    /// There is a server, which says nothing.
    #[error("the server at {server} does not answer: nothing came within {} s", waited.as_secs())]
    Silent {
        /// Its URL.
        server: String,
        /// How long it had.
        waited: Duration,
    },
    /// The server answered with an error.
    #[error("{0}")]
    Refused(Problem),
    /// The server does not have what was asked for.
    #[error("{0}")]
    NotThere(String),
    /// The server refused to do something with some of several jobs; each refusal was shown.
    #[error("refused for {refused} of {jobs} jobs")]
    Refusals {
        /// How many.
        refused: usize,
        /// Of how many.
        jobs: usize,
    },
    /// The server answered with something else than its API.
    #[error("the server's answer can't be understood: {0}")]
    NotTrine(String),
    /// Jobs ended in another way than with an output.
    #[error("{failed} of {jobs} jobs did not succeed")]
    Unsuccessful {
        /// How many.
        failed: usize,
        /// Of how many.
        jobs: usize,
    },
    /// A comparison ended without a report.
    #[error("the comparison {state}: {reason}")]
    NoReport {
        /// How it ended.
        state: String,
        /// Why.
        reason: String,
    },
    /// The address is taken, or not this machine's.
    #[error("can't listen on {0}: {1}; choose another address with --listen")]
    Listen(std::net::SocketAddr, io::Error),
    /// Signals or threads are not to be had.
    #[error("can't start: {0}")]
    Runtime(io::Error),
    /// There will be no log.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The service could not start, or had to stop.
    #[error(transparent)]
    Service(#[from] crate::app::AppError),
    /// Something can't be written as JSON.
    #[error("can't write JSON: {0}")]
    Json(serde_json::Error),
    /// A signal came before the command was through.
    #[error("stopped before the end")]
    Interrupted,
    /// Something outside of the program is missing that the command needs.
    #[error("can't {0}: {1}")]
    Prepare(&'static str, io::Error),
    /// Standard output can't be written.
    #[error("can't write the output: {0}")]
    Output(io::Error),
}

impl CliError {
    /// That of a job without a tag, if it is one, with what to do about it.
    pub(super) fn about_bound(self) -> Self {
        match self {
            Self::Refused(problem) => Self::Refused(problem.advised("/bound", NO_BOUND)),
            other => other,
        }
    }

    /// That of a folder that is too large to be sent, if it is one, with what to do about it.
    pub(super) fn about_length(self) -> Self {
        match self {
            Self::Refused(problem) if problem.is_too_large() => Self::Refused(problem.with(TOO_LONG)),
            other => other,
        }
    }

    /// Whether it may go well a little later: the server is away, or has no room now.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Silent { .. } => true,
            Self::Refused(problem) => problem.is_unavailable(),
            _ => false,
        }
    }

    /// Says what is wrong on standard error, and with which code the program ends.
    pub(super) fn report(&self) -> ExitCode {
        match self {
            // Whoever read the output has seen enough of it, as `head` does.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
            error => print::aside(format_args!("trine: {error}")),
        }
        ExitCode::from(match self {
            Self::Usage(_) | Self::File(_) => 2,
            Self::Unreachable { .. } | Self::Silent { .. } => 3,
            _ => 1,
        })
    }
}
