//! What can be run. One file a workload, one line in [`Registry::native`].
//!
//! A workload is a struct of its parameters that knows how to turn itself into [`Work`]: a future or a blocking call. It does not
//! know which executor runs it; every executor can run both forms.

mod command;
mod content;
mod context;
pub mod depth;
mod file;
mod function;
mod http;
mod image;
mod likeness;
mod parameters;
mod placeholder;
mod pointer;
mod primes;
mod python;
mod registry;
mod report;
mod sleep;
#[cfg(test)]
mod testing;
mod workspace;

pub use command::CommandCall;
pub(crate) use content::{sha256, text_or_base64};
pub use context::{Context, Environment, EnvironmentError, Stop, StopReason, WorkloadSettings};
pub use function::FunctionCall;
pub(crate) use function::{is_function, likeness as likeness_of_function, pin as pin_function};
pub use likeness::Likeness;
pub(crate) use parameters::distinct;
pub(crate) use placeholder::{Placeholder, fill, may_have_placeholders, parts};
pub(crate) use pointer::{is_pointer, token as pointer_token};
pub(crate) use python::form_of;
pub use python::{InterpreterRule, PythonCall, PythonCode, PythonContent, PythonFunction, PythonRules};
pub use registry::{Description, Prepared, Registry, Task};
pub use report::{Pace, Reporter, Sink};

use std::future::Future;
use std::pin::Pin;

use futures_util::FutureExt;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::job::{Bound, Failure, Form, Output};

/// Parameters of a kind of work, and how to do it.
///
/// `Deserialize` should be derived with `deny_unknown_fields`; the field `type` is taken off before.
/// The `ToSchema` is what `GET /workloads` and the OpenAPI document show.
pub trait Workload: DeserializeOwned + utoipa::ToSchema + Send + Sync + 'static {
    /// The value of `type` in a submission.
    const TYPE: &'static str;
    /// One sentence for `GET /workloads`.
    const ABOUT: &'static str;
    /// What it mostly does; the tag that fits.
    const BOUND: Bound;
    /// The form of [`Workload::work`].
    const FORM: Form;

    /// A value of the parameters that works, without `type`.
    fn example() -> serde_json::Value;

    /// Checks what the types alone can't say. Pointers are relative to the parameters, such as `/width`.
    ///
    /// # Errors
    /// The first thing that is wrong.
    fn check(&self, _environment: &Environment) -> Result<(), Invalid> {
        Ok(())
    }

    /// The runs that its figures belong to. A workload says here which of its parameters make a difference: their sizes, or whose it is.
    fn likeness(&self) -> Likeness {
        Likeness::of(Self::TYPE)
    }

    /// The work itself, not begun.
    fn work(self, context: Context) -> Work;
}

/// Work that has not begun.
pub enum Work {
    /// Gives its thread back while it waits. Must not block.
    Future(Pin<Box<dyn Future<Output = Result<Output, Failure>> + Send>>),
    /// Holds its thread until it is done. Asks [`Context::stop`] now and then whether it should end early.
    Blocking(Box<dyn FnOnce() -> Result<Output, Failure> + Send>),
}

impl Work {
    /// Work as a future, with an output that can be written as JSON.
    pub fn future<T: Serialize>(work: impl Future<Output = Result<T, Failure>> + Send + 'static) -> Self {
        // An async block would keep room for `work` twice.
        Self::Future(Box::pin(work.map(|result| output(&result?))))
    }

    /// Work as a blocking call, with an output that can be written as JSON.
    pub fn blocking<T: Serialize>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Self {
        Self::Blocking(Box::new(move || output(&work()?)))
    }

    /// As a future; a blocking call holds whoever polls it until it is done.
    pub fn into_future(self) -> Pin<Box<dyn Future<Output = Result<Output, Failure>> + Send>> {
        match self {
            Self::Future(future) => future,
            Self::Blocking(call) => Box::pin(async move { call() }),
        }
    }
}

fn output(value: &impl Serialize) -> Result<Output, Failure> {
    serde_json::value::to_raw_value(value)
        .map_err(|error| Failure::error(format!("the output can't be written as JSON: {error}")))
}

/// A parameter that is wrong: where (a JSON Pointer, RFC 6901) and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{pointer}: {message}")]
pub struct Invalid {
    /// The place, such as `/workload/width`.
    pub pointer: String,
    /// What is wrong with it.
    pub message: String,
}

impl Invalid {
    /// The value at `pointer` is wrong.
    pub fn new(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), message: message.into() }
    }

    /// The same, seen from the object that holds this one at `prefix`.
    #[must_use]
    pub fn within(mut self, prefix: &str) -> Self {
        self.pointer.insert_str(0, prefix);
        self
    }
}
