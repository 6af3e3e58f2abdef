//! Many jobs that are due at once, with a server that is killed meanwhile; and keys that outlive it.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::server::{Server, folder, until};

/// The bench `scheduled` has a hundred thousand, and a bar of time.
const JOBS: usize = 5_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_are_due_in_one_second_start_and_none_twice_though_the_server_is_killed() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let due = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(5);
    let job = |n: usize| {
        let run_at = due + jiff::SignedDuration::from_micros((n * 1_000_000 / JOBS).try_into().unwrap());
        json!({ "bound": "io", "workload": { "type": "sleep", "ms": 0 }, "run_at": run_at.to_string() })
    };
    let mut ids = Vec::with_capacity(JOBS);
    for from in (0..JOBS).step_by(1_000) {
        ids.extend(server.submit_all(&(from..from + 1_000).map(job).collect::<Vec<_>>()).await);
    }
    let accepted = jiff::Timestamp::now();
    // In the middle of it.
    until("the first jobs run", async || (server.count().await >= 100).then_some(())).await;
    server.crash();
    let server = Server::start(folder.path(), &[]).await;
    until("all jobs end", async || (server.count().await >= JOBS as u64).then_some(())).await;
    let results = server.results().await;
    let by_id: HashMap<&str, &Value> = results.iter().map(|result| (result["id"].as_str().unwrap(), result)).collect();
    assert_eq!((by_id.len(), results.len(), server.count().await), (JOBS, JOBS, JOBS as u64), "a job has two results, or none");
    for id in &ids {
        let result = by_id[id.as_str()];
        assert_eq!(result["state"], "succeeded", "{result}");
        // On a machine that stands still, some may be accepted when their time has come.
        assert!(server_time(&result["started_at"]) >= due && server_time(&result["accepted_at"]) <= accepted, "{result}");
        // A second attempt only where the server went down under the first one.
        if result["attempt"] != 1 {
            let job = server.get(&format!("/jobs/{id}")).await;
            assert_eq!(
                (&job["attempt"], &job["losses"], &job["attempts"][0]["state"]),
                (&json!(2), &json!(1), &json!("lost")),
                "{job}"
            );
        }
    }
}

fn server_time(text: &Value) -> jiff::Timestamp {
    text.as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn keys_and_unique_jobs_outlive_the_server() {
    let folder = folder();
    let mut server = Server::start(folder.path(), &[]).await;
    let job = json!({ "bound": "io", "workload": { "type": "sleep", "ms": 600_000 }, "unique": {} });
    let submit = async |server: &Server, key: &str| {
        let request = server.client.post(format!("{}/jobs", server.url)).header("Idempotency-Key", key).json(&job);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned())
    };
    let (status, id) = submit(&server, "a").await;
    assert_eq!(status, 202);
    server.crash();
    server = Server::start(folder.path(), &[]).await;
    assert_eq!(submit(&server, "a").await, (202, id.clone()));
    assert_eq!(submit(&server, "b").await, (200, id));
    // A key is kept as long as the operator says.
    server.crash();
    server = Server::start(folder.path(), &[("TRINE_IDEMPOTENCY_MS", "1")]).await;
    let (_, first) = submit(&server, "short").await;
    server.cancel(&first).await;
    server.until_state(&first, "cancelled").await;
    let (status, second) = submit(&server, "short").await;
    assert_eq!((status, second == first), (202, false));
}
