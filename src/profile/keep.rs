//! The way of profiles into the store and back.

use serde::{Deserialize, Serialize};

use super::day::day_of;
use super::entry::Entry;
use super::finding::Tally;
use super::learned::Learned;
use super::summary::{Counts, Summary};
use super::{MOST, Profile, Profiles};
use crate::clock::Timestamp;
use crate::job::{Executor, FindingKind, ProfileKey, Written};
use crate::store::{DayRow, ProfileChanges, ProfileRow};

/// How many days are kept.
const DAYS: i64 = 35;

/// What of a profile is written as JSON.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Figures {
    written: Option<Written>,
    counts: [Option<Counts>; Executor::ALL.len()],
    learned: Learned,
    tallies: [Option<Tally>; FindingKind::ALL.len()],
}

impl Profiles {
    /// Those that were kept; `shared` with other servers, or not. What can't be read is left out: it is learned anew.
    pub fn load(rows: Vec<ProfileRow>, shared: bool) -> Self {
        let profiles = Self { shared, ..Self::default() };
        let mut rows = rows;
        rows.sort_unstable_by_key(|row| row.changed_at);
        // Of several servers, each may have kept as many as there is room for.
        let too_many = rows.drain(..rows.len().saturating_sub(MOST)).map(|row| row.key);
        profiles.inner().gone.extend(too_many);
        profiles.take_over(rows);
        profiles
    }

    /// Takes over what other servers have written, and adds to it what was learned here and is not in there yet. What has made way here does
    /// not come back, nor does what they use push out what is used here.
    pub fn take_over(&self, rows: Vec<ProfileRow>) {
        for row in rows {
            let (is_gone, has_room) = {
                let inner = self.inner();
                (inner.gone.contains(&row.key), inner.has_room(&row.key))
            };
            if is_gone || !has_room {
                continue;
            }
            let Some(kept) = read(&row) else {
                tracing::warn!(key = %row.key, "the profile can't be read; it is learned anew");
                continue;
            };
            // One by one: whoever settles a job meanwhile waits for one profile, not for all.
            self.inner().touch(&row.key).take_over(row.version, kept);
        }
    }

    /// All that there are, with the version of what is kept of each that is in here.
    pub fn versions(&self) -> Vec<(ProfileKey, i64)> {
        self.inner().profiles.iter().map(|(key, entry)| (key.clone(), entry.version)).collect()
    }

    /// How many runs are noted until they are kept.
    pub fn recent(&self) -> usize {
        self.inner().recent
    }

    /// What has changed since this was asked the last time; `None` if nothing has.
    pub fn changes(&self, now: Timestamp) -> Option<ProfileChanges> {
        let (gone, mut changed) = {
            let mut inner = self.inner();
            let changed: Vec<_> = inner.profiles.iter().filter(|(_, entry)| entry.changed).map(|(key, _)| key.clone()).collect();
            (std::mem::take(&mut inner.gone), changed)
        };
        if gone.is_empty() && changed.is_empty() {
            return None;
        }
        changed.sort_unstable();
        let mut changes = ProfileChanges { gone, first_day: day_of(now) - DAYS, ..ProfileChanges::default() };
        for key in changed {
            let mut inner = self.inner();
            let Some(entry) = inner.profiles.get_mut(&key) else { continue };
            changes.days.extend(entry.send(&key));
            changes.profiles.push(write(&key, entry, now));
        }
        Some(changes)
    }

    /// These changes are written, but for those of the `refused` profiles: they are among the next ones again.
    pub fn kept(&self, changes: &[(ProfileKey, i64)], refused: &[ProfileKey]) {
        let mut inner = self.inner();
        for (key, version) in changes {
            let Some(entry) = inner.profiles.get_mut(key) else { continue };
            if refused.contains(key) { entry.not_kept() } else { entry.kept(*version) }
        }
        inner.recent = inner.profiles.values().map(Entry::recent).sum();
    }

    /// These could not be written: they are among the next ones again.
    pub fn not_kept(&self, changes: &[(ProfileKey, i64)], days: &[DayRow], gone: Vec<ProfileKey>) {
        let mut inner = self.inner();
        for (key, _) in changes {
            if let Some(entry) = inner.profiles.get_mut(key) {
                entry.not_kept();
            }
        }
        for day in days {
            if let Some(entry) = inner.profiles.get_mut(&day.key) {
                entry.give_back(day);
            }
        }
        inner.gone.extend(gone);
    }
}

fn write(key: &ProfileKey, entry: &Entry, now: Timestamp) -> ProfileRow {
    let profile = &entry.profile;
    let figures = Figures {
        written: profile.written,
        counts: profile.summaries.each_ref().map(|summary| summary.as_ref().map(|summary| summary.counts.clone())),
        learned: profile.learned.clone(),
        tallies: profile.tallies.clone(),
    };
    let mut sketches = Vec::new();
    profile.summaries.iter().flatten().for_each(|summary| summary.write(&mut sketches));
    // Numbers and texts with names can always be written as JSON.
    let figures = serde_json::to_string(&figures).unwrap_or_default();
    ProfileRow { key: key.clone(), version: entry.version, changed_at: now, figures, sketches }
}

fn read(row: &ProfileRow) -> Option<Profile> {
    let Figures { written, counts, learned, tallies } = serde_json::from_str(&row.figures).ok()?;
    let mut rest = &row.sketches[..];
    let mut summaries = [const { None }; Executor::ALL.len()];
    for (summary, counts) in summaries.iter_mut().zip(counts) {
        if let Some(counts) = counts {
            *summary = Some(Box::new(Summary::read(counts, &mut rest).ok()?));
        }
    }
    Some(Profile { written, summaries, learned, tallies })
}

#[cfg(test)]
mod tests {
    use super::super::{Digest, Machine, Sample};
    use super::*;
    use crate::job::{Bound, Form, Observed, Runtime, Timing};

    fn learned(at: Timestamp) -> (Profiles, ProfileKey) {
        let profiles = Profiles::default();
        let key = ProfileKey::from("primes:below~2^20".to_owned());
        let timing = Timing {
            wall_us: 90_000,
            cpu_user_us: Some(90_000),
            cpu_system_us: Some(0),
            core_wait_us: Some(0),
            longest_poll_us: Some(90_000),
            ..Timing::default()
        };
        profiles.digest(&key, Written { runtime: Runtime::Native, form: Form::Blocking, gil: false, needs_a_process: false });
        for executor in [Executor::Async, Executor::Threads] {
            for _ in 0..20 {
                profiles.record(Some(&key), &Sample::new(Bound::Io, executor, timing, at));
            }
        }
        (profiles, key)
    }

    #[test]
    fn what_was_learned_survives_a_restart() {
        let now = Timestamp::now();
        let (profiles, key) = learned(now);
        let changes = profiles.changes(now).unwrap();
        assert!(profiles.changes(now).is_none());
        let again = Profiles::load(changes.profiles, false);
        let (before, after) = (profiles.get(key.as_str()).unwrap(), again.get(key.as_str()).unwrap());
        assert_eq!((after.digest(), after.runs()), (before.digest(), 40));
        assert_eq!((after.digest().observed, after.digest().on_loop.holds), (Some(Observed::Cpu), true));
        assert_eq!(
            format!("{:?}", after.findings(&key, &Machine::default())),
            format!("{:?}", before.findings(&key, &Machine::default()))
        );
        let quantiles = |profile: &Profile| profile.on(Executor::Threads).unwrap().wall.quantiles();
        assert_eq!(quantiles(&after), quantiles(&before));
    }

    #[test]
    fn what_could_not_be_written_is_written_later() {
        let now = Timestamp::now();
        let (profiles, key) = learned(now);
        let first = profiles.changes(now).unwrap();
        let written = [(key, 1)];
        profiles.not_kept(&written, &first.days, first.gone);
        let again = profiles.changes(now).unwrap();
        assert_eq!((again.profiles.len(), again.days), (1, first.days));
        profiles.kept(&written, &[]);
        assert!(profiles.changes(now).is_none());
    }

    /// As a store does that several servers share: a profile is written over only as it was read.
    fn keep(profiles: &Profiles, kept: &mut Option<ProfileRow>, now: Timestamp) {
        loop {
            let known = profiles.versions();
            let is_newer = |row: &ProfileRow| !known.contains(&(row.key.clone(), row.version));
            profiles.take_over(kept.clone().into_iter().filter(is_newer).collect());
            let Some(changes) = profiles.changes(now) else { return };
            let row = changes.profiles.into_iter().next().unwrap();
            let next = (row.key.clone(), row.next_version());
            assert_eq!(row.version, kept.as_ref().map_or(0, |kept| kept.version));
            *kept = Some(ProfileRow { version: next.1, ..row });
            profiles.kept(&[next], &[]);
        }
    }

    #[test]
    fn what_several_servers_learn_comes_together() {
        let now = Timestamp::now();
        let servers = [(); 3].map(|()| Profiles::load(Vec::new(), true));
        let (alone, key) = (Profiles::default(), ProfileKey::from("primes:below~2^20".to_owned()));
        let mut kept = None;
        for round in 1..=10 {
            for server in &servers {
                for n in 0..round {
                    let timing = Timing {
                        wall_us: 90_000 + n,
                        cpu_user_us: Some(90_000),
                        cpu_system_us: Some(0),
                        core_wait_us: Some(0),
                        ..Timing::default()
                    };
                    let sample = Sample::new(Bound::Io, Executor::Threads, timing, now);
                    server.record(Some(&key), &sample);
                    alone.record(Some(&key), &sample);
                }
                keep(server, &mut kept, now);
            }
        }
        for server in &servers {
            keep(server, &mut kept, now);
        }
        let alone = alone.get(key.as_str()).unwrap();
        for server in &servers {
            assert_eq!(server.recent(), 0);
            let profile = server.get(key.as_str()).unwrap();
            // A number that is written as text and read again may differ in its last bit.
            let (ours, theirs) = (profile.digest(), alone.digest());
            assert!((ours.demand - theirs.demand).abs() < 1e-9);
            assert_eq!((profile.runs(), Digest { demand: 0.0, ..ours }), (alone.runs(), Digest { demand: 0.0, ..theirs }));
            assert_eq!(
                format!("{:?}", profile.findings(&key, &Machine::default())),
                format!("{:?}", alone.findings(&key, &Machine::default()))
            );
        }
    }

    #[test]
    fn what_others_were_faster_with_is_not_written_over() {
        let now = Timestamp::now();
        let (profiles, key) = learned(now);
        let row = profiles.changes(now).unwrap().profiles.remove(0);
        let shared = Profiles::load(Vec::new(), true);
        let sample = Sample::new(Bound::Cpu, Executor::Processes, Timing::default(), now);
        shared.record(Some(&key), &sample);
        let mine = shared.changes(now).unwrap();
        shared.record(Some(&key), &sample);
        shared.kept(&[(key.clone(), mine.profiles[0].next_version())], std::slice::from_ref(&key));
        shared.take_over(vec![ProfileRow { version: 7, ..row }]);
        assert_eq!(shared.get(key.as_str()).unwrap().runs(), 42);
        let again = shared.changes(now).unwrap();
        // The day of the first run was added to.
        assert_eq!((again.profiles[0].version, again.days[0].totals.runs), (7, 1));
    }

    #[test]
    fn what_others_use_pushes_out_nothing_and_what_made_way_does_not_come_back() {
        let now = Timestamp::now();
        let row = learned(now).0.changes(now).unwrap().profiles.remove(0);
        let rows = |numbers: std::ops::Range<usize>| {
            let row = |n| ProfileRow { key: ProfileKey::from(format!("key:{n}")), version: 1, changed_at: now, ..row.clone() };
            numbers.map(row).collect::<Vec<_>>()
        };
        let shared = Profiles::load(rows(0..MOST), true);
        shared.take_over(rows(MOST..MOST + 5));
        assert_eq!(shared.keys(None).len(), MOST);
        assert!(shared.get("key:0").is_some() && shared.get(&format!("key:{MOST}")).is_none());
        let sample = Sample::new(Bound::Cpu, Executor::Threads, Timing::default(), now);
        shared.record(Some(&ProfileKey::from("mine".to_owned())), &sample);
        let left = shared.keys(None).len();
        assert!(left < MOST);
        shared.take_over(rows(0..MOST));
        assert_eq!((shared.keys(None).len(), shared.changes(now).unwrap().gone.len()), (left, MOST + 1 - left));
        // Those that there is no room for at the start are forgotten: nobody else may know them.
        assert_eq!(Profiles::load(rows(0..MOST + 5), true).changes(now).unwrap().gone.len(), 5);
    }

    #[test]
    fn what_can_not_be_read_is_left_out() {
        let now = Timestamp::now();
        let (profiles, _) = learned(now);
        let mut rows = profiles.changes(now).unwrap().profiles;
        rows[0].sketches.truncate(7);
        assert!(Profiles::load(rows, false).keys(None).is_empty());
    }
}
