//! Meters: what an attempt has cost, taken where it ran.

pub mod advice;
mod helpers;
pub mod machine;
pub mod memory;
mod metered;
pub mod park;
mod run_delay;
mod usage;

pub use helpers::Helpers;
pub use metered::{Crowd, Metered, PollMeter};
pub use run_delay::{run_delay, waited_for_turn};
pub use usage::{Usage, cpu_time_of};
