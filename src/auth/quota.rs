use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The largest number that a quota may have.
const MOST: u64 = 1 << 50;

/// How much a key may have the server do. What is not said is as the server's settings have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(default)]
pub struct Quota {
    /// How many jobs and comparisons may wait at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1_125_899_906_842_624_u64)]
    pub queued: Option<u64>,
    /// How many jobs may run at once; the others wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub running: Option<u32>,
    /// How many jobs and comparisons may be submitted in a minute: all at once, or one after the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1_000_000_000)]
    pub per_minute: Option<u32>,
    /// How many bytes the workloads of all that waits may have together.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1_125_899_906_842_624_u64)]
    pub bytes: Option<u64>,
}

/// A part of a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaPart {
    /// What waits.
    Queued,
    /// What is submitted in a minute.
    PerMinute,
    /// The bytes of what waits.
    Bytes,
    /// How many schedules there are.
    Schedules,
}

impl Quota {
    /// The same, with what `defaults` say where this says nothing.
    #[must_use]
    pub fn or(self, defaults: Self) -> Self {
        Self {
            queued: self.queued.or(defaults.queued),
            running: self.running.or(defaults.running),
            per_minute: self.per_minute.or(defaults.per_minute),
            bytes: self.bytes.or(defaults.bytes),
        }
    }

    /// Whether it says nothing.
    pub fn is_none(self) -> bool {
        self == Self::default()
    }

    /// The first part that is not a number that it may be, and why.
    pub fn fault(self) -> Option<(&'static str, String)> {
        let number = |name, value: Option<u64>, most: u64| {
            value.filter(|value| !(1..=most).contains(value)).map(|_| (name, format!("must be 1 to {most}")))
        };
        number("queued", self.queued, MOST)
            .or_else(|| number("running", self.running.map(u64::from), 1_000_000))
            .or_else(|| number("per_minute", self.per_minute.map(u64::from), 1_000_000_000))
            .or_else(|| number("bytes", self.bytes, MOST))
    }
}

impl fmt::Display for QuotaPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queued => "queued",
            Self::PerMinute => "per_minute",
            Self::Bytes => "bytes",
            Self::Schedules => "schedules",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_as_the_settings_have_it() {
        let own = Quota { queued: Some(3), ..Quota::default() };
        let defaults = Quota { queued: Some(10), bytes: Some(7), ..Quota::default() };
        assert_eq!(own.or(defaults), Quota { queued: Some(3), bytes: Some(7), ..Quota::default() });
        assert!(Quota::default().is_none() && !own.is_none());
        assert_eq!(own.fault(), None);
        assert_eq!(Quota { running: Some(0), ..own }.fault().unwrap().0, "running");
        assert_eq!(Quota { bytes: Some(u64::MAX), ..own }.fault().unwrap().0, "bytes");
    }
}
