use clap::Args;
use serde_json::value::{RawValue, to_raw_value};

use crate::cli::answer::{Accepted, written};
use crate::cli::asked::{Asked, Named};
use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::options::JobOptions;
use crate::cli::parameter::{self, Described, WithWorkload};
use crate::cli::submit::{Keys, send};
use crate::cli::{events, print, table, wait};

/// `trine function run`
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  trine function run resize --args '[640, 480]' --kwargs '{\"keep\": true}'")]
pub(super) struct Run {
    #[command(flatten)]
    named: Named,
    /// Its arguments, a JSON array
    #[arg(long, value_name = "JSON", value_parser = json_value)]
    args: Option<Box<RawValue>>,
    /// Its keyword arguments, a JSON object
    #[arg(long, value_name = "JSON", value_parser = json_value)]
    kwargs: Option<Box<RawValue>>,
    /// The version, or at least 8 of its first digits; the latest by default
    #[arg(long)]
    version: Option<String>,
    /// Let it reach the network, where the server gives Python jobs that
    #[arg(long)]
    network: bool,
    #[command(flatten)]
    job: JobOptions,
    /// A name for this request: if it came before, its job is not submitted again
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Show what happens to the job, its lines of log included, while it happens
    #[arg(long)]
    follow: bool,
}

impl Run {
    /// Calls it and waits until it has ended.
    pub(super) async fn run(self) -> Result<(), CliError> {
        let Asked { server, json } = &self.named.asked;
        let client = server.client()?;
        let submission = self.submission(&client).await?;
        let mut keys = Keys::new(self.idempotency_key.clone());
        let Accepted { id, .. } = send(&client, "/jobs", &submission, &mut keys).await.map_err(CliError::about_bound)?;
        if self.follow {
            return events::follow(&client, &id, *json).await;
        }
        print::aside(format_args!("Waiting for the job {id}"));
        for ended in wait::all(&client, &[id]).await? {
            match (&ended.job.error, ended.job.succeeded()) {
                _ if *json => print::json(&ended.json)?,
                (_, true) => print::raw(written(ended.job.output.as_deref()))?,
                (Some(failure), false) => print::aside(table::traceback(failure).unwrap_or_else(|| failure.to_string())),
                (None, false) => {}
            }
            if !ended.job.succeeded() {
                return Err(CliError::Unsuccessful { failed: 1, jobs: 1 });
            }
        }
        Ok(())
    }

    async fn submission(&self, client: &Client) -> Result<WithWorkload, CliError> {
        let text = |text: &str| to_raw_value(text).map_err(|error| CliError::Usage(error.to_string()));
        let mut parameters = vec![("name".to_owned(), text(&self.named.name)?)];
        parameters.extend(self.args.clone().map(|args| ("args".to_owned(), args)));
        parameters.extend(self.kwargs.clone().map(|kwargs| ("kwargs".to_owned(), kwargs)));
        if let Some(version) = &self.version {
            parameters.push(("version".to_owned(), text(version)?));
        }
        if self.network {
            parameters.push(("network".to_owned(), RawValue::TRUE.to_owned()));
        }
        let Described { kind, json: workload } = parameter::described("function", parameters.into_iter())?;
        Ok(WithWorkload { workload, fields: self.job.fields(client, &kind).await? })
    }
}

fn json_value(text: &str) -> Result<Box<RawValue>, String> {
    serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))
}
