//! What is said of a job beside its workload, by whichever command submits it.

use std::time::Duration;

use clap::Args;
use clap::builder::PossibleValuesParser;
use serde_json::{Map, Value, json};

use super::answer::{Page, Workload};
use super::client::Client;
use super::error::CliError;
use super::human;
use super::parameter::{concurrency, labels, rate, tag};
use crate::job::{Bound, Executor, Retry, Routing};

/// What the commands that submit a job have in common.
#[derive(Args, Debug)]
pub(super) struct JobOptions {
    /// Whether it mostly waits or computes [default: the workload's own tag; of a function what it was deployed with]
    #[arg(long, value_parser = PossibleValuesParser::new(Bound::ALL.map(Bound::as_str)))]
    bound: Option<String>,
    /// Run it here, whatever a function was deployed with and the router thinks; auto leaves it to the router
    #[arg(long, value_parser = choice())]
    executor: Option<String>,
    /// Run it where its crash hurts nobody else: in a worker process
    #[arg(long)]
    isolated: bool,
    /// What the choice of the executor goes by [default: the server's setting]
    #[arg(long, value_enum)]
    routing: Option<Routing>,
    /// From -100 to 100; higher runs first
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    priority: Option<i16>,
    /// The longest that an attempt may run, such as 30s
    #[arg(long, value_name = "TIME", value_parser = human::some_duration)]
    deadline: Option<Duration>,
    /// How many times it is tried again after a failure
    #[arg(long, value_name = "N")]
    retries: Option<u32>,
    /// The wait before it is tried again, such as 1s; twice as long each further time, up to a minute
    #[arg(long, value_name = "TIME", value_parser = human::duration, requires = "retries")]
    backoff: Option<Duration>,
    /// After which failures it is tried again, separated by commas [default: all of them]
    #[arg(long, value_name = "KINDS", value_delimiter = ',', requires = "retries",
        value_parser = PossibleValuesParser::new(["error", "timeout", "panic", "lost"]))]
    retry_on: Option<Vec<String>>,
    /// A free label; may be repeated
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = tag)]
    tags: Vec<(String, String)>,
    /// Where to post a signed message when the job has ended
    #[arg(long, value_name = "URL")]
    webhook: Option<String>,
    /// Not to be started for so long, such as 10m
    #[arg(long, value_name = "TIME", value_parser = human::duration)]
    delay: Option<Duration>,
    /// At most so many jobs with this key run at once, as in customer-7=3
    #[arg(long, value_name = "KEY=LIMIT", value_parser = concurrency)]
    concurrency: Option<Value>,
    /// At most so many jobs with this key start in a time, as in api.example.org=10/1s
    #[arg(long, value_name = "KEY=LIMIT/TIME", value_parser = rate)]
    rate: Option<Value>,
    /// A label that a node must have to run it, as in gpu=a100; may be repeated
    #[arg(long = "require", value_name = "NAME=VALUE", value_parser = tag)]
    requires: Vec<(String, String)>,
}

impl JobOptions {
    /// The fields of a submission of such a workload.
    pub(super) async fn fields(&self, client: &Client, kind: &str) -> Result<Map<String, Value>, CliError> {
        let given = [
            ("executor", self.executor.clone().map(Value::from)),
            ("isolated", self.isolated.then_some(Value::Bool(true))),
            ("routing", self.routing.map(|routing| routing.as_str().into())),
            ("priority", self.priority.map(Value::from)),
            ("deadline_ms", self.deadline.map(|deadline| json!(deadline.as_millis()))),
            ("retry", self.retry()),
            ("webhook", self.webhook.as_ref().map(|url| json!({ "url": url }))),
            ("delay_ms", self.delay.map(|delay| json!(delay.as_millis()))),
            ("concurrency", self.concurrency.clone()),
            ("rate", self.rate.clone()),
            ("requires", labels("--require", &self.requires)?),
            ("tags", labels("--tag", &self.tags)?),
        ];
        let mut fields: Map<_, _> = given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
        fields.extend(bound(client, self.bound.as_deref(), kind).await?);
        Ok(fields)
    }

    /// When a failed attempt is followed by another, if it is.
    fn retry(&self) -> Option<Value> {
        let mut retry = Map::new();
        retry.insert("attempts".into(), self.retries?.saturating_add(1).into());
        if let Some(backoff) = self.backoff {
            let (backoff_ms, least) = (backoff.as_millis(), u128::from(Retry::default().max_backoff_ms));
            retry.insert("backoff_ms".into(), json!(backoff_ms));
            retry.insert("max_backoff_ms".into(), json!(backoff_ms.max(least)));
        }
        retry.extend(self.retry_on.as_ref().map(|kinds| ("on".into(), json!(kinds))));
        Some(retry.into())
    }
}

/// Reads the name of an executor, or `auto`.
pub(super) fn choice() -> PossibleValuesParser {
    PossibleValuesParser::new(["auto"].into_iter().chain(Executor::ALL.map(Executor::as_str)))
}

/// The field `bound`: as it was said, or as the server has it for such a workload. What a function is, was declared when it was deployed.
pub(super) async fn bound(client: &Client, said: Option<&str>, kind: &str) -> Result<Option<(String, Value)>, CliError> {
    let field = |bound: &str| Some(("bound".to_owned(), bound.into()));
    if said.is_some() || kind == "function" {
        return Ok(said.and_then(field));
    }
    let workloads: Page<Workload> = client.get("/workloads", &()).await?;
    let known = workloads.items.iter().find(|workload| *kind == workload.name);
    known.map(|workload| field(&workload.bound)).ok_or_else(|| {
        let names: Vec<_> = workloads.items.iter().map(|workload| workload.name.as_str()).collect();
        CliError::NotThere(format!("the server has no workload {kind:?}; there are {}", names.join(", ")))
    })
}
