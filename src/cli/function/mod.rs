//! `trine function`: one file a command that needs one.

mod deploy;
mod package;
mod run;

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer::{self, Page, parse};
use super::asked::{Asked, Named};
use super::client::segment;
use super::error::CliError;
use super::table::{or_dash, table};
use super::{human, print};

/// `trine function`
#[derive(Args, Debug)]
pub(super) struct Function {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Register a Python file, or a folder or zip of modules, under a name
    Deploy(deploy::Deploy),
    /// Show all functions
    List(Asked),
    /// Show all versions of a function, the latest first
    Show(Named),
    /// Call a function and print what it returns
    Run(run::Run),
    /// Make a version the latest again
    Rollback(Rollback),
    /// Remove a function with all of its versions
    Remove(Named),
}

#[derive(Args, Debug)]
struct Rollback {
    #[command(flatten)]
    named: Named,
    /// The version, or at least 8 of its first digits
    version: String,
}

/// What people are shown of a version.
#[derive(Deserialize)]
struct Row {
    name: String,
    version: String,
    latest: bool,
    kind: String,
    entrypoint: String,
    form: String,
    interpreter: Option<String>,
    bound: Option<String>,
    executor: String,
    deadline_ms: Option<u64>,
    deployed_at: String,
}

impl Function {
    pub(super) async fn run(self) -> Result<(), CliError> {
        match self.command {
            Command::Deploy(deploy) => deploy.run().await,
            Command::List(asked) => show(&asked, "/functions").await,
            Command::Show(Named { asked, name }) => show(&asked, &path(&name)).await,
            Command::Run(run) => run.run().await,
            Command::Rollback(Rollback { named: Named { asked, name }, version }) => {
                let path = format!("{}/versions/{}/latest", path(&name), segment(&version));
                show_one(&asked.server.client()?.order::<Box<RawValue>>(&path).await?, asked.json)
            }
            Command::Remove(Named { asked, name }) => asked.server.client()?.delete(&path(&name)).await,
        }
    }
}

async fn show(asked: &Asked, path: &str) -> Result<(), CliError> {
    let page: Page<Box<RawValue>> = asked.server.client()?.get(path, &()).await?;
    answer::show(&page.items, asked.json, |versions: Vec<Row>| in_table(&versions))
}

fn show_one(function: &RawValue, as_json: bool) -> Result<(), CliError> {
    if as_json { print::json(function) } else { print::line(in_table(&[parse(function)?])) }
}

fn in_table(versions: &[Row]) -> String {
    let columns =
        ["name", "version", "latest", "kind", "calls", "form", "bound", "executor", "deadline", "interpreter", "deployed"];
    let row = |function: &Row| {
        vec![
            function.name.clone(),
            function.version.chars().take(12).collect(),
            if function.latest { "yes" } else { "" }.to_owned(),
            function.kind.clone(),
            function.entrypoint.clone(),
            function.form.clone(),
            or_dash(function.bound.clone()),
            function.executor.clone(),
            or_dash(function.deadline_ms.map(|ms| human::micros(ms.saturating_mul(1_000)))),
            or_dash(function.interpreter.clone()),
            function.deployed_at.clone(),
        ]
    };
    table(&columns.map(|name| (name, false)), versions.iter().map(row))
}

fn path(name: &str) -> String {
    format!("/functions/{}", segment(name))
}
