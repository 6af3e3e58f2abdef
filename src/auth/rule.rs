use clap::ValueEnum;
use serde::Serialize;

/// Whether requests need a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyRule {
    /// As soon as one was made; where others than this machine can reach the server, one has to be there.
    #[default]
    Auto,
    /// Always.
    Required,
    /// Never: whoever reaches the server may do everything.
    Off,
}
