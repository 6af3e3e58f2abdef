//! Fetches of 100 ms, all at once, against a bare program that does the same. Both have a thread for each core.

use crate::origin::{Origin, fetched_bare};
use crate::report::{Bar, Figure, add_all, print};
use crate::server::{Server, folder};
use crate::{Options, Result};

const COUNTS: [usize; 2] = [1_000, 10_000];

pub(crate) async fn run(options: &Options) -> Result<()> {
    let mut origin = Origin::start().await?;
    let threads = std::thread::available_parallelism()?.to_string();
    let settings = [("TRINE_HTTP_ALLOW", "127.0.0.0/8"), ("TRINE_ASYNC_THREADS", threads.as_str())];
    let fetch = |from| format!(r#"{{"bound":"io","workload":{{"type":"http","url":"http://{from}/","expect_status":200}}}}"#);
    for count in COUNTS {
        let mut figures = [
            Figure::new("bare reqwest and tokio, s"),
            Figure::new("through the API, s"),
            Figure::with_bar("through the API over bare", Bar::AtMost(1.15)),
        ];
        for _ in 0..options.rounds {
            let (first, fetch) = (fetch(origin.fresh()), fetch(origin.fresh()));
            // Neither finds connections of an earlier round.
            let folder = folder()?;
            let mut server = Server::start(folder.path(), &settings).await?;
            server.submit(&[first.as_str()]).await?;
            server.finish(|_| Ok(())).await?;
            let bare = fetched_bare(origin.fresh(), count).await?.as_secs_f64();
            let through = server.take(&vec![fetch.as_str(); count]).await?.as_secs_f64();
            server.stop().await?;
            add_all(&mut figures, [bare, through, through / bare]);
        }
        print(&format!("fetches: {count} fetches of 100 ms on async"), &figures);
    }
    Ok(())
}
