//! What jobs with a limit count for: while they run, and when they start.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::Window;
use crate::clock::Timestamp;
use crate::job::{Owner, Rate};

/// What jobs are counted for as long as they run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Counted {
    /// Their key of `concurrency`.
    Key(Arc<str>),
    /// The quota of their owner.
    Owner(Owner),
}

/// The starts of a key.
pub(super) struct Starts {
    pub(super) key: String,
    pub(super) window: Window,
    pub(super) latest: Rate,
    pub(super) until: Timestamp,
}

impl Starts {
    /// A job starts whose key is among these, or is now.
    pub(super) fn begin(all: &mut HashMap<String, Self>, rate: &Rate, at: Timestamp) {
        let new = || Self { key: rate.key.clone(), window: Window::default(), latest: rate.clone(), until: at };
        all.entry(rate.key.clone()).or_insert_with(new).start(rate, at);
    }

    /// A job starts.
    fn start(&mut self, rate: &Rate, at: Timestamp) {
        // Whoever asked for the longest period decides how long starts are remembered.
        let longest = self.until.since(self.window.last().unwrap_or(at)).max(Duration::from_millis(rate.per_ms));
        self.window.forget(longest, at);
        self.window.start(rate, at);
        self.latest = rate.clone();
        self.until = at.after(longest);
    }
}

/// When a start counts that has this moment: then, unless moments are ahead of a clock that was set back. Rates go by the clock.
pub(super) fn counts_at(moment: Timestamp, now: Timestamp) -> Timestamp {
    if moment > now.after(Duration::from_secs(1)) { now } else { moment }
}

/// The key of the rate that jobs in a lane of this name have.
pub(super) fn rate_key_of(lane: &str) -> Option<String> {
    names(lane).into_iter().nth(1)?.as_str().map(str::to_owned)
}

fn names(lane: &str) -> Vec<serde_json::Value> {
    serde_json::from_str(lane).unwrap_or_default()
}

/// What jobs in a lane of this name count for once they run.
pub(super) fn counted_of(lane: &str) -> Vec<Counted> {
    let names = names(lane);
    let key = names.first().and_then(serde_json::Value::as_str).map(|key| Counted::Key(key.into()));
    let owner = names.get(2).and_then(serde_json::Value::as_i64).and_then(Owner::from_code).map(Counted::Owner);
    key.into_iter().chain(owner).collect()
}
