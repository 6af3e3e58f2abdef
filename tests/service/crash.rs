//! `kill -9` at any moment: nothing that was accepted is lost, and nothing has two results.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use sqlx::{Connection, SqliteConnection};
use tokio::sync::Mutex;

use crate::server::{PATIENCE, Server, client, database, folder};

const JOBS: usize = 20_000;

/// Work of a few microseconds for each executor.
fn submission(n: usize) -> Value {
    match n % 4 {
        0 | 1 => json!({"bound": "io", "workload": {"type": "sleep", "ms": n % 3}}),
        2 => json!({"bound": "cpu", "workload": {"type": "primes", "below": 200}}),
        _ => {
            json!({"bound": "io", "workload": {"type": "sleep", "ms": 0}, "executor": if n % 40 == 3 { "processes" } else { "threads" }})
        }
    }
}

/// Submits jobs, one by one and in batches, until enough were accepted; goes on across crashes.
struct Load {
    url: Mutex<String>,
    accepted: Mutex<HashSet<String>>,
    sent: AtomicUsize,
}

impl Load {
    async fn run(self: Arc<Self>, batch: usize) {
        let client = client();
        while self.accepted.lock().await.len() < JOBS {
            let url = self.url.lock().await.clone();
            let first = self.sent.fetch_add(batch, Ordering::Relaxed);
            let request = if batch == 1 {
                client.post(format!("{url}/jobs")).json(&submission(first))
            } else {
                let batch: Vec<Value> = (first..first + batch).map(submission).collect();
                client.post(format!("{url}/jobs/batch")).json(&batch)
            };
            // Only what was answered counts as accepted; while the server is down nothing is.
            let Ok(answer) = request.send().await else {
                tokio::task::yield_now().await;
                continue;
            };
            if answer.status() != 202 {
                continue;
            }
            let Ok(body) = answer.json::<Value>().await else { continue };
            let mut accepted = self.accepted.lock().await;
            match body["items"].as_array() {
                Some(items) => accepted.extend(items.iter().map(|job| job["id"].as_str().unwrap().to_owned())),
                None => {
                    accepted.insert(body["id"].as_str().unwrap().to_owned());
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_crashes_under_load_lose_nothing() {
    let folder = folder();
    let mut server = Server::start(folder.path(), &[]).await;
    let load = Arc::new(Load { url: Mutex::new(server.url.clone()), accepted: Mutex::default(), sent: AtomicUsize::new(0) });
    let clients: Vec<_> = [1, 1, 1, 1, 50, 200].into_iter().map(|batch| tokio::spawn(Arc::clone(&load).run(batch))).collect();
    for crash in 1..=3 {
        let enough = JOBS * crash / 4;
        let reached = async {
            while load.accepted.lock().await.len() < enough {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.expect("jobs to be accepted");
        server.crash();
        server = Server::start(folder.path(), &[]).await;
        *load.url.lock().await = server.url.clone();
    }
    for client in clients {
        tokio::time::timeout(PATIENCE, client).await.expect("the load to end").unwrap();
    }
    let accepted = load.accepted.lock().await;
    let idle = async {
        let unfinished = |queue: &Value| ["queued", "scheduled", "running"].iter().any(|state| queue[*state] != 0);
        loop {
            let executors = server.get("/executors").await;
            let mut queues =
                executors["items"].as_array().unwrap().iter().flat_map(|executor| executor["queues"].as_array().unwrap());
            if !queues.any(unfinished) {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, idle).await.expect("all jobs to end");
    assert_eq!(server.count().await, server.results().await.len() as u64);
    // Jobs that were accepted without the client hearing of it have results as well.
    let results = server.results().await;
    let ids: HashSet<&str> = results.iter().map(|result| result["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), results.len(), "a job has two results");
    let missing: Vec<_> = accepted.iter().filter(|id| !ids.contains(id.as_str())).collect();
    assert!(missing.is_empty(), "{} jobs have no result, such as {:?}", missing.len(), missing.first());
    let wrong: Vec<_> = results.iter().filter(|result| result["state"] != "succeeded").take(3).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    server.crash();
    let mut raw = SqliteConnection::connect(&format!("sqlite:{}", database(folder.path()).display())).await.unwrap();
    let verdict: String = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut raw).await.unwrap();
    assert_eq!(verdict, "ok");
}

#[tokio::test]
async fn a_job_that_is_there_at_every_crash_ends_as_lost() {
    let folder = folder();
    let mut server = Server::start(folder.path(), &[("TRINE_MAX_LOSSES", "3")]).await;
    let id = server.submit(&json!({"bound": "io", "workload": {"type": "sleep", "ms": 600_000}})).await;
    for attempt in 1..=3 {
        server.until(&id, |job| job["state"] == "running" && job["attempt"] == attempt).await;
        server.crash();
        server = Server::start(folder.path(), &[("TRINE_MAX_LOSSES", "3")]).await;
    }
    let job = server.until_state(&id, "lost").await;
    assert_eq!(job["error"]["kind"], "lost");
    assert!(job["error"]["message"].as_str().unwrap().contains("third time"), "{job}");
}
