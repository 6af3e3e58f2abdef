//! Limits that jobs share by a key: how many run at once, and how many start in a time.

use serde::{Deserialize, Serialize};

/// At most so many jobs with this key run at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Concurrency {
    /// What the limit is for: a customer, a target. As JSON, both keys and what is in `requires` have 2,500 bytes at the most.
    #[schema(min_length = 1, max_length = 200)]
    pub key: String,
    /// How many may run at once, whatever their executors.
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub limit: u32,
}

/// At most so many jobs with this key start within any period.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// What the limit is for. Keys of `rate` have nothing to do with those of `concurrency`.
    #[schema(min_length = 1, max_length = 200)]
    pub key: String,
    /// How many may start.
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub limit: u32,
    /// The period, in milliseconds.
    #[schema(minimum = 1, maximum = 86_400_000)]
    pub per_ms: u64,
}
