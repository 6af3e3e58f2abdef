//! Jobs that were claimed and could not begin: why is said once, not each time, and one that waits for long is looked at less and less often.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::job::JobId;

/// The most jobs that are kept in mind. What is forgotten is said again.
const MOST: usize = 4_096;

type Jobs = HashMap<JobId, (&'static str, Duration)>;

/// What was said of jobs that wait, and how long they were told to.
#[derive(Debug, Default)]
pub(super) struct Postponed {
    jobs: Mutex<Jobs>,
    /// How many they are: mostly none, and each attempt asks.
    count: AtomicUsize,
}

impl Postponed {
    /// How long a job waits for this reason: twice as long each time, within these. And whether it is another reason than the time before.
    pub(super) fn again(&self, job: JobId, why: &'static str, (first, longest): (Duration, Duration)) -> (Duration, bool) {
        let mut jobs = self.jobs();
        let before = jobs.get(&job).filter(|(before, _)| *before == why).map(|(_, wait)| *wait);
        let wait = before.map_or(first, |wait| (wait * 2).clamp(first, longest));
        if jobs.len() >= MOST && !jobs.contains_key(&job) {
            jobs.clear();
        }
        jobs.insert(job, (why, wait));
        self.count.store(jobs.len(), Ordering::Relaxed);
        (wait, before.is_none())
    }

    /// Forgets a job that waits no longer: if it ever does again, that is something new.
    pub(super) fn ended(&self, job: JobId) {
        if self.count.load(Ordering::Relaxed) > 0 {
            let mut jobs = self.jobs();
            jobs.remove(&job);
            self.count.store(jobs.len(), Ordering::Relaxed);
        }
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_waits_on_is_looked_at_less_often_and_says_nothing_new() {
        let (postponed, job, second) = (Postponed::default(), JobId::new(), Duration::from_secs(1));
        let wait = |why| postponed.again(job, why, (second, 3 * second));
        assert_eq!(
            [wait("a"), wait("a"), wait("a"), wait("b")],
            [(second, true), (2 * second, false), (3 * second, false), (second, true)]
        );
        // Where it is known how long, that is it.
        assert_eq!(postponed.again(job, "b", (9 * second, 9 * second)), (9 * second, false));
        for _ in 0..2 * MOST {
            postponed.again(JobId::new(), "a", (second, second));
        }
        assert!(postponed.jobs().len() <= MOST);
    }

    #[test]
    fn a_job_that_waits_once_more_does_so_as_at_first() {
        let (postponed, [job, other], second) = (Postponed::default(), [(); 2].map(|()| JobId::new()), Duration::from_secs(1));
        let wait = |job| postponed.again(job, "a", (second, 9 * second));
        assert_eq!([wait(job), wait(job), wait(other)], [(second, true), (2 * second, false), (second, true)]);
        postponed.ended(job);
        assert_eq!([wait(job), wait(other)], [(second, true), (2 * second, false)]);
    }
}
