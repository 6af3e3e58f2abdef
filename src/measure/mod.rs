//! Meters: what an attempt has cost, taken where it ran.

pub mod advice;
pub mod machine;
pub mod memory;
mod metered;
mod usage;

pub use metered::{Metered, PollMeter};
pub use usage::Usage;
