use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::answer::parse;
use super::client::{Client, Server};
use super::error::CliError;
use super::filter::Conditions;
use super::print;
use crate::job::JobId;

/// Jobs to do something with.
#[derive(Args, Debug)]
pub(super) struct Order {
    #[command(flatten)]
    server: Server,
    /// Ids of the jobs; or else conditions, for every job that passes all of them
    #[arg(value_name = "ID")]
    ids: Vec<JobId>,
    #[command(flatten)]
    conditions: Conditions,
    /// Every job
    #[arg(long)]
    all: bool,
    /// One JSON object a line, as the API has it
    #[arg(long)]
    json: bool,
}

/// What the server says of a job that it did something with.
#[derive(Deserialize)]
struct Done {
    state: String,
}

/// Which jobs, as the API wants to know it.
#[derive(Serialize)]
struct Which<'a> {
    #[serde(flatten)]
    conditions: &'a Conditions,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    all: bool,
}

impl Order {
    /// Does it with one job after the other, or at `path` with all that pass the conditions. A refusal does not hold up the jobs behind it.
    pub(super) async fn run(
        self,
        act: impl AsyncFn(&Client, JobId) -> Result<Box<RawValue>, CliError>,
        in_words: fn(&str) -> &str,
        path: &str,
        counted: fn(&RawValue) -> Result<String, CliError>,
    ) -> Result<(), CliError> {
        let by_condition = self.all || self.conditions.any();
        match (self.ids.is_empty(), by_condition) {
            (true, false) => return Err(CliError::Usage("name jobs by their ids, or by conditions such as --state".into())),
            (false, true) => return Err(CliError::Usage("name jobs by their ids or by conditions, not by both".into())),
            _ => {}
        }
        let client = self.server.client()?;
        if by_condition {
            let which = Which { conditions: &self.conditions, all: self.all };
            let count: Box<RawValue> = client.post(path, &which).await?;
            return if self.json { print::json(&count) } else { print::line(counted(&count)?) };
        }
        let mut refused = 0;
        for &id in &self.ids {
            match act(&client, id).await {
                Ok(job) if self.json => print::json(&job)?,
                Ok(job) => {
                    let Done { state } = parse(&job)?;
                    print::line(format_args!("{id}  {}", in_words(&state)))?;
                }
                Err(CliError::Refused(problem)) => {
                    print::aside(format_args!("{id}  {problem}"));
                    refused += 1;
                }
                Err(error) => return Err(error),
            }
        }
        if refused == 0 { Ok(()) } else { Err(CliError::Refusals { refused, jobs: self.ids.len() }) }
    }
}
