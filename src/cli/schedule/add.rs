use clap::{ArgGroup, Args};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{path, show_one};
use crate::cli::asked::Asked;
use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::options::JobOptions;
use crate::cli::parameter::{self, WithWorkload, parameter};

/// `trine schedule add`
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("what").required(true).args(["kind", "job"]), after_help = EXAMPLES)]
pub(super) struct Add {
    #[command(flatten)]
    asked: Asked,
    /// By what it is to be known
    name: String,
    /// When it is due, as a cron expression of five fields, or of six with the seconds first
    cron: String,
    /// What to run, such as primes or http
    #[arg(value_name = "WORKLOAD")]
    kind: Option<String>,
    /// Its parameters; a value that can be read as JSON is that (ms=5, headers='{"a": "b"}', text='"5"'), any other is text
    #[arg(value_name = "KEY=VALUE", value_parser = parameter, requires = "kind")]
    parameters: Vec<(String, Box<RawValue>)>,
    #[command(flatten)]
    options: JobOptions,
    /// The whole submission as JSON
    #[arg(long, value_name = "JSON", conflicts_with = "JobOptions")]
    job: Option<String>,
    /// The time zone in which the expression is read
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    timezone: String,
    /// What becomes of times that were missed while no server ran
    #[arg(long, value_parser = ["skip", "once", "all"], default_value = "skip")]
    catch_up: String,
    /// What becomes of a time at which a job of the schedule has not ended yet
    #[arg(long, value_parser = ["allow", "skip", "queue"], default_value = "allow")]
    overlap: String,
    /// Replace the schedule of this name, if there is one
    #[arg(long)]
    replace: bool,
}

const EXAMPLES: &str = "\
Examples:
  trine schedule add nightly '0 3 * * *' http url=https://example.com/ --timezone Europe/Paris --catch-up once
  trine schedule add pulse '*/10 * * * * *' sleep ms=100 --overlap skip
  trine schedule add report '0 9 * * MON' --job '{\"workload\": {\"type\": \"function\", \"name\": \"report\"}}'";

impl Add {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let client = self.asked.server.client()?;
        let job = self.job(&client).await?;
        let Self { name, cron, timezone, catch_up, overlap, .. } = &self;
        let schedule = json(&NewSchedule { name, cron, timezone, catch_up, overlap, job })?;
        let answer: Box<RawValue> = if self.replace {
            client.put(&path(name), &(), "application/json", String::from(Box::<str>::from(schedule)).into()).await?
        } else {
            client.post("/schedules", &schedule).await?
        };
        show_one(&answer, self.asked.json)
    }

    /// The submission that the command line describes.
    async fn job(&self, client: &Client) -> Result<Box<RawValue>, CliError> {
        if let Some(text) = &self.job {
            return parameter::raw("--job", text);
        }
        let workload = parameter::workload(self.kind.as_deref(), &self.parameters, None)?;
        let fields = self.options.fields(client, &workload.kind).await?;
        json(&WithWorkload { workload: workload.json, fields })
    }
}

fn json(value: &impl Serialize) -> Result<Box<RawValue>, CliError> {
    to_raw_value(value).map_err(|error| CliError::Usage(error.to_string()))
}

/// What is sent.
#[derive(Serialize)]
struct NewSchedule<'a> {
    name: &'a str,
    cron: &'a str,
    timezone: &'a str,
    catch_up: &'a str,
    overlap: &'a str,
    job: Box<RawValue>,
}
