//! Jobs on all executors from many clients at once, across whatever happens to the server; and what has to be true of them at the end.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::server::{PATIENCE, Server, client};

/// Work of a few microseconds for each executor.
pub(crate) fn submission(n: usize) -> Value {
    const MODELS: [&str; 3] = ["async", "threads", "processes"];
    if n % 50 == 7 {
        let workload = json!({"type": "python", "source": "def main(n): return n + 1", "args": [n]});
        return json!({"bound": "cpu", "workload": workload, "executor": MODELS[n / 50 % 3]});
    }
    match n % 4 {
        0 | 1 => json!({"bound": "io", "workload": {"type": "sleep", "ms": n % 3}}),
        2 => json!({"bound": "cpu", "workload": {"type": "primes", "below": 200}}),
        _ => {
            json!({"bound": "io", "workload": {"type": "sleep", "ms": 0}, "executor": if n % 40 == 3 { "processes" } else { "threads" }})
        }
    }
}

/// Submits jobs, one by one and in batches, until it is told that it is enough; goes on across crashes.
pub(crate) struct Load {
    /// Where the server is.
    pub(crate) url: Mutex<String>,
    /// What was answered with `202`.
    pub(crate) accepted: Mutex<HashSet<String>>,
    pub(crate) enough: AtomicBool,
    sent: AtomicUsize,
}

impl Load {
    /// From clients that send batches of these sizes.
    pub(crate) fn start(url: &str, batches: &[usize]) -> (Arc<Self>, JoinSet<()>) {
        let url = Mutex::new(url.to_owned());
        let load = Arc::new(Self { url, accepted: Mutex::default(), enough: AtomicBool::new(false), sent: AtomicUsize::new(0) });
        let clients = batches.iter().map(|batch| Arc::clone(&load).run(*batch)).collect();
        (load, clients)
    }

    async fn run(self: Arc<Self>, batch: usize) {
        let client = client();
        while !self.enough.load(Ordering::SeqCst) {
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
                tokio::task::yield_now().await;
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

    /// Waits until so many were accepted.
    pub(crate) async fn reach(&self, count: usize) {
        let reached = async {
            while self.accepted.lock().await.len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(10 * PATIENCE, reached).await.expect("jobs to be accepted");
    }

    /// Has the clients end.
    pub(crate) async fn end(&self, clients: &mut JoinSet<()>) {
        self.enough.store(true, Ordering::SeqCst);
        while let Some(client) = tokio::time::timeout(PATIENCE, clients.join_next()).await.expect("the load to end") {
            client.unwrap();
        }
    }

    /// Looks at what became of what was accepted; how many results there are.
    pub(crate) async fn check(&self, server: &Server) -> usize {
        check(server, &*self.accepted.lock().await).await.len()
    }
}

/// Once all have ended: whatever was accepted has one result, and that is a good one. All results that there are.
pub(crate) async fn check(server: &Server, accepted: &HashSet<String>) -> Vec<Value> {
    let idle = async {
        let unfinished = |queue: &Value| ["queued", "scheduled", "running"].iter().any(|state| queue[*state] != 0);
        loop {
            // Of several servers, one knows what the others have taken as of when it last wrote something itself, which this has it do.
            server.until_ready(true).await;
            if !server.queues().await.iter().any(unfinished) {
                break;
            }
        }
    };
    tokio::time::timeout(10 * PATIENCE, idle).await.expect("all jobs to end");
    // Jobs that were accepted without the client hearing of it have results as well.
    let results = server.results().await;
    assert_eq!(server.count().await, results.len() as u64);
    let ids: HashSet<&str> = results.iter().map(|result| result["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), results.len(), "a job has two results");
    let missing: Vec<_> = accepted.iter().filter(|id| !ids.contains(id.as_str())).collect();
    assert!(missing.is_empty(), "{} jobs have no result, such as {:?}", missing.len(), missing.first());
    let wrong: Vec<_> = results.iter().filter(|result| result["state"] != "succeeded").take(3).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    results
}
