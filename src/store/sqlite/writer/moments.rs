//! The moments of events.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Timestamp};

/// Gives each event its moment, which is its id: later than every one before, whatever the clock does.
pub(super) struct Moments {
    clock: Arc<dyn Clock>,
    pub(super) latest: Timestamp,
}

impl Moments {
    /// Later than `latest` from here on.
    pub(super) fn new(clock: Arc<dyn Clock>, latest: Timestamp) -> Self {
        Self { clock, latest }
    }

    pub(super) fn next(&mut self) -> Timestamp {
        self.latest = self.clock.now().max(self.latest.after(Duration::from_micros(1)));
        self.latest
    }

    /// As many as that, from the one behind the returned one on.
    pub(super) fn skip(&mut self, count: usize) -> Timestamp {
        let before = self.next();
        self.latest = before.after(Duration::from_micros(count as u64));
        before
    }
}
