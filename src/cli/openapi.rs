use super::error::CliError;
use super::print;

/// Prints the document that a server has at `/openapi.json`.
pub(super) fn run() -> Result<(), CliError> {
    let document = crate::api::openapi().to_pretty_json();
    print::line(document.map_err(CliError::Json)?)
}
