use clap::Args;
use clap::builder::PossibleValuesParser;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer::{self, Page};
use super::client::Server;
use super::error::CliError;
use super::filter::{self, Filter};
use super::human::micros;
use super::jobs;
use super::table::{self, or_dash};
use crate::job::JobId;

/// `trine results`
#[derive(Args, Debug)]
#[command(mut_arg("state", filter::ended))]
pub(super) struct Results {
    #[command(flatten)]
    server: Server,
    /// Show all of this job's result
    id: Option<JobId>,
    #[command(flatten)]
    filter: Filter,
    /// Counts and quantiles of all results instead of the results
    #[arg(long, conflicts_with_all = ["id", "error", "tag", "advice", "owner", "since", "until", "limit", "all", "oldest"])]
    summary: bool,
    /// What the summary is by
    #[arg(
        long,
        requires = "summary",
        value_name = "FIELDS",
        value_delimiter = ',',
        default_value = "workload,bound,executor",
        value_parser = PossibleValuesParser::new(["workload", "bound", "executor", "state"])
    )]
    by: Vec<String>,
    /// One JSON object a line, as the API has it
    #[arg(long)]
    json: bool,
}

/// Results that have something in common, and their figures.
#[derive(Deserialize)]
struct Group {
    workload: Option<String>,
    bound: Option<String>,
    executor: Option<String>,
    state: Option<String>,
    count: u64,
    queue_us: Option<Quantiles>,
    wall_us: Option<Quantiles>,
    cpu_us: Option<Quantiles>,
}

#[derive(Deserialize)]
struct Quantiles {
    p50: u64,
    p90: u64,
    p99: u64,
}

impl Results {
    pub(super) async fn run(self) -> Result<(), CliError> {
        if !self.summary {
            return jobs::show(&self.server, "/results", self.id, &self.filter, self.json, |jobs| table::results(jobs)).await;
        }
        let query = self.filter.of_summary(&self.by);
        let page: Page<Box<RawValue>> = self.server.client()?.get("/results/summary", &query).await?;
        answer::show(&page.items, self.json, |groups: Vec<Group>| self.in_table(&groups))
    }

    fn in_table(&self, groups: &[Group]) -> String {
        let mut columns: Vec<_> = self.by.iter().map(|name| (name.as_str(), false)).collect();
        columns.extend(
            ["count", "queue p50", "p90", "p99", "wall p50", "p90", "p99", "cpu p50", "p90", "p99"].map(|name| (name, true)),
        );
        let row = |group: &Group| {
            let mut row: Vec<String> = self.by.iter().map(|name| or_dash(group.field(name))).collect();
            row.push(group.count.to_string());
            row.extend([group.queue_us.as_ref(), group.wall_us.as_ref(), group.cpu_us.as_ref()].into_iter().flat_map(in_words));
            row
        };
        table::table(&columns, groups.iter().map(row))
    }
}

impl Group {
    fn field(&self, name: &str) -> Option<String> {
        match name {
            "workload" => self.workload.clone(),
            "bound" => self.bound.clone(),
            "executor" => self.executor.clone(),
            _ => self.state.clone(),
        }
    }
}

fn in_words(quantiles: Option<&Quantiles>) -> [String; 3] {
    let figure = |figure: fn(&Quantiles) -> u64| or_dash(quantiles.map(|quantiles| micros(figure(quantiles))));
    [figure(|quantiles| quantiles.p50), figure(|quantiles| quantiles.p90), figure(|quantiles| quantiles.p99)]
}
