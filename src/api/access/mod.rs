//! Who may call which operation.

mod keyring;
mod operations;

pub use keyring::Keyring;
pub(super) use keyring::{Caller, Created};
pub(super) use operations::{Operations, describe};
