//! Jobs that wait beside jobs that compute: how much later those that wait are.

use std::sync::Arc;
use std::time::Instant;

use serde::de::IgnoredAny;
use tokio::task::JoinSet;

use crate::http::{Connection, request};
use crate::report::{Bar, Figure, add_all, print, quantile};
use crate::server::{Server, folder};
use crate::{Error, Options, Result};

const WAITING: usize = 200;
const WAIT: &str = r#"{"bound":"io","executor":"async","workload":{"type":"sleep","ms":100}}"#;
const COMPUTING: usize = 16;

pub(crate) async fn run(options: &Options) -> Result<()> {
    let folder = folder()?;
    let mut server = Server::start(folder.path(), &[]).await?;
    let compute = calibrate(&mut server).await?;
    let mut figures = [
        Figure::new("200 waits of 100 ms alone, p99, ms"),
        Figure::new("beside 16 computations of 0.5 s, p99, ms"),
        Figure::with_bar("beside over alone", Bar::AtMost(1.2)),
    ];
    for _ in 0..options.rounds {
        let alone = waits(&mut server).await?;
        server.submit(&[compute.as_str(); COMPUTING]).await?;
        let beside = waits(&mut server).await?;
        server.finish(|_| Ok(())).await?;
        add_all(&mut figures, [alone, beside, beside / alone]);
    }
    print("mixed: jobs that wait beside jobs that compute", &figures);
    server.stop().await
}

/// A job that computes for about half a second.
async fn calibrate(server: &mut Server) -> Result<String> {
    let mut connection = Connection::open(server.address).await?;
    let mut below = 1_000_000_u32;
    loop {
        let job = format!(r#"{{"bound":"cpu","workload":{{"type":"primes","below":{below}}}}}"#);
        let start = Instant::now();
        let _: IgnoredAny = connection.json(&request("POST", "/jobs", "Prefer: wait=30\r\n", &job), 200).await?;
        server.accepted += 1;
        if start.elapsed().as_secs_f64() >= 0.5 {
            return Ok(job);
        }
        below += below / 5;
    }
}

/// The time from submitted to seen as ended, each on a connection of its own, all at once: p99 in milliseconds.
async fn waits(server: &mut Server) -> Result<f64> {
    let submission: Arc<[u8]> = request("POST", "/jobs", "Prefer: wait=30\r\n", WAIT).into();
    let mut connections = Vec::with_capacity(WAITING);
    for _ in 0..WAITING {
        connections.push(Connection::open(server.address).await?);
    }
    let mut tasks = JoinSet::new();
    for mut connection in connections {
        let submission = Arc::clone(&submission);
        tasks.spawn(async move {
            let start = Instant::now();
            let _: IgnoredAny = connection.json(&submission, 200).await?;
            Ok::<_, Error>(start.elapsed().as_secs_f64() * 1e3)
        });
    }
    server.accepted += WAITING as u64;
    let times = tasks.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
    Ok(quantile(&times, 0.99))
}
