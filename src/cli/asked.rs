use clap::Args;

use super::client::Server;

/// Which server is asked, and how its answer is shown.
#[derive(Args, Debug)]
pub(super) struct Asked {
    #[command(flatten)]
    pub(super) server: Server,
    /// One JSON object a line, as the API has it
    #[arg(long)]
    pub(super) json: bool,
}

/// What is asked of one thing.
#[derive(Args, Debug)]
pub(super) struct Named {
    #[command(flatten)]
    pub(super) asked: Asked,
    /// Its name
    pub(super) name: String,
}
