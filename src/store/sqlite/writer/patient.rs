//! What can wait a little for company.

use std::time::{Duration, Instant};

use super::super::intake::Noted;

/// How long settlements that nobody waits for wait for company.
const COMPANY: Duration = Duration::from_millis(2);
/// How much longer they wait if [`SEVERAL`] have come by then, and more may.
const COMPANY_OF_MORE: Duration = Duration::from_millis(6);
/// So many in [`COMPANY`] are a stream of them.
pub(super) const SEVERAL: usize = 4;
/// How long they wait while jobs of their queue wait for cores or other processes.
const COMPANY_BEHIND: Duration = Duration::from_millis(8);
/// How long they wait while [`MANY`] jobs do: the last of so many waits longer for its turn than for that.
const COMPANY_FAR_BEHIND: Duration = Duration::from_millis(64);
const MANY: u64 = 128;

/// What nobody waits for, beside the settlements in [`Company`](super::super::company::Company). Jobs come first: who submits one waits for the
/// commit, and many results are written more cheaply together.
#[derive(Default)]
pub(super) struct Patient {
    /// These go along with whatever is written next, so that no settlement overtakes them.
    pub(super) notes: Vec<Noted>,
    /// When the first of all that has waited long enough.
    pub(super) due: Option<Instant>,
    /// It has been put off.
    is_put_off: bool,
}

impl Patient {
    /// Something is to be written that is not here, behind which so many jobs wait.
    pub(super) fn begun(&mut self, behind: u64) {
        self.be_due(match behind {
            // It is one of those that this was put off for.
            0 if self.is_put_off => return,
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

    /// Whether it has waited long enough. It is put off once, if that `is_worth_it`.
    pub(super) fn is_due(&mut self, is_worth_it: impl FnOnce() -> bool) -> bool {
        let Some(due) = self.due.filter(|due| *due <= Instant::now()) else { return false };
        if self.is_put_off || !is_worth_it() {
            return true;
        }
        self.is_put_off = true;
        self.due = Some(due + COMPANY_OF_MORE);
        false
    }

    /// All that waited is written now.
    pub(super) fn over(&mut self) {
        (self.due, self.is_put_off) = (None, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_worth_it_is_put_off_once() {
        let mut patient = Patient::default();
        for (is_worth_it, further) in [(true, 6), (false, 0), (true, 6)] {
            patient.begun(0);
            let first = patient.due.unwrap();
            while !patient.is_due(|| is_worth_it) {
                patient.begun(0);
            }
            assert_eq!(patient.due.unwrap() - first, Duration::from_millis(further));
            patient.over();
        }
    }
}
