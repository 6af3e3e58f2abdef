//! What the threads that a job starts beside its own are kept waiting for a core.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use super::run_delay::delay_in;

/// The delays of threads of this process, looked at every so often: a thread that has ended can't be asked any more, so what it was
/// delayed after the last look is not known.
#[derive(Debug, Default)]
pub struct Helpers {
    /// By thread: the delay at the first look and at the latest.
    seen: HashMap<i32, (Duration, Duration)>,
}

impl Helpers {
    /// Looks at the threads of this process, but for these, which are measured otherwise.
    pub fn look(&mut self, except: [i32; 2]) {
        let Ok(threads) = fs::read_dir("/proc/self/task") else { return };
        let ids = threads.flatten().filter_map(|thread| thread.file_name().to_str()?.parse().ok());
        for id in ids.filter(|id| !except.contains(id)) {
            let text = fs::read_to_string(format!("/proc/self/task/{id}/schedstat"));
            if let Some(delay) = text.ok().and_then(|text| delay_in(&text)) {
                self.seen.entry(id).and_modify(|(_, latest)| *latest = delay).or_insert((delay, delay));
            }
        }
    }

    /// How long they could have run and had no core, all together, at least.
    pub fn core_wait(&self) -> Duration {
        self.seen.values().map(|(first, latest)| latest.saturating_sub(*first)).sum()
    }
}
