//! `kill -9` at any moment: nothing that was accepted is lost, and nothing has two results.

use std::path::Path;
use std::time::Duration;

use sqlx::Connection as _;

use crate::load::Load;
use crate::server::{Server, folder, log, number, raw, sleep};

/// How often the server is killed, and how many jobs are accepted before each time: `TRINE_KILLS=50 TRINE_JOBS=20000` is the long form.
const KILLS: usize = 3;
const JOBS: usize = 5_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashes_under_load_lose_nothing() {
    let (kills, jobs) = (number("TRINE_KILLS", KILLS), number("TRINE_JOBS", JOBS));
    let folder = folder();
    // A job may be there at more than a few of them.
    let settings = [("TRINE_MAX_LOSSES", "1000")];
    let mut server = Server::start(folder.path(), &settings).await;
    let (load, mut clients) = Load::start(&server.url, &[1, 1, 1, 1, 50, 200]);
    for kill in 1..=kills {
        load.reach(jobs * kill).await;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(..200))).await;
        server.crash();
        is_sound(&folder.path().join("data")).await;
        server = Server::start(folder.path(), &settings).await;
        *load.url.lock().await = server.url.clone();
        if kills > KILLS {
            println!("killed {kill} times, {} accepted", load.accepted.lock().await.len());
        }
    }
    load.reach(jobs * kills + jobs / 4).await;
    load.end(&mut clients).await;
    let results = load.check(&server).await;
    server.crash();
    is_sound(&folder.path().join("data")).await;
    if kills > KILLS {
        println!("{kills} kills: {} accepted, {results} results", load.accepted.lock().await.len());
    }
}

/// What a crash left in this folder is a sound database. That is looked at in a copy, so that the next server finds it as it was left.
pub(crate) async fn is_sound(data: &Path) {
    let copy = folder();
    for name in ["trine.db", "trine.db-wal"] {
        std::fs::copy(data.join(name), copy.path().join(name)).unwrap();
    }
    let mut raw = raw(&copy.path().join("trine.db")).await;
    let verdict: String = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut raw).await.unwrap();
    assert_eq!(verdict, "ok");
    raw.close().await.unwrap();
}

#[tokio::test]
async fn a_job_that_is_there_at_every_crash_ends_as_lost() {
    let folder = folder();
    let mut server = Server::start(folder.path(), &[("TRINE_MAX_LOSSES", "3")]).await;
    let id = server.submit(&sleep(600_000)).await;
    for attempt in 1..=3 {
        server.until(&id, |job| job["state"] == "running" && job["attempt"] == attempt).await;
        server.crash();
        server = Server::start(folder.path(), &[("TRINE_MAX_LOSSES", "3")]).await;
    }
    let job = server.until_state(&id, "lost").await;
    assert_eq!(job["error"]["kind"], "lost");
    assert!(job["error"]["message"].as_str().unwrap().contains("third time"), "{job}");
    let log = log(folder.path());
    assert_eq!(log.matches("attempts were interrupted when the server went down interrupted=1").count(), 3, "{log}");
}
