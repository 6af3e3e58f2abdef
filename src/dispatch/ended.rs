//! What this server has run to its end since it was started: figures that only grow. Those of the store fall when a job is run again.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::job::{Bound, Conclusion, Ending, Executor};
use crate::store::Sketches;

/// The ends of attempts, with what was measured of these.
#[derive(Debug, Default)]
pub(super) struct Ended(Mutex<Ends>);

/// By tag, executor and ending.
pub type Ends = BTreeMap<(Bound, Executor, Ending), Sketches>;

impl Ended {
    pub(super) fn count(&self, bound: Bound, executor: Executor, Conclusion { ending, timing, .. }: &Conclusion) {
        self.ends().entry((bound, executor, *ending)).or_default().add(timing.as_ref());
    }

    pub(super) fn all(&self) -> Ends {
        self.ends().clone()
    }

    fn ends(&self) -> MutexGuard<'_, Ends> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
