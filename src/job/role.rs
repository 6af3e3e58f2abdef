use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What a server does, of those that share a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It answers requests and runs jobs.
    #[default]
    All,
    /// It answers requests, and runs nothing.
    Api,
    /// It runs jobs. Of requests, it answers those of whoever watches over it.
    Work,
}

impl Role {
    /// The name that the API uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Api => "api",
            Self::Work => "work",
        }
    }

    /// Whether it runs jobs.
    pub const fn works(self) -> bool {
        !matches!(self, Self::Api)
    }
}
