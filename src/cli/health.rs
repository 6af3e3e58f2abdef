use std::time::Duration;

use serde_json::value::RawValue;

use super::asked::Asked;
use super::error::CliError;
use super::print;

/// Longer than this, and the server is not well.
const PATIENCE: Duration = Duration::from_secs(4);

/// Asks the server whether it can take work.
pub(super) async fn run(asked: &Asked) -> Result<(), CliError> {
    let client = asked.server.client()?;
    let answer: Box<RawValue> = match tokio::time::timeout(PATIENCE, client.get("/readyz", &())).await {
        Ok(answer) => answer?,
        Err(_) => return Err(client.silent(PATIENCE)),
    };
    if asked.json { print::json(&answer) } else { print::line("ready") }
}
