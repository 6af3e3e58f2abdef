//! Rows that this program can't read, such as those of a newer one.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::store::StoreError;

/// For how long what this program can't read is left to others: a newer one may have written it.
pub(in crate::store) const LEFT: Duration = Duration::from_secs(2);

/// What this program can't read. It holds up nothing else: it is left out, and said once.
#[derive(Default)]
pub(in crate::store) struct Unread {
    said: Mutex<HashSet<String>>,
}

impl Unread {
    /// What was read, unless it can't be.
    pub(in crate::store) fn leave_out<T>(&self, what: &str, read: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
        match read {
            Err(StoreError::Corrupt(reason)) => {
                if self.said.lock().unwrap_or_else(PoisonError::into_inner).insert(reason.clone()) {
                    tracing::warn!(reason, "{what} can't be read: this server leaves it out");
                }
                Ok(None)
            }
            read => read.map(Some),
        }
    }
}
