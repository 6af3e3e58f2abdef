use std::fmt::Display;
use std::io::{Write, stdout};

use serde_json::value::RawValue;

use super::error::CliError;

/// Prints a line of output. Unlike `println!` it does not panic when nobody reads it.
pub(super) fn line(text: impl Display) -> Result<(), CliError> {
    writeln!(stdout().lock(), "{text}").map_err(CliError::Output)
}

/// Prints JSON on one line. The server keeps a workload as it was sent; line breaks in it stand between values, never within.
pub(super) fn json(json: &RawValue) -> Result<(), CliError> {
    line(json.get().replace(['\n', '\r'], " "))
}
