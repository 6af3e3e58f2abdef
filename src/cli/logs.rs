use clap::Args;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer::parse;
use super::client::Server;
use super::error::CliError;
use super::print;
use super::stream::Events;
use crate::job::JobId;

/// `trine logs`
#[derive(Args, Debug)]
pub(super) struct Logs {
    #[command(flatten)]
    server: Server,
    /// Id of the job
    id: JobId,
    /// Go on with lines as they are written, until the job has ended
    #[arg(long, short)]
    follow: bool,
    /// One JSON object a line, as the API has it
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Line {
    line: String,
}

impl Logs {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let client = self.server.client()?;
        if self.follow {
            let mut events = Events::new(&client, format!("/jobs/{}/events", self.id), [("kinds", "log")]);
            // The server says when there are no more: a job that was run again has ended several times.
            while let Some(sent) = events.next().await? {
                self.show(&sent.data)?;
            }
            return Ok(());
        }
        let each = |item: Box<RawValue>| self.show(&item);
        client.list(&format!("/jobs/{}/logs", self.id), &(), usize::MAX, each).await.map(drop)
    }

    fn show(&self, item: &RawValue) -> Result<(), CliError> {
        if self.json { print::json(item) } else { print::raw(&parse::<Line>(item)?.line) }
    }
}
