//! A profile in memory, with what of it is not kept yet.

use super::day::Days;
use super::{Profile, Sample};
use crate::job::ProfileKey;
use crate::store::DayRow;

/// A profile, and how it stands to the one that is kept.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) profile: Profile,
    /// Of what is kept, as far as it is in here; 0 if nothing is.
    pub(super) version: i64,
    /// By which the one is found that was used least lately.
    pub(super) used: u64,
    /// Something is not kept yet.
    pub(super) changed: bool,
    /// The runs that may not be in what is kept, and whether the machine was steady; noted only where others change that, too.
    recent: Vec<(Sample, bool)>,
    /// How many of the first of these are being written.
    sent: usize,
    days: Days,
}

impl Entry {
    /// Adds a run; `noted` if it may have to be added once more.
    pub(super) fn add(&mut self, sample: &Sample, steady: bool, noted: bool) {
        self.changed = true;
        self.days.add(sample);
        self.profile.add(sample, steady);
        if noted {
            self.recent.push((*sample, steady));
        }
    }

    /// How many runs are noted.
    pub(super) fn recent(&self) -> usize {
        self.recent.len()
    }

    /// All that is not kept yet is about to be. What is to be added to days.
    pub(super) fn send(&mut self, key: &ProfileKey) -> impl Iterator<Item = DayRow> {
        self.changed = false;
        self.sent = self.recent.len();
        self.days.take(key)
    }

    /// It is kept.
    pub(super) fn kept(&mut self, version: i64) {
        self.version = version;
        self.recent.drain(..self.sent);
        self.sent = 0;
    }

    /// It is not, but for its days.
    pub(super) fn not_kept(&mut self) {
        self.changed = true;
        self.sent = 0;
    }

    /// Nor is this of its days.
    pub(super) fn give_back(&mut self, day: &DayRow) {
        self.days.give_back(day);
    }

    /// Takes over what somebody else has written, and adds to it what is not in there.
    pub(super) fn take_over(&mut self, version: i64, kept: Profile) {
        let mine = std::mem::replace(&mut self.profile, kept);
        self.version = version;
        self.profile.written = self.profile.written.or(mine.written);
        // Each server tries other executors by its own count.
        self.profile.learned.count_as(&mine.learned);
        for (sample, steady) in &self.recent {
            self.profile.add(sample, *steady);
        }
        self.changed = !self.recent.is_empty();
    }
}
