//! Counts and quantiles of results that grow with the number of kinds of work, not with the number of results.

use std::sync::Arc;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2Serializer};

use crate::job::{Bound, Ending, Executor, Timing};

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
}

/// A count and three sketches of a set of results. Sets can be merged, and results taken out again.
#[derive(Clone, Debug)]
pub struct Sketches {
    count: u64,
    queue: Histogram<u64>,
    wall: Histogram<u64>,
    cpu: Histogram<u64>,
}

/// The three quantiles that a summary shows, in microseconds, each at most 1 % off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct Quantiles {
    /// Half are at most this.
    pub p50: u64,
    /// Nine of ten are at most this.
    pub p90: u64,
    /// 99 of 100 are at most this.
    pub p99: u64,
}

/// The bytes are not sketches.
#[derive(Debug, thiserror::Error)]
#[error("not a sketch")]
pub struct BadSketch;

impl Default for Sketches {
    fn default() -> Self {
        Self { count: 0, queue: histogram(), wall: histogram(), cpu: histogram() }
    }
}

/// Two significant digits; grows with the values that it is given.
#[expect(clippy::expect_used, reason = "the crate takes 0 to 5 digits, so 2 can't fail")]
fn histogram() -> Histogram<u64> {
    Histogram::new(2).expect("two significant digits")
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
            // Resizes by itself, so every value fits.
            let _ = sketch.record(value);
        }
    }

    /// Takes out a result that was counted before.
    pub fn remove(&mut self, timing: Option<&Timing>) {
        self.count = self.count.saturating_sub(1);
        for (sketch, value) in self.figures(timing) {
            let mut one = histogram();
            let _ = one.record(value);
            // Fails only if the value was never counted; then there is nothing to take out.
            let _ = sketch.subtract(&one);
        }
    }

    /// Adds all that `other` holds.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        for (mine, theirs) in [(&mut self.queue, &other.queue), (&mut self.wall, &other.wall), (&mut self.cpu, &other.cpu)] {
            // Both resize by themselves, so the sum always fits.
            let _ = mine.add(theirs);
        }
    }

    /// Quantiles of the time from accepted (or due) until claimed.
    pub fn queue(&self) -> Option<Quantiles> {
        quantiles(&self.queue)
    }

    /// Quantiles of the wall time.
    pub fn wall(&self) -> Option<Quantiles> {
        quantiles(&self.wall)
    }

    /// Quantiles of the CPU time.
    pub fn cpu(&self) -> Option<Quantiles> {
        quantiles(&self.cpu)
    }

    /// As bytes, for a store to keep: the count, then three times a length and a histogram in the V2 encoding of HdrHistogram.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.count.to_le_bytes().to_vec();
        let mut serializer = V2Serializer::new();
        for sketch in [&self.queue, &self.wall, &self.cpu] {
            let at = bytes.len();
            bytes.extend([0; 4]);
            // Writing to memory fails only when the length overflows, which 64-bit machines can't reach.
            let length = serializer.serialize(sketch, &mut bytes).unwrap_or(0);
            bytes[at..at + 4].copy_from_slice(&u32::try_from(length).unwrap_or(0).to_le_bytes());
        }
        bytes
    }

    /// From the bytes of [`Sketches::to_bytes`].
    ///
    /// # Errors
    /// The bytes are something else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BadSketch> {
        let (count, mut rest) = bytes.split_first_chunk::<8>().ok_or(BadSketch)?;
        let mut deserializer = Deserializer::new();
        let mut next = || -> Result<Histogram<u64>, BadSketch> {
            let (length, tail) = rest.split_first_chunk::<4>().ok_or(BadSketch)?;
            let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| BadSketch)?;
            let (mut sketch, tail) = tail.split_at_checked(length).ok_or(BadSketch)?;
            rest = tail;
            let mut histogram: Histogram<u64> = deserializer.deserialize(&mut sketch).map_err(|_| BadSketch)?;
            histogram.auto(true);
            Ok(histogram)
        };
        Ok(Self { count: u64::from_le_bytes(*count), queue: next()?, wall: next()?, cpu: next()? })
    }

    /// The sketches that a result with this timing is part of, each with its value.
    fn figures(&mut self, timing: Option<&Timing>) -> impl Iterator<Item = (&mut Histogram<u64>, u64)> {
        let values = [timing.map(|t| t.queue_us), timing.map(|t| t.wall_us), timing.and_then(Timing::cpu_us)];
        [&mut self.queue, &mut self.wall, &mut self.cpu]
            .into_iter()
            .zip(values)
            .filter_map(|(sketch, value)| Some((sketch, value?)))
    }
}

fn quantiles(histogram: &Histogram<u64>) -> Option<Quantiles> {
    (!histogram.is_empty()).then(|| Quantiles {
        p50: histogram.value_at_quantile(0.5),
        p90: histogram.value_at_quantile(0.9),
        p99: histogram.value_at_quantile(0.99),
    })
}

#[cfg(test)]
mod tests {
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
        assert_eq!(sketches.wall(), Some(Quantiles { p50: 50, p90: 90, p99: 99 }));
        let mut twice = Sketches::from_bytes(&sketches.to_bytes()).unwrap();
        twice.merge(&sketches);
        assert_eq!((twice.count(), twice.wall().unwrap().p90), (202, 90));
        for wall in 2..=100 {
            sketches.remove(Some(&timing(wall)));
        }
        sketches.remove(None);
        assert_eq!((sketches.count(), sketches.wall().unwrap().p99), (1, 1));
        assert_eq!(sketches.cpu().unwrap().p50, 4);
    }

    #[test]
    fn other_bytes_are_refused() {
        assert!(Sketches::from_bytes(b"not a sketch").is_err());
        assert!(Sketches::from_bytes(&Sketches::default().to_bytes()[..20]).is_err());
    }
}
