//! A queue that is held up: what many waiting jobs cost in memory, and how soon a server is back that was killed with them.

use std::time::Instant;

use serde::de::IgnoredAny;

use crate::report::{Bar, Figure, add_all, mebibytes, print};
use crate::server::{Server, folder};
use crate::{Options, Result};

/// Holds up the only worker process, also after a restart.
pub(crate) const HOLD_UP: &str =
    r#"{"bound":"io","executor":"processes","priority":1,"retry":{"attempts":3},"workload":{"type":"sleep","ms":3600000}}"#;
const WAITING: &str = r#"{"bound":"io","executor":"processes","workload":{"type":"sleep","ms":0}}"#;
const BATCH: u64 = 10_000;
pub(crate) const ONE_PROCESS: [(&str, &str); 1] = [("TRINE_PROCESSES", "1")];

pub(crate) async fn run(options: &Options) -> Result<()> {
    let mut figures = [
        Figure::new("jobs that wait"),
        Figure::new("jobs accepted/s, in batches of 10,000"),
        Figure::with_bar("memory of the server, idle, MiB", Bar::AtMost(30.0)),
        Figure::with_bar("most memory of the server, MiB", Bar::AtMost(150.0)),
        Figure::with_bar("ready after kill and restart, s", Bar::AtMost(5.0)),
        Figure::with_bar("most memory after the restart, MiB", Bar::AtMost(150.0)),
    ];
    let folder = folder()?;
    let mut server = Server::start(folder.path(), &ONE_PROCESS).await?;
    let idle = server.memory()?;
    server.submit(&[HOLD_UP]).await?;
    let start = Instant::now();
    queue(&mut server, options.jobs).await?;
    let rate = options.jobs as f64 / start.elapsed().as_secs_f64();
    let (peak, accepted) = (server.memory_peak()?, server.accepted);
    server.kill().await?;

    let mut server = Server::start(folder.path(), &ONE_PROCESS).await?;
    let ready_after = server.ready_after;
    let peak_after = server.memory_peak()?;
    let mut kept = 0;
    server.list("/jobs", |_: IgnoredAny| kept += 1).await?;
    if kept != accepted {
        return Err(format!("{kept} jobs are left of {accepted}").into());
    }
    let finished = server.finished().await?;
    let values =
        [(kept - finished) as f64, rate, mebibytes(idle), mebibytes(peak), ready_after.as_secs_f64(), mebibytes(peak_after)];
    add_all(&mut figures, values);
    print("backlog: a queue that is held up", &figures);
    server.kill().await
}

/// Has so many more jobs wait, behind the one that holds them up.
pub(crate) async fn queue(server: &mut Server, mut jobs: u64) -> Result<()> {
    while jobs > 0 {
        let batch = jobs.min(BATCH);
        server.submit(&vec![WAITING; usize::try_from(batch)?]).await?;
        jobs -= batch;
    }
    Ok(())
}
