use std::time::Duration;

use clap::Args;
use clap::builder::PossibleValuesParser;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};

use crate::cli::answer::{Accepted, written};
use crate::cli::asked::{Asked, Named};
use crate::cli::error::CliError;
use crate::cli::parameter::{self, WithWorkload};
use crate::cli::{events, human, print, table, wait};
use crate::job::{Bound, Executor};

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
    /// Whether it mostly waits or computes; as it was declared by default
    #[arg(long, value_parser = PossibleValuesParser::new(Bound::ALL.map(Bound::as_str)))]
    bound: Option<String>,
    /// Run it here, whatever was declared and the router thinks
    #[arg(long, value_parser = PossibleValuesParser::new(Executor::ALL.map(Executor::as_str)))]
    executor: Option<String>,
    /// The longest that an attempt may run, such as 30s
    #[arg(long, value_name = "TIME", value_parser = human::duration)]
    deadline: Option<Duration>,
    /// Show what happens to the job, its lines of log included, while it happens
    #[arg(long)]
    follow: bool,
}

impl Run {
    /// Calls it and waits until it has ended.
    pub(super) async fn run(self) -> Result<(), CliError> {
        let Asked { server, json } = &self.named.asked;
        let client = server.client()?;
        let Accepted { id, .. } = client.post("/jobs", &self.submission()?).await.map_err(CliError::about_bound)?;
        if self.follow {
            return events::follow(&client, &id, *json).await;
        }
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

    fn submission(&self) -> Result<WithWorkload, CliError> {
        let text = |text: &str| to_raw_value(text).map_err(|error| CliError::Usage(error.to_string()));
        let mut parameters = vec![("name".to_owned(), text(&self.named.name)?)];
        parameters.extend(self.args.clone().map(|args| ("args".to_owned(), args)));
        parameters.extend(self.kwargs.clone().map(|kwargs| ("kwargs".to_owned(), kwargs)));
        if let Some(version) = &self.version {
            parameters.push(("version".to_owned(), text(version)?));
        }
        let given: [(&str, Option<Value>); 3] = [
            ("bound", self.bound.clone().map(Value::from)),
            ("executor", self.executor.clone().map(Value::from)),
            ("deadline_ms", self.deadline.map(|deadline| json!(deadline.as_millis().max(1)))),
        ];
        let fields: Map<_, _> = given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
        Ok(WithWorkload { workload: parameter::described("function", parameters.into_iter())?.json, fields })
    }
}

fn json_value(text: &str) -> Result<Box<RawValue>, String> {
    serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))
}
