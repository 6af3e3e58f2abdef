//! The slots of a queue, and how many jobs may be claimed before there is one.
//!
//! A job is claimed in a transaction, which takes as long as the disk does. Where jobs are shorter than that, a slot would be empty half of
//! the time if each were claimed only once there is a slot; so some are claimed ahead, several by one transaction.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit};

use crate::workload::{Stop, StopReason};

/// For how much work jobs are claimed ahead.
const AHEAD: Duration = Duration::from_millis(16);
/// The most jobs that are claimed ahead.
pub(super) const MOST_AHEAD: usize = 64;
/// The longest that one of them stands in the line. If it has not begun by then, those before it take longer than others did before them, and it
/// is handed back: it may expire, be run by another node, or have to let others go first.
const IN_LINE: Duration = Duration::from_millis(100);
/// While the workloads of what is claimed are so long together, in bytes, no more is: where there are slots by the thousand, their number alone
/// does not bound the memory.
pub(crate) const MOST_BYTES: usize = 256 << 20;
/// By which part of the difference an earlier, longer job counts less with each that ends.
const FADING: u32 = 8;

/// The slots of one queue.
#[derive(Debug)]
pub struct Slots {
    count: usize,
    /// How many jobs may be claimed ahead at the most.
    line: usize,
    pace: Mutex<Pace>,
    /// Jobs may be claimed that could not be before.
    freed: Notify,
}

#[derive(Debug, Default)]
struct Pace {
    /// How long jobs have taken lately: the longest, which fades.
    longest: Duration,
    /// How many may be claimed ahead.
    ahead: usize,
    /// How many are claimed, or being claimed, and have not ended.
    claimed: usize,
    /// How many of them are claimed, where that matters.
    placed: usize,
    /// How long their workloads are.
    bytes: usize,
}

/// That some jobs may be claimed. What is left of it when it is dropped is for others.
#[derive(Debug)]
pub struct Vacancies {
    slots: Arc<Slots>,
    left: usize,
    /// What it counts for among those that are claimed.
    placed: usize,
    bytes: usize,
}

/// That one job is claimed, until this is dropped.
#[derive(Debug)]
pub struct Place {
    vacancy: Vacancies,
    ahead: bool,
}

/// One place on an executor, free again when it is dropped.
#[derive(Debug, Default)]
pub struct Slot {
    /// Where it is taken for a job that was claimed.
    pub place: Option<Place>,
    /// Where whoever runs tasks counts them by a semaphore.
    pub permit: Option<OwnedSemaphorePermit>,
}

impl Slots {
    /// So many. Jobs are claimed ahead only where the executor has a line of its own, in which so many may stand, so that whoever runs them
    /// has the next one at once.
    pub fn new(count: usize, line: usize) -> Arc<Self> {
        Arc::new(Self { count, line: line.min(MOST_AHEAD), pace: Mutex::default(), freed: Notify::new() })
    }

    /// How many there are.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Whether jobs may stand in a line of the executor's.
    pub const fn has_line(&self) -> bool {
        self.line > 0
    }

    /// Waits until jobs may be claimed; how many, at most `most`.
    pub async fn vacancies(self: &Arc<Self>, most: usize) -> Vacancies {
        loop {
            let freed = self.freed.notified();
            if let Some(vacancies) = self.take(most) {
                return vacancies;
            }
            freed.await;
        }
    }

    fn take(self: &Arc<Self>, most: usize) -> Option<Vacancies> {
        let mut pace = self.pace();
        let left = pace.vacancies(self.count).min(most);
        pace.claimed += left;
        (left > 0).then(|| Vacancies { slots: Arc::clone(self), left, placed: 0, bytes: 0 })
    }

    /// A job has taken so long.
    pub fn took(&self, wall: Duration) {
        if !self.has_line() {
            return;
        }
        let mut pace = self.pace();
        pace.longest = wall.max(pace.longest.saturating_sub(pace.longest / FADING));
        // A long one would keep those waiting that were claimed ahead of it.
        pace.ahead = match pace.longest {
            longest if longest >= AHEAD => 0,
            longest => {
                let work = AHEAD.as_micros() * self.count as u128 / longest.as_micros().max(1);
                usize::try_from(work).unwrap_or(self.line).min(self.line)
            }
        };
    }

    /// Whether more jobs are claimed than there are slots.
    fn some_are_ahead(&self) -> bool {
        self.pace().placed > self.count
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pace {
    /// How many jobs may be claimed with so many slots. Where there is work for all of them, nothing is claimed until half of what may be
    /// ahead is gone, so that one transaction claims several.
    fn vacancies(&self, slots: usize) -> usize {
        if self.bytes >= MOST_BYTES {
            return 0;
        }
        let vacancies = (slots + self.ahead).saturating_sub(self.claimed);
        if self.claimed < slots || vacancies > self.ahead / 2 { vacancies } else { 0 }
    }
}

impl Vacancies {
    /// For how many jobs it is.
    pub const fn left(&self) -> usize {
        self.left
    }

    /// The place of one of them, whose workload is so many bytes long; `None` if no more are left.
    pub fn place(&mut self, bytes: usize) -> Option<Place> {
        self.left = self.left.checked_sub(1)?;
        let mut vacancy = Self { slots: Arc::clone(&self.slots), left: 1, placed: 0, bytes };
        let mut ahead = false;
        let mut pace = self.slots.pace();
        pace.bytes += bytes;
        if self.slots.has_line() {
            // Since they were vacant, which may be long ago, slots may have become free.
            ahead = pace.placed >= self.slots.count;
            pace.placed += 1;
            vacancy.placed = 1;
        }
        drop(pace);
        Some(Place { vacancy, ahead })
    }
}

impl Place {
    /// Whether the job was claimed before there was a slot for it, so that it stands in a line first.
    pub const fn is_ahead(&self) -> bool {
        self.ahead
    }
}

impl Slot {
    /// How long its job may stand in a line; as long as it likes if there was a slot for it when it was claimed, and no job claimed ahead of a
    /// slot may have come to the executor before it.
    pub(super) fn patience(&self) -> Option<Duration> {
        self.place.as_ref().filter(|place| place.ahead || place.vacancy.slots.some_are_ahead()).map(|_| IN_LINE)
    }

    /// Its job has stood in a line for longer than that: it is to wait for a slot as others do, and no more are claimed ahead for now.
    pub(super) fn hand_back(&self, stop: &Stop) {
        if let Some(place) = &self.place {
            place.vacancy.slots.took(IN_LINE);
        }
        stop.stop(StopReason::HandBack);
    }
}

impl Drop for Vacancies {
    fn drop(&mut self) {
        let mut pace = self.slots.pace();
        pace.claimed = pace.claimed.saturating_sub(self.left);
        pace.placed = pace.placed.saturating_sub(self.placed);
        pace.bytes = pace.bytes.saturating_sub(self.bytes);
        let is_free = pace.vacancies(self.slots.count) > 0;
        drop(pace);
        if is_free {
            self.slots.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vacancies(slots: &Arc<Slots>) -> usize {
        slots.take(512).map_or(0, |vacancies| vacancies.left())
    }

    #[test]
    fn short_jobs_are_claimed_ahead_and_long_ones_are_not() {
        let slots = Slots::new(2, MOST_AHEAD);
        assert_eq!(vacancies(&slots), 2);
        slots.took(Duration::from_millis(1));
        assert_eq!(vacancies(&slots), 2 + 32);
        slots.took(Duration::from_millis(100));
        assert_eq!(vacancies(&slots), 2);
        // One that was long by chance is soon forgotten.
        (0..40).for_each(|_| slots.took(Duration::from_millis(1)));
        assert_eq!(vacancies(&slots), 2 + 32);
        (0..100).for_each(|_| slots.took(Duration::ZERO));
        assert_eq!(vacancies(&slots), 2 + MOST_AHEAD);
    }

    #[tokio::test]
    async fn several_are_claimed_at_once_but_no_slot_stays_empty_for_that() {
        let slots = Slots::new(2, MOST_AHEAD);
        slots.took(Duration::from_millis(8));
        let mut all = slots.vacancies(512).await;
        assert_eq!((all.left(), vacancies(&slots)), (2 + 4, 0));
        let mut places: Vec<Place> = (0..6).filter_map(|_| all.place(0)).collect();
        assert!(all.place(0).is_none());
        assert_eq!(places.iter().filter(|place| place.is_ahead()).count(), 4);
        // Half of those ahead are gone, and one more.
        let after_each = [(); 4].map(|()| {
            drop(places.pop());
            vacancies(&slots)
        });
        assert_eq!(after_each, [0, 0, 3, 4]);
        slots.took(Duration::from_secs(1));
        assert_eq!(vacancies(&slots), 0, "both slots are taken");
        drop(places.pop());
        assert_eq!(vacancies(&slots), 1);
    }

    #[test]
    fn a_slot_that_becomes_free_while_a_claim_waits_is_one_for_its_jobs() {
        let slots = Slots::new(2, MOST_AHEAD);
        slots.took(Duration::from_millis(1));
        let mut first = slots.take(2).unwrap();
        let run: Vec<Place> = (0..2).filter_map(|_| first.place(0)).collect();
        let mut waits = slots.take(512).unwrap();
        drop(run);
        let places: Vec<Place> = (0..3).filter_map(|_| waits.place(0)).collect();
        assert_eq!(places.iter().map(Place::is_ahead).collect::<Vec<_>>(), [false, false, true]);
    }

    #[test]
    fn one_that_is_handed_back_ends_claiming_ahead() {
        let slots = Slots::new(1, MOST_AHEAD);
        slots.took(Duration::from_millis(1));
        let mut all = slots.take(2).unwrap();
        let [runs, waits] = [(); 2].map(|()| Slot { place: all.place(0), permit: None });
        // Whichever of them comes first.
        assert_eq!((runs.patience(), waits.patience()), (Some(IN_LINE), Some(IN_LINE)));
        let stop = Stop::default();
        waits.hand_back(&stop);
        assert_eq!(stop.reason(), Some(StopReason::HandBack));
        drop(waits);
        assert_eq!(vacancies(&slots), 0);
        assert_eq!(runs.patience(), None, "whatever keeps it waiting now, no other has come before it");
        drop(runs);
        assert_eq!(vacancies(&slots), 1);
    }

    #[tokio::test]
    async fn whoever_waits_for_a_vacancy_hears_of_it() {
        let slots = Slots::new(1, MOST_AHEAD);
        let mut first = slots.vacancies(1).await;
        let place = first.place(0);
        let waiting = tokio::spawn({
            let slots = Arc::clone(&slots);
            async move { slots.vacancies(1).await.left() }
        });
        tokio::task::yield_now().await;
        drop(place);
        assert_eq!(waiting.await.unwrap(), 1);
    }

    #[tokio::test]
    async fn long_workloads_bound_what_runs_at_once() {
        let slots = Slots::new(16_384, 0);
        let mut first = slots.vacancies(3).await;
        let one = first.place(MOST_BYTES - 1);
        assert_eq!(vacancies(&slots), 512);
        let other = first.place(1);
        assert_eq!(vacancies(&slots), 0);
        let waiting = tokio::spawn({
            let slots = Arc::clone(&slots);
            async move { slots.vacancies(512).await.left() }
        });
        tokio::task::yield_now().await;
        drop(other);
        assert_eq!(waiting.await.unwrap(), 512);
        drop(one);
    }
}
