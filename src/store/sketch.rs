//! Sketches of many figures: counts and quantiles in little room, which merge and of which figures can be taken out again.

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2Serializer};

/// How the figures of a set are distributed. Each quantile is at most 1 % off.
#[derive(Clone, Debug, PartialEq)]
pub struct Sketch(Histogram<u64>);

/// The three quantiles that summaries show, each at most 1 % off.
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

impl Default for Sketch {
    /// Two significant digits; grows with the values that it is given.
    #[expect(clippy::expect_used, reason = "the crate takes 0 to 5 digits, so 2 can't fail")]
    fn default() -> Self {
        Self(Histogram::new(2).expect("two significant digits"))
    }
}

impl Sketch {
    /// Counts a figure.
    pub fn add(&mut self, value: u64) {
        // Resizes by itself, so every value fits.
        let _ = self.0.record(value);
    }

    /// Takes out a figure that was counted before.
    pub fn remove(&mut self, value: u64) {
        let mut one = Self::default();
        one.add(value);
        // Fails only if the value was never counted; then there is nothing to take out.
        let _ = self.0.subtract(&one.0);
    }

    /// Adds all that `other` holds.
    pub fn merge(&mut self, other: &Self) {
        // Both resize by themselves, so the sum always fits.
        let _ = self.0.add(&other.0);
    }

    /// How many figures.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// How many of them are at most this.
    pub fn count_up_to(&self, value: u64) -> u64 {
        self.0.count_between(0, value)
    }

    /// Their mean.
    pub fn mean(&self) -> f64 {
        self.0.mean()
    }

    /// Their quantiles; `None` without any figure.
    pub fn quantiles(&self) -> Option<Quantiles> {
        (!self.0.is_empty()).then(|| Quantiles {
            p50: self.0.value_at_quantile(0.5),
            p90: self.0.value_at_quantile(0.9),
            p99: self.0.value_at_quantile(0.99),
        })
    }

    /// What one in ten is at most; `None` without any figure.
    pub fn lowest_tenth(&self) -> Option<u64> {
        (!self.0.is_empty()).then(|| self.0.value_at_quantile(0.1))
    }

    /// Appends it to bytes that a store keeps: a length, then the V2 encoding of HdrHistogram.
    pub fn write(&self, bytes: &mut Vec<u8>) {
        let at = bytes.len();
        bytes.extend([0; 4]);
        // Writing to memory fails only when the length overflows, which 64-bit machines can't reach.
        let length = V2Serializer::new().serialize(&self.0, bytes).unwrap_or(0);
        bytes[at..at + 4].copy_from_slice(&u32::try_from(length).unwrap_or(0).to_le_bytes());
    }

    /// Reads what [`Sketch::write`] wrote, and moves on behind it.
    ///
    /// # Errors
    /// The bytes are something else.
    pub fn read(bytes: &mut &[u8]) -> Result<Self, BadSketch> {
        let (length, tail) = bytes.split_first_chunk::<4>().ok_or(BadSketch)?;
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| BadSketch)?;
        let (mut sketch, tail) = tail.split_at_checked(length).ok_or(BadSketch)?;
        *bytes = tail;
        let mut histogram: Histogram<u64> = Deserializer::new().deserialize(&mut sketch).map_err(|_| BadSketch)?;
        histogram.auto(true);
        Ok(Self(histogram))
    }
}
