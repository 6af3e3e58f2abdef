//! `trine demo`: real work of every kind on every executor, submitted over HTTP, each output checked.

mod batch;
mod material;
mod pages;
mod report;

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use clap::Args;
use serde::de::IgnoredAny;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinError;

use super::answer::{Accepted, Job, Page};
use super::client::Client;
use super::error::CliError;
use super::human::micros;
use super::serve::{addresses, listen};
use super::{print, wait};
use crate::app::{self, AppError};
use crate::config::{Config, LogFormat, Settings, Source, Sources};
use crate::{clock, shutdown, telemetry};
use batch::Planned;

/// The most jobs with a wrong outcome that are named.
const NAMED: usize = 10;
const START_LIMIT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_millis(20);

/// `trine demo`
#[derive(Args, Debug)]
pub(super) struct Demo {
    /// Leave the service up afterwards, with its database in a new folder in the data folder
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    settings: Settings,
}

impl Demo {
    pub(super) async fn run(self, sources: &Sources) -> Result<(), CliError> {
        let keep = self.keep;
        let (mut config, _temporary) = self.prepare(sources)?;
        telemetry::init(&config.log, config.log_format == LogFormat::Json)?;
        let requested = shutdown::requested().map_err(CliError::Runtime)?;
        let (listener, url) = listen(config.listen).await?;
        let pages = pages::start().await?;
        config.http_allow.push(IpAddr::from(Ipv4Addr::LOCALHOST).into());
        let data_dir = config.data_dir.clone();
        let rounds = batch::plan(&config.workspace(), &pages)?;

        let (enough, had_enough) = oneshot::channel::<()>();
        let shutdown = async {
            tokio::select! {
                () = requested => {}
                _ = had_enough => {}
            }
        };
        let mut service = tokio::spawn(app::serve(config, listener, shutdown));
        let outcome = tokio::select! {
            outcome = run_rounds(&url, &rounds) => outcome,
            // It ends this early if it can't start, or at a signal.
            ended = &mut service => return served(ended).and(Err(CliError::Interrupted)),
        };
        if keep && matches!(outcome, Ok(()) | Err(CliError::Unsuccessful { .. })) {
            print::line(format_args!("{}\nIts data is in {}. Ctrl-C ends it.", addresses(&url), data_dir.display()))?;
        } else {
            drop(enough);
        }
        served(service.await)?;
        outcome
    }

    /// The settings as they suit a demo where nobody has said otherwise, and the folder that goes when it ends.
    fn prepare(self, sources: &Sources) -> Result<(Config, Option<TempDir>), CliError> {
        let given = |name| sources.get(name).is_some_and(|source| *source != Source::Default);
        let mut config = self.settings.config;
        if !given("log") {
            // What people want to see is the demo.
            "warn".clone_into(&mut config.log);
        }
        if !given("listen") && !self.keep {
            config.listen.set_port(0);
        }
        if given("data_dir") {
            return Ok((config, None));
        }
        if self.keep {
            config.data_dir.push(jiff::Timestamp::now().strftime("demo-%Y%m%d-%H%M%S").to_string());
            return Ok((config, None));
        }
        let folder = TempDir::with_prefix("trine-demo-").map_err(|error| CliError::Prepare("make a temporary folder", error))?;
        folder.path().clone_into(&mut config.data_dir);
        Ok((config, Some(folder)))
    }
}

/// Submits one round after the other, shows what came of them and checks every output.
async fn run_rounds(url: &str, rounds: &[Vec<Planned>]) -> Result<(), CliError> {
    let client = Client::new(url)?;
    until_ready(&client).await?;
    let started = Instant::now();
    let mut ended = Vec::new();
    for round in rounds {
        let submissions: Vec<&Value> = round.iter().map(|planned| &planned.submission).collect();
        let accepted: Page<Accepted> = client.post("/jobs/batch", &submissions).await?;
        eprintln!("Submitted {} jobs to {url}", accepted.items.len());
        let ids: Vec<String> = accepted.items.into_iter().map(|job| job.id).collect();
        ended.extend(wait::all(&client, &ids).await?);
    }
    let elapsed = micros(clock::micros(started.elapsed()));

    let plan: Vec<&Planned> = rounds.iter().flatten().collect();
    let jobs: Vec<&Job> = ended.iter().map(|ended| &ended.job).collect();
    let wrong: Vec<Option<String>> = plan.iter().zip(&jobs).map(|(planned, job)| planned.wrong(job)).collect();
    let right = |wrong: &Option<String>| wrong.is_none();
    print::line(report::outcomes(jobs.iter().copied().zip(wrong.iter().map(right))))?;
    print::line(format_args!("\nWhy there:\n{}", report::routes(&jobs)))?;
    if let Some(advice) = report::advice(&jobs) {
        print::line(format_args!("\nWhat the figures say:\n{advice}"))?;
    }
    let failed = wrong.iter().filter(|wrong| wrong.is_some()).count() + plan.len().abs_diff(jobs.len());
    print::line(format_args!("\n{} of {} jobs did what they should, in {elapsed}.\n", plan.len() - failed, plan.len()))?;
    for (job, wrong) in jobs.iter().zip(&wrong).filter_map(|(job, wrong)| Some((job, wrong.as_ref()?))).take(NAMED) {
        eprintln!("{} ({} on {}): {wrong}", job.id, job.kind(), job.route.executor);
    }
    if failed == 0 { Ok(()) } else { Err(CliError::Unsuccessful { failed, jobs: plan.len() }) }
}

/// Waits until the service takes work.
async fn until_ready(client: &Client) -> Result<(), CliError> {
    let deadline = Instant::now() + START_LIMIT;
    loop {
        match client.get::<IgnoredAny>("/readyz", &()).await {
            Err(CliError::Refused(_)) if Instant::now() < deadline => tokio::time::sleep(START_INTERVAL).await,
            ready => return ready.map(drop),
        }
    }
}

/// How the service ended.
fn served(ended: Result<Result<(), AppError>, JoinError>) -> Result<(), CliError> {
    match ended {
        Ok(ended) => Ok(ended?),
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
