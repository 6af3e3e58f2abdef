//! `trine demo`: real work of every kind on every executor, submitted over HTTP, each output checked.

mod batch;
mod material;
mod pages;
mod report;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use clap::Args;
use serde_json::Value;

use super::answer::{Accepted, Job, Page};
use super::client::Client;
use super::error::CliError;
use super::human::micros;
use super::serve::{addresses, listen};
use super::temporary::{self, Folder, served, unless_told, until_ready};
use super::{print, wait};
use crate::app;
use crate::config::{Config, LogFormat, Settings, Source, Sources};
use crate::{clock, own, shutdown, telemetry};
use batch::Planned;

/// The most jobs with a wrong outcome that are named.
const NAMED: usize = 10;

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
    pub(super) async fn run(self, sources: &Sources, folder: &mut Folder) -> Result<(), CliError> {
        own::keep_private();
        let keep = self.keep;
        let mut config = self.prepare(sources, folder)?;
        let _log = telemetry::init(&config.log, config.log_format == LogFormat::Json)?;
        let stop = shutdown::requested(true).map_err(CliError::Runtime)?;
        let (listener, url) = listen(config.listen, "http")?;
        let pages = pages::start().await?;
        config.http_allow.push(IpAddr::from(Ipv4Addr::LOCALHOST).into());
        let data_dir = config.data_dir.clone();
        let rounds = batch::plan(&config.workspace(), &pages)?;

        let mut service = tokio::spawn(app::serve(config, listener, stop.clone(), || {}));
        let outcome = tokio::select! {
            outcome = run_rounds(&url, &rounds) => unless_told(&stop, outcome),
            // It ends this early if it can't start, or at a signal.
            ended = &mut service => return served(ended).and(Err(CliError::Interrupted)),
        };
        if keep && matches!(outcome, Ok(()) | Err(CliError::Unsuccessful { .. })) {
            print::line(format_args!("{}\nIts data is in {}. Ctrl-C ends it.", addresses(&url), data_dir.display()))?;
        } else {
            stop.asked.cancel();
        }
        served(service.await)?;
        outcome
    }

    /// The settings as they suit a demo, with a folder that goes when it ends; one that stays is where an operator would look for it.
    fn prepare(self, sources: &Sources, folder: &mut Folder) -> Result<Config, CliError> {
        let given = |name| sources.get(name).is_some_and(|source| *source != Source::Default);
        let mut settings = self.settings.in_force();
        if !self.keep {
            return temporary::prepare(settings, sources, folder);
        }
        temporary::alone(&mut settings, sources);
        if !given("log") {
            "warn".clone_into(&mut settings.log);
        }
        if !given("data_dir") {
            settings.data_dir.push(jiff::Timestamp::now().strftime("demo-%Y%m%d-%H%M%S").to_string());
        }
        Ok(settings)
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
        print::aside(format_args!("Submitted {} jobs to {url}", accepted.items.len()));
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
        print::aside(format_args!("{} ({} on {}): {wrong}", job.id, job.kind(), job.route.executor));
    }
    if failed == 0 { Ok(()) } else { Err(CliError::Unsuccessful { failed, jobs: plan.len() }) }
}
