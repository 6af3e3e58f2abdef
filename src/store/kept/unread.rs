//! Rows that this program can't read, such as those of a newer one.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use crate::store::StoreError;

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
