//! What the runs of each day came to.

use std::collections::BTreeMap;

use super::Sample;
use crate::clock::Timestamp;
use crate::job::{Bound, Executor, LONG_HOLD_US, ProfileKey};
use crate::store::{DayRow, DayTotals};

const DAY_US: i64 = 86_400_000_000;

/// What was added to days since they were written.
#[derive(Clone, Debug, Default)]
pub(super) struct Days(BTreeMap<(i64, Executor, Bound), DayTotals>);

/// The day of a moment, since the Unix epoch in UTC.
pub fn day_of(at: Timestamp) -> i64 {
    at.as_micros().div_euclid(DAY_US)
}

/// When a day begins.
pub fn start_of(day: i64) -> Timestamp {
    Timestamp::from_micros(day.saturating_mul(DAY_US))
}

impl Days {
    pub(super) fn add(&mut self, sample: &Sample) {
        let timing = &sample.timing;
        let held = timing.held_us().filter(|&held| sample.executor == Executor::Async && held >= LONG_HOLD_US);
        self.0.entry((day_of(sample.at), sample.executor, sample.ran_as)).or_default().merge(&DayTotals {
            runs: 1,
            failed: u64::from(sample.failure.is_some()),
            wall_us: timing.wall_us,
            cpu_us: timing.cpu_us().unwrap_or(0),
            core_wait_us: timing.core_wait_us.unwrap_or(0),
            held_runs: u64::from(held.is_some()),
            held_us: held.unwrap_or(0),
            longest_us: held.unwrap_or(0),
            held_jobs: held.and(timing.held_jobs).unwrap_or(0),
        });
    }

    /// All that is here, to be written.
    pub(super) fn take(&mut self, key: &ProfileKey) -> impl Iterator<Item = DayRow> {
        let row = |((day, executor, bound), totals)| DayRow { day, key: key.clone(), executor, bound, totals };
        std::mem::take(&mut self.0).into_iter().map(row)
    }

    /// This could not be written.
    pub(super) fn give_back(&mut self, row: &DayRow) {
        self.0.entry((row.day, row.executor, row.bound)).or_default().merge(&row.totals);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Timing;

    #[test]
    fn runs_are_summed_up_by_day_executor_and_tag() {
        let mut days = Days::default();
        let timing = Timing { wall_us: 90_000, longest_poll_us: Some(60_000), held_jobs: Some(7), ..Timing::default() };
        let sample = |executor, at| Sample::new(Bound::Io, executor, timing, at);
        let (first, second) = (start_of(3), Timestamp::from_micros(start_of(4).as_micros() - 1));
        assert_eq!((day_of(first), day_of(second)), (3, 3));
        for (executor, at) in
            [(Executor::Async, first), (Executor::Async, second), (Executor::Threads, second), (Executor::Async, start_of(4))]
        {
            days.add(&sample(executor, at));
        }
        let key = ProfileKey::from("x".to_owned());
        let rows: Vec<_> = days.take(&key).collect();
        let held = DayTotals {
            runs: 2,
            wall_us: 180_000,
            held_runs: 2,
            held_us: 120_000,
            longest_us: 60_000,
            held_jobs: 14,
            ..DayTotals::default()
        };
        assert_eq!((rows.len(), rows[0].totals), (3, held));
        assert_eq!(rows[1].totals, DayTotals { runs: 1, wall_us: 90_000, ..DayTotals::default() });
        assert_eq!(days.take(&key).count(), 0);
        days.add(&sample(Executor::Async, first));
        days.give_back(&rows[0]);
        assert_eq!(days.take(&key).next().unwrap().totals.runs, 3);
    }
}
