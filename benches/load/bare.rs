//! The bare route, in a process of its own: it parses what `POST /jobs` parses and answers `202` with an id, but stores nothing.

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use axum::http::StatusCode;
use axum::routing::post;
use axum::serve::ListenerExt;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use trine::job::{Bound, Choice, JobId, Retry, Tags};

use crate::Result;
use crate::server::cpu_time;

/// The running process; it ends with this value.
pub(crate) struct Bare {
    pub(crate) address: SocketAddr,
    process: Child,
}

impl Bare {
    /// Starts this program once more, as the server.
    pub(crate) async fn start() -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("--bare-route")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = process.stdout.take().ok_or("no standard output")?;
        let line = BufReader::new(stdout).lines().next_line().await?.ok_or("the bare route did not start")?;
        Ok(Self { address: line.parse()?, process })
    }

    /// CPU time that it has used.
    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        cpu_time(self.process.id().ok_or("the bare route has ended")?)
    }
}

/// Serves the route on a free port, which it prints, until the process is killed.
pub(crate) async fn serve() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("{}", listener.local_addr()?);
    let listener = listener.tap_io(|stream| {
        // Where it fails, answers come late, and the figures show it.
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, Router::new().route("/jobs", post(accept))).await?;
    Ok(())
}

/// The fields of a submission.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "parsing them is all that is wanted")]
struct Submission {
    bound: Bound,
    workload: Box<RawValue>,
    #[serde(default)]
    executor: Choice,
    #[serde(default)]
    priority: i16,
    deadline_ms: Option<u64>,
    #[serde(default)]
    isolated: bool,
    #[serde(default)]
    retry: Retry,
    #[serde(default)]
    tags: Tags,
}

/// The least that a client needs to be told.
#[derive(Serialize)]
struct Accepted {
    id: JobId,
    state: &'static str,
}

async fn accept(Json(submission): Json<Submission>) -> (StatusCode, Json<Accepted>) {
    black_box(submission);
    (StatusCode::ACCEPTED, Json(Accepted { id: JobId::new(), state: "queued" }))
}
