//! `trine demo`: real work of every kind on every executor, submitted over HTTP, each output checked.

mod batch;
mod material;
mod pages;
mod report;

use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::HumanDuration;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::answer::{Accepted, Job, Page};
use super::client::Client;
use super::error::CliError;
use super::serve::{addresses, listen};
use super::{print, wait};
use crate::config::{Config, LogFormat, Settings, Source, Sources};
use crate::{app, shutdown, telemetry};
use batch::Planned;

/// The most jobs with a wrong outcome that are named.
const NAMED: usize = 10;
const START_LIMIT: Duration = Duration::from_secs(30);

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
        let given = |name| sources.get(name).is_some_and(|source| *source != Source::Default);
        let mut config = self.settings.config;
        if !given("log") {
            // What people want to see is the demo.
            "warn".clone_into(&mut config.log);
        }
        if !self.keep && !given("listen") {
            config.listen.set_port(0);
        }
        let _temporary = match (given("data_dir"), self.keep) {
            (true, _) => None,
            (false, true) => {
                config.data_dir.push(jiff::Timestamp::now().strftime("demo-%Y%m%d-%H%M%S").to_string());
                None
            }
            (false, false) => {
                let folder = TempDir::with_prefix("trine-demo-").map_err(|error| CliError::Demo("make a temporary folder", error))?;
                folder.path().clone_into(&mut config.data_dir);
                Some(folder)
            }
        };
        telemetry::init(&config.log, config.log_format == LogFormat::Json)?;

        let pages = pages::start().await?;
        config.http_allow.push(std::net::IpAddr::from([127, 0, 0, 1]).into());
        let plan = batch::plan(&config.workspace(), &pages)?;

        let requested = shutdown::requested().map_err(CliError::Runtime)?;
        let (listener, url) = listen(config.listen).await?;
        let (enough, had_enough) = oneshot::channel::<()>();
        let shutdown = async {
            tokio::select! {
                () = requested => {}
                _ = had_enough => {}
            }
        };
        let mut service = tokio::spawn(app::serve(config, listener, shutdown));
        let outcome = tokio::select! {
            outcome = batch(&url, &plan) => outcome,
            // It ends early if it can't start, or at a signal.
            ended = &mut service => return joined(ended).and(Err(CliError::Interrupted)),
        };
        if self.keep && !matches!(outcome, Err(CliError::Unreachable { .. })) {
            print::line(format_args!("\n{}\nIts data is in {}. Ctrl-C ends it.", addresses(&url), data_dir.display()))?;
        } else {
            drop(enough);
        }
        joined(service.await)?;
        outcome
    }
}
