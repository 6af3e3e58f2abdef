//! Jobs that come after other jobs: a long chain, and a wide fan.

use crate::report::{Bar, Figure, add_all, mebibytes, print};
use crate::server::{Server, folder};
use crate::{Options, Result};

const LENGTH: usize = 1_000;
const WIDTH: usize = 9_998;

pub(crate) async fn run(options: &Options) -> Result<()> {
    let mut figures = [
        Figure::new("a chain of 1,000, s"),
        Figure::new("one, 9,998 after it, one after those, s"),
        Figure::with_bar("most memory of the server, MiB", Bar::AtMost(300.0)),
    ];
    for _ in 0..options.rounds {
        let folder = folder()?;
        let mut server = Server::start(folder.path(), &[]).await?;
        let chain = timed(&mut server, &chain()).await?;
        let fan = timed(&mut server, &fan()).await?;
        let values = [chain, fan, mebibytes(server.memory_peak()?)];
        add_all(&mut figures, values);
        server.stop().await?;
    }
    print("graph: jobs that come after other jobs", &figures);
    Ok(())
}

/// How long it takes until all of them have succeeded, in seconds.
async fn timed(server: &mut Server, jobs: &[String]) -> Result<f64> {
    let jobs: Vec<_> = jobs.iter().map(String::as_str).collect();
    Ok(server.take(&jobs).await?.as_secs_f64())
}

fn job(name: usize, after: &[usize]) -> String {
    let after: Vec<_> = after.iter().map(|parent| format!(r#"{{"name":"{parent}"}}"#)).collect();
    format!(r#"{{"bound":"io","workload":{{"type":"sleep","ms":0}},"name":"{name}","after":[{}]}}"#, after.join(","))
}

fn chain() -> Vec<String> {
    (0..LENGTH).map(|n| job(n, &n.checked_sub(1).into_iter().collect::<Vec<_>>())).collect()
}

fn fan() -> Vec<String> {
    let all: Vec<usize> = (1..=WIDTH).collect();
    let wide = all.iter().map(|&n| job(n, &[0]));
    [job(0, &[])].into_iter().chain(wide).chain([job(WIDTH + 1, &all)]).collect()
}
