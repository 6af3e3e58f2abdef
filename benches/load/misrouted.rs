//! A stream of jobs in which half of the tags are wrong: what it does to jobs that are tagged right, and what measured routing makes of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::task::JoinSet;

use crate::http::{Connection, request};
use crate::report::{Bar, Figure, add_all, print, quantile};
use crate::server::{Server, folder};
use crate::{Error, Options, Result};

/// So many jobs of each workload of which there is something to learn are run before anything is measured.
const LEARNT: u64 = 200;
/// How long a round may take to get there.
const PATIENCE: Duration = Duration::from_secs(120);

/// Jobs of one workload, each connection with one at a time.
struct Stream {
    /// What it is, and how many connections submit it.
    workload: &'static str,
    connections: usize,
    /// The tag that fits.
    right: &'static str,
    /// Whether it is among those that are tagged wrong where any are.
    wrong: bool,
    /// Whether it is what must not suffer.
    honest: bool,
}

/// Of Python's event loop, and of the native one.
const AWAITS: &str = r#"{"type":"python","source":"import asyncio\nasync def main():\n    await asyncio.sleep(0.02)\n"}"#;
const WAITS: &str = r#"{"type":"sleep","ms":20}"#;
/// It never gives the event loop back while it computes.
const COMPUTES: &str = r#"{"type":"python","source":"import time\nasync def main():\n    end = time.thread_time() + 0.03\n    while time.thread_time() < end: pass\n"}"#;
/// The same with a difference, so that it is another workload.
const COMPUTES_TOO: &str = r#"{"type":"python","source":"import time\nasync def main():\n    end = time.thread_time() + 0.03\n    while time.thread_time() <= end: pass\n"}"#;
const PRIMES: &str = r#"{"type":"primes","below":200000}"#;
const PRIMES_TOO: &str = r#"{"type":"primes","below":100000}"#;
const WAITS_LONGER: &str = r#"{"type":"sleep","ms":40}"#;
const WAITS_LONG: &str = r#"{"type":"sleep","ms":80}"#;

const STREAMS: [Stream; 8] = [
    Stream { workload: AWAITS, connections: 8, right: "io", wrong: false, honest: true },
    Stream { workload: WAITS, connections: 8, right: "io", wrong: false, honest: true },
    Stream { workload: COMPUTES, connections: 8, right: "cpu", wrong: true, honest: false },
    Stream { workload: COMPUTES_TOO, connections: 1, right: "cpu", wrong: false, honest: false },
    Stream { workload: PRIMES, connections: 4, right: "cpu", wrong: true, honest: false },
    Stream { workload: PRIMES_TOO, connections: 1, right: "cpu", wrong: false, honest: false },
    Stream { workload: WAITS_LONGER, connections: 4, right: "io", wrong: true, honest: false },
    Stream { workload: WAITS_LONG, connections: 4, right: "io", wrong: true, honest: false },
];

/// What became of the honest ones.
struct Honest {
    per_second: f64,
    p99_ms: f64,
}

pub(crate) async fn run(options: &Options) -> Result<()> {
    let mut figures = [
        Figure::new("honest jobs/s, every tag right"),
        Figure::new("honest jobs/s, half wrong, measured routing"),
        Figure::new("honest jobs/s, half wrong, declared routing"),
        Figure::with_bar("jobs/s, measured over every tag right", Bar::AtLeast(0.9)),
        Figure::new("p99, every tag right, ms"),
        Figure::new("p99, half wrong, measured routing, ms"),
        Figure::new("p99, half wrong, declared routing, ms"),
        Figure::with_bar("p99, measured over every tag right", Bar::AtMost(1.1)),
        Figure::with_bar("p99, declared over measured", Bar::AtLeast(5.0)),
    ];
    let duration = Duration::from_secs(options.seconds);
    for _ in 0..options.rounds {
        let right = honest("declared", false, duration).await?;
        let measured = honest("measured", true, duration).await?;
        let declared = honest("declared", true, duration).await?;
        let values = [
            right.per_second,
            measured.per_second,
            declared.per_second,
            measured.per_second / right.per_second,
            right.p99_ms,
            measured.p99_ms,
            declared.p99_ms,
            measured.p99_ms / right.p99_ms,
            declared.p99_ms / measured.p99_ms,
        ];
        add_all(&mut figures, values);
    }
    print("misrouted: 16 connections with honest I/O among 22 others, half of the workloads tagged wrong", &figures);
    Ok(())
}

/// Runs all streams against a fresh server; measures once every workload was run often enough.
async fn honest(routing: &str, wrong: bool, duration: Duration) -> Result<Honest> {
    let folder = folder()?;
    let server = Server::start(folder.path(), &[("TRINE_ROUTING", routing)]).await?;
    let (begin, end) = (Arc::new(tokio::sync::watch::channel(false)), Arc::new(AtomicU64::new(0)));
    let ran: Arc<[AtomicU64; STREAMS.len()]> = Arc::new(std::array::from_fn(|_| AtomicU64::new(0)));
    let mut tasks = JoinSet::new();
    for (at, stream) in STREAMS.iter().enumerate() {
        let tag = match (wrong && stream.wrong, stream.right) {
            (false, right) => right,
            (true, "io") => "cpu",
            (true, _) => "io",
        };
        let submission =
            request("POST", "/jobs", "Prefer: wait=60\r\n", &format!(r#"{{"bound":"{tag}","workload":{}}}"#, stream.workload));
        for _ in 0..stream.connections {
            let mut connection = Connection::open(server.address).await?;
            let (submission, ran, end) = (submission.clone(), Arc::clone(&ran), Arc::clone(&end));
            let measuring = begin.0.subscribe();
            tasks.spawn(async move {
                let mut latencies = Vec::new();
                while end.load(Ordering::Relaxed) == 0 {
                    let (start, counts) = (Instant::now(), *measuring.borrow());
                    let job: Job = connection.json(&submission, 200).await?;
                    if job.state != "succeeded" {
                        return Err(format!("a job has {}", job.state).into());
                    }
                    ran[at].fetch_add(1, Ordering::Relaxed);
                    if counts && STREAMS[at].honest {
                        latencies.push(start.elapsed().as_secs_f64() * 1e3);
                    }
                }
                Ok::<_, Error>(latencies)
            });
        }
    }
    let started = Instant::now();
    // Of those that are tagged right there is nothing to learn.
    let matters = |stream: &Stream| stream.wrong || stream.honest;
    while STREAMS.iter().zip(&*ran).any(|(stream, ran)| matters(stream) && ran.load(Ordering::Relaxed) < LEARNT) {
        if started.elapsed() > PATIENCE {
            let ran: Vec<_> = ran.iter().map(|ran| ran.load(Ordering::Relaxed)).collect();
            return Err(format!("after {} s only {ran:?} jobs were run", PATIENCE.as_secs()).into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    begin.0.send_replace(true);
    tokio::time::sleep(duration).await;
    end.store(1, Ordering::Relaxed);
    let mut latencies = Vec::new();
    for of_connection in tasks.join_all().await {
        latencies.append(&mut of_connection?);
    }
    server.stop().await?;
    Ok(Honest { per_second: latencies.len() as f64 / duration.as_secs_f64(), p99_ms: quantile(&latencies, 0.99) })
}

#[derive(Deserialize)]
struct Job {
    state: String,
}
