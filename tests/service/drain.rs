//! SIGTERM: nothing new, what runs is finished, what waits is kept.

use nix::sys::signal::Signal;
use serde_json::json;

use crate::server::{Server, folder};

#[tokio::test]
async fn what_runs_is_finished_and_what_waits_is_kept() {
    let folder = folder();
    let settings = [("TRINE_THREADS_CPU", "1")];
    let mut server = Server::start(folder.path(), &settings).await;
    let primes = json!({"bound": "cpu", "workload": {"type": "primes", "below": 2_000_000}});
    let running = server.submit(&primes).await;
    server.until_state(&running, "running").await;
    let waiting = server.submit(&primes).await;
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));

    let server = Server::start(folder.path(), &settings).await;
    let done = server.get(&format!("/jobs/{running}")).await;
    assert_eq!((&done["state"], &done["attempt"]), (&json!("succeeded"), &json!(1)));
    let done = server.until_state(&waiting, "succeeded").await;
    assert_eq!(done["attempt"], 1);
}

#[tokio::test]
async fn what_does_not_end_in_time_is_handed_back_uncounted() {
    let folder = folder();
    let mut server = Server::start(folder.path(), &[("TRINE_GRACE_MS", "50")]).await;
    let sleep = json!({"bound": "io", "workload": {"type": "sleep", "ms": 3_600_000}});
    let mut ids = Vec::new();
    for executor in ["async", "threads", "processes"] {
        let mut submission = sleep.clone();
        submission["executor"] = json!(executor);
        let id = server.submit(&submission).await;
        server.until_state(&id, "running").await;
        ids.push(id);
    }
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));

    let server = Server::start(folder.path(), &[]).await;
    for id in ids {
        // It runs again, as its first attempt.
        let job = server.until_state(&id, "running").await;
        assert_eq!(job["attempt"], 1);
    }
}
