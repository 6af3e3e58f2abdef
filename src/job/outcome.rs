use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// What a workload returned: any JSON value, kept as the text that it was written as.
pub type Output = Box<RawValue>;

/// How an attempt ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The workload returned this value.
    Output(Output),
    /// It did not.
    Error(Failure),
}

impl Outcome {
    /// Whether the workload returned a value.
    pub const fn is_success(&self) -> bool {
        matches!(self, Self::Output(_))
    }

    /// What it returned, if it did.
    pub fn output(&self) -> Option<&RawValue> {
        match self {
            Self::Output(output) => Some(output),
            Self::Error(_) => None,
        }
    }

    /// Why it returned nothing, if it did not.
    pub const fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Output(_) => None,
            Self::Error(failure) => Some(failure),
        }
    }

    /// The same, without the outcome.
    pub fn into_failure(self) -> Option<Failure> {
        match self {
            Self::Output(_) => None,
            Self::Error(failure) => Some(failure),
        }
    }
}

impl From<Result<Output, Failure>> for Outcome {
    fn from(result: Result<Output, Failure>) -> Self {
        result.map_or_else(Self::Error, Self::Output)
    }
}

/// Why an attempt gave no output.
#[derive(Clone, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{kind}: {message}")]
pub struct Failure {
    /// The kind, by which a retry rule selects.
    pub kind: FailureKind,
    /// One sentence for people.
    pub message: String,
    /// A Python exception as an object: its type, message, frames, traceback, cause, and what else it is made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python: Option<Box<RawValue>>,
}

impl PartialEq for Failure {
    fn eq(&self, other: &Self) -> bool {
        let told = |failure: &Self| failure.python.as_ref().map(|python| python.get().to_owned());
        (self.kind, &self.message, told(self)) == (other.kind, &other.message, told(other))
    }
}

impl Failure {
    /// A failure of this kind.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), python: None }
    }

    /// A client cancelled the job.
    pub fn cancelled() -> Self {
        Self::new(FailureKind::Cancelled, "cancelled at a client's wish")
    }

    /// The workload ran and failed.
    pub fn error(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Error, message)
    }
}

/// The kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The workload ran and failed.
    Error,
    /// It ran longer than its deadline.
    Timeout,
    /// It panicked; the message is the panic's.
    Panic,
    /// It was stopped at a client's wish.
    Cancelled,
    /// Whatever ran it died: a worker process, or the server.
    Lost,
    /// It was not started before its time was over.
    Expired,
    /// A job that it comes after did not succeed, or has no output that it could be run with.
    Dependency,
}

impl FailureKind {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Error, Self::Timeout, Self::Panic, Self::Cancelled, Self::Lost, Self::Expired, Self::Dependency];

    /// The name that the API uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Timeout => "timeout",
            Self::Panic => "panic",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
            Self::Expired => "expired",
            Self::Dependency => "dependency",
        }
    }
}
