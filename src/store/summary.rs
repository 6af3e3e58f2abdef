//! Counts and quantiles of results that grow with the number of kinds of work, not with the number of results.

use std::sync::Arc;

use super::{BadSketch, Sketch};
use crate::job::{Bound, Ending, Executor, Owner, Timing};

/// What results are counted by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SummaryKey {
    /// The workload's `type`.
    pub workload: Arc<str>,
    /// The client's tag.
    pub bound: Bound,
    /// The executor that ran it.
    pub executor: Executor,
    /// How it ended.
    pub ending: Ending,
    /// Whose it is.
    pub owner: Option<Owner>,
}

/// A count and three sketches of a set of results. Sets can be merged, and results taken out again.
#[derive(Clone, Debug, Default)]
pub struct Sketches {
    count: u64,
    queue: Sketch,
    wall: Sketch,
    cpu: Sketch,
}

impl Sketches {
    /// How many results.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Counts a result.
    pub fn add(&mut self, timing: Option<&Timing>) {
        self.count += 1;
        for (sketch, value) in self.figures(timing) {
            sketch.add(value);
        }
    }

    /// Takes out a result that was counted before.
    pub fn remove(&mut self, timing: Option<&Timing>) {
        self.count = self.count.saturating_sub(1);
        for (sketch, value) in self.figures(timing) {
            sketch.remove(value);
        }
    }

    /// Adds all that `other` holds.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        for (mine, theirs) in [(&mut self.queue, &other.queue), (&mut self.wall, &other.wall), (&mut self.cpu, &other.cpu)] {
            mine.merge(theirs);
        }
    }

    /// The time from accepted (or due) until claimed.
    pub const fn queue(&self) -> &Sketch {
        &self.queue
    }

    /// The wall time.
    pub const fn wall(&self) -> &Sketch {
        &self.wall
    }

    /// The CPU time.
    pub const fn cpu(&self) -> &Sketch {
        &self.cpu
    }

    /// As bytes, for a store to keep: the count, then the three sketches.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.count.to_le_bytes().to_vec();
        for sketch in [&self.queue, &self.wall, &self.cpu] {
            sketch.write(&mut bytes);
        }
        bytes
    }

    /// From the bytes of [`Sketches::to_bytes`].
    ///
    /// # Errors
    /// The bytes are something else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BadSketch> {
        let (count, mut rest) = bytes.split_first_chunk::<8>().ok_or(BadSketch)?;
        let mut next = || Sketch::read(&mut rest);
        Ok(Self { count: u64::from_le_bytes(*count), queue: next()?, wall: next()?, cpu: next()? })
    }

    /// The sketches that a result with this timing is part of, each with its value.
    fn figures(&mut self, timing: Option<&Timing>) -> impl Iterator<Item = (&mut Sketch, u64)> {
        let values = [timing.map(|t| t.queue_us), timing.map(|t| t.wall_us), timing.and_then(Timing::cpu_us)];
        [&mut self.queue, &mut self.wall, &mut self.cpu]
            .into_iter()
            .zip(values)
            .filter_map(|(sketch, value)| Some((sketch, value?)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Quantiles;
    use super::*;

    fn timing(wall_us: u64) -> Timing {
        Timing { queue_us: 5, wall_us, cpu_user_us: Some(3), cpu_system_us: Some(1), ..Timing::default() }
    }

    #[test]
    fn counted_merged_stored_and_taken_out() {
        let mut sketches = Sketches::default();
        for wall in 1..=100 {
            sketches.add(Some(&timing(wall)));
        }
        sketches.add(None);
        assert_eq!(sketches.wall().quantiles(), Some(Quantiles { p50: 50, p90: 90, p99: 99 }));
        let mut twice = Sketches::from_bytes(&sketches.to_bytes()).unwrap();
        twice.merge(&sketches);
        assert_eq!((twice.count(), twice.wall().quantiles().unwrap().p90), (202, 90));
        for wall in 2..=100 {
            sketches.remove(Some(&timing(wall)));
        }
        sketches.remove(None);
        assert_eq!((sketches.count(), sketches.wall().quantiles().unwrap().p99), (1, 1));
        assert_eq!(sketches.cpu().quantiles().unwrap().p50, 4);
    }

    #[test]
    fn other_bytes_are_refused() {
        assert!(Sketches::from_bytes(b"not a sketch").is_err());
        assert!(Sketches::from_bytes(&Sketches::default().to_bytes()[..20]).is_err());
    }
}
