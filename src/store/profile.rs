use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::clock::Timestamp;
use crate::job::{Bound, Executor, ProfileKey};

/// A profile as it is kept: what is in it, the store need not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileRow {
    /// Of which runs.
    pub key: ProfileKey,
    /// As it was read, so that nothing is lost that another server writes; 0 if it is new, or nobody else may have written it.
    pub version: i64,
    /// When it was last brought up to date.
    pub changed_at: Timestamp,
    /// Its figures, as JSON.
    pub figures: String,
    /// Its sketches.
    pub sketches: Vec<u8>,
}

/// What the runs of a day that are alike came to together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DayRow {
    /// Days since the Unix epoch, in UTC.
    pub day: i64,
    /// Of which runs.
    pub key: ProfileKey,
    /// What ran them.
    pub executor: Executor,
    /// What they were run as: how they were tagged, or what measured routing took them for instead as it chose among threads.
    pub bound: Bound,
    /// Their sums.
    pub totals: DayTotals,
}

/// Sums of runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DayTotals {
    /// How many.
    pub runs: u64,
    /// How many gave no output.
    pub failed: u64,
    /// Wall time.
    pub wall_us: u64,
    /// CPU time.
    pub cpu_us: u64,
    /// The time in which they could have run and had no core.
    pub core_wait_us: u64,
    /// How many held the event loop for long.
    pub held_runs: u64,
    /// For how long, together.
    pub held_us: u64,
    /// For how long at the longest.
    pub longest_us: u64,
    /// How many other jobs were on the loop at those times, together.
    pub held_jobs: u64,
}

/// What is to be written of profiles, all of it or nothing.
#[derive(Clone, Debug, Default)]
pub struct ProfileChanges {
    /// Profiles to write over; but for those that are not of this version any more.
    pub profiles: Vec<ProfileRow>,
    /// Profiles to forget.
    pub gone: Vec<ProfileKey>,
    /// What is to be added to days.
    pub days: Vec<DayRow>,
    /// Days before this one are forgotten.
    pub first_day: i64,
}

/// Where profiles are kept.
#[async_trait]
pub trait ProfileStore {
    /// All profiles.
    async fn profiles(&self) -> Result<Vec<ProfileRow>, StoreError>;

    /// The days from this one to that one, both included.
    async fn profile_days(&self, first: i64, last: i64) -> Result<Vec<DayRow>, StoreError>;

    /// Writes what has changed. Which profiles it did not write, because another server has written them in the meantime.
    async fn keep_profiles(&self, changes: ProfileChanges) -> Result<Vec<ProfileKey>, StoreError>;

    /// Profiles that are not of these versions, or not among these.
    async fn newer_profiles(&self, _known: Vec<(ProfileKey, i64)>) -> Result<Vec<ProfileRow>, StoreError> {
        Ok(Vec::new())
    }
}

impl ProfileRow {
    /// Its version once it is written, where versions are counted.
    pub fn next_version(&self) -> i64 {
        // One that is made anew is not taken for one that was there before.
        if self.version == 0 { self.changed_at.as_micros() } else { self.version + 1 }
    }
}

impl DayTotals {
    /// Adds all that `other` holds.
    pub fn merge(&mut self, other: &Self) {
        self.runs += other.runs;
        self.failed += other.failed;
        self.wall_us += other.wall_us;
        self.cpu_us += other.cpu_us;
        self.core_wait_us += other.core_wait_us;
        self.held_runs += other.held_runs;
        self.held_us += other.held_us;
        self.longest_us = self.longest_us.max(other.longest_us);
        self.held_jobs += other.held_jobs;
    }
}
