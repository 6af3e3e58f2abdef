use std::time::Duration;

use serde_json::Value;

use super::client::Server;
use super::error::CliError;
use super::print;

/// Longer than this, and the server is not well.
const PATIENCE: Duration = Duration::from_secs(4);

#[derive(clap::Args)]
pub(super) struct Health {
    #[command(flatten)]
    server: Server,
}

impl Health {
    /// Asks the server whether it can take work.
    pub(super) async fn run(self) -> Result<(), CliError> {
        let client = self.server.client()?;
        match tokio::time::timeout(PATIENCE, client.get::<Value>("/readyz", &())).await {
            Ok(answer) => answer.map(drop)?,
            Err(_) => return Err(client.silent(PATIENCE)),
        }
        print::line("ready")
    }
}
