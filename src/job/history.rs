use std::collections::VecDeque;

use super::{Event, Failure, FailureKind, Timing, What};
use crate::clock::Timestamp;

/// An attempt that was begun.
#[derive(Clone, Debug, PartialEq)]
pub struct Tried {
    /// Its number, from 1.
    pub number: u32,
    /// When it was claimed.
    pub started_at: Timestamp,
    /// When its end was recorded; absent while it runs.
    pub finished_at: Option<Timestamp>,
    /// Why it gave no output; absent if it did, or runs.
    pub error: Option<Failure>,
    /// What was measured of it; absent if its work never began, or did not end.
    pub timing: Option<Timing>,
}

/// The latest attempts of a job, also those before it was run again by hand. As many as a retry rule allows ten times over.
#[derive(Debug, Default)]
pub struct History(VecDeque<Tried>);

/// How many attempts a history holds.
const MOST: usize = 1_000;

impl Tried {
    /// How it ended: `succeeded`, `failed`, `cancelled` or `lost`; or `running`.
    pub fn state(&self) -> &'static str {
        match (&self.error, self.finished_at) {
            (Some(Failure { kind: FailureKind::Cancelled, .. }), _) => "cancelled",
            (Some(Failure { kind: FailureKind::Lost, .. }), _) => "lost",
            (Some(_), _) => "failed",
            (None, Some(_)) => "succeeded",
            (None, None) => "running",
        }
    }
}

impl History {
    /// Takes note of what happened to the job, in its order.
    pub fn add(&mut self, event: Event) {
        match event.what {
            What::Running { attempt } => self.begin(attempt, event.at),
            What::Retrying { attempt, error, timing, .. } => {
                self.end(attempt, event.at, Some(error), timing.map(|timing| *timing));
            }
            What::Finished { attempt, finished } if finished.started_at.is_some() => {
                let finished = *finished;
                self.end(attempt, event.at, finished.outcome.into_failure(), finished.timing);
            }
            _ => {}
        }
    }

    fn begin(&mut self, number: u32, started_at: Timestamp) {
        // An attempt that was handed back did not count, and has the number of the next one.
        self.0.pop_back_if(|last| last.number == number);
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        self.0.push_back(Tried { number, started_at, finished_at: None, error: None, timing: None });
    }

    fn end(&mut self, number: u32, at: Timestamp, error: Option<Failure>, timing: Option<Timing>) {
        if let Some(last) = self.0.back_mut().filter(|last| last.number == number) {
            (last.finished_at, last.error, last.timing) = (Some(at), error, timing);
        }
    }

    /// The attempts up to the job's latest, the first one first. What was handed back is none, and nothing but the job's own number says so.
    pub fn into_attempts(mut self, latest: u32) -> Vec<Tried> {
        self.0.retain(|tried| tried.number <= latest);
        self.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Bound, Conclusion, Ending, Executor, JobId, Outcome};

    fn history(happened: Vec<What>, latest: u32) -> Vec<(u32, &'static str, i64)> {
        let mut history = History::default();
        for (at, what) in (1..).zip(happened) {
            let at = Timestamp::from_micros(at);
            history.add(Event { at, job: JobId::new(), bound: Bound::Io, executor: Executor::Async, what });
        }
        history.into_attempts(latest).iter().map(|tried| (tried.number, tried.state(), tried.started_at.as_micros())).collect()
    }

    fn retrying(attempt: u32, kind: FailureKind) -> What {
        What::Retrying { attempt, error: Failure::new(kind, ""), timing: None, due_at: Timestamp::from_micros(0) }
    }

    fn finished(attempt: u32, ending: Ending, outcome: Outcome, started_at: Option<i64>) -> What {
        let conclusion = Conclusion { ending, outcome, timing: None };
        let finished = conclusion.at(started_at.map(Timestamp::from_micros), Timestamp::from_micros(0));
        What::Finished { attempt, finished: Box::new(finished) }
    }

    #[test]
    fn every_attempt_has_its_end() {
        let running = |attempt| What::Running { attempt };
        let happened = vec![
            What::Accepted,
            running(1),
            retrying(1, FailureKind::Timeout),
            // This one is handed back, then claimed again.
            running(2),
            running(2),
            retrying(2, FailureKind::Lost),
            // And while it waits, it is cancelled.
            finished(2, Ending::Cancelled, Outcome::Error(Failure::cancelled()), None),
            What::Requeued,
            running(3),
            finished(3, Ending::Succeeded, Outcome::Output(Box::default()), Some(9)),
            What::Requeued,
            running(4),
        ];
        assert_eq!(history(happened, 4), [(1, "failed", 2), (2, "lost", 5), (3, "succeeded", 9), (4, "running", 12)]);
    }

    #[test]
    fn an_attempt_that_was_handed_back_is_none() {
        let handed_back = || vec![What::Running { attempt: 1 }, retrying(1, FailureKind::Error), What::Running { attempt: 2 }];
        assert_eq!(history(handed_back(), 1), [(1, "failed", 1)]);
        let mut happened = handed_back();
        happened.push(finished(1, Ending::Cancelled, Outcome::Error(Failure::cancelled()), None));
        assert_eq!(history(happened, 1), [(1, "failed", 1)]);
    }

    #[test]
    fn only_the_latest_are_kept() {
        let happened = (1..=1_500).flat_map(|n| [What::Running { attempt: n }, retrying(n, FailureKind::Error)]).collect();
        let kept = history(happened, 1_500);
        assert_eq!((kept.len(), kept[0].0, kept[999].0), (1_000, 501, 1_500));
    }
}
