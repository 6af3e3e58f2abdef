//! Work that takes down whatever runs it, again and again, is kept out for a while, so that its neighbours go on. It is of one owner: what one
//! calls a function with keeps it from nobody else.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::Timestamp;
use crate::executor::Measured;
use crate::job::{Owner, ProfileKey};
use crate::workload::StopReason;

/// How many processes may die under it in a row, until it is kept out.
const DEATHS: u32 = 3;
/// Deaths that are further apart have nothing to do with each other.
const APART: Duration = Duration::from_mins(10);
/// For how long it is kept out at first, and at the most: each further time twice as long.
const KEPT_OUT: (Duration, Duration) = (Duration::from_secs(30), Duration::from_mins(10));
/// How soon to look again whether the one attempt that is let in to see has ended well; what takes long is looked at less and less often.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// For how long one that is let in to see is alone in that: two that are let in together may share a process, and die of what one of them does.
const ALONE: Duration = Duration::from_secs(30);
/// The most kinds of work that deaths are kept of.
const MOST: usize = 1_024;

/// Whose work of which kind.
type Work = (Option<Owner>, ProfileKey);

/// How an attempt has ended.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// With the process under it.
    Died(u32),
    /// It was stopped, or had not begun, which says nothing of the work.
    Stopped,
    /// By itself.
    Ended,
}

/// Which work is kept out, and what may come to be.
#[derive(Debug, Default)]
pub(super) struct Quarantine {
    cases: Mutex<HashMap<Work, Case>>,
    /// Whether there is any: most servers never have one.
    any: AtomicBool,
}

/// What is known of work under which a process has died, since it last ended otherwise.
#[derive(Clone, Copy, Debug)]
struct Case {
    deaths: u32,
    /// When the latest process died, and which it was.
    latest: (Instant, u32),
    /// Until when it is kept out.
    until: Option<Instant>,
    /// When one attempt was let in after that, to see.
    probed: Option<Instant>,
}

/// Work that is kept out.
#[derive(Clone, Debug)]
pub struct Quarantined {
    /// What it has in common.
    pub key: ProfileKey,
    /// How many processes have died under it in a row.
    pub deaths: u32,
    /// When it is let in again, to see.
    pub until: Timestamp,
}

impl Quarantine {
    /// How long an attempt of this work has to wait, if it has to. If it does not, it begins now.
    pub(super) fn keeps_out(&self, owner: Option<Owner>, key: Option<&ProfileKey>) -> Option<Duration> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        self.keeps_out_at(&(owner, key?.clone()), Instant::now())
    }

    fn keeps_out_at(&self, key: &Work, now: Instant) -> Option<Duration> {
        let mut cases = self.cases();
        let is_tried = cases.values().filter_map(|case| case.probed).any(|since| now < since + ALONE);
        let case = cases.get_mut(key)?;
        let until = case.until?;
        if until > now {
            return Some(until - now);
        }
        // The first one that comes then is let in; the others wait for what becomes of it.
        if let Some(since) = case.probed {
            return Some((now - since).clamp(LOOK_AGAIN, KEPT_OUT.1));
        }
        if is_tried {
            return Some(LOOK_AGAIN);
        }
        case.probed = Some(now);
        None
    }

    /// An attempt of this work has ended.
    pub(super) fn ended(&self, owner: Option<Owner>, key: Option<&ProfileKey>, measured: &Measured) {
        let fate = match (measured.crashed, measured.stopped) {
            (Some(process), _) => Fate::Died(process),
            (None, Some(StopReason::Cancelled | StopReason::HandBack)) => Fate::Stopped,
            // No process came up in the time that it had.
            (None, _) if !measured.begun => Fate::Stopped,
            (None, _) => Fate::Ended,
        };
        if let Some(key) = key.filter(|_| measured.crashed.is_some() || self.any.load(Ordering::Acquire)) {
            self.ended_at(&(owner, key.clone()), fate, Instant::now());
        }
    }

    fn ended_at(&self, key: &Work, fate: Fate, now: Instant) {
        let mut cases = self.cases();
        match fate {
            Fate::Died(process) => {
                if cases.len() >= MOST && !cases.contains_key(key) {
                    cases.retain(|_, case| now < case.latest.0 + APART);
                }
                if cases.len() < MOST || cases.contains_key(key) {
                    let case =
                        cases.entry(key.clone()).or_insert(Case { deaths: 0, latest: (now, 0), until: None, probed: None });
                    case.died(now, process);
                    if let Some(until) = case.until {
                        let (deaths, seconds) = (case.deaths, (until - now).as_secs());
                        tracing::warn!(key = key.1.as_str(), deaths, seconds, "takes down what runs it; its jobs wait");
                    }
                }
            }
            Fate::Stopped => {
                // The next one may be let in to see.
                if let Some(case) = cases.get_mut(key) {
                    case.probed = None;
                }
            }
            Fate::Ended => {
                if cases.remove(key).is_some_and(|case| case.until.is_some()) {
                    tracing::info!(key = key.1.as_str(), "is not kept out any more: an attempt did not take its process down");
                }
            }
        }
        self.any.store(!cases.is_empty(), Ordering::Release);
    }

    /// How the work of this owner and key is kept out, if it is. The key is asked for only if any work is.
    pub(super) fn case(&self, owner: Option<Owner>, key: impl FnOnce() -> Option<ProfileKey>) -> Option<Quarantined> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let key = key()?;
        self.cases().get(&(owner, key.clone()))?.told(&key)
    }

    /// All work that is kept out, by its keys.
    pub(super) fn list(&self) -> Vec<Quarantined> {
        let mut list: Vec<_> = self.cases().iter().filter_map(|((_, key), case)| case.told(key)).collect();
        // Of several owners, what is kept out the longest.
        list.sort_by(|a, b| (a.key.as_str(), b.until).cmp(&(b.key.as_str(), a.until)));
        list.dedup_by(|a, b| a.key == b.key);
        list
    }

    fn cases(&self) -> MutexGuard<'_, HashMap<Work, Case>> {
        self.cases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Case {
    /// As others are told, if it is kept out.
    fn told(&self, key: &ProfileKey) -> Option<Quarantined> {
        let until = Timestamp::now().after(self.until?.saturating_duration_since(Instant::now()));
        Some(Quarantined { key: key.clone(), deaths: self.deaths, until })
    }

    fn died(&mut self, now: Instant, process: u32) {
        let (before, same) = self.latest;
        // Several attempts that ran in one process die together: that is one death.
        if self.deaths > 0 && process == same {
            return;
        }
        // It ran already when the work came to be kept out, so it tells nothing more.
        if self.until.is_some_and(|until| now < until) {
            self.latest = (now, process);
            return;
        }
        let is_apart = now >= before + APART && self.until.is_none();
        self.deaths = if is_apart { 1 } else { self.deaths + 1 };
        self.latest = (now, process);
        if self.deaths >= DEATHS {
            let (first, longest) = KEPT_OUT;
            let times = 1_u32.checked_shl(self.deaths - DEATHS).unwrap_or(u32::MAX);
            self.until = Some(now + first.saturating_mul(times).min(longest));
            self.probed = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Failure;

    fn key(name: &str) -> Work {
        (None, ProfileKey::from(name.to_owned()))
    }

    #[test]
    fn what_dies_again_and_again_is_kept_out_and_let_in_to_see() {
        let (quarantine, bad, good) = (Quarantine::default(), key("bad"), key("good"));
        let mut now = Instant::now();
        for process in 0..DEATHS {
            assert_eq!(quarantine.keeps_out_at(&bad, now), None);
            // Those that die together count once.
            quarantine.ended_at(&bad, Fate::Died(process), now);
            quarantine.ended_at(&bad, Fate::Died(process), now);
            quarantine.ended_at(&good, Fate::Died(process), now);
            quarantine.ended_at(&good, Fate::Ended, now);
            now += Duration::from_secs(1);
        }
        assert_eq!(quarantine.keeps_out_at(&good, now), None);
        assert_eq!(quarantine.keeps_out_at(&bad, now), Some(Duration::from_secs(29)));
        assert_eq!((quarantine.list().len(), quarantine.list()[0].deaths), (1, DEATHS));
        // Those that ran already when it was kept out die as well. That tells nothing more.
        for process in 10..15 {
            quarantine.ended_at(&bad, Fate::Died(process), now);
        }
        assert_eq!(quarantine.keeps_out_at(&bad, now), Some(Duration::from_secs(29)));
        assert_eq!((quarantine.list().len(), quarantine.list()[0].deaths), (1, DEATHS));
        // It is nobody else's, and one that was stopped or for which no process came up in time has shown nothing.
        assert_eq!(quarantine.keeps_out_at(&(Owner::from_code(1), bad.1.clone()), now), None);
        quarantine.ended_at(&bad, Fate::Stopped, now);
        let late = Measured::unbegun(Failure::error("no process"), Some(StopReason::Deadline), None);
        quarantine.ended(None, Some(&bad.1), &late);
        assert_eq!(quarantine.keeps_out_at(&bad, now), Some(Duration::from_secs(29)));
        now += Duration::from_secs(30);
        assert_eq!((quarantine.keeps_out_at(&bad, now), quarantine.keeps_out_at(&bad, now)), (None, Some(LOOK_AGAIN)));
        let later = now + Duration::from_secs(40);
        assert_eq!(quarantine.keeps_out_at(&bad, later), Some(Duration::from_secs(40)));
        // It did no better, so it waits for longer.
        quarantine.ended_at(&bad, Fate::Died(9), now);
        assert_eq!(quarantine.keeps_out_at(&bad, now), Some(Duration::from_secs(60)));
        now += Duration::from_secs(60);
        assert_eq!(quarantine.keeps_out_at(&bad, now), None);
        quarantine.ended_at(&bad, Fate::Ended, now);
        assert_eq!((quarantine.keeps_out_at(&bad, now), quarantine.list().len()), (None, 0));
    }

    #[test]
    fn those_that_died_together_are_let_in_one_after_the_other() {
        let (quarantine, bad, good) = (Quarantine::default(), key("bad"), key("good"));
        let mut now = Instant::now();
        for process in 0..DEATHS {
            quarantine.ended_at(&bad, Fate::Died(process), now);
            quarantine.ended_at(&good, Fate::Died(process), now);
        }
        now += KEPT_OUT.0;
        assert_eq!((quarantine.keeps_out_at(&bad, now), quarantine.keeps_out_at(&good, now)), (None, Some(LOOK_AGAIN)));
        quarantine.ended_at(&bad, Fate::Died(9), now);
        assert_eq!(quarantine.keeps_out_at(&good, now), None);
        // But not for as long as one takes that takes long.
        now += KEPT_OUT.0 * 2;
        assert_eq!(quarantine.keeps_out_at(&bad, now), None);
    }

    #[test]
    fn deaths_that_are_far_apart_keep_nothing_out() {
        let (quarantine, key) = (Quarantine::default(), key("unlucky"));
        let start = Instant::now();
        for n in 0..10 {
            let now = start + APART * n;
            quarantine.ended_at(&key, Fate::Died(n), now);
            assert_eq!(quarantine.keeps_out_at(&key, now), None);
        }
    }
}
