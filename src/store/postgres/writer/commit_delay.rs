//! When it pays to wait for more commands before a transaction begins.

use std::time::{Duration, Instant};

/// The part of the latest turn that a wait takes, and the longest wait.
const PART: u32 = 4;
const LONGEST: Duration = Duration::from_millis(1);

/// The latest transaction.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// When it was answered, and how long it took; `None` before the first.
    ended: Option<(Instant, Duration)>,
    commands: usize,
}

impl Turn {
    pub(super) fn new(begun: Instant, commands: usize) -> Self {
        let now = Instant::now();
        Self { ended: Some((now, now - begun)), commands }
    }

    /// How long to wait for more than these commands. Those who have just been answered come back with the next ones, but not all at once:
    /// whoever began with the first of them would have the others wait for a whole turn, and a transaction costs much the same with few.
    pub(super) fn wait(&self, commands: usize) -> Option<Duration> {
        let (ended, took) = self.ended?;
        (commands < self.commands / 2 && ended.elapsed() < took).then(|| (took / PART).min(LONGEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_wait_for_those_that_were_just_answered() {
        let begun = Instant::now().checked_sub(Duration::from_secs(2)).unwrap();
        let turn = Turn::new(begun, 100);
        assert_eq!(turn.wait(49), Some(LONGEST));
        assert_eq!(turn.wait(50), None);
        assert_eq!(Turn::new(begun, 1).wait(0), None);
        assert_eq!(Turn::default().wait(1), None);
    }
}
