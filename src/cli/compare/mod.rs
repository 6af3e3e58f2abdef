//! `trine compare`: one workload on all executors, or the guide's claims on this machine.

mod claims;
mod guide;
mod terminal;

use std::cell::RefCell;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{ArgPredicate, PossibleValuesParser};
use clap::{ArgGroup, Args};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Url;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::answer::parse;
use super::client::{Access, Client, USUAL_SERVER, segment, server_url};
use super::error::CliError;
use super::options::bound;
use super::parameter::{Described, WithWorkload, parameter, workload};
use super::temporary::Folder;
use super::{human, print, temporary};
use crate::comparison::report::Report;
use crate::config::{Settings, Sources};
use crate::job::{Bound, Executor};
use crate::own;

/// `trine compare`
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("what").required(true).args(["kind", "workload", "guide", "cancel"]), after_help = EXAMPLES)]
pub(super) struct Compare {
    /// URL of a running server; without it, one is started for as long as it takes
    #[arg(long = "server", env = "TRINE_SERVER", value_name = "URL", value_parser = server_url,
        default_value_if("cancel", ArgPredicate::IsPresent, USUAL_SERVER))]
    server: Option<Url>,
    #[command(flatten)]
    access: Access,
    /// What to run, such as primes or http
    #[arg(value_name = "WORKLOAD")]
    kind: Option<String>,
    /// Its parameters; a value that can be read as JSON is that (ms=5, headers='{"a": "b"}', text='"5"'), any other is text
    #[arg(value_name = "KEY=VALUE", value_parser = parameter, requires = "kind")]
    parameters: Vec<(String, Box<RawValue>)>,
    /// What to run with its parameters, as a JSON object with a `type`
    #[arg(long, value_name = "JSON")]
    workload: Option<String>,
    /// Run work that waits and work that computes, native and Python, and hold what the guide says about it against the figures
    #[arg(long, conflicts_with_all = ["bound", "tasks", "concurrency", "executors", "interpreters", "budget", "html"])]
    guide: bool,
    /// End the comparison with this id, which waits or runs on a server, that of other commands if none is named, or remove it if it has
    /// ended; `GET /comparisons` lists them
    #[arg(long, value_name = "ID",
        conflicts_with_all = ["bound", "tasks", "concurrency", "executors", "interpreters", "budget", "html"])]
    cancel: Option<String>,
    /// Whether it mostly waits or computes [default: the workload's own tag]
    #[arg(long, value_parser = PossibleValuesParser::new(Bound::ALL.map(Bound::as_str)))]
    bound: Option<String>,
    /// Tasks in each cell of the matrix, each time it is run, at the most
    #[arg(long, value_name = "N")]
    tasks: Option<u32>,
    /// How many of them are under way at once; a row for each
    #[arg(long, value_name = "LEVELS", value_delimiter = ',')]
    concurrency: Option<Vec<u32>>,
    /// Where to run it
    #[arg(long, value_name = "EXECUTORS", value_delimiter = ',', value_parser = PossibleValuesParser::new(Executor::ALL.map(Executor::as_str)))]
    executors: Option<Vec<String>>,
    /// The interpreters of a Python workload, by name
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    interpreters: Option<Vec<String>>,
    /// How long it may take, such as 30s
    #[arg(long, value_name = "TIME", value_parser = human::duration)]
    budget: Option<Duration>,
    /// One JSON object, as the API has it; with --guide the claims and the comparisons behind them
    #[arg(long)]
    json: bool,
    /// Write the report to this file, as a page that stands alone
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

const EXAMPLES: &str = "\
Examples:
  trine compare primes below=300000 --concurrency 1,2,4
  trine compare sleep ms=20 --concurrency 1,16,64 --html report.html
  trine compare --workload '{\"type\": \"python\", \"source\": \"def main():\\n    sum(range(10**6))\\n\"}' --budget 1m
  trine compare --guide
  trine compare --cancel 01997d3e-8c00-7000-8000-000000000000

Ctrl-C ends the comparison, also one that a running server was asked for. The settings below are those of the server that is started if no --server is named.";

/// How long a server may take to hear that a comparison is not wanted any more.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// A comparison, as far as it is read here.
#[derive(Deserialize)]
pub(super) struct Comparison {
    id: String,
    state: String,
    error: Option<String>,
    workload: Value,
    bound: Bound,
    progress: Option<Progress>,
}

#[derive(Deserialize)]
struct Progress {
    percent: f64,
    doing: String,
}

/// A comparison that has finished.
struct Finished {
    head: Comparison,
    report: Report,
    json: Box<RawValue>,
}

impl Compare {
    pub(super) async fn run(self, sources: &Sources, folder: &mut Folder) -> Result<(), CliError> {
        // What is known to be wrong without a server starts none.
        if self.kind.is_some() || self.workload.is_some() {
            self.described()?;
        }
        if let Some(url) = &self.server {
            let client = self.access.client(url)?;
            return self.ask(client).await;
        }
        own::keep_private();
        let config = temporary::prepare(self.settings.clone().in_force(), sources, folder)?;
        temporary::with_server(config, |client| self.ask(client)).await
    }

    async fn ask(self, client: Client) -> Result<(), CliError> {
        let (runner, is_temporary) = (Runner { client, under_way: RefCell::default() }, self.server.is_none());
        tokio::select! {
            outcome = self.answer(&runner) => outcome.inspect_err(|_| if !is_temporary { runner.leave() }),
            // A server would go on for minutes, for nobody.
            Ok(()) = tokio::signal::ctrl_c() => {
                runner.stop().await;
                Err(CliError::Interrupted)
            }
        }
    }

    async fn answer(self, runner: &Runner) -> Result<(), CliError> {
        let client = &runner.client;
        if let Some(id) = &self.cancel {
            let Some(json) = cancel(client, id).await? else {
                // As the API, which then says nothing.
                return if self.json { Ok(()) } else { print::line(format_args!("{id}  removed")) };
            };
            let Comparison { id, state, .. } = parse(&json)?;
            let state = if state == "cancelled" { "cancelled" } else { "is being stopped" };
            return if self.json { print::json(&json) } else { print::line(format_args!("{id}  {state}")) };
        }
        if self.guide {
            return guide::show(runner, self.json).await;
        }
        let request = self.request(client).await?;
        let Finished { head, report, json } = runner.run(&request, "").await?;
        let page = format!("/comparisons/{}/report.html", head.id);
        if let Some(path) = &self.html {
            let html = client.text(&page).await?;
            std::fs::write(path, html).map_err(|error| CliError::Prepare("write the page", error))?;
        }
        if self.json {
            return print::json(&json);
        }
        print::line(terminal::report(&head, &report))?;
        // A server that was started for this is gone soon.
        self.server.as_ref().map_or(Ok(()), |_| print::line(format_args!("\nThe page with charts: {}", client.url(&page))))
    }

    /// The workload that the command line describes.
    fn described(&self) -> Result<Described, CliError> {
        workload(self.kind.as_deref(), &self.parameters, self.workload.as_deref())
    }

    async fn request(&self, client: &Client) -> Result<WithWorkload, CliError> {
        let workload = self.described()?;
        let given: [(&str, Option<Value>); 5] = [
            ("tasks", self.tasks.map(Value::from)),
            ("concurrency", self.concurrency.clone().map(Value::from)),
            ("executors", self.executors.clone().map(Value::from)),
            ("interpreters", self.interpreters.clone().map(Value::from)),
            ("budget_ms", self.budget.map(|budget| json!(budget.as_millis()))),
        ];
        let mut fields: Map<String, Value> =
            given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
        fields.extend(bound(client, self.bound.as_deref(), &workload.kind).await?);
        Ok(WithWorkload { workload: workload.json, fields })
    }
}

/// Has comparisons run, one after the other.
struct Runner {
    client: Client,
    /// The id of the one that was asked for last, as long as it has not ended.
    under_way: RefCell<Option<String>>,
}

impl Runner {
    /// Has a comparison run and waits for it. People see a bar in the meantime.
    async fn run(&self, request: &impl Serialize, before: &str) -> Result<Finished, CliError> {
        let Self { client, under_way } = self;
        let bar = bar();
        let asked: Comparison = client.post("/comparisons", request).await?;
        let path = format!("/comparisons/{}", asked.id);
        under_way.replace(Some(asked.id));
        let json: Box<RawValue> = loop {
            let json: Box<RawValue> = client.get(&path, &[("wait", 1)]).await?;
            let now: Comparison = parse(&json)?;
            match (now.state.as_str(), now.progress) {
                ("queued", _) => bar.set_message(format!("{before}waits for another comparison")),
                ("running", Some(Progress { percent, doing })) => {
                    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a percentage")]
                    bar.set_position(percent as u64);
                    bar.set_message(format!("{before}{doing}"));
                }
                ("running", None) => {}
                _ => break json,
            }
        };
        bar.finish_and_clear();
        under_way.take();
        let head: Comparison = parse(&json)?;
        if head.state == "finished" {
            let report = parse(&json)?;
            return Ok(Finished { head, report, json });
        }
        Err(CliError::NoReport {
            state: head.state,
            reason: head.error.unwrap_or_else(|| "a client did not want it any more".into()),
        })
    }

    /// Says which comparison it was, if one goes on though what became of it can't be heard.
    fn leave(&self) {
        if let Some(id) = self.under_way.take() {
            print::aside(format_args!("comparison {id} may go on; `trine compare --cancel {id}` ends it"));
        }
    }

    /// Ends the comparison that nobody waits for any more, and says what became of it.
    async fn stop(&self) {
        let Some(id) = self.under_way.take() else {
            return print::aside(format_args!("if a comparison was accepted just now, `trine compare --cancel ID` ends it"));
        };
        match tokio::time::timeout(STOP_LIMIT, cancel(&self.client, &id)).await {
            Ok(Ok(Some(_))) => print::aside(format_args!("comparison {id} is cancelled")),
            Ok(Ok(None)) => print::aside(format_args!("comparison {id} had just ended, and is removed")),
            // A server that was started for this is told to end by the same signal, and ends it as well.
            Ok(Err(error)) => print::aside(format_args!("comparison {id} could not be cancelled: {error}")),
            Err(_) => print::aside(format_args!("comparison {id} may go on: no answer within {} s", STOP_LIMIT.as_secs())),
        }
    }
}

/// `None` if it had ended, and is removed.
async fn cancel(client: &Client, id: &str) -> Result<Option<Box<RawValue>>, CliError> {
    client.delete(&format!("/comparisons/{}", segment(id))).await
}

/// Hidden wherever standard error is no terminal.
fn bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    // The template is a constant that parses.
    let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {elapsed}  {wide_msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(100).with_style(style)
}
