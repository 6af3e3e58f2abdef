//! Jobs that do nothing: what accepting, storing, dispatching and recording cost.

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::task::JoinSet;

use crate::bare::Bare;
use crate::http::{Connection, request};
use crate::report::{Bar, Figure, add_all, print, quantile};
use crate::server::{Server, folder};
use crate::{Error, Options, Result};

pub(crate) const NOOP: &str = r#"{"bound":"io","workload":{"type":"sleep","ms":0}}"#;
pub(crate) const CONNECTIONS: usize = 256;
/// As much of a job as the bare route answers.
pub(crate) const MINIMAL: &str = "Prefer: return=minimal\r\n";
/// How often a latency is measured in a round.
const SAMPLES: usize = 1_000;
const BATCH: usize = 1_000;
const BATCHES: usize = 50;

pub(crate) async fn run(options: &Options) -> Result<()> {
    let folder = folder()?;
    let bare = Bare::start().await?;
    let mut server = Server::start(folder.path(), &[]).await?;
    let mut figures = [
        Figure::new("bare route, requests/s"),
        Figure::new("jobs/s, one a request, with the whole job in the answer"),
        Figure::new("the same over bare requests/s"),
        Figure::new("jobs/s, one a request, with its id in the answer as the bare route has it"),
        Figure::with_bar("the same over bare requests/s", Bar::AtLeast(0.6)),
        Figure::new("CPU of the bare route a request, µs"),
        Figure::new("CPU of the server a job, µs"),
        Figure::new("fdatasync of 4 KiB, p50, µs"),
        Figure::new("POST /jobs, p50, µs"),
        Figure::new("POST /jobs, p99, µs"),
        Figure::with_bar("POST /jobs, p50, in fdatasyncs", Bar::AtMost(3.0)),
        Figure::new("POST /jobs with Prefer: wait=10, p50, µs"),
        Figure::new("POST /jobs with Prefer: wait=10, p99, µs"),
        Figure::with_bar("the same, p50, in fdatasyncs", Bar::AtMost(6.0)),
        Figure::with_bar("the same at half of the jobs/s above, p99, ms", Bar::AtMost(10.0)),
        Figure::new("jobs/s, in batches of 1,000"),
        Figure::with_bar("the same over bare requests/s", Bar::AtLeast(2.0)),
    ];
    warm_up(&bare, &mut server).await?;
    for _ in 0..options.rounds {
        let duration = Duration::from_secs(options.seconds);
        let (bare, bare_cpu) = {
            let (start, used) = (Instant::now(), bare.cpu_time()?);
            let requests = load(bare.address, "", CONNECTIONS, duration).await? as f64;
            (requests / start.elapsed().as_secs_f64(), bare.cpu_time()?.saturating_sub(used).as_secs_f64() * 1e6 / requests)
        };
        let whole = rate(&mut server, "", CONNECTIONS, duration).await?;
        let (before, used) = (server.accepted, server.cpu_time()?);
        let jobs = rate(&mut server, MINIMAL, CONNECTIONS, duration).await?;
        let cpu = server.cpu_time()?.saturating_sub(used).as_secs_f64() * 1e6 / (server.accepted - before) as f64;
        let sync = syncs(folder.path())?;
        let submit = latencies(&mut server, "", |_, status| status == 202).await?;
        let wait = latencies(&mut server, "Prefer: wait=10\r\n", |body, status| status == 200 && succeeded(body)).await?;
        let paced = paced(&mut server, jobs / 2.0, duration).await?;
        let batches = batches(&mut server).await?;
        let (sync, submit_p50, wait_p50) = (quantile(&sync, 0.5), quantile(&submit, 0.5), quantile(&wait, 0.5));
        let values = [
            bare,
            whole,
            whole / bare,
            jobs,
            jobs / bare,
            bare_cpu,
            cpu,
            sync,
            submit_p50,
            quantile(&submit, 0.99),
            submit_p50 / sync,
            wait_p50,
            quantile(&wait, 0.99),
            wait_p50 / sync,
            quantile(&paced, 0.99) / 1e3,
            batches,
            batches / bare,
        ];
        add_all(&mut figures, values);
    }
    let jobs = server.accepted as f64;
    // A server that has stopped has folded its journal into the database.
    server.stop().await?;
    let mut size = Figure::with_bar("bytes on disk a job", Bar::AtMost(400.0));
    size.add(std::fs::metadata(folder.path().join("data").join("trine.db"))?.len() as f64 / jobs);
    print("noop: jobs that do nothing, 256 connections or one", &figures.into_iter().chain([size]).collect::<Vec<_>>());
    Ok(())
}

/// Completed jobs a second: submitted on so many connections for this long, then waited for.
pub(crate) async fn rate(server: &mut Server, headers: &str, connections: usize, duration: Duration) -> Result<f64> {
    let start = Instant::now();
    let jobs = load(server.address, headers, connections, duration).await?;
    server.accepted += jobs;
    server.finish(|_| Ok(())).await?;
    Ok(jobs as f64 / start.elapsed().as_secs_f64())
}

/// The time from when each job was to be submitted until it was seen to have ended, in microseconds, at so many jobs a second.
async fn paced(server: &mut Server, rate: f64, duration: Duration) -> Result<Vec<f64>> {
    let submission: Arc<[u8]> = request("POST", "/jobs", "Prefer: wait=10\r\n", NOOP).into();
    let apart = Duration::from_secs_f64(CONNECTIONS as f64 / rate);
    let start = tokio::time::Instant::now() + Duration::from_millis(50);
    let mut tasks = JoinSet::new();
    for place in 0..CONNECTIONS {
        let submission = Arc::clone(&submission);
        let mut connection = Connection::open(server.address).await?;
        tasks.spawn(async move {
            // Who is late catches up, and his lateness counts.
            let mut ticks = tokio::time::interval_at(start + apart.mul_f64(place as f64 / CONNECTIONS as f64), apart);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
            let mut times = Vec::new();
            loop {
                let due = ticks.tick().await;
                if due > start + duration {
                    return Ok::<_, Error>(times);
                }
                connection.send(&submission).await?.expect(200)?;
                times.push(due.elapsed().as_secs_f64() * 1e6);
            }
        });
    }
    let times: Vec<f64> = tasks.join_all().await.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    server.accepted += times.len() as u64;
    server.finish(|_| Ok(())).await?;
    Ok(times)
}

async fn warm_up(bare: &Bare, server: &mut Server) -> Result<()> {
    let duration = Duration::from_secs(1);
    load(bare.address, "", CONNECTIONS, duration).await?;
    server.accepted += load(server.address, "", CONNECTIONS, duration).await?;
    server.finish(|_| Ok(())).await.map(drop)
}

/// Submits on so many connections for this long; how many requests were answered with `202`. Any other answer is an error.
pub(crate) async fn load(address: SocketAddr, headers: &str, count: usize, duration: Duration) -> Result<u64> {
    let submission = Arc::new(request("POST", "/jobs", headers, NOOP));
    let mut connections = Vec::with_capacity(count);
    for _ in 0..count {
        connections.push(Connection::open(address).await?);
    }
    let end = Instant::now() + duration;
    let mut tasks = JoinSet::new();
    for mut connection in connections {
        let submission = Arc::clone(&submission);
        tasks.spawn(async move {
            let mut answered = 0;
            while Instant::now() < end {
                connection.send(&submission).await?.expect(202)?;
                answered += 1;
            }
            Ok(answered)
        });
    }
    tasks.join_all().await.into_iter().sum()
}

/// The time of each submission in microseconds, one after another on one connection.
async fn latencies(server: &mut Server, headers: &str, is_right: impl Fn(&[u8], u16) -> bool) -> Result<Vec<f64>> {
    let submission = request("POST", "/jobs", headers, NOOP);
    let mut connection = Connection::open(server.address).await?;
    let mut latencies = Vec::with_capacity(SAMPLES);
    for _ in 0..SAMPLES {
        let start = Instant::now();
        let response = connection.send(&submission).await?;
        latencies.push(micros(start));
        if !is_right(response.body, response.status) {
            return Err(format!("status {}: {}", response.status, String::from_utf8_lossy(response.body)).into());
        }
    }
    server.accepted += SAMPLES as u64;
    server.finish(|_| Ok(())).await?;
    Ok(latencies)
}

fn succeeded(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Job {
        state: String,
    }
    serde_json::from_slice::<Job>(body).is_ok_and(|job| job.state == "succeeded")
}

/// Jobs a second, one batch after another on one connection.
async fn batches(server: &mut Server) -> Result<f64> {
    let start = Instant::now();
    for _ in 0..BATCHES {
        server.submit(&[NOOP; BATCH]).await?;
    }
    server.finish(|_| Ok(())).await?;
    Ok((BATCH * BATCHES) as f64 / start.elapsed().as_secs_f64())
}

/// The time that the disk needs to make 4 KiB at the end of a file durable, in microseconds.
fn syncs(folder: &Path) -> Result<Vec<f64>> {
    let mut file = File::create(folder.join("sync"))?;
    let page = [0; 4096];
    (0..SAMPLES)
        .map(|_| {
            let start = Instant::now();
            file.write_all(&page)?;
            file.sync_data()?;
            Ok(micros(start))
        })
        .collect()
}

fn micros(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e6
}
