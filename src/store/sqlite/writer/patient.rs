//! What can wait a little for company.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::intake::Noted;
use super::Reply;
use crate::store::{Lease, Settled, Settlement};

/// How long settlements that nobody waits for wait for company, and how many of them do.
const COMPANY: (Duration, usize) = (Duration::from_millis(2), 512);
/// How long they wait while jobs of their queue wait for cores or other processes.
const COMPANY_BEHIND: Duration = Duration::from_millis(8);

/// What nobody waits for. Jobs come first: who submits one waits for the commit, and many results are written more cheaply together.
#[derive(Default)]
pub(super) struct Patient {
    /// These go along with whatever is written next, so that no settlement overtakes them.
    pub(super) notes: Vec<Noted>,
    pub(super) settles: Vec<(Lease, Arc<Settlement>, Reply<Settled>)>,
    /// When the first of them has waited long enough.
    pub(super) due: Option<Instant>,
}

impl Patient {
    pub(super) fn push(&mut self, settle: (Lease, Arc<Settlement>, Reply<Settled>), behind: bool) {
        self.begun(behind);
        self.settles.push(settle);
    }

    /// Something is to be written that is not here.
    pub(super) fn begun(&mut self, behind: bool) {
        self.be_due(if behind { COMPANY_BEHIND } else { COMPANY.0 });
    }

    pub(super) fn push_note(&mut self, note: Noted) {
        self.be_due(COMPANY.0);
        self.notes.push(note);
    }

    fn be_due(&mut self, after: Duration) {
        self.due = self.due.into_iter().chain([Instant::now() + after]).min();
    }

    pub(super) fn is_due(&self) -> bool {
        self.settles.len() + self.notes.len() >= COMPANY.1 || self.due.is_some_and(|due| due <= Instant::now())
    }

    pub(super) fn take(&mut self) -> Vec<(Lease, Arc<Settlement>, Reply<Settled>)> {
        self.due = None;
        std::mem::take(&mut self.settles)
    }
}
