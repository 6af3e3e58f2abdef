use serde::{Deserialize, Serialize};

use super::{Executor, Observed};

/// What the choice of an executor goes by, where the client does not insist on one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Routing {
    /// The tag alone.
    Declared,
    /// The tag; the route says what measurement would have chosen.
    #[default]
    Advise,
    /// What was measured of earlier runs, once there are enough of them; the tag until then.
    Measured,
}

impl Routing {
    /// The name that the API uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Declared => "declared",
            Self::Advise => "advise",
            Self::Measured => "measured",
        }
    }
}

/// What was measured of earlier runs, where it has a say in a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Evidence {
    /// How many runs it rests on.
    pub runs: u64,
    /// What they turned out to be; null if they are too few to tell, or do not agree.
    #[schema(required)]
    pub observed: Option<Observed>,
    /// Their share of a core while they could run, in percent.
    pub cpu_percent: u8,
    /// Their usual wall time, in microseconds.
    pub wall_us: u64,
    /// The longest that one of them held the event loop, if they are known for it, in microseconds.
    pub held_us: Option<u64>,
    /// The executor that measured routing chooses.
    pub executor: Executor,
    /// Whether most of the latest runs there have failed, so that it does not choose it but leaves the work to its tag.
    #[serde(default)]
    #[schema(required)]
    pub failing: bool,
}
