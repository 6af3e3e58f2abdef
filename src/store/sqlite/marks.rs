//! How far back to look for events: `results` are in the order of acceptance, not of their ends.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::job::JobId;

/// Marks lie at least so far apart.
const APART: Duration = Duration::from_secs(1);
/// So many are kept: the last hours of a busy server.
const KEPT: usize = 10_000;

/// At some moments, the oldest job of which anything could happen after them.
#[derive(Default)]
pub(super) struct Marks(VecDeque<(Timestamp, JobId)>);

impl Marks {
    /// Whether it is time for another one.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.0.back().is_none_or(|(at, _)| now.since(*at) >= APART)
    }

    /// At this moment, `oldest` was the oldest job that had not ended; `None` if all had.
    pub(super) fn push(&mut self, at: Timestamp, oldest: Option<JobId>) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back((at, oldest.unwrap_or(JobId::from_bytes([0xff; 16]))));
    }

    /// Something is about to happen to a job that was not there, or had ended. To be told before it is committed.
    pub(super) fn touch(&mut self, job: JobId) {
        // A later mark never names an older job than an earlier one.
        for (_, oldest) in self.0.iter_mut().rev().take_while(|(_, oldest)| *oldest > job) {
            *oldest = job;
        }
    }

    /// Nothing happened after this moment to an older job than this; `None` if that is not known.
    pub(super) fn oldest_after(&self, after: Timestamp) -> Option<JobId> {
        let behind = self.0.partition_point(|(at, _)| *at <= after);
        self.0.get(behind.checked_sub(1)?).map(|(_, oldest)| *oldest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_comes_back_is_looked_for() {
        let (at, jobs) = (Timestamp::from_micros, [(); 4].map(|()| JobId::new()));
        let mut marks = Marks::default();
        assert_eq!(marks.oldest_after(at(5)), None);
        for (n, job) in (1..).zip([Some(jobs[0]), Some(jobs[1]), None]) {
            marks.push(at(n * 10), job);
        }
        marks.touch(jobs[3]);
        let oldest = |marks: &Marks| [9, 10, 19, 20, 30, 99].map(|after| marks.oldest_after(at(after)));
        assert_eq!(oldest(&marks), [None, Some(jobs[0]), Some(jobs[0]), Some(jobs[1]), Some(jobs[3]), Some(jobs[3])]);
        marks.touch(jobs[2]);
        assert_eq!(oldest(&marks)[4], Some(jobs[2]));
        marks.touch(jobs[0]);
        assert_eq!(oldest(&marks)[1..], [Some(jobs[0]); 5]);
    }
}
