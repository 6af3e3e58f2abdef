use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use uuid::{ContextV7, Uuid};

use crate::clock::Timestamp;

/// A text is no id.
#[derive(Debug, thiserror::Error)]
#[error("an id has 36 characters, such as 01997d3e-8c00-7000-8000-000000000000")]
pub struct BadId;

macro_rules! ids {
    ($($(#[$about:meta])* $id:ident;)*) => {$(
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $id(Uuid);

        impl $id {
            /// A new id, later than every id that this process made before.
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// The 16 bytes, in the order in which ids sort.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// From the 16 bytes of an id of this kind.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }
        }

        impl Default for $id {
            fn default() -> Self {
                Self::new()
            }
        }

        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl<'de> Deserialize<'de> for $id {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Uuid::deserialize(deserializer).map(Self).map_err(|_| D::Error::custom(BadId))
            }
        }

        impl FromStr for $id {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                text.parse().map(Self).map_err(|_| BadId)
            }
        }
    )*};
}

ids! {
    /// The name of a job: a UUID of version 7, so that ids sort by the time of acceptance.
    JobId;
    /// The name of a comparison, likewise.
    ComparisonId;
}

/// Gives jobs their ids.
#[derive(Debug, Default)]
pub struct JobIds(Mutex<ContextV7>);

impl JobIds {
    /// So many ids of jobs that are accepted now, by the clock of the store: each later than all that were given before, also if that is set back.
    pub fn some(&self, count: usize, now: Timestamp) -> Vec<JobId> {
        let context = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let micros = u64::try_from(now.as_micros()).unwrap_or(0);
        let nanos = u32::try_from(micros % 1_000_000).unwrap_or(0) * 1_000;
        let one = |_| JobId(Uuid::new_v7(uuid::Timestamp::from_unix(&*context, micros / 1_000_000, nanos)));
        (0..count).map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_of_their_time_and_never_go_back() {
        let (ids, now) = (JobIds::default(), Timestamp::from_micros(1_700_000_000_123_456));
        let mut all = ids.some(1_000, now);
        let millis = |id: &JobId| {
            id.0.get_timestamp().map(|at| at.to_unix()).map(|(seconds, nanos)| seconds * 1_000 + u64::from(nanos) / 1_000_000)
        };
        assert_eq!(all.first().and_then(millis), Some(1_700_000_000_123));
        all.extend(ids.some(1_000, Timestamp::from_micros(1_600_000_000_000_000)));
        all.extend(ids.some(1_000, Timestamp::from_micros(1_700_000_001_000_000)));
        assert_eq!(all.last().and_then(millis), Some(1_700_000_001_000));
        assert!(all.is_sorted_by(|one, next| one < next));
    }
}
