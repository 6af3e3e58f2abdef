use clap::Args;
use clap::builder::PossibleValuesParser;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::{Client, Server};
use super::error::CliError;
use super::filter::Filter;
use super::human::micros;
use super::{jobs, print, table};
use crate::job::JobId;

/// `trine results`
#[derive(Args, Debug)]
pub(super) struct Results {
    #[command(flatten)]
    server: Server,
    /// Show all of this job's result
    id: Option<JobId>,
    #[command(flatten)]
    filter: Filter,
    /// Counts and quantiles of all results instead of the results
    #[arg(long, conflicts_with = "id")]
    summary: bool,
    /// What the summary is by
    #[arg(
        long,
        requires = "summary",
        value_name = "FIELDS",
        value_delimiter = ',',
        default_value = "workload,executor",
        value_parser = PossibleValuesParser::new(["workload", "bound", "executor"])
    )]
    by: Vec<String>,
    /// One JSON object a line, as the API has it
    #[arg(long)]
    json: bool,
}
