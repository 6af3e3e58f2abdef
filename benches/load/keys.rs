//! A million jobs of one key, then a few of another: how soon those start.

use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::time::sleep;

use crate::report::{Bar, Figure, add_all, mebibytes, print};
use crate::server::{Server, folder};
use crate::{Options, Result};

const BATCH: u64 = 10_000;
const FEW: u32 = 10;
/// How long the few may take before the benchmark is given up.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct Limit {
    key: String,
    #[serde(default)]
    running: u32,
}

pub(crate) async fn run(options: &Options) -> Result<()> {
    let mut figures = [
        Figure::new("jobs of one key that wait"),
        Figure::new("jobs accepted/s, in batches of 10,000"),
        Figure::with_bar("until ten of another key run, s", Bar::AtMost(1.0)),
        Figure::with_bar("most memory of the server, MiB", Bar::AtMost(300.0)),
        Figure::with_bar("ready after kill and restart, s", Bar::AtMost(5.0)),
    ];
    let folder = folder()?;
    let mut server = Server::start(folder.path(), &[]).await?;
    let job = |key: &str, limit: u32| {
        format!(r#"{{"bound":"io","workload":{{"type":"sleep","ms":3600000}},"concurrency":{{"key":"{key}","limit":{limit}}}}}"#)
    };
    let (many, few) = (job("many", 5), job("few", FEW));
    let start = Instant::now();
    let mut left = options.jobs;
    while left > 0 {
        let batch = left.min(BATCH);
        server.submit(&vec![many.as_str(); usize::try_from(batch)?]).await?;
        left -= batch;
    }
    let rate = options.jobs as f64 / start.elapsed().as_secs_f64();
    let start = Instant::now();
    server.submit(&vec![few.as_str(); usize::try_from(FEW)?]).await?;
    while running(&mut server, "few").await? < FEW {
        if start.elapsed() > PATIENCE {
            return Err("the few do not start".into());
        }
        sleep(Duration::from_millis(2)).await;
    }
    let waited = start.elapsed();
    if running(&mut server, "many").await? != 5 {
        return Err("the limit of the many does not hold".into());
    }
    let peak = server.memory_peak()?;
    server.kill().await?;
    let server = Server::start(folder.path(), &[]).await?;
    let values = [options.jobs as f64, rate, waited.as_secs_f64(), mebibytes(peak), server.ready_after.as_secs_f64()];
    add_all(&mut figures, values);
    print("keys: many jobs of one key, a few of another", &figures);
    server.kill().await
}

/// How many jobs with this key run.
async fn running(server: &mut Server, key: &str) -> Result<u32> {
    let mut running = 0;
    server.list("/limits", |limit: Limit| running += if limit.key == key { limit.running } else { 0 }).await?;
    Ok(running)
}
