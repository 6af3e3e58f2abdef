//! The way of profiles into the store and back.

use serde::{Deserialize, Serialize};

use super::day::{Days, day_of};
use super::finding::Tally;
use super::learned::Learned;
use super::summary::{Counts, Summary};
use super::{Profile, Profiles};
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
    /// Those that were kept, with this day as far as it has gone. What can't be read is left out: it is learned anew.
    pub fn load(rows: Vec<ProfileRow>, today: &[DayRow]) -> Self {
        let profiles = Self::default();
        let mut inner = profiles.inner();
        let mut rows = rows;
        rows.sort_unstable_by_key(|row| row.changed_at);
        for row in rows {
            if let Some(profile) = read(&row) {
                *inner.touch(&row.key) = Profile { used: inner.uses, ..profile };
            } else {
                tracing::warn!(key = %row.key, "the profile can't be read; it is learned anew");
            }
        }
        for row in today {
            if let Some(profile) = inner.profiles.get_mut(&row.key) {
                profile.days.load(row);
            }
        }
        drop(inner);
        profiles
    }

    /// What has changed since this was asked the last time; `None` if nothing has.
    pub fn changes(&self, now: Timestamp) -> Option<ProfileChanges> {
        let (gone, changed) = {
            let mut inner = self.inner();
            let changed: Vec<_> =
                inner.profiles.iter().filter(|(_, profile)| profile.changed).map(|(key, _)| key.clone()).collect();
            (std::mem::take(&mut inner.gone), changed)
        };
        if gone.is_empty() && changed.is_empty() {
            return None;
        }
        let mut changes = ProfileChanges { gone, first_day: day_of(now) - DAYS, ..ProfileChanges::default() };
        for key in changed {
            // One by one: whoever settles a job meanwhile waits for one profile, not for all.
            let mut inner = self.inner();
            let Some(profile) = inner.profiles.get_mut(&key) else { continue };
            profile.changed = false;
            changes.days.extend(profile.days.rows(&key));
            changes.profiles.push(write(&key, profile, now));
        }
        Some(changes)
    }

    /// These changes are written: days that are over can be forgotten.
    pub fn kept(&self, changes: &[ProfileKey], now: Timestamp) {
        for key in changes {
            if let Some(profile) = self.inner().profiles.get_mut(key) {
                profile.days.forget_before(day_of(now));
            }
        }
    }

    /// These could not be written: they are among the next ones again.
    pub fn not_kept(&self, changed: &[ProfileKey], gone: Vec<ProfileKey>) {
        let mut inner = self.inner();
        for key in changed {
            if let Some(profile) = inner.profiles.get_mut(key) {
                profile.changed = true;
            }
        }
        inner.gone.extend(gone);
    }
}

fn write(key: &ProfileKey, profile: &Profile, now: Timestamp) -> ProfileRow {
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
    ProfileRow { key: key.clone(), changed_at: now, figures, sketches }
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
    Some(Profile { written, summaries, learned, tallies, days: Days::default(), used: 0, changed: false })
}

#[cfg(test)]
mod tests {
    use super::super::{Machine, Sample};
    use super::*;
    use crate::job::{Bound, FailureKind, Form, Observed, Runtime, Timing};

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
                profiles.record(Some(&key), &Sample { bound: Bound::Io, executor, failure: None, timing: &timing, at });
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
        let again = Profiles::load(changes.profiles, &changes.days);
        let (before, after) = (profiles.get(key.as_str()).unwrap(), again.get(key.as_str()).unwrap());
        assert_eq!((after.digest(), after.runs()), (before.digest(), 40));
        assert_eq!((after.digest().observed, after.digest().on_loop.holds), (Some(Observed::Cpu), true));
        assert_eq!(
            format!("{:?}", after.findings(&key, &Machine::default())),
            format!("{:?}", before.findings(&key, &Machine::default()))
        );
        assert_eq!(after.days.rows(&key).collect::<Vec<_>>(), before.days.rows(&key).collect::<Vec<_>>());
        let quantiles = |profile: &Profile| profile.on(Executor::Threads).unwrap().wall.quantiles();
        assert_eq!(quantiles(&after), quantiles(&before));
    }

    #[test]
    fn what_could_not_be_written_is_written_later() {
        let now = Timestamp::now();
        let (profiles, key) = learned(now);
        let ProfileChanges { gone, .. } = profiles.changes(now).unwrap();
        profiles.not_kept(std::slice::from_ref(&key), gone);
        assert_eq!(profiles.changes(now).unwrap().profiles.len(), 1);
        let tomorrow = now.after(std::time::Duration::from_secs(86_400));
        profiles.kept(std::slice::from_ref(&key), tomorrow);
        let timing = Timing::default();
        let failure = Some(FailureKind::Error);
        profiles.record(
            Some(&key),
            &Sample { bound: Bound::Cpu, executor: Executor::Threads, failure, timing: &timing, at: tomorrow },
        );
        assert_eq!(profiles.changes(tomorrow).unwrap().days.len(), 1);
    }

    #[test]
    fn what_can_not_be_read_is_left_out() {
        let now = Timestamp::now();
        let (profiles, _) = learned(now);
        let mut rows = profiles.changes(now).unwrap().profiles;
        rows[0].sketches.truncate(7);
        assert!(Profiles::load(rows, &[]).keys(None).is_empty());
    }
}
