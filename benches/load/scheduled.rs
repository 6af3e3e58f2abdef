//! Many jobs that are due within one second, with a server that is killed in the middle of it.

use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::report::{Bar, Figure, print, quantile};
use crate::server::{Server, folder};
use crate::{Options, Result};

const JOBS: u64 = 100_000;
const BATCH: u64 = 10_000;
/// How long it takes at the most to submit them all.
const AHEAD: Duration = Duration::from_secs(20);

#[derive(Deserialize)]
struct Started {
    attempt: u32,
    started_at: jiff::Timestamp,
}

pub(crate) async fn run(options: &Options) -> Result<()> {
    let mut figures = [
        Figure::with_bar("all started after the last was due, s", Bar::AtMost(5.0)),
        Figure::new("median start after the first was due, s"),
        Figure::with_bar("the same, the server killed in between: all started, s", Bar::AtMost(5.0)),
        Figure::new("attempts that the server went down under"),
    ];
    for _ in 0..options.rounds {
        let [all, median, ..] = round(false).await?;
        figures[0].add(all);
        figures[1].add(median);
        let [all, _, lost] = round(true).await?;
        figures[2].add(all);
        figures[3].add(lost);
    }
    print("scheduled: 100,000 jobs due within one second", &figures);
    Ok(())
}

/// When the last one started, when half of them had, and how many had to start twice.
async fn round(kill: bool) -> Result<[f64; 3]> {
    let folder = folder()?;
    let mut server = Server::start(folder.path(), &[]).await?;
    let due = jiff::Timestamp::now() + jiff::SignedDuration::try_from(AHEAD)?;
    let begun = Instant::now();
    for from in (0..JOBS).step_by(usize::try_from(BATCH)?) {
        let job = |n: u64| {
            let run_at = due + jiff::SignedDuration::from_micros(i64::try_from(n * 1_000_000 / JOBS).unwrap_or_default());
            format!(r#"{{"bound":"io","workload":{{"type":"sleep","ms":0}},"run_at":"{run_at}"}}"#)
        };
        let jobs: Vec<_> = (from..from + BATCH).map(job).collect();
        server.submit(&jobs.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    }
    if begun.elapsed() > AHEAD {
        return Err("to submit the jobs took longer than until they were due".into());
    }
    if kill {
        tokio::time::sleep(AHEAD.saturating_sub(begun.elapsed()) + Duration::from_millis(500)).await;
        let accepted = server.accepted;
        server.kill().await?;
        server = Server::start(folder.path(), &[]).await?;
        server.accepted = accepted;
    } else {
        tokio::time::sleep(AHEAD.saturating_sub(begun.elapsed())).await;
    }
    server.finish(|_| Ok(())).await?;
    let (mut started, mut twice) = (Vec::new(), 0);
    server
        .list("/results", |result: Started| {
            started.push(result.started_at.duration_since(due).as_secs_f64());
            twice += u32::from(result.attempt > 1);
        })
        .await?;
    if started.iter().any(|after| *after < 0.0) {
        return Err("a job started before it was due".into());
    }
    server.kill().await?;
    let last = quantile(&started, 1.0);
    Ok([last - 1.0, quantile(&started, 0.5), f64::from(twice)])
}
