//! `trine schedule`: one file a command that needs one.

mod add;

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer::{Accepted, parse};
use super::asked::{Asked, Named};
use super::client::segment;
use super::error::CliError;
use super::print;
use super::table::{accepted, or_dash, shortened, table};

/// `trine schedule`
#[derive(Args, Debug)]
pub(super) struct Schedule {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Create a schedule, or with --replace another one in its place
    Add(Box<add::Add>),
    /// Show all schedules, each with what came of it last
    List(Asked),
    /// Show a schedule, when it is due next and what came of it lately
    Show(Named),
    /// Let nothing of a schedule start until it is resumed
    Pause(Named),
    /// Let a schedule go on; what it was due for in between is not made up for
    Resume(Named),
    /// Submit a schedule's job now
    Run(Named),
    /// Remove a schedule; its jobs go on
    Remove(Named),
}

/// How many runs people are shown.
const RUNS: usize = 20;

/// What people are shown of a schedule.
#[derive(Deserialize)]
struct Row {
    name: String,
    cron: String,
    timezone: String,
    catch_up: String,
    overlap: String,
    paused: bool,
    job: Job,
    next_runs: Vec<String>,
    #[serde(default)]
    last_runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Job {
    workload: serde_json::Value,
}

#[derive(Deserialize)]
struct Run {
    due_at: String,
    by_hand: bool,
    outcome: String,
    reason: Option<String>,
    job: Option<String>,
    state: Option<String>,
}

impl Schedule {
    pub(super) async fn run(self) -> Result<(), CliError> {
        match self.command {
            Command::Add(add) => add.run().await,
            Command::List(asked) => show_all(&asked).await,
            Command::Show(Named { asked, name }) => {
                let schedule: Box<RawValue> = asked.server.client()?.get(&path(&name), &()).await?;
                show_one(&schedule, asked.json)
            }
            Command::Pause(Named { asked, name }) => order(&asked, &format!("{}/pause", path(&name))).await,
            Command::Resume(Named { asked, name }) => order(&asked, &format!("{}/resume", path(&name))).await,
            Command::Run(Named { asked, name }) => {
                let job: Box<RawValue> = asked.server.client()?.order(&format!("{}/run", path(&name))).await?;
                if asked.json { print::json(&job) } else { print::line(accepted(&[parse::<Accepted>(&job)?])) }
            }
            Command::Remove(Named { asked, name }) => asked.server.client()?.delete(&path(&name)).await,
        }
    }
}

async fn show_all(asked: &Asked) -> Result<(), CliError> {
    let rows = asked.all("/schedules").await?;
    rows.map_or(Ok(()), |rows: Vec<Row>| print::line(in_table(&rows)))
}

async fn order(asked: &Asked, path: &str) -> Result<(), CliError> {
    show_one(&asked.server.client()?.order::<Box<RawValue>>(path).await?, asked.json)
}

fn show_one(schedule: &RawValue, as_json: bool) -> Result<(), CliError> {
    if as_json {
        return print::json(schedule);
    }
    let row: Row = parse(schedule)?;
    print::line(in_table(std::slice::from_ref(&row)))?;
    if row.next_runs.len() > 1 {
        print::line(format!("\nnext runs\n{}", row.next_runs.join("\n")))?;
    }
    if row.last_runs.is_empty() { Ok(()) } else { print::line(format!("\n{}", runs(&row.last_runs))) }
}

fn in_table(schedules: &[Row]) -> String {
    let columns = ["name", "cron", "timezone", "workload", "catch up", "overlap", "next run", "last run", "came of it"];
    let row = |schedule: &Row| {
        let last = schedule.last_runs.first();
        vec![
            schedule.name.clone(),
            schedule.cron.clone(),
            schedule.timezone.clone(),
            shortened(schedule.job.workload["type"].as_str().unwrap_or_default()),
            schedule.catch_up.clone(),
            schedule.overlap.clone(),
            if schedule.paused { "paused".to_owned() } else { or_dash(schedule.next_runs.first().cloned()) },
            or_dash(last.map(|run| run.due_at.clone())),
            or_dash(last.map(|run| run.state.as_ref().unwrap_or(&run.outcome).clone())),
        ]
    };
    table(&columns.map(|name| (name, false)), schedules.iter().map(row))
}

fn runs(runs: &[Run]) -> String {
    let row = |run: &Run| {
        let outcome = if run.by_hand { format!("{} by hand", run.outcome) } else { run.outcome.clone() };
        let job = run.job.clone().or_else(|| run.reason.as_deref().map(shortened));
        vec![run.due_at.clone(), outcome, or_dash(job), or_dash(run.state.clone())]
    };
    table(&["was due", "outcome", "job", "state"].map(|name| (name, false)), runs.iter().take(RUNS).map(row))
}

fn path(name: &str) -> String {
    format!("/schedules/{}", segment(name))
}
