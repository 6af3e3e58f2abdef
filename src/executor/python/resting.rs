//! What can't be started: it is tried once in a while, not for each job that waits for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Key;
use super::run::has_no_process;
use crate::executor::attempt::Ran;

/// How long what can't be started is not tried again, at first and at the most.
const REST: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What could not be started lately, and is not tried again for a while: how long that is, and when it began.
#[derive(Clone, Default)]
pub(super) struct Resting(Arc<Mutex<HashMap<Key, (Duration, Instant)>>>);

impl Resting {
    /// Whether it is not to be tried.
    pub(super) fn has(&self, key: &Key) -> bool {
        self.all().get(key).is_some_and(|(rest, since)| since.elapsed() < *rest)
    }

    /// What has become of a job says whether a process was there.
    pub(super) fn note(&self, key: &Key, ran: &Ran) {
        let mut all = self.all();
        if ran.begun {
            all.remove(key);
        }
        if !has_no_process(ran) {
            return;
        }
        let rest = all.get(key).map_or(REST.0, |(rest, _)| (*rest * 2).min(REST.1));
        all.insert(key.clone(), (rest, Instant::now()));
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Key, (Duration, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
