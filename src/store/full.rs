//! A disk on which there is room for little.

use std::time::{Duration, Instant};

use super::StoreError;

/// For so long after something found no room nothing is taken to have any, unless a job was accepted meanwhile.
const LASTS: Duration = Duration::from_secs(5);

/// Whether the disk was just found to be full. Who only looks whether something can be written needs so little that there may be room for that
/// where there is none for a job.
#[derive(Debug, Default)]
pub(super) struct Full(Option<(Instant, String)>);

impl Full {
    /// There was no room.
    pub(super) fn found(&mut self, error: &StoreError) {
        self.0 = Some((Instant::now(), error.cause()));
    }

    /// There was room for a job.
    pub(super) fn is_over(&mut self) {
        self.0 = None;
    }

    /// What somebody is told who looked whether something can be written, and for whom there was room.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        match &self.0 {
            Some((at, why)) if at.elapsed() < LASTS => Err(StoreError::Unavailable(why.clone())),
            _ => Ok(()),
        }
    }
}
