use clap::Args;
use serde_json::value::RawValue;

use super::answer::Job;
use super::client::Server;
use super::error::CliError;
use super::filter::Filter;
use super::{print, table};
use crate::job::JobId;

/// `trine jobs`
#[derive(Args, Debug)]
pub(super) struct Jobs {
    #[command(flatten)]
    server: Server,
    /// Show all of this job
    id: Option<JobId>,
    #[command(flatten)]
    filter: Filter,
    /// One JSON object a line, as the API has it
    #[arg(long)]
    json: bool,
}

impl Jobs {
    pub(super) async fn run(self) -> Result<(), CliError> {
        show(&self.server, "/jobs", self.id, &self.filter, self.json, |jobs| table::jobs(jobs)).await
    }
}

/// Shows the list at `path`, or one item of it.
pub(super) async fn show(
    server: &Server,
    path: &str,
    id: Option<JobId>,
    filter: &Filter,
    json: bool,
    table: fn(&[Job]) -> String,
) -> Result<(), CliError> {
    let client = server.client()?;
    match (id, json) {
        (Some(id), true) => print::json(&client.get::<Box<RawValue>>(&format!("{path}/{id}"), &()).await?),
        (Some(id), false) => print::line(table::details(&client.get(&format!("{path}/{id}"), &()).await?)),
        (None, true) => filter.fetch(&client, path, |item: Box<RawValue>| print::json(&item)).await.map(drop),
        (None, false) => {
            let mut jobs = Vec::new();
            let more = filter
                .fetch(&client, path, |job: Job| {
                    jobs.push(job);
                    Ok(())
                })
                .await?;
            print::line(table(&jobs))?;
            if more {
                print::aside("There are more: see --limit and --all.");
            }
            Ok(())
        }
    }
}
