use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::value::RawValue;

use super::answer::{Job, parse};
use super::client::Client;
use super::error::CliError;

/// Jobs that are asked for at once: enough to keep up with thousands of short ones.
const AT_ONCE: usize = 32;
/// How long the server may hold back an answer, in seconds.
const LONGEST_WAIT: u32 = 30;

/// A finished job, as it was read and as it was written.
pub(super) struct Ended {
    pub(super) job: Job,
    pub(super) json: Box<RawValue>,
}

/// Waits until all jobs have ended; in the order of the ids. People see a bar in the meantime.
pub(super) async fn all(client: &Client, ids: &[String]) -> Result<Vec<Ended>, CliError> {
    let bar = bar(ids.len());
    let ended = stream::iter(ids).map(|id| one(client, id)).buffered(AT_ONCE).inspect_ok(|_| bar.inc(1)).try_collect().await;
    bar.finish_and_clear();
    ended
}

async fn one(client: &Client, id: &str) -> Result<Ended, CliError> {
    loop {
        let json: Box<RawValue> = client.get(&format!("/jobs/{id}"), &[("wait", LONGEST_WAIT)]).await?;
        let job: Job = parse(&json)?;
        if job.ending().is_some() {
            return Ok(Ended { job, json });
        }
    }
}

/// Hidden for a single job, and wherever standard error is no terminal.
fn bar(jobs: usize) -> ProgressBar {
    if jobs < 2 {
        return ProgressBar::hidden();
    }
    // The template is a constant that parses.
    let style =
        ProgressStyle::with_template("{bar:40} {pos}/{len} jobs, {elapsed}").unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(jobs as u64).with_style(style)
}
