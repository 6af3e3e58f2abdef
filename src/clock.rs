//! Time: wall-clock timestamps for people, monotonic durations for figures.

use std::fmt;
use std::time::Duration;

use jiff::fmt::temporal::Pieces;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment in UTC with a precision of one microsecond; RFC 3339 with six decimals as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// The text is no time, or none that there can be here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTimestamp {
    /// It is none of RFC 3339.
    #[error("not an RFC 3339 time, such as 2026-01-31T12:00:00Z")]
    Malformed,
    /// It is so near to an end of what RFC 3339 has that it is beyond it in another zone.
    #[error("must be from 0000-01-01T00:00:00Z to 9999-12-30T22:00:00Z")]
    OutOfRange,
}

impl Timestamp {
    /// Later than any other.
    pub const MAX: Self = Self(i64::MAX);
    /// The earliest that RFC 3339 can write: the year 0 begins.
    pub const YEAR_ZERO: Self = Self(-62_167_219_200_000_000);

    /// The present.
    pub fn now() -> Self {
        Self(jiff::Timestamp::now().as_microsecond())
    }

    /// From microseconds since the Unix epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// This moment, `by` later; the latest possible one if that is out of range.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)))
    }

    /// This moment, `by` earlier; the earliest possible one if that is out of range.
    #[must_use]
    pub fn before(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)))
    }

    /// Time since `earlier`; zero if the clock was set back in between.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(at) => write!(f, "{at:.6}"),
            Err(_) => write!(f, "{}us", self.0),
        }
    }
}

impl std::str::FromStr for Timestamp {
    type Err = BadTimestamp;

    fn from_str(text: &str) -> Result<Self, BadTimestamp> {
        let at = text.parse::<jiff::Timestamp>().map(|at| Self(at.as_microsecond()));
        at.ok().filter(|at| *at >= Self::YEAR_ZERO).ok_or_else(|| {
            let is_at_an_end =
                |of: Pieces<'_>| matches!(of.date().year(), 0 | 9999) && of.time().is_some() && of.offset().is_some();
            if Pieces::parse(text).is_ok_and(is_at_an_end) { BadTimestamp::OutOfRange } else { BadTimestamp::Malformed }
        })
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <std::borrow::Cow<'de, str>>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Tells what time it is.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The present.
    fn now(&self) -> Timestamp;
}

/// The clock of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A moment of the machine's monotonic clock, which is the same in all its processes: nanoseconds since some start.
///
/// Unlike [`std::time::Instant`] it can be sent to another process, so that the hop there can be timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Monotonic(u64);

impl Monotonic {
    /// The present.
    pub fn now() -> Self {
        // The clock exists on every system that this program runs on, so the call can't fail.
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
        Self(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
    }

    /// What the clock showed in another process.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// What the clock shows: nanoseconds since some start.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// This moment, `by` later.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Time since `earlier`, zero if that is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Time since this moment.
    pub fn elapsed(self) -> Duration {
        Self::now().since(self)
    }
}

/// A wall-clock start with a monotonic one, so that a clock that is set never bends a figure.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Stopwatch {
    /// For display.
    pub started_at: Timestamp,
    /// For durations.
    pub started: Monotonic,
}

impl Stopwatch {
    /// Starts now.
    pub fn start() -> Self {
        Self { started_at: Timestamp::now(), started: Monotonic::now() }
    }
}

/// A duration in whole microseconds, the unit of every figure.
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A duration in whole milliseconds, as clients say it.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Microseconds for people: `850 µs`, `1.2 ms`, `3.45 s`, `2 min 5 s`.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub fn readable(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        1_000_000..60_000_000 => format!("{:.2} s", us as f64 / 1e6),
        _ => format!("{} min {} s", us / 60_000_000, us / 1_000_000 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_six_decimals_and_comes_back() {
        let at = Timestamp::from_micros(1_700_000_000_000_120);
        assert_eq!(at.to_string(), "2023-11-14T22:13:20.000120Z");
        assert_eq!(at.to_string().parse::<Timestamp>().unwrap(), at);
        assert_eq!(Timestamp::YEAR_ZERO.to_string(), "0000-01-01T00:00:00.000000Z");
        assert_eq!("0000-01-01T00:00:00Z".parse::<Timestamp>().unwrap(), Timestamp::YEAR_ZERO);
        let error = |text: &str| text.parse::<Timestamp>().unwrap_err();
        for other in ["yesterday", "-000001-12-31T23:59:59Z", "-009999-01-02T01:59:59Z", "9999-12-31", "9999-13-01T00:00:00Z"] {
            assert_eq!(error(other), BadTimestamp::Malformed, "{other}");
        }
        for beyond in ["0000-01-01T00:00:00+00:01", "9999-12-31T00:00:00Z", "9999-12-31T23:59:59.5-01:00"] {
            assert_eq!(error(beyond), BadTimestamp::OutOfRange, "{beyond}");
        }
        assert_eq!("9999-12-30T22:00:00Z".parse::<Timestamp>().unwrap().to_string(), "9999-12-30T22:00:00.000000Z");
    }

    #[test]
    fn a_clock_set_back_gives_zero() {
        let (early, late) = (Timestamp::from_micros(5), Timestamp::from_micros(9));
        assert_eq!(late.since(early), Duration::from_micros(4));
        assert_eq!(early.since(late), Duration::ZERO);
    }
}
