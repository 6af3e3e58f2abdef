//! The moments of events.

use std::time::Duration;

use crate::clock::Timestamp;

/// Gives each event its moment, which is its id: later than every one before, whatever the clock does.
pub(super) struct Moments(pub(super) Timestamp);

impl Moments {
    pub(super) fn next(&mut self) -> Timestamp {
        self.0 = Timestamp::now().max(self.0.after(Duration::from_micros(1)));
        self.0
    }

    /// As many as that, from the one behind the returned one on.
    pub(super) fn skip(&mut self, count: usize) -> Timestamp {
        let before = self.next();
        self.0 = before.after(Duration::from_micros(count as u64));
        before
    }
}
