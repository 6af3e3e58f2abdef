//! How many jobs of a key have started lately.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::job::Rate;

/// Starts that lie closer together than this part of a period are counted as one group.
const PARTS: u64 = 64;
/// The most groups; only who asks for periods of very different lengths with one key has so many.
const MOST_GROUPS: usize = 256;

/// The latest starts of the jobs of a key, in a few hundred bytes whatever the limit: starts that lie close together are a group, and
/// a group counts until the last of them is a period old. So no period ever sees more starts than it may, and after a burst the next
/// ones may come up to a sixty-fourth of a period late. Starts that lie more than a period ahead are from before the clock was set back,
/// and count no more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Window(Vec<Group>);

/// The first and the last start of a group, in microseconds since the Unix epoch, and how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Group(i64, i64, u32);

impl Window {
    /// How many starts the period that ends at `now` has seen.
    pub(super) fn started(&self, rate: &Rate, now: Timestamp) -> u32 {
        self.0.iter().filter(|group| group.counts(rate, now)).fold(0, |sum, group| sum.saturating_add(group.2))
    }

    /// When the next job may start: `now`, or later.
    pub(super) fn opens(&self, rate: &Rate, now: Timestamp) -> Timestamp {
        let mut started = self.started(rate, now);
        let mut groups = self.0.iter().filter(|group| group.counts(rate, now));
        let mut opens = now;
        while started >= rate.limit {
            let Some(group) = groups.next() else { break };
            started = started.saturating_sub(group.2);
            opens = group.end(rate);
        }
        opens
    }

    /// A job starts.
    pub(super) fn start(&mut self, rate: &Rate, at: Timestamp) {
        let micros = at.as_micros();
        match self.0.last_mut() {
            Some(Group(first, last, count)) if (0..part(rate)).contains(&(micros - *first)) => {
                *last = micros.max(*last);
                *count = count.saturating_add(1);
            }
            _ => self.0.push(Group(micros, micros, 1)),
        }
        if self.0.len() > MOST_GROUPS {
            let Group(first, _, before) = self.0.remove(0);
            // Counting longer than it has to never lets too many start.
            let Group(_, last, count) = self.0[0];
            self.0[0] = Group(first, last, count.saturating_add(before));
        }
    }

    /// What was taken for a start at this moment was none.
    pub(super) fn take_back(&mut self, at: Timestamp) {
        let micros = at.as_micros();
        if let Some(group) = self.0.iter_mut().find(|group| (group.0..=group.1).contains(&micros)) {
            group.2 = group.2.saturating_sub(1);
            self.0.retain(|group| group.2 > 0);
        }
    }

    /// Forgets what no longer counts, if no period is longer than that.
    pub(super) fn forget(&mut self, longest: Duration, now: Timestamp) {
        let latest = now.after(longest);
        self.0.retain(|group| Timestamp::from_micros(group.1).after(longest) > now && Timestamp::from_micros(group.0) <= latest);
    }

    /// The latest start.
    pub(super) fn last(&self) -> Option<Timestamp> {
        self.0.last().map(|group| Timestamp::from_micros(group.1))
    }
}

impl Group {
    fn end(self, rate: &Rate) -> Timestamp {
        Timestamp::from_micros(self.1.saturating_add(per_us(rate)))
    }

    fn counts(self, rate: &Rate, now: Timestamp) -> bool {
        self.end(rate) > now && self.0.saturating_sub(per_us(rate)) <= now.as_micros()
    }
}

/// A period in microseconds.
fn per_us(rate: &Rate) -> i64 {
    i64::try_from(rate.per_ms.saturating_mul(1_000)).unwrap_or(i64::MAX)
}

fn part(rate: &Rate) -> i64 {
    per_us(rate) / i64::try_from(PARTS).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(limit: u32, per_ms: u64) -> Rate {
        Rate { key: "k".into(), limit, per_ms }
    }

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    #[test]
    fn a_burst_then_nothing_until_it_is_a_period_old() {
        let (rate, mut window) = (rate(3, 1), Window::default());
        for now in [0, 400, 401] {
            assert_eq!(window.opens(&rate, at(now)), at(now));
            window.start(&rate, at(now));
        }
        assert_eq!(window.opens(&rate, at(500)), at(1_000));
        window.start(&rate, at(1_000));
        // The two that started at nearly the same time are one group.
        assert_eq!(window.opens(&rate, at(1_001)), at(1_401));
        assert_eq!(window.started(&rate, at(1_401)), 1);
        window.forget(Duration::from_millis(1), at(2_000));
        assert_eq!(window, Window::default());
    }

    #[test]
    fn what_was_no_start_is_taken_back() {
        let (rate, mut window) = (rate(2, 1), Window::default());
        for now in [0, 1, 500] {
            window.start(&rate, at(now));
        }
        window.take_back(at(500));
        assert_eq!((window.started(&rate, at(600)), window.opens(&rate, at(600))), (2, at(1_001)));
        // Of starts that lie close together it does not matter which it is; what is not known any more was forgotten.
        window.take_back(at(0));
        window.take_back(at(500));
        assert_eq!((window.started(&rate, at(600)), window.opens(&rate, at(600))), (1, at(600)));
        window.take_back(at(1));
        assert_eq!(window, Window::default());
    }

    #[test]
    fn it_stays_small() {
        let (rate, mut window) = (rate(1_000_000, 1_000), Window::default());
        for n in 0..100_000 {
            let now = at(n * 1_000);
            window.forget(Duration::from_secs(1), now);
            window.start(&rate, now);
            assert!(window.0.len() <= usize::try_from(PARTS).unwrap() + 1);
        }
    }

    #[test]
    fn no_period_sees_more_than_it_may() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let rate = rate(random.u32(1..20), random.u64(1..50));
            let (mut window, mut now, mut starts, per) = (Window::default(), 0, Vec::new(), per_us(&rate));
            for _ in 0..300 {
                now += random.i64(0..20_000) * random.i64(0..2);
                // Whoever may not start now comes when it is said that it may, and never more than a part later than it could.
                let opens = window.opens(&rate, at(now)).as_micros();
                let strict = starts.iter().rev().nth(rate.limit as usize - 1).map_or(now, |start: &i64| (start + per).max(now));
                assert!((strict..=strict + part(&rate)).contains(&opens), "seed {seed}: {opens} instead of {strict}");
                now = opens;
                window.forget(Duration::from_millis(rate.per_ms), at(now));
                window.start(&rate, at(now));
                starts.push(now);
                let lately = starts.iter().filter(|&&start| start > now - per).count();
                assert!(lately <= rate.limit as usize, "seed {seed}: {lately} of {}", rate.limit);
            }
        }
    }
}
