use clap::Args;
use clap::builder::PossibleValuesParser;
use serde_json::value::to_raw_value;

use super::client::{Client, Server};
use super::error::CliError;
use super::parameter::tag;
use super::print;
use super::stream::{Events, Sent};
use crate::job::{Bound, Ending, EventKind, Executor};

/// `trine events`
#[derive(Args, Debug)]
pub(super) struct WatchEvents {
    #[command(flatten)]
    server: Server,
    /// Only these kinds, separated by commas
    #[arg(long, value_name = "KINDS", value_delimiter = ',', value_parser = PossibleValuesParser::new(EventKind::ALL.map(EventKind::as_str)))]
    kinds: Vec<String>,
    /// Only those that leave their job in this state, or in one of several with commas between; accepted and requeued count as queued
    #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(["scheduled", "queued", "running", "succeeded", "failed", "cancelled", "lost"]))]
    state: Vec<String>,
    /// Only those of jobs with this tag of what they do
    #[arg(long, value_parser = PossibleValuesParser::new(Bound::ALL.map(Bound::as_str)))]
    bound: Option<String>,
    /// Only those of jobs on this executor
    #[arg(long, value_parser = PossibleValuesParser::new(Executor::ALL.map(Executor::as_str)))]
    executor: Option<String>,
    /// Only those of jobs of this type, such as primes
    #[arg(long, value_name = "TYPE")]
    workload: Option<String>,
    /// Only those of jobs with this label; may be repeated
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = tag)]
    tags: Vec<(String, String)>,
    /// Those behind the event with this id instead of those from now on
    #[arg(long, value_name = "ID", value_parser = event_id)]
    after: Option<u64>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

impl WatchEvents {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let client = self.server.client()?;
        let [kinds, states] = [self.kinds, self.state].map(|names| (!names.is_empty()).then(|| names.join(",")));
        let mut query: Vec<(&str, String)> = [
            ("kinds", kinds),
            ("state", states),
            ("bound", self.bound),
            ("executor", self.executor),
            ("workload", self.workload),
            ("after", self.after.map(|id| id.to_string())),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect();
        query.extend(self.tags.into_iter().map(|(name, value)| ("tag", format!("{name}:{value}"))));
        let mut events = Events::new(&client, "/events", query);
        while let Some(sent) = events.next().await? {
            if self.json {
                as_json(&sent)?;
            } else {
                let happened = sent.happened()?;
                print::line(format_args!("{}  {}  {}", happened.at, happened.job, happened.in_words(&sent.event)))?;
            }
        }
        Ok(())
    }
}

/// Shows what happens to a job that was just accepted until it has ended.
pub(super) async fn follow(client: &Client, id: &str, json: bool) -> Result<(), CliError> {
    // Whoever goes away meanwhile, or finds that it can't be followed, can come back to it.
    print::aside(format_args!("Following the job {id}"));
    let mut events = Events::of_accepted(client, format!("/jobs/{id}/events"), ());
    let mut ending = None;
    while let Some(sent) = events.next().await? {
        let happened = sent.happened()?;
        if json {
            as_json(&sent)?;
        } else {
            print::line(happened.in_words(&sent.event))?;
        }
        ending = happened.state;
    }
    let succeeded = ending.is_some_and(|ending| ending == Ending::Succeeded.as_str());
    if succeeded { Ok(()) } else { Err(CliError::Unsuccessful { failed: 1, jobs: 1 }) }
}

fn event_id(text: &str) -> Result<u64, &'static str> {
    text.parse().map_err(|_| "the id of an event is a number, such as 1767225600000000")
}

fn as_json(sent: &Sent) -> Result<(), CliError> {
    print::json(&to_raw_value(sent).map_err(CliError::Json)?)
}
