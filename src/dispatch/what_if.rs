//! What measured routing would have changed, from the sums of days that are over.

use std::collections::BTreeMap;

use super::router::{Facts, choose};
use crate::job::{Bound, Choice, Executor, Observed, ProfileKey, Routing, Rule};
use crate::profile::{Digest, Profile, Profiles};
use crate::store::{DayRow, DayTotals};

/// So many runs on another executor say how long such runs take there.
const ENOUGH: u64 = 20;

/// Runs that are alike, were tagged alike and were run by one executor; and where measured routing would send them.
#[derive(Clone, Debug, PartialEq)]
pub struct WhatIf {
    /// Which runs.
    pub key: ProfileKey,
    /// What ran them.
    pub executor: Executor,
    /// What they were run as, see [`DayRow::bound`].
    pub bound: Bound,
    /// Their sums.
    pub totals: DayTotals,
    /// What they turned out to be, if that is known.
    pub observed: Option<Observed>,
    /// What measured routing would choose.
    pub would: Executor,
    /// By which rule.
    pub rule: Rule,
    /// What that would gain.
    pub gain: Gain,
}

/// What another route would have gained, as far as it follows from what was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gain {
    /// How long the event loop would not have been held.
    pub loop_us: u64,
    /// How long slots for computing would not have been taken up by waiting.
    pub slot_us: u64,
    /// How much shorter the runs would have been together; absent where there are not enough runs there to tell.
    pub faster_us: Option<u64>,
}

impl WhatIf {
    /// Whether measured routing would send such runs elsewhere.
    pub fn moves(&self) -> bool {
        self.gain != Gain::default() || self.would != self.executor
    }
}

/// Those that measured routing would send elsewhere, or that held the event loop; those that would gain most come first.
pub(super) fn what_if(days: &[DayRow], profiles: &Profiles) -> Vec<WhatIf> {
    let mut sums: BTreeMap<(&ProfileKey, Executor, Bound), DayTotals> = BTreeMap::new();
    for DayRow { key, executor, bound, totals, .. } in days {
        sums.entry((key, *executor, *bound)).or_default().merge(totals);
    }
    let mut found: Vec<_> = sums
        .into_iter()
        .filter_map(|((key, executor, bound), totals)| {
            let profile = profiles.get(key.as_str())?;
            look_at(key, executor, bound, totals, &profile)
        })
        .filter(|found| found.moves() || found.totals.held_runs > 0)
        .collect();
    found.sort_by_key(|found| std::cmp::Reverse(found.gain.loop_us + found.gain.slot_us + found.gain.faster_us.unwrap_or(0)));
    found
}

fn look_at(key: &ProfileKey, executor: Executor, bound: Bound, totals: DayTotals, profile: &Profile) -> Option<WhatIf> {
    let written = profile.written?;
    let facts = Facts { bound, choice: Choice::Auto, isolated: false, written };
    // Not as one of the few that are tried.
    let digest = Digest { turn: 0, ..profile.digest() };
    let route = choose(facts, Routing::Measured, Some(&digest)).ok()?;
    let (here, there) = (executor.queue(written.runtime, bound), route.queue);
    let mut gain = Gain::default();
    if here != there {
        if executor == Executor::Async {
            gain.loop_us = totals.held_us;
        }
        let computing = bound == Bound::Cpu && executor != Executor::Async || executor == Executor::Processes;
        if computing && digest.observed == Some(Observed::Io) {
            gain.slot_us = totals.wall_us.saturating_sub(totals.cpu_us);
        }
        // What fails takes as long as it happens to: the days do not tell its time apart, the profile does.
        let mean = |executor| {
            let wall = &profile.on(executor)?.wall;
            (wall.count() >= ENOUGH).then(|| whole(wall.mean()))
        };
        gain.faster_us = mean(executor)
            .zip(mean(route.executor))
            .filter(|_| route.executor != executor)
            .map(|(here, there)| here.saturating_sub(there).saturating_mul(totals.runs.saturating_sub(totals.failed)));
    }
    Some(WhatIf {
        key: key.clone(),
        executor,
        bound,
        totals,
        observed: digest.observed,
        would: if here == there { executor } else { route.executor },
        rule: route.rule,
        gain,
    })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a mean of times, which are not negative")]
const fn whole(mean: f64) -> u64 {
    mean as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::job::{Form, Runtime, Timing, Written};
    use crate::profile::Sample;

    /// The profiles and the days of runs of one workload.
    fn history(runs: &[(u64, Bound, Executor, Timing)], form: Form) -> Vec<WhatIf> {
        history_with(None, runs, native(form))
    }

    /// The same of a workload that is written so, and of runs that were run as something else than they were tagged.
    fn history_with(ran_as: Option<Bound>, runs: &[(u64, Bound, Executor, Timing)], written: Written) -> Vec<WhatIf> {
        let profiles = Profiles::default();
        let key = ProfileKey::from("x".to_owned());
        profiles.digest(&key, written);
        for (times, bound, executor, timing) in runs {
            let sample = Sample::new(*bound, *executor, *timing, Timestamp::now());
            let sample = Sample { ran_as: ran_as.unwrap_or(*bound), ..sample };
            (0..*times).for_each(|_| profiles.record(Some(&key), &sample));
        }
        what_if(&profiles.changes(Timestamp::now()).unwrap().days, &profiles)
    }

    const fn native(form: Form) -> Written {
        Written { runtime: Runtime::Native, form, gil: false, needs_a_process: false }
    }

    fn timing(wall_us: u64, cpu_us: u64) -> Timing {
        Timing { wall_us, cpu_user_us: Some(cpu_us), cpu_system_us: Some(0), core_wait_us: Some(0), ..Timing::default() }
    }

    #[test]
    fn the_loop_would_have_been_free_of_what_computes() {
        let held = Timing { longest_poll_us: Some(90_000), held_jobs: Some(3), ..timing(90_000, 90_000) };
        let found = history(
            &[(30, Bound::Io, Executor::Async, held), (20, Bound::Cpu, Executor::Threads, timing(60_000, 60_000))],
            Form::Async,
        );
        assert_eq!(found.len(), 1, "{found:?}");
        let WhatIf { executor, bound, totals, would, rule, gain, .. } = &found[0];
        assert_eq!((*executor, *bound, *would, *rule), (Executor::Async, Bound::Io, Executor::Threads, Rule::MeasuredCpu));
        assert_eq!((totals.held_runs, totals.held_jobs), (30, 90));
        assert!(gain.loop_us == 30 * 90_000 && gain.faster_us.is_some_and(|us| us.abs_diff(30 * 30_000) < 30_000), "{gain:?}");
    }

    #[test]
    fn slots_would_not_have_waited() {
        let found = history(&[(30, Bound::Cpu, Executor::Threads, timing(90_000, 100))], Form::Blocking);
        let gain = Gain { loop_us: 0, slot_us: 30 * 89_900, faster_us: None };
        assert_eq!(
            found.iter().map(|found| (found.would, found.rule, found.gain)).collect::<Vec<_>>(),
            [(Executor::Threads, Rule::MeasuredIo, gain)]
        );
        // Where measured routing has already had them wait elsewhere, there is nothing left to gain.
        let runs = [(30, Bound::Cpu, Executor::Threads, timing(90_000, 100))];
        assert_eq!(history_with(Some(Bound::Io), &runs, native(Form::Blocking)), []);
    }

    #[test]
    fn what_its_limits_need_a_process_for_would_not_have_been_moved() {
        let function = Written { runtime: Runtime::Python, form: Form::Blocking, gil: true, needs_a_process: true };
        for written in [function, Written { form: Form::Async, ..function }] {
            assert_eq!(history_with(None, &[(30, Bound::Io, Executor::Processes, timing(90_000, 100))], written), []);
        }
    }

    #[test]
    fn what_is_where_it_belongs_is_not_named() {
        assert_eq!(history(&[(30, Bound::Cpu, Executor::Threads, timing(90_000, 90_000))], Form::Blocking), []);
        assert_eq!(history(&[(3, Bound::Io, Executor::Threads, timing(90_000, 90_000))], Form::Blocking), []);
    }
}
