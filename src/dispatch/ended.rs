//! What this server has run to its end since it was started: figures that only grow. Those of the store fall when a job is run again.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::counts::Counts;
use crate::job::{Bound, Conclusion, Ending, Executor};
use crate::store::Sketches;

/// The ends of attempts, with what was measured of these.
#[derive(Debug)]
pub(super) struct Ended {
    ends: Mutex<Ends>,
    retried: Counts<3>,
}

/// By the workload's type, tag, executor and ending.
pub type Ends = BTreeMap<(&'static str, Bound, Executor, Ending), Sketches>;

impl Default for Ended {
    fn default() -> Self {
        Self { ends: Mutex::default(), retried: Counts::of(Executor::ALL.map(Executor::as_str)) }
    }
}

impl Ended {
    pub(super) fn count(&self, kind: &'static str, bound: Bound, executor: Executor, conclusion: &Conclusion) {
        let Conclusion { ending, timing, .. } = conclusion;
        self.ends().entry((kind, bound, executor, *ending)).or_default().add(timing.as_ref());
    }

    /// An attempt has ended that is followed by another.
    pub(super) fn count_retried(&self, executor: Executor) {
        self.retried.count(executor.as_str());
    }

    /// How many there were of those, by executor.
    pub(super) fn retried(&self) -> [(&'static str, u64); 3] {
        self.retried.all()
    }

    pub(super) fn all(&self) -> Ends {
        self.ends().clone()
    }

    fn ends(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
