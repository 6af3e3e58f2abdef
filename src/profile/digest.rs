//! What routing needs to know of a workload.

use crate::job::{Executor, Observed};

/// A profile in a few numbers: what routing goes by.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Digest {
    /// How many runs say something of what the work does.
    pub runs: u64,
    /// What the runs turned out to be, if they are enough and agree. It changes only when they are clearly something else.
    pub observed: Option<Observed>,
    /// How many cores it uses while it can run.
    pub demand: f64,
    /// The usual wall time, in microseconds.
    pub wall_us: u64,
    /// The usual wall time, in microseconds, of runs beside others under a global lock, if of most of them it can't be told whether they
    /// waited for it.
    pub untold_us: Option<u64>,
    /// How it behaved on the event loop.
    pub on_loop: LoopRecord,
    /// The executors on which most of the latest runs failed.
    pub failing: [bool; Executor::ALL.len()],
    /// How many jobs were routed before this one, as far as is known.
    pub turn: u64,
}

/// How a workload behaved on the event loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoopRecord {
    /// How many of the runs were there.
    pub runs: u64,
    /// Whether it is known to hold the loop.
    pub holds: bool,
    /// The longest that it held the loop, in microseconds.
    pub longest_us: u64,
}
