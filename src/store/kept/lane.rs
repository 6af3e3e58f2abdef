//! Lanes, where jobs wait that share a limit, and the starts that a rate counts.

use super::{Cells, Row};
use crate::clock::Timestamp;
use crate::job::{Concurrency, JobId, Owner, Rate};
use crate::store::counted::{Counted, Starts};
use crate::store::{LimitStatus, StoreError};

// Values of `gate`; any other is when it opens.
pub(in crate::store) const OPEN: i64 = 0;
/// Too many jobs run with its key.
pub(in crate::store) const FULL: i64 = 1;
/// Too many jobs of its owner run.
pub(in crate::store) const OVER_QUOTA: i64 = 2;

/// The most jobs that are counted of those that wait for a limit.
pub(in crate::store) const COUNTED: i64 = 100_000;

/// A job at the head of a lane, or close behind.
pub(in crate::store) struct Head {
    /// The place of the lane among those that were asked for.
    pub(in crate::store) lane: usize,
    pub(in crate::store) id: JobId,
    pub(in crate::store) concurrency: Option<Concurrency>,
    pub(in crate::store) rate: Option<Rate>,
    /// If a quota of its owner says how many may run at once.
    pub(in crate::store) owner: Option<Owner>,
    /// How long its workload is.
    pub(in crate::store) bytes: i64,
}

impl Head {
    /// What it counts for once it runs, with the limit that it says itself.
    pub(in crate::store) fn counted(&self) -> impl Iterator<Item = (Counted, Option<u32>)> {
        let key = self.concurrency.as_ref().map(|Concurrency { key, limit }| (Counted::Key(key.as_str().into()), Some(*limit)));
        key.into_iter().chain(self.owner.map(|owner| (Counted::Owner(owner), None)))
    }
}

/// The keys of the rates that these jobs have.
pub(in crate::store) fn rate_keys(heads: &[Head]) -> Vec<&str> {
    let mut keys: Vec<&str> = heads.iter().filter_map(|head| head.rate.as_ref()).map(|rate| rate.key.as_str()).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

impl Counted {
    /// The gate of a lane that is shut for this.
    pub(in crate::store) const fn gate(&self) -> i64 {
        match self {
            Self::Key(_) => FULL,
            Self::Owner(_) => OVER_QUOTA,
        }
    }
}

/// Where a lane is to stand.
pub(in crate::store) struct Standing {
    pub(in crate::store) lane: String,
    pub(in crate::store) turn: i64,
    pub(in crate::store) gate: i64,
}

/// From the key, the starts, the limit and the end of a row of `rates`.
pub(in crate::store) fn read_starts(row: &impl Row) -> Result<Starts, StoreError> {
    let mut cells = Cells::new(row);
    let key: String = cells.take()?;
    let missing = || StoreError::Corrupt(format!("the starts of {key:?} are missing"));
    let (window, latest) = (cells.json()?.ok_or_else(missing)?, cells.json()?.ok_or_else(missing)?);
    Ok(Starts { window, latest, until: cells.time()?, key })
}

/// What is told of a rate: as the first that waits for it has it, or the latest that has started, if there is any.
pub(in crate::store) fn rate_status(
    first: Option<Rate>,
    starts: Option<Starts>,
    waiting: u64,
    now: Timestamp,
) -> Option<LimitStatus> {
    let limit = first.or(starts.as_ref().map(|starts| starts.latest.clone()))?;
    let window = starts.map(|starts| starts.window).unwrap_or_default();
    let (started, opens) = (u64::from(window.started(&limit, now)), window.opens(&limit, now));
    Some(LimitStatus::Rate { limit, started, waiting, opens_at: Some(opens).filter(|opens| *opens > now) })
}
