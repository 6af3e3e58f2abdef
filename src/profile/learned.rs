//! What a workload's runs say of what it does, the latest more than earlier ones.

use serde::{Deserialize, Serialize};

use super::{Digest, LoopRecord, Sample};
use crate::job::{Executor, FailureKind, LONG_HOLD_US, Observed};

/// So many runs are enough to go by.
const ENOUGH: u64 = 20;
/// How much each of the latest runs counts, once there are more than its inverse.
const WEIGHT: f64 = 1.0 / 32.0;
/// If runs are further from their mean than this, on average, they do not agree: it is not one kind of work; nor is it any more if they
/// are further than the second.
const SPREAD: (f64, f64) = (0.25, 0.3);
/// Work that is its own for less time is too short for its share of a core to mean anything, in microseconds.
const SHORTEST_US: u64 = 1_000;
/// It is known to hold the loop from this part of its runs there on, and no longer once it is less than the second.
const HOLDS: (f64, f64) = (0.1, 0.03);
/// Fewer holds than these may be what there is once, as what a first run loads.
const FEW_HOLDS: u64 = 3;
/// If of so many of the latest runs beside others under a global lock it can't be told whether they waited for it, the few of which it can be
/// told are not like the others.
const UNTOLD: f64 = 0.5;
/// By how much the demand must pass a border before what the work was taken for changes.
const HYSTERESIS: f64 = 0.1;

/// Averages, of which each run makes a part, and what follows from them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Learned {
    runs: u64,
    demand: f64,
    spread: f64,
    wall_us: f64,
    observed: Option<Observed>,
    loop_runs: u64,
    loop_holds: f64,
    loop_held: u64,
    holds_loop: bool,
    longest_hold_us: u64,
    locked_runs: u64,
    locked_untold: f64,
    locked_wall_us: f64,
    executor_runs: [u64; Executor::ALL.len()],
    executor_failures: [f64; Executor::ALL.len()],
    executor_successes: [u64; Executor::ALL.len()],
    /// How long the runs that succeeded took without what others kept them from running.
    executor_own_us: [f64; Executor::ALL.len()],
    /// How many runs there have been elsewhere since the latest on each executor.
    executor_since: [u64; Executor::ALL.len()],
    routed: u64,
}

impl Learned {
    /// Adds a run; of a machine that was not `steady` only what the machine has no part in.
    pub(super) fn add(&mut self, sample: &Sample, steady: bool) {
        let (timing, at) = (&sample.timing, sample.executor as usize);
        self.executor_runs[at] += 1;
        self.executor_since.iter_mut().for_each(|since| *since += 1);
        self.executor_since[at] = 0;
        let failed = f64::from(u8::from(sample.failure.is_some_and(|failure| failure != FailureKind::Cancelled)));
        approach(&mut self.executor_failures[at], failed, self.executor_runs[at]);
        if sample.failure.is_none() && steady {
            self.executor_successes[at] += 1;
            let own = timing.own_us().saturating_sub(timing.gil_wait_us.unwrap_or(0)).max(timing.cpu_us().unwrap_or(0));
            approach(&mut self.executor_own_us[at], as_float(own), self.executor_successes[at]);
        }
        if let Some(held) = timing.held_us().filter(|_| sample.executor == Executor::Async && steady) {
            self.loop_runs += 1;
            approach(&mut self.loop_holds, f64::from(u8::from(held >= LONG_HOLD_US)), self.loop_runs);
            if held >= LONG_HOLD_US {
                self.loop_held += 1;
                self.longest_hold_us = self.longest_hold_us.max(held);
            }
            let border = if self.holds_loop { HOLDS.1 } else { HOLDS.0 };
            self.holds_loop = self.loop_holds >= border;
        }
        // What ended early may not have come to what it mostly does.
        let whole = sample.failure.is_none() && steady && timing.own_us() >= SHORTEST_US;
        let told = timing.demand().filter(|_| whole && timing.observed().is_some());
        let locked = timing.gil_wait_us.is_some();
        if whole && locked {
            self.locked_runs += 1;
            approach(&mut self.locked_untold, f64::from(u8::from(told.is_none())), self.locked_runs);
            approach(&mut self.locked_wall_us, as_float(timing.wall_us), self.locked_runs);
        }
        let Some(demand) = told.filter(|_| !locked || self.locked_untold < UNTOLD) else { return };
        self.runs += 1;
        let demand = demand.min(1.0);
        approach(&mut self.spread, (demand - self.demand).abs(), self.runs);
        approach(&mut self.demand, demand, self.runs);
        approach(&mut self.wall_us, as_float(timing.wall_us), self.runs);
        self.observed = self.now_taken_for();
    }

    /// Counts a job that is routed; what is known.
    pub(super) fn routed(&mut self) -> Digest {
        let digest = self.digest();
        self.routed += 1;
        digest
    }

    /// Counts on from where another one is that is further.
    pub(super) fn count_as(&mut self, other: &Self) {
        self.routed = self.routed.max(other.routed);
    }

    /// How many runs there have been elsewhere since the latest on this executor.
    pub(super) const fn since(&self, executor: Executor) -> u64 {
        self.executor_since[executor as usize]
    }

    /// How long runs that succeeded take on this executor by themselves, once there are enough of them.
    pub(super) fn own_us(&self, executor: Executor) -> Option<u64> {
        let at = executor as usize;
        (self.executor_successes[at] >= ENOUGH).then(|| whole_us(self.executor_own_us[at]))
    }

    /// What is known.
    pub(super) fn digest(&self) -> Digest {
        let untold = self.locked_runs >= ENOUGH && self.locked_untold >= UNTOLD;
        let holds = self.holds_loop && self.loop_held >= FEW_HOLDS;
        Digest {
            runs: self.runs,
            observed: self.observed,
            demand: self.demand,
            wall_us: whole_us(self.wall_us),
            untold_us: untold.then(|| whole_us(self.locked_wall_us)),
            on_loop: LoopRecord { runs: self.loop_runs, holds, longest_us: self.longest_hold_us },
            failing: std::array::from_fn(|at| self.executor_runs[at] >= 8 && self.executor_failures[at] >= 0.5),
            turn: self.routed,
        }
    }

    /// What the work is taken for now, which depends on what it was taken for before.
    fn now_taken_for(&self) -> Option<Observed> {
        let spread = if self.observed.is_some() { SPREAD.1 } else { SPREAD.0 };
        if self.runs < ENOUGH || self.spread > spread {
            return None;
        }
        let stays = match self.observed {
            Some(Observed::Cpu) => self.demand >= 0.7 - HYSTERESIS,
            Some(Observed::Io) => self.demand <= 0.3 + HYSTERESIS,
            Some(Observed::Mixed) => (0.3 - HYSTERESIS..=0.7 + HYSTERESIS).contains(&self.demand),
            None => false,
        };
        if stays { self.observed } else { Some(Observed::of_demand(self.demand)) }
    }
}

/// Moves an average of `count` values, of which `value` is the latest, towards it.
fn approach(average: &mut f64, value: f64, count: u64) {
    let weight = if count < 32 { 1.0 / as_float(count.max(1)) } else { WEIGHT };
    *average += (value - *average) * weight;
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an average of times, which are not negative")]
const fn whole_us(average: f64) -> u64 {
    average as u64
}

#[expect(clippy::cast_precision_loss, reason = "microseconds and counts stay far below 2^53")]
const fn as_float(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::job::{Bound, Timing};

    fn run(learned: &mut Learned, times: u32, demand: u64) {
        let timing = Timing {
            wall_us: 10_000,
            cpu_user_us: Some(demand * 100),
            cpu_system_us: Some(0),
            core_wait_us: Some(0),
            ..Timing::default()
        };
        on(learned, times, Executor::Threads, None, &timing);
    }

    fn on(learned: &mut Learned, times: u32, executor: Executor, failure: Option<FailureKind>, timing: &Timing) {
        for _ in 0..times {
            let at = Timestamp::from_micros(0);
            learned.add(&Sample { failure, ..Sample::new(Bound::Io, executor, *timing, at) }, true);
        }
    }

    #[test]
    fn a_few_runs_say_nothing_and_many_do() {
        let mut learned = Learned::default();
        run(&mut learned, 19, 95);
        assert_eq!(learned.digest().observed, None);
        run(&mut learned, 1, 95);
        assert_eq!(learned.digest().observed, Some(Observed::Cpu));
    }

    #[test]
    fn it_is_taken_for_something_else_only_when_it_clearly_is() {
        let mut learned = Learned::default();
        run(&mut learned, 100, 75);
        assert_eq!(learned.digest().observed, Some(Observed::Cpu));
        run(&mut learned, 500, 65);
        assert_eq!(learned.digest().observed, Some(Observed::Cpu));
        run(&mut learned, 500, 55);
        assert_eq!(learned.digest().observed, Some(Observed::Mixed));
        run(&mut learned, 500, 75);
        assert_eq!(learned.digest().observed, Some(Observed::Mixed));
        run(&mut learned, 500, 5);
        assert_eq!(learned.digest().observed, Some(Observed::Io));
    }

    #[test]
    fn runs_that_do_not_agree_are_not_one_kind_of_work() {
        let mut learned = Learned::default();
        for _ in 0..100 {
            run(&mut learned, 1, 100);
            run(&mut learned, 1, 0);
        }
        assert_eq!(learned.digest().observed, None);
    }

    #[test]
    fn runs_that_agree_a_little_less_stay_what_they_are() {
        let mut learned = Learned::default();
        let mut alternate = |low, high| {
            for _ in 0..200 {
                run(&mut learned, 1, low);
                run(&mut learned, 1, high);
            }
            (learned.digest().observed, learned.spread)
        };
        assert_eq!(alternate(0, 40).0, Some(Observed::Io));
        let (observed, spread) = alternate(0, 55);
        assert!(spread > SPREAD.0 && observed == Some(Observed::Io), "{spread}");
        assert_eq!(alternate(0, 70).0, None);
        assert_eq!(alternate(0, 55).0, None, "it is not known again before they agree");
    }

    #[test]
    fn where_most_runs_do_not_tell_the_others_say_nothing() {
        let waited = |gil_wait_us| Timing {
            wall_us: 10_000,
            cpu_user_us: Some(1_000),
            cpu_system_us: Some(0),
            core_wait_us: Some(0),
            gil_wait_us: Some(gil_wait_us),
            ..Timing::default()
        };
        let mut learned = Learned::default();
        for _ in 0..60 {
            on(&mut learned, 2, Executor::Threads, None, &waited(9_000));
            on(&mut learned, 1, Executor::Threads, None, &waited(0));
        }
        assert_eq!((learned.digest().observed, learned.digest().untold_us), (None, Some(10_000)));
        // In a process of its own it is seen.
        run(&mut learned, 20, 100);
        assert_eq!(learned.digest().observed, Some(Observed::Cpu));
        on(&mut learned, 200, Executor::Threads, None, &waited(0));
        assert_eq!((learned.digest().observed, learned.digest().untold_us), (Some(Observed::Io), None));
    }

    #[test]
    fn short_and_failed_runs_do_not_count() {
        let mut learned = Learned::default();
        let short = Timing { wall_us: 900, cpu_user_us: Some(900), cpu_system_us: Some(0), ..Timing::default() };
        on(&mut learned, 100, Executor::Threads, None, &short);
        on(&mut learned, 100, Executor::Threads, Some(FailureKind::Error), &Timing { wall_us: 90_000, ..short });
        assert_eq!((learned.digest().observed, learned.digest().runs), (None, 0));
        assert!(learned.digest().failing[Executor::Threads as usize]);
        on(&mut learned, 60, Executor::Threads, None, &short);
        assert!(!learned.digest().failing[Executor::Threads as usize]);
    }

    #[test]
    fn a_hold_or_two_are_not_enough_nor_are_three_among_many_runs() {
        let polled = |longest| Timing { wall_us: 90_000, longest_poll_us: Some(longest), ..Timing::default() };
        let mut learned = Learned::default();
        on(&mut learned, 2, Executor::Async, None, &polled(60_000));
        assert!(!learned.digest().on_loop.holds);
        on(&mut learned, 1, Executor::Async, None, &polled(60_000));
        assert_eq!(learned.digest().on_loop, LoopRecord { runs: 3, holds: true, longest_us: 60_000 });
        on(&mut learned, 200, Executor::Async, None, &polled(40));
        assert!(!learned.digest().on_loop.holds);
        on(&mut learned, 1, Executor::Async, None, &polled(60_000));
        assert!(!learned.digest().on_loop.holds);
        on(&mut learned, 4, Executor::Async, None, &polled(60_000));
        assert!(learned.digest().on_loop.holds);
    }
}
