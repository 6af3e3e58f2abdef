//! Jobs that wait, all at once: how long they take together, and what a waiting job costs in memory.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use trine::clock::Timestamp;

use crate::report::{Bar, Figure, print};
use crate::server::{Server, folder};
use crate::{Options, Result};

const JOBS: usize = 10_000;
const WAIT: &str = r#"{"bound":"io","executor":"async","workload":{"type":"sleep","ms":1000}}"#;
const WARM_UP: &str = r#"{"bound":"io","executor":"async","workload":{"type":"sleep","ms":1}}"#;

#[derive(Deserialize)]
struct Waited {
    workload: Value,
    started_at: Timestamp,
    finished_at: Timestamp,
}

pub(crate) async fn run(options: &Options) -> Result<()> {
    let mut time = Figure::with_bar("first start to last end, s", Bar::AtMost(3.0));
    let mut memory = Figure::with_bar("memory a waiting job, KiB", Bar::AtMost(4.0));
    for _ in 0..options.rounds {
        // A server that has never held so many: memory that it kept from an earlier round would hide what these cost.
        let folder = folder()?;
        let mut server = Server::start(folder.path(), &[]).await?;
        server.submit(&[WARM_UP; 100]).await?;
        server.finish(|_| Ok(())).await?;
        let (idle, mut peak) = (server.memory()?, 0);

        server.submit(&vec![WAIT; JOBS]).await?;
        server
            .finish(|server| {
                peak = peak.max(server.memory()?);
                Ok(())
            })
            .await?;
        memory.add((peak.saturating_sub(idle)) as f64 / JOBS as f64 / 1024.0);
        time.add(span(&mut server).await?.as_secs_f64());
        server.stop().await?;
    }
    print("waits: 10,000 jobs of 1 s on async", &[time, memory]);
    Ok(())
}

/// From the first start to the last end of the jobs that wait.
async fn span(server: &mut Server) -> Result<Duration> {
    let mut jobs = Vec::with_capacity(JOBS);
    server
        .list("/results", |job: Waited| {
            if job.workload["ms"] == 1000 {
                jobs.push((job.started_at, job.finished_at));
            }
        })
        .await?;
    if jobs.len() != JOBS {
        return Err(format!("{} results of {JOBS} jobs", jobs.len()).into());
    }
    let first = jobs.iter().map(|(started, _)| *started).min().ok_or("no job")?;
    let last = jobs.iter().map(|(_, finished)| *finished).max().ok_or("no job")?;
    Ok(last.since(first))
}
