//! How work is run: three executors, each a [`tower::Service`] from an [`Attempt`] to what was measured of it.

mod async_runtime;
mod attempt;
mod capability;
mod commands;
mod deadline;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod inline;
mod measure;
mod pool;
pub mod processes;
pub mod python;
mod slots;
mod stack;
mod threads;

pub use async_runtime::{AsyncExecutor, AsyncRuntime};
pub use attempt::{Attempt, Ran, Reading};
pub use capability::{Ability, Capabilities, capabilities};
pub use commands::CommandSettings;
pub use deadline::DeadlineLayer;
pub use measure::{MeasureLayer, Measured};
pub use pool::WorkerStatus;
pub(crate) use slots::MOST_BYTES;
pub use slots::{Place, Slot, Slots};
pub use stack::{ExecutorError, ExecutorSettings, Executors, Stack};
pub use threads::ThreadsExecutor;
