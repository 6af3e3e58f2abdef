use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A text is no id.
#[derive(Debug, thiserror::Error)]
#[error("an id has 36 characters, such as 01997d3e-8c00-7000-8000-000000000000")]
pub struct BadId;

macro_rules! ids {
    ($($(#[$about:meta])* $id:ident;)*) => {$(
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
