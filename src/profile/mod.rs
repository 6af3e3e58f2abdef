//! What was learned of workloads by running them: for each likeness a profile, its sums in memory and kept by the store.
//!
//! A profile is brought up to date when an attempt is settled, and asked when a job is routed. What has changed is written once a second,
//! and every ten where several servers share a store: statistics, of which a crash may cost that much. There is room for so many profiles;
//! the one that was used least lately makes way, and what was only submitted does before what was measured.

mod day;
mod digest;
mod entry;
mod finding;
mod keep;
mod learned;
mod summary;

pub use day::{day_of, start_of};
pub use digest::{Digest, LoopRecord};
pub use finding::{Finding, Machine};
pub use summary::{Counts, Summary};

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::HashMap;

use self::entry::Entry;
use self::finding::Tally;
use self::learned::Learned;
use crate::clock::Timestamp;
use crate::job::{Bound, Executor, FailureKind, FindingKind, FindingKinds, ProfileKey, Timing, Written};
use crate::measure::advice::advice;

/// The most profiles that are kept.
const MOST: usize = 1_000;
/// The most runs that are noted until they are kept, where others change profiles, too. What comes then may be lost; it is statistics.
const MOST_RECENT: usize = 20_000;
/// How many make way at once when there are more.
const MAKE_WAY: usize = MOST / 10;

/// The profiles of this server.
#[derive(Debug, Default)]
pub struct Profiles {
    inner: Mutex<Inner>,
    /// Other servers change what is kept.
    shared: bool,
    /// How many results had a finding of each kind, in the order of [`FindingKind::ALL`].
    advised: [AtomicU64; FindingKind::ALL.len()],
    /// Somebody outside takes the cores away just now, so that figures say little of the work.
    unsteady: AtomicBool,
}

#[derive(Debug, Default)]
struct Inner {
    profiles: HashMap<ProfileKey, Entry>,
    /// Counts uses, by which the one that was used least lately is found.
    uses: u64,
    /// Those that made way since they were last written.
    gone: Vec<ProfileKey>,
    /// How many runs are noted.
    recent: usize,
}

/// What is known of runs that are alike.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// How the workload is written; unknown until it is submitted once more after a restart.
    pub written: Option<Written>,
    /// The runs on each executor, in the order of [`Executor::ALL`].
    pub summaries: [Option<Box<Summary>>; Executor::ALL.len()],
    learned: Learned,
    tallies: [Option<Tally>; FindingKind::ALL.len()],
}

/// An attempt that has ended, as far as a profile has a place for it.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// The client's tag.
    pub bound: Bound,
    /// What it was run as: its tag, or what routing took it for instead as it chose among threads.
    pub ran_as: Bound,
    /// What ran it.
    pub executor: Executor,
    /// Why it gave no output, if it gave none.
    pub failure: Option<FailureKind>,
    /// What was measured.
    pub timing: Timing,
    /// Whether it stood in a line of its executor before it began, so that its hand-over took longer than it costs.
    pub in_line: bool,
    /// When it ended.
    pub at: Timestamp,
}

impl Sample {
    /// One that succeeded, was run as what it is tagged, and did not stand in a line.
    pub const fn new(bound: Bound, executor: Executor, timing: Timing, at: Timestamp) -> Self {
        Self { bound, ran_as: bound, executor, failure: None, timing, in_line: false, at }
    }
}

impl Profiles {
    /// What is known of such runs, for a job that is about to be routed. It counts as one more that was.
    pub fn digest(&self, key: &ProfileKey, written: Written) -> Digest {
        let mut inner = self.inner();
        if !inner.has_room(key) {
            inner.make_way(false);
        }
        if !inner.has_room(key) {
            // All that are there were measured. It finds its place as it has run.
            return Digest::default();
        }
        let profile = &mut inner.touch(key).profile;
        profile.written = Some(written);
        profile.learned.routed()
    }

    /// Adds a run.
    pub fn record(&self, key: Option<&ProfileKey>, sample: &Sample) {
        let Some(key) = key else { return };
        let steady = !self.unsteady.load(Ordering::Relaxed);
        let mut inner = self.inner();
        let noted = self.shared && inner.recent < MOST_RECENT;
        inner.recent += usize::from(noted);
        inner.touch(key).add(sample, steady, noted);
    }

    /// Counts a result by what its figures speak against.
    pub fn count(&self, bound: Bound, executor: Executor, timing: &Timing) {
        for kind in FindingKinds::of(bound, executor, timing).iter() {
            self.advised[kind as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One profile.
    pub fn get(&self, key: &str) -> Option<Profile> {
        self.inner().profiles.get(key).map(|entry| &entry.profile).filter(|profile| profile.has_run()).cloned()
    }

    /// The keys of all profiles in which there is a run, in their order, from behind `after` on.
    pub fn keys(&self, after: Option<&str>) -> Vec<ProfileKey> {
        let inner = self.inner();
        let known = inner.profiles.iter().filter(|(_, entry)| entry.profile.has_run()).map(|(key, _)| key);
        let mut keys: Vec<_> = known.filter(|key| after.is_none_or(|after| key.as_str() > after)).cloned().collect();
        drop(inner);
        keys.sort_unstable();
        keys
    }

    /// How many results had a finding of this kind since the server was started.
    pub fn advised(&self, kind: FindingKind) -> u64 {
        self.advised[kind as usize].load(Ordering::Relaxed)
    }

    /// Says whether somebody outside takes the cores away just now: then runs say nothing of their workload's nature.
    pub fn set_unsteady(&self, unsteady: bool) {
        self.unsteady.store(unsteady, Ordering::Relaxed);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The profile, made if there is none, as the one that was used last.
    fn touch(&mut self, key: &ProfileKey) -> &mut Entry {
        self.uses += 1;
        for measured in [false, true] {
            if !self.has_room(key) {
                self.make_way(measured);
            }
        }
        let entry = self.profiles.entry(key.clone()).or_default();
        entry.used = self.uses;
        entry
    }

    /// Whether this one is there, or may be added.
    fn has_room(&self, key: &ProfileKey) -> bool {
        self.profiles.len() < MOST || self.profiles.contains_key(key)
    }

    /// Removes what was used least lately of what was only submitted, of which anybody may bring any number, or also of what was `measured`.
    fn make_way(&mut self, measured: bool) {
        let turn = |entry: &Entry| (entry.profile.has_run(), entry.used);
        let mut turns: Vec<_> = self.profiles.values().map(turn).collect();
        let (_, newest_to_go, _) = turns.select_nth_unstable(MAKE_WAY - 1);
        let newest_to_go = *newest_to_go;
        let goes = |_: &_, entry: &mut Entry| turn(entry) <= newest_to_go && (measured || !entry.profile.has_run());
        let gone = self.profiles.extract_if(goes);
        // What has not run is not kept.
        self.gone.extend(gone.filter(|(_, entry)| entry.profile.has_run()).map(|(key, _)| key));
    }
}

impl Profile {
    /// The runs on an executor, if there are any.
    pub fn on(&self, executor: Executor) -> Option<&Summary> {
        self.summaries[executor as usize].as_deref()
    }

    /// What routing goes by.
    pub fn digest(&self) -> Digest {
        self.learned.digest()
    }

    /// How many runs there were.
    pub fn runs(&self) -> u64 {
        self.summaries.iter().flatten().map(|summary| summary.counts.runs).sum()
    }

    /// When the last one ended.
    pub fn last_seen(&self) -> Option<Timestamp> {
        self.summaries.iter().flatten().map(|summary| summary.counts.until).max()
    }

    fn has_run(&self) -> bool {
        self.summaries.iter().any(Option::is_some)
    }

    /// Adds a run; if the machine was not `steady`, it speaks against nothing.
    fn add(&mut self, sample: &Sample, steady: bool) {
        self.summaries[sample.executor as usize].get_or_insert_default().add(sample);
        self.learned.add(sample, steady);
        if !steady {
            return;
        }
        let kinds = FindingKinds::of(sample.bound, sample.executor, &sample.timing);
        for (kind, tally) in FindingKind::ALL.into_iter().zip(&mut self.tallies) {
            if kinds.contains(kind) {
                let sentence = advice(sample.bound, sample.executor, &sample.timing);
                tally.get_or_insert_with(|| Tally::new(sample)).add(sample, sentence);
            } else if sample.failure.is_none() && tally.as_mut().is_some_and(|tally| !tally.stands_without()) {
                *tally = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Form, Observed, Runtime};

    const WRITTEN: Written = Written { runtime: Runtime::Native, form: Form::Blocking, gil: false, needs_a_process: false };

    fn sample() -> Sample {
        Sample::new(Bound::Io, Executor::Threads, computing(), Timestamp::from_micros(5))
    }

    fn computing() -> Timing {
        Timing { wall_us: 20_000, cpu_user_us: Some(19_000), cpu_system_us: Some(0), core_wait_us: Some(0), ..Timing::default() }
    }

    #[test]
    fn the_one_that_was_used_least_lately_makes_way() {
        let profiles = Profiles::default();
        let key = |n: usize| ProfileKey::from(format!("key:{n}"));
        for n in 0..MOST {
            profiles.record(Some(&key(n)), &sample());
        }
        profiles.digest(&key(0), WRITTEN);
        profiles.record(Some(&key(MOST)), &sample());
        assert!(profiles.get("key:0").is_some() && profiles.get("key:1").is_none() && profiles.get("key:1000").is_some());
        assert_eq!(profiles.keys(None).len(), MOST - MAKE_WAY + 1);
    }

    #[test]
    fn what_was_only_submitted_makes_way_before_what_was_measured() {
        let profiles = Profiles::default();
        let key = |n: usize| ProfileKey::from(format!("key:{n}"));
        for n in 0..MOST - 1 {
            profiles.record(Some(&key(n)), &sample());
        }
        for n in MOST..3 * MOST {
            profiles.digest(&key(n), WRITTEN);
        }
        assert_eq!(profiles.keys(None).len(), MOST - 1);
        profiles.record(Some(&key(0)), &sample());
        profiles.record(Some(&key(MOST - 1)), &sample());
        profiles.digest(&key(MOST), WRITTEN);
        assert_eq!(profiles.keys(None).len(), MOST);
    }

    #[test]
    fn what_was_only_submitted_is_no_profile_yet() {
        let profiles = Profiles::default();
        let key = ProfileKey::from("sleep:ms~2^3".to_owned());
        assert_eq!(profiles.digest(&key, WRITTEN).observed, None);
        assert!(profiles.get(key.as_str()).is_none() && profiles.keys(None).is_empty());
    }

    #[test]
    fn runs_on_a_machine_whose_cores_are_taken_away_say_nothing_of_the_work() {
        let profiles = Profiles::default();
        let key = ProfileKey::from("primes:below~2^3".to_owned());
        profiles.set_unsteady(true);
        for _ in 0..100 {
            profiles.record(Some(&key), &sample());
        }
        assert_eq!(profiles.get(key.as_str()).unwrap().digest().observed, None);
        profiles.set_unsteady(false);
        for _ in 0..100 {
            profiles.record(Some(&key), &sample());
        }
        assert_eq!(profiles.get(key.as_str()).unwrap().digest().observed, Some(Observed::Cpu));
        profiles.count(Bound::Io, Executor::Threads, &computing());
        assert_eq!((profiles.advised(FindingKind::Computes), profiles.get(key.as_str()).unwrap().runs()), (1, 200));
    }
}
