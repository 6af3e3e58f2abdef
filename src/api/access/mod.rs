//! Who may call which operation, and for whom a request is.

mod caller;
mod keyring;
mod operations;

pub(super) use caller::Caller;
pub use keyring::Keyring;
pub(super) use keyring::{Created, Holder};
pub(super) use operations::{Operation, Operations, describe, methods};
