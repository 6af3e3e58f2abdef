//! The command line: one file a command. All but `serve`, `demo` and often `compare` are clients of a server's API.
//!
//! What is asked for goes to standard output, as a table for people or with `--json` as JSON for programs; everything else goes to
//! standard error.

mod answer;
mod artifacts;
mod asked;
mod cancel;
mod client;
mod cluster;
mod compare;
mod completions;
mod config;
mod deliveries;
mod demo;
mod error;
mod events;
mod executors;
mod filter;
mod function;
mod health;
mod human;
mod jobs;
mod keys;
mod limits;
mod logs;
mod openapi;
mod options;
mod order;
mod parameter;
mod print;
mod profile;
mod results;
mod retry;
mod schedule;
mod serve;
mod stream;
mod submit;
mod table;
mod temporary;
mod wait;
mod workloads;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory as _, Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};

use crate::config::{LoadError, Settings, Sources, arguments_of, load};
use crate::executor::processes::child;
use crate::sandbox;
use crate::workload::Registry;
use asked::Asked;
use error::CliError;
use temporary::Folder;

/// How long threads that are still busy may hold up the end of a server.
const LAST_THREADS: Duration = Duration::from_secs(2);

/// Trine runs jobs on an async runtime, a thread pool or worker processes, and measures which of the three each of them needs.
#[derive(Parser)]
#[command(name = "trine", version, after_help = EXIT_CODES, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 all went well, 1 a job did not succeed or the server refused, 2 wrong usage, 3 no server can be reached or none answers.
With --json, each job or result is one JSON object on a line of its own.";

#[derive(Subcommand)]
enum Command {
    /// Run the service
    Serve(Settings),
    /// Submit one job or many
    Submit(submit::Submit),
    /// Show jobs wherever they are, or one of them
    Jobs(jobs::Jobs),
    /// Show finished jobs with their outcome and timing, or one of them
    Results(results::Results),
    /// Show what was learned of workloads by running them, what was found, and what measured routing would have changed
    Profile(profile::ShowProfiles),
    /// Show the lines that a job wrote
    Logs(logs::Logs),
    /// Show the files that a job left behind, or save them
    Artifacts(artifacts::ShowArtifacts),
    /// Show what happens to jobs, while it happens
    Events(events::WatchEvents),
    /// Register Python functions on the server, and call them
    Function(function::Function),
    /// Run one workload on all executors and say which suits it, or hold the guide's claims against this machine
    Compare(Box<compare::Compare>),
    /// Submit jobs by cron expressions
    Schedule(schedule::Schedule),
    /// Show what was told to whom when jobs had ended
    Deliveries(deliveries::Deliveries),
    /// Show what can be run, each with what it mostly does
    Workloads(Asked),
    /// Show what runs jobs, how many run and wait there, and what is kept out
    #[command(mut_arg("json", asked::one_object))]
    Executors(Asked),
    /// Show the limits that jobs share by a key, and how much of them is used
    Limits(Asked),
    /// Make and revoke the keys of a server's API
    Keys(keys::Keys),
    /// Show the servers that share a database, and have one of them take no more work
    Cluster(cluster::Cluster),
    /// Cancel jobs
    #[command(mut_arg("state", filter::going), mut_arg("error", |error| error.hide(true)))]
    Cancel(order::Order),
    /// Run finished jobs again
    #[command(mut_arg("state", filter::ended))]
    Retry(order::Order),
    /// Ask a server whether it can take work
    Health(Asked),
    /// Print what has a shell complete commands and flags
    Completions(completions::Completions),
    /// Print the OpenAPI document
    Openapi,
    /// Run a first batch of real work on all three executors and check every output
    Demo(demo::Demo),
    /// Show the settings in force and where each came from
    Config(config::ShowConfig),
    /// Be a worker process of a server
    #[command(hide = true)]
    Worker,
    /// Confine this process, then become a program
    #[command(hide = true)]
    Sandbox {
        /// The program, an absolute path
        program: PathBuf,
        /// What it is given
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

/// The whole program: parses the command line and runs the command.
pub fn main() -> ExitCode {
    let (cli, sources) = match load::<Cli>(std::env::args_os()) {
        Ok(loaded) => loaded,
        // Help and versions come this way, too; clap knows where they belong.
        Err(LoadError::Usage(error)) => error.exit(),
        Err(LoadError::File(error)) => return CliError::File(error).report(),
    };
    run(cli.command, &sources).unwrap_or_else(|error| error.report())
}

fn run(command: Command, sources: &Sources) -> Result<ExitCode, CliError> {
    match command {
        Command::Serve(settings) => with_service(serve::run(settings.in_force()))?,
        Command::Demo(demo) => with_service(demo.run(sources, &mut Folder::default()))?,
        Command::Compare(compare) => with_service(compare.run(sources, &mut Folder::default()))?,
        Command::Submit(submit) => client()?.block_on(submit.run())?,
        Command::Jobs(jobs) => client()?.block_on(jobs.run())?,
        Command::Results(results) => client()?.block_on(results.run())?,
        Command::Profile(profile) => client()?.block_on(profile.run())?,
        Command::Logs(logs) => client()?.block_on(logs.run())?,
        Command::Artifacts(artifacts) => client()?.block_on(artifacts.run())?,
        Command::Events(events) => client()?.block_on(events.run())?,
        Command::Function(function) => client()?.block_on(function.run())?,
        Command::Schedule(schedule) => client()?.block_on(schedule.run())?,
        Command::Deliveries(deliveries) => client()?.block_on(deliveries.run())?,
        Command::Workloads(asked) => client()?.block_on(workloads::run(&asked))?,
        Command::Executors(asked) => client()?.block_on(executors::run(&asked))?,
        Command::Limits(asked) => client()?.block_on(limits::run(&asked))?,
        Command::Keys(keys) => client()?.block_on(keys.run())?,
        Command::Cluster(cluster) => client()?.block_on(cluster.run())?,
        Command::Cancel(order) => client()?.block_on(cancel::run(order))?,
        Command::Retry(order) => client()?.block_on(retry::run(order))?,
        Command::Health(asked) => client()?.block_on(health::run(&asked))?,
        Command::Config(config) => config.run(sources)?,
        Command::Completions(completions) => completions.run()?,
        Command::Openapi => openapi::run()?,
        Command::Worker => return Ok(child::main(Registry::native)),
        Command::Sandbox { program, arguments } => return Ok(sandbox::main(&program, &arguments)),
    }
    Ok(ExitCode::SUCCESS)
}

/// The environment variables that any command heeds.
fn variables() -> BTreeSet<String> {
    let command = Cli::command();
    let variables = arguments_of(&command).into_iter().filter_map(clap::Arg::get_env);
    variables.map(|name| name.to_string_lossy().into_owned()).collect()
}

/// Runs a command on the runtime of the HTTP server. Jobs have runtimes and threads of their own.
fn with_service<T>(command: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = Builder::new_multi_thread().enable_all().thread_name("trine-http").build().map_err(CliError::Runtime)?;
    let ended = runtime.block_on(command);
    // Whatever still holds a thread must not hold up the end of the program.
    runtime.shutdown_timeout(LAST_THREADS);
    ended
}

/// The runtime of a client: one thread is enough for it.
fn client() -> Result<Runtime, CliError> {
    Builder::new_current_thread().enable_all().build().map_err(CliError::Runtime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
