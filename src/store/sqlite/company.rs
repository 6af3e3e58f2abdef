//! How attempts have ended that nobody waits for, until the writer takes them along: it is not woken for each of them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::writer::Reply;
use crate::store::{Lease, Settled, Settlement};

/// How many wait at the most before they are written.
pub(super) const MOST: usize = 512;

/// One of them, and who is told what became of it.
pub(super) type Settling = (Lease, Arc<Settlement>, Reply<Settled>);

/// Those that wait, in their order; `None` when nothing is written any more.
pub(super) struct Company(Mutex<Option<Vec<Settling>>>);

impl Company {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Some(Vec::new())))
    }

    /// Adds one, or drops it if nothing is written any more. Whether the writer is to be told: of the first, and when there are enough.
    pub(super) fn join(&self, settling: Settling) -> bool {
        self.waiting().as_mut().is_some_and(|waiting| {
            waiting.push(settling);
            waiting.len() == 1 || waiting.len() == MOST
        })
    }

    /// How many there are, and the lease of the first.
    pub(super) fn first(&self) -> Option<(usize, Lease)> {
        self.waiting().as_ref().and_then(|waiting| Some((waiting.len(), waiting.first()?.0)))
    }

    /// All that there are.
    pub(super) fn take(&self) -> Vec<Settling> {
        self.waiting().as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Nothing is written any more: whoever still waits for an answer sees that there will be none.
    pub(super) fn close(&self) {
        self.waiting().take();
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Vec<Settling>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
