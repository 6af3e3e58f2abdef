//! What can wait a little for company.

use std::time::{Duration, Instant};

use super::super::intake::Noted;

/// How long settlements that nobody waits for wait for company.
const COMPANY: Duration = Duration::from_millis(2);
/// How long they wait while jobs of their queue wait for cores or other processes.
const COMPANY_BEHIND: Duration = Duration::from_millis(8);
/// How long they wait while [`MANY`] jobs do: the last of so many waits longer for its turn than for that.
const COMPANY_FAR_BEHIND: Duration = Duration::from_millis(24);
const MANY: u64 = 128;

/// What nobody waits for, beside the settlements in [`Company`](super::super::company::Company). Jobs come first: who submits one waits for the
/// commit, and many results are written more cheaply together.
#[derive(Default)]
pub(super) struct Patient {
    /// These go along with whatever is written next, so that no settlement overtakes them.
    pub(super) notes: Vec<Noted>,
    /// When the first of all that has waited long enough.
    pub(super) due: Option<Instant>,
}

impl Patient {
    /// Something is to be written that is not here, behind which so many jobs wait.
    pub(super) fn begun(&mut self, behind: u64) {
        self.be_due(match behind {
            0 => COMPANY,
            1..MANY => COMPANY_BEHIND,
            _ => COMPANY_FAR_BEHIND,
        });
    }

    pub(super) fn push_note(&mut self, note: Noted) {
        self.be_due(COMPANY);
        self.notes.push(note);
    }

    fn be_due(&mut self, after: Duration) {
        self.due = self.due.into_iter().chain([Instant::now() + after]).min();
    }

    pub(super) fn is_due(&self) -> bool {
        self.due.is_some_and(|due| due <= Instant::now())
    }
}
