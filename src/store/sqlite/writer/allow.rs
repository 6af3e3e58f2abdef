//! How many jobs of an owner may run at once.

use std::collections::HashMap;
use std::sync::Arc;

use super::Writer;
use super::transaction::Done;
use crate::job::Owner;

impl Writer {
    /// Goes by these numbers from here on. Lanes that were shut by lower ones open.
    pub(super) fn allow(running: &HashMap<Owner, u32>, done: &mut Done) {
        done.lanes.reopens.note(&done.allowed, running);
        done.allowed = Arc::new(running.clone());
    }
}
