//! What the figures of many runs speak against.

use serde::{Deserialize, Serialize};

use super::summary::{Counts, Summary};
use super::{Profile, Sample};
use crate::clock::Timestamp;
use crate::job::{Bound, Executor, FindingKind, Observed, ProfileKey, Queue, Runtime};
use crate::measure::advice::span;

/// So many runs must show the same before it is said of the workload.
const ENOUGH: u64 = 5;
/// What so many runs in a row do not show any more is not said any longer.
const WITHDRAWN: u64 = 100;
/// So many runs must there be before their quantiles are compared.
const MANY: u64 = 20;
/// A hand-over that takes longer than the work by this factor is not worth it.
const HAND_OVER: u64 = 2;
/// The share of a core, in thousandths, from which on work computes.
const COMPUTES: u64 = 700;
/// By so much must the median on another executor be better. Runs that are alike may be given twice the one's or half the other's size.
const FASTER: u64 = 2;

/// Something that speaks against how a workload is tagged or run.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// What.
    pub kind: FindingKind,
    /// Of which runs.
    pub key: ProfileKey,
    /// What ran them.
    pub executor: Executor,
    /// How many of them showed it.
    pub jobs: u64,
    /// Of how many.
    pub of: u64,
    /// When the first of these ended.
    pub since: Timestamp,
    /// When the last of these ended.
    pub last_seen: Timestamp,
    /// What was measured.
    pub evidence: String,
    /// What to do.
    pub advice: String,
}

/// What there is for all to share.
#[derive(Clone, Copy, Debug, Default)]
pub struct Machine {
    /// Memory in bytes, if it is known.
    pub memory_bytes: Option<u64>,
    /// How many jobs of each queue run at once, in the order of [`Queue::ALL`].
    pub slots: [usize; Queue::ALL.len()],
}

/// The runs that showed something by themselves.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Tally {
    runs: u64,
    /// How many runs have not shown it since the latest that did.
    #[serde(default)]
    without: u64,
    executor: Executor,
    since: Timestamp,
    last_seen: Timestamp,
    /// What was said of the latest.
    sentence: String,
}

impl Tally {
    pub(super) fn new(sample: &Sample) -> Self {
        Self { runs: 0, without: 0, executor: sample.executor, since: sample.at, last_seen: sample.at, sentence: String::new() }
    }

    pub(super) fn add(&mut self, sample: &Sample, sentence: Option<String>) {
        self.runs += 1;
        self.without = 0;
        self.executor = sample.executor;
        self.last_seen = self.last_seen.max(sample.at);
        if let Some(sentence) = sentence {
            self.sentence = sentence;
        }
    }

    /// Counts a run that did not show it. Whether it may still be said.
    pub(super) fn stands_without(&mut self) -> bool {
        self.without += 1;
        self.without < WITHDRAWN
    }
}

impl Profile {
    /// What speaks against how it is tagged or run, if enough runs say so.
    pub fn findings(&self, key: &ProfileKey, machine: &Machine) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (kind, tally) in FindingKind::ALL.into_iter().zip(&self.tallies) {
            if let Some(tally) = tally.as_ref().filter(|tally| tally.runs >= ENOUGH) {
                findings.push(self.by_tally(kind, key, tally));
            }
        }
        for executor in Executor::ALL {
            // Where it is not run any more, nothing speaks against that it was.
            let current = self.on(executor).filter(|_| self.learned.since(executor) < WITHDRAWN);
            let Some(summary) = current.filter(|summary| summary.counts.runs >= MANY) else { continue };
            let found =
                [self.too_short(executor, summary), self.memory(executor, summary, machine), self.elsewhere(executor, summary)];
            findings.extend(found.into_iter().flatten().map(|(kind, evidence, advice)| Finding {
                kind,
                key: key.clone(),
                executor,
                jobs: summary.counts.runs,
                of: summary.counts.runs,
                since: summary.counts.since,
                last_seen: summary.counts.until,
                evidence,
                advice,
            }));
        }
        findings
    }

    fn by_tally(&self, kind: FindingKind, key: &ProfileKey, tally: &Tally) -> Finding {
        let Tally { runs, executor, since, last_seen, ref sentence, .. } = *tally;
        let (of, observed, advice) = match kind {
            FindingKind::Computes => self.mistagged(Bound::Io, Bound::Cpu, Observed::Cpu),
            FindingKind::Waits => self.mistagged(Bound::Cpu, Bound::Io, Observed::Io),
            _ => (
                self.on(Executor::Async).map_or(runs, |summary| summary.counts.runs),
                String::new(),
                "run it on threads or in processes, or have it give the event loop back more often".to_owned(),
            ),
        };
        // What is advised of the latest alone may not be what is advised of all.
        let seen = sentence.split_once(": ").map_or(sentence.as_str(), |(seen, _)| seen);
        let evidence = format!("{runs} of {of} jobs{observed}; the latest {seen}");
        Finding { kind, key: key.clone(), executor, jobs: runs, of, since, last_seen, evidence, advice }
    }

    /// How many jobs have this tag, of which some turned out to be `seen`; what all of them turned out to be, if there are others; and
    /// what to do: give all the `other` tag, or tell them apart.
    fn mistagged(&self, tag: Bound, other: Bound, seen: Observed) -> (u64, String, String) {
        let sum = |count: &dyn Fn(&Counts) -> u64| self.summaries.iter().flatten().map(|summary| count(&summary.counts)).sum();
        let (of, all): (u64, u64) = (sum(&|counts| counts.tagged[tag as usize]), self.runs());
        let observed = Observed::ALL.map(|observed| sum(&|counts| counts.observed[observed as usize]));
        let [io, cpu, mixed] = observed;
        let (told, like_that) = (io + cpu + mixed, observed[seen as usize]);
        // Of those with another tag it is not known apart what they turned out to be.
        let others = if like_that == all || of < all {
            String::new()
        } else {
            let counts = [(cpu, "computed"), (io, "waited"), (mixed, "did both"), (all.saturating_sub(told), "did not tell")];
            let counts = counts.into_iter().filter(|(count, _)| *count > 0).map(|(count, did)| format!("{count} {did}"));
            format!(" ({})", counts.collect::<Vec<_>>().join(", "))
        };
        // Where it is not known what they do, it may be that they do not agree, or that most do not tell.
        let agree = self.digest().observed.map_or(like_that * 10 >= told * 9, |observed| observed == seen);
        let advice = if agree {
            format!("tag it {other}, or leave it to `routing` measured")
        } else {
            "it does now the one and now the other: tag each job as what it does, which measured routing can't tell beforehand"
                .to_owned()
        };
        (of, others, advice)
    }

    fn too_short(&self, executor: Executor, summary: &Summary) -> Option<(FindingKind, String, String)> {
        // Where many run at once, most wait for a core or a lock on their way: what it costs by itself is seen by those that did not.
        let (wall, dispatch) = (summary.wall.quantiles()?.p50, summary.dispatch.lowest_tenth()?);
        let runtime = self.written.map(|written| written.runtime);
        // Runs that stood in a line say nothing of what handing over takes.
        let is_known = summary.dispatch.count() >= MANY && summary.wall.count() >= MANY;
        if executor == Executor::Async || runtime == Some(Runtime::Command) || !is_known || dispatch < HAND_OVER * wall.max(1) {
            return None;
        }
        let evidence =
            format!("the work takes {wall} µs (median of {}), handing it over {dispatch} µs or more", summary.wall.count());
        let advice = match (executor, runtime) {
            // Python's threads are in a process, too, and no nearer.
            (Executor::Processes, Some(Runtime::Native)) => {
                "unless it has to be isolated, run it on threads, or do several of them in one job"
            }
            _ => "do several of them in one job, or call it where you are",
        };
        Some((FindingKind::TooShort, evidence, advice.into()))
    }

    fn memory(&self, executor: Executor, summary: &Summary, machine: &Machine) -> Option<(FindingKind, String, String)> {
        let (written, available) = (self.written?, machine.memory_bytes?);
        // Not of the largest one: it may be the only one.
        let each = summary.memory.quantiles()?.p90 << 10;
        let slots = machine.slots[executor.queue(written.runtime, Bound::Cpu) as usize];
        if each.saturating_mul(slots as u64) <= available {
            return None;
        }
        let mib = |bytes: u64| bytes >> 20;
        let evidence = format!(
            "one in ten uses {} MiB or more; {slots} at once would need {} MiB, and there are {} MiB",
            mib(each),
            mib(each.saturating_mul(slots as u64)),
            mib(available)
        );
        Some((FindingKind::Memory, evidence, "have fewer slots, or split it into smaller parts".into()))
    }

    fn elsewhere(&self, executor: Executor, summary: &Summary) -> Option<(FindingKind, String, String)> {
        let here = summary.wall.quantiles()?;
        let failing = self.digest().failing;
        let better = |(other, summary): &(Executor, &Summary)| {
            let there = summary.wall.quantiles();
            // Where more run at once, each waits longer for a core or a lock: that makes all of them no slower, unless they compute under the lock.
            let own = self.learned.own_us(executor).zip(self.learned.own_us(*other));
            let is_slower = own.is_some_and(|(here, there)| here >= there.saturating_mul(FASTER));
            let computes = summary.share.quantiles().is_some_and(|share| share.p50 >= COMPUTES);
            let leaves_the_lock = *other == Executor::Processes && self.written.is_some_and(|written| written.gil) && computes;
            *other != executor
                && (is_slower || leaves_the_lock)
                && summary.wall.count() >= MANY
                && !failing[*other as usize]
                // Too short work differs by chance.
                && here.p50 >= 1_000
                && there.is_some_and(|there| there.p50 * FASTER <= here.p50 && there.p90 < here.p50)
        };
        (summary.wall.count() >= MANY).then_some(())?;
        let others = Executor::ALL.into_iter().filter_map(|other| Some((other, self.on(other)?)));
        let (other, there) = others.filter(better).min_by_key(|(_, summary)| summary.wall.quantiles().map(|there| there.p50))?;
        let median = |summary: &Summary, executor| {
            let failed: u64 = summary.counts.failures.iter().sum();
            let failed = if failed == 0 { String::new() } else { format!("; {failed} of {} failed", summary.counts.runs) };
            let median = summary.wall.quantiles()?.p50;
            Some(format!("{} on {executor} (median of {}{failed})", span(median), summary.wall.count()))
        };
        let evidence = format!("{}, {}", median(summary, executor)?, median(there, other)?);
        // Only of some workloads it is known how much each run had to do.
        let alike = if self.written.is_some_and(|written| written.runtime == Runtime::Python) {
            ", if it has as much to do there"
        } else {
            ""
        };
        Some((FindingKind::Elsewhere, evidence, format!("run it on {other}{alike}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{FailureKind, Form, Timing, Written};
    use crate::profile::Profiles;

    const KEY: &str = "python:0123456789abcdef";

    fn profile(runs: &[(u64, Executor, Timing)]) -> Vec<(FindingKind, Executor, String)> {
        profile_of(runs, false)
    }

    fn profile_of(runs: &[(u64, Executor, Timing)], in_line: bool) -> Vec<(FindingKind, Executor, String)> {
        let (profiles, key) = (Profiles::default(), ProfileKey::from(KEY.to_owned()));
        profiles.digest(&key, Written { runtime: Runtime::Python, form: Form::Blocking, gil: true, needs_a_process: false });
        for (times, executor, timing) in runs {
            let sample = Sample { in_line, ..Sample::new(Bound::Io, *executor, *timing, Timestamp::from_micros(7)) };
            (0..*times).for_each(|_| profiles.record(Some(&key), &sample));
        }
        let machine = Machine { memory_bytes: Some(1 << 30), slots: [2; Queue::ALL.len()] };
        let findings = profiles.get(KEY).unwrap().findings(&key, &machine);
        findings.into_iter().map(|finding| (finding.kind, finding.executor, finding.evidence)).collect()
    }

    fn cpu(wall_us: u64) -> Timing {
        Timing { wall_us, cpu_user_us: Some(wall_us), cpu_system_us: Some(0), core_wait_us: Some(0), ..Timing::default() }
    }

    #[test]
    fn what_a_few_runs_show_is_not_said() {
        assert_eq!(profile(&[(4, Executor::Threads, cpu(90_000))]), []);
        let said = "5 of 5 jobs; the latest tagged io, but used 100 % of a core for 90 ms";
        let found = profile(&[(5, Executor::Threads, cpu(90_000))]);
        assert_eq!(found, [(FindingKind::Computes, Executor::Threads, said.into())]);
    }

    #[test]
    fn work_that_does_now_the_one_and_now_the_other_is_told_from_work_of_which_most_is_not_known() {
        let advised = |others: &Timing| {
            let (profiles, key) = (Profiles::default(), ProfileKey::from(KEY.to_owned()));
            for timing in [cpu(90_000), *others, *others].iter().cycle().take(60) {
                let sample = Sample::new(Bound::Io, Executor::Threads, *timing, Timestamp::from_micros(7));
                profiles.record(Some(&key), &sample);
            }
            let Finding { evidence, advice, .. } = profiles.get(KEY).unwrap().findings(&key, &Machine::default()).remove(0);
            (evidence.split(';').next().unwrap().to_owned(), advice)
        };
        let waits = Timing { cpu_user_us: Some(90), ..cpu(90_000) };
        let (evidence, advice) = advised(&waits);
        assert_eq!(evidence, "20 of 60 jobs (20 computed, 40 waited)");
        assert!(advice.starts_with("it does now the one and now the other"), "{advice}");
        let (evidence, advice) = advised(&Timing { gil_wait_us: Some(90_000), ..waits });
        assert_eq!(evidence, "20 of 60 jobs (20 computed, 40 did not tell)");
        assert!(advice.starts_with("tag it cpu"), "{advice}");
    }

    #[test]
    fn work_that_is_shorter_than_its_hand_over_is_named() {
        let short = Timing { dispatch_us: 200, ..cpu(40) };
        let said = "the work takes 40 µs (median of 20), handing it over 200 µs or more";
        assert_eq!(profile(&[(20, Executor::Processes, short)]), [(FindingKind::TooShort, Executor::Processes, said.into())]);
        assert_eq!(profile(&[(20, Executor::Processes, Timing { wall_us: 101, ..short })]), []);
    }

    #[test]
    fn only_native_work_is_sent_to_threads_for_being_short() {
        let short = Timing { dispatch_us: 200, ..cpu(40) };
        let advice = |runtime, gil| {
            let (profiles, key) = (Profiles::default(), ProfileKey::from(KEY.to_owned()));
            profiles.digest(&key, Written { runtime, form: Form::Blocking, gil, needs_a_process: false });
            let sample = Sample::new(Bound::Cpu, Executor::Processes, short, Timestamp::from_micros(7));
            (0..20).for_each(|_| profiles.record(Some(&key), &sample));
            profiles.get(KEY).unwrap().findings(&key, &Machine::default()).remove(0).advice
        };
        assert!(advice(Runtime::Native, false).contains("threads"), "{}", advice(Runtime::Native, false));
        assert!(!advice(Runtime::Python, true).contains("threads"), "{}", advice(Runtime::Python, true));
    }

    #[test]
    fn standing_in_a_line_is_no_hand_over() {
        let backlog = Timing { dispatch_us: 12_000, ..cpu(500) };
        assert_eq!(profile_of(&[(20, Executor::Threads, backlog)], true), []);
    }

    #[test]
    fn waiting_for_a_core_on_the_way_is_no_hand_over() {
        let busy = (16, Executor::Threads, Timing { dispatch_us: 26_000, ..cpu(8_000) });
        let free = (4, Executor::Threads, Timing { dispatch_us: 90, ..cpu(8_000) });
        assert_eq!(profile(&[busy, free]), []);
    }

    #[test]
    fn memory_that_would_not_suffice_is_named() {
        let few = [
            (19, Executor::Processes, cpu(9_000)),
            (1, Executor::Processes, Timing { max_rss_bytes: Some(600 << 20), ..cpu(9_000) }),
        ];
        let few = few.map(|(times, executor, timing)| {
            (times, executor, Timing { max_rss_bytes: timing.max_rss_bytes.or(Some(9 << 20)), ..timing })
        });
        assert_eq!(profile(&few), []);
        let large = Timing { wall_us: 9_000, max_rss_bytes: Some(600 << 20), ..Timing::default() };
        let found = profile(&[(20, Executor::Processes, large)]);
        assert!(found.len() == 1 && found[0].0 == FindingKind::Memory && found[0].2.contains("there are 1024 MiB"), "{found:?}");
        assert_eq!(profile(&[(20, Executor::Processes, Timing { max_rss_bytes: Some(400 << 20), ..large })]), []);
    }

    #[test]
    fn what_is_not_so_any_more_is_said_no_longer() {
        let computes = (5, Executor::Threads, cpu(90_000));
        let waits = |times, executor| (times, executor, Timing { cpu_user_us: Some(90), ..cpu(90_000) });
        assert_eq!(profile(&[computes, waits(99, Executor::Threads)]).len(), 1);
        assert_eq!(profile(&[computes, waits(100, Executor::Threads)]), []);
        let short = (20, Executor::Processes, Timing { dispatch_us: 200, ..cpu(40) });
        assert_eq!(profile(&[short, (99, Executor::Threads, cpu(40))]).len(), 1);
        assert_eq!(profile(&[short, (100, Executor::Threads, cpu(40))]), []);
    }

    #[test]
    fn an_executor_on_which_runs_fail_is_not_named() {
        let runs = |successes: u64, failures: u64| {
            let (profiles, key) = (Profiles::default(), ProfileKey::from(KEY.to_owned()));
            let add = |times: u64, executor, failure, timing| {
                let at = Timestamp::from_micros(7);
                let sample = Sample { failure, ..Sample::new(Bound::Cpu, executor, timing, at) };
                (0..times).for_each(|_| profiles.record(Some(&key), &sample));
            };
            add(20, Executor::Threads, None, cpu(8_000));
            add(successes, Executor::Processes, None, cpu(2_000));
            add(failures, Executor::Processes, Some(FailureKind::Error), cpu(1_000));
            let findings = profiles.get(KEY).unwrap().findings(&key, &Machine::default());
            findings.into_iter().map(|finding| finding.evidence).collect::<Vec<_>>()
        };
        assert_eq!(runs(19, 80), <[&str; 0]>::default());
        assert_eq!(runs(20, 80), <[&str; 0]>::default());
        assert_eq!(runs(20, 5), ["8 ms on threads (median of 20), 2 ms on processes (median of 20; 5 of 25 failed)"]);
    }

    #[test]
    fn an_executor_on_which_fewer_run_at_once_is_not_named_for_that() {
        // Whichever of the other threads had the core or the lock.
        let crowded = Timing { core_wait_us: Some(30_000), gil_wait_us: Some(60_000), cpu_user_us: Some(1_000), ..cpu(100_000) };
        let alone = Timing { cpu_user_us: Some(1_000), ..cpu(10_000) };
        assert_eq!(profile(&[(20, Executor::Threads, crowded), (20, Executor::Processes, alone)]), []);
        // What computes gets more of the machine there.
        let found = profile(&[(20, Executor::Threads, crowded), (20, Executor::Processes, cpu(10_000))]);
        assert!(found.iter().any(|(kind, ..)| *kind == FindingKind::Elsewhere), "{found:?}");
    }

    #[test]
    fn an_executor_that_is_far_faster_is_named() {
        let slow_and_fast = [(20, Executor::Threads, cpu(8_000)), (20, Executor::Processes, cpu(2_000))];
        let said = "8 ms on threads (median of 20), 2 ms on processes (median of 20)";
        assert_eq!(profile(&slow_and_fast), [(FindingKind::Elsewhere, Executor::Threads, said.into())]);
        assert_eq!(profile(&[(20, Executor::Threads, cpu(8_000)), (19, Executor::Processes, cpu(2_000))]), []);
        assert_eq!(profile(&[(20, Executor::Threads, cpu(8_000)), (20, Executor::Processes, cpu(5_000))]), []);
    }
}
