//! The runs of a workload on one executor, in numbers.

use serde::{Deserialize, Serialize};

use super::Sample;
use crate::clock::Timestamp;
use crate::job::{Bound, FailureKind, Observed};
use crate::store::{BadSketch, Sketch};

/// What a set of runs was like.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// How many they were, by what became of them.
    pub counts: Counts,
    /// Wall time in microseconds, of those that succeeded: what fails ends sooner or later than it would.
    pub wall: Sketch,
    /// The time until the work began once it was claimed, in microseconds; of those that did not stand in a line meanwhile.
    pub dispatch: Sketch,
    /// Share of a core, in thousandths; of those that succeeded.
    pub share: Sketch,
    /// The longest poll, in microseconds.
    pub poll: Sketch,
    /// Peak memory in KiB.
    pub memory: Sketch,
}

/// How many runs there were.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// All of them.
    pub runs: u64,
    /// Those that failed, in the order of [`FailureKind::ALL`].
    pub failures: [u64; FailureKind::ALL.len()],
    /// Those with each tag, in the order of [`Bound::ALL`].
    pub tagged: [u64; Bound::ALL.len()],
    /// Those that turned out to be each thing, in the order of [`Observed::ALL`].
    pub observed: [u64; Observed::ALL.len()],
    /// When the first of them ended.
    pub since: Timestamp,
    /// When the last of them ended.
    pub until: Timestamp,
}

impl Default for Counts {
    /// None.
    fn default() -> Self {
        Self {
            runs: 0,
            failures: [0; FailureKind::ALL.len()],
            tagged: [0; Bound::ALL.len()],
            observed: [0; Observed::ALL.len()],
            since: Timestamp::from_micros(i64::MAX),
            until: Timestamp::from_micros(0),
        }
    }
}

impl Summary {
    /// Adds a run.
    pub fn add(&mut self, sample: &Sample) {
        let Self { counts, wall, dispatch, share, poll, memory } = self;
        let timing = &sample.timing;
        counts.runs += 1;
        counts.tagged[sample.bound as usize] += 1;
        if let Some(failure) = sample.failure {
            counts.failures[failure as usize] += 1;
        }
        if let Some(observed) = timing.observed() {
            counts.observed[observed as usize] += 1;
        }
        counts.since = counts.since.min(sample.at);
        counts.until = counts.until.max(sample.at);
        let succeeded = sample.failure.is_none();
        if succeeded {
            wall.add(timing.wall_us);
        }
        if !sample.in_line {
            dispatch.add(timing.dispatch_us);
        }
        if let Some(thousandths) = timing.cpu_thousandths().filter(|_| succeeded) {
            share.add(thousandths);
        }
        if let Some(longest) = timing.longest_poll_us {
            poll.add(longest);
        }
        if let Some(bytes) = timing.max_rss_bytes {
            memory.add(bytes >> 10);
        }
    }

    /// Appends its sketches to bytes that a store keeps.
    pub(super) fn write(&self, bytes: &mut Vec<u8>) {
        for sketch in [&self.wall, &self.dispatch, &self.share, &self.poll, &self.memory] {
            sketch.write(bytes);
        }
    }

    /// Of these counts, with the sketches that [`Summary::write`] wrote; moves on behind them.
    pub(super) fn read(counts: Counts, bytes: &mut &[u8]) -> Result<Self, BadSketch> {
        let mut next = || Sketch::read(bytes);
        Ok(Self { counts, wall: next()?, dispatch: next()?, share: next()?, poll: next()?, memory: next()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Executor, Timing};

    #[test]
    fn runs_are_counted_and_come_back() {
        let mut summary = Summary::default();
        for n in 1..=100 {
            let timing = Timing {
                wall_us: n * 100,
                cpu_user_us: Some(n * 90),
                cpu_system_us: Some(0),
                core_wait_us: Some(0),
                max_rss_bytes: Some(n << 20),
                ..Timing::default()
            };
            let failure = (n % 4 == 0).then_some(FailureKind::Timeout);
            let at = Timestamp::from_micros(n.try_into().unwrap());
            summary.add(&Sample { failure, ..Sample::new(Bound::Cpu, Executor::Processes, timing, at) });
        }
        let mut bytes = Vec::new();
        summary.write(&mut bytes);
        let mut rest = &bytes[..];
        let Summary { counts, wall, share, poll, memory, .. } = Summary::read(summary.counts.clone(), &mut rest).unwrap();
        assert!(rest.is_empty());
        assert_eq!((counts.runs, counts.failures, counts.tagged), (100, [0, 25, 0, 0, 0, 0, 0], [0, 100]));
        assert_eq!((counts.since.as_micros(), counts.until.as_micros()), (1, 100));
        assert_eq!(counts.observed, [0, 100, 0]);
        assert_eq!((share.quantiles().unwrap().p50, poll.quantiles()), (903, None));
        assert_eq!((wall.count(), memory.quantiles().unwrap().p50 >> 10), (75, 50));
    }
}
