//! One workload on all executors, with a verdict.
//!
//! Read in this order: `request` (what is asked), `plan` (what is run), `run` (drives it), `tally` (from attempts to figures),
//! `verdict` (from figures to words), and what shows it: `picture`, `page`. `service` keeps them, one after the other.

mod batch;
mod control;
mod example;
pub mod page;
pub mod picture;
mod plan;
mod pressure;
pub mod report;
mod request;
mod run;
mod service;
mod statistics;
mod tally;
mod verdict;

pub(crate) use example::report as example_report;
pub use request::{Asked, Request};
pub use run::Progress;
pub use service::{CompareError, Comparisons, Unwanted};

/// How many cores this server may use.
fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX))
}
