use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::answer::{Job, parse};
use super::client::Client;
use super::error::CliError;
use super::print;
use super::stream::PATIENCE;
use super::table;

/// Jobs that are asked for at once: enough to keep up with thousands of short ones.
const AT_ONCE: usize = 32;
/// How long the server may hold back an answer, in seconds: at first only until it is said what a job waits for.
const WAITS: [u32; 2] = [2, 30];

/// A finished job, as it was read and as it was written.
pub(super) struct Ended {
    pub(super) job: Job,
    pub(super) json: Box<RawValue>,
}

/// Waits until all jobs have ended; in the order of the ids. People see a bar in the meantime, and of a single job what it waits for.
pub(super) async fn all(client: &Client, ids: &[String]) -> Result<Vec<Ended>, CliError> {
    let bar = bar(ids.len());
    let ended = stream::iter(ids)
        .map(|id| one(client, id, ids.len() == 1))
        .buffered(AT_ONCE)
        .inspect_ok(|_| bar.inc(1))
        .try_collect()
        .await;
    bar.finish_and_clear();
    ended
}

async fn one(client: &Client, id: &str, is_alone: bool) -> Result<Ended, CliError> {
    let mut given_up = None;
    let [mut wait, longest] = WAITS;
    loop {
        match client.get::<Box<RawValue>>(&format!("/jobs/{id}"), &[("wait", wait)]).await {
            Ok(json) => {
                let job: Job = parse(&json)?;
                if job.ending().is_some() {
                    return Ok(Ended { job, json });
                }
                if let Some(reason) = job.waiting.filter(|_| is_alone && wait < longest) {
                    print::aside(format_args!("job {id} waits for {}", table::waiting(&reason)));
                }
                (given_up, wait) = (None, longest);
            }
            // The job was accepted, so it is worth waiting for a server that starts again.
            Err(error) if error.may_pass() && Instant::now() < *given_up.get_or_insert_with(|| Instant::now() + PATIENCE.0) => {
                tokio::time::sleep(PATIENCE.1).await;
            }
            Err(error) => return Err(error),
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

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::http::StatusCode;
    use axum::response::{IntoResponse, Response};
    use serde_json::json;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn a_server_that_is_not_there_for_a_moment_is_waited_for() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        async fn answer() -> Response {
            let refused = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::BAD_GATEWAY, StatusCode::GATEWAY_TIMEOUT];
            if let Some(status) = refused.get(ASKED.fetch_add(1, Ordering::Relaxed)) {
                return status.into_response();
            }
            let route = json!({ "executor": "async", "reason": "" });
            let job = json!({ "id": "1", "state": "succeeded", "bound": "io", "workload": {}, "route": route, "attempt": 1, "accepted_at": "" });
            axum::Json(job).into_response()
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let serving = tokio::spawn(axum::serve(listener, Router::new().fallback(answer)).into_future());
        let ended = all(&client, &["1".to_owned()]).await.unwrap();
        assert!(ended[0].job.succeeded());
        serving.abort();
    }
}
