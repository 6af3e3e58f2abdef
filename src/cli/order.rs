use clap::Args;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer::parse;
use super::client::{Client, Server};
use super::error::CliError;
use super::print;
use crate::job::JobId;

/// Jobs to do something with.
#[derive(Args, Debug)]
pub(super) struct Order {
    #[command(flatten)]
    server: Server,
    /// Ids of the jobs
    #[arg(required = true, value_name = "ID")]
    ids: Vec<JobId>,
    /// One JSON object a line, as the API has it
    #[arg(long)]
    json: bool,
}

/// What the server says of a job that it did something with.
#[derive(Deserialize)]
struct Done {
    state: String,
}

impl Order {
    /// Does it with one job after the other. A refusal does not hold up the jobs behind it.
    pub(super) async fn run(
        self,
        act: impl AsyncFn(&Client, JobId) -> Result<Box<RawValue>, CliError>,
        in_words: fn(&str) -> &str,
    ) -> Result<(), CliError> {
        let client = self.server.client()?;
        let mut refused = 0;
        for &id in &self.ids {
            match act(&client, id).await {
                Ok(job) if self.json => print::json(&job)?,
                Ok(job) => {
                    let Done { state } = parse(&job)?;
                    print::line(format_args!("{id}  {}", in_words(&state)))?;
                }
                Err(CliError::Refused(problem)) => {
                    eprintln!("{id}  {problem}");
                    refused += 1;
                }
                Err(error) => return Err(error),
            }
        }
        if refused == 0 { Ok(()) } else { Err(CliError::Refusals { refused, jobs: self.ids.len() }) }
    }
}
