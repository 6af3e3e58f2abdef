//! The names of values, as [`fmt::Display`] writes them and [`FromStr`] reads some of them.

use std::fmt;
use std::str::FromStr;

use super::{Bound, Ending, EventKind, Executor, FailureKind, FindingKind, Queue, Rule};

/// The text names none of the values.
#[derive(Debug, thiserror::Error)]
#[error("unknown name")]
pub struct UnknownName;

macro_rules! shown {
    ($($kind:ty),*) => {$(
        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )*};
}

macro_rules! read {
    ($($kind:ty),*) => {$(
        impl FromStr for $kind {
            type Err = UnknownName;

            fn from_str(text: &str) -> Result<Self, UnknownName> {
                Self::ALL.into_iter().find(|value| value.as_str() == text).ok_or(UnknownName)
            }
        }
    )*};
}

shown!(Bound, Ending, EventKind, Executor, FailureKind, FindingKind, Queue, Rule);
read!(Ending, EventKind, Queue);
