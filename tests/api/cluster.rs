use reqwest::StatusCode;
use serde_json::json;

use super::{Server, primes, sleep, with};

#[tokio::test]
async fn the_only_server_can_be_drained_and_resumed() {
    let server = Server::start().await;
    let runs = server.submit(&sleep(60_000)).await;
    server.in_state(&runs, "running").await;
    let cluster = server.get("/cluster").await.json();
    let [node] = cluster["items"].as_array().unwrap().as_slice() else { panic!("one node: {cluster}") };
    assert_eq!((&node["self"], &node["state"], &node["leases"]), (&json!(true), &json!("up"), &json!(1)));
    assert!(cluster["database"].is_null());
    assert!(node["expires_at"].is_null() && node["started_at"].is_string() && node["heartbeat_age_ms"].is_u64());
    let path = |what| format!("/cluster/nodes/{}/{what}", node["name"].as_str().unwrap());

    let drained = server.post(&path("drain"), &json!(null)).await;
    assert_eq!(drained.json()["items"][0]["state"], "draining");
    let (kind, _) = server.get("/readyz").await.problem(503);
    assert_eq!(kind, "not-ready");
    assert!(server.get("/readyz").await.text.contains("drained"));
    assert_eq!(server.get("/healthz").await.status, StatusCode::OK);
    // Jobs are taken, but not begun; what runs goes on.
    let waits = server.submit(&primes()).await;
    server.submit(&sleep(0)).await;
    let waiting = server.get(&format!("/jobs/{waits}")).await.json();
    assert_eq!((&waiting["state"], &waiting["waiting"]), (&json!("queued"), &json!({ "reason": "drained" })));
    assert_eq!(server.get(&format!("/jobs/{runs}")).await.json()["state"], "running");
    server.delete(&format!("/jobs/{runs}")).await;
    server.ended(&runs).await;
    let state = || async {
        let state = server.get("/cluster").await.json()["items"][0]["state"].clone();
        (state == "drained").then_some(())
    };
    server.until(state).await;
    let metrics = server.get("/metrics").await.text;
    for (state, count) in [("up", 0), ("draining", 0), ("drained", 1), ("lost", 0)] {
        let line = format!("trine_nodes{{state=\"{state}\"}} {count}.0");
        assert!(metrics.lines().any(|is| is == line), "{line} is not in\n{metrics}");
    }

    let resumed = server.post(&path("resume"), &json!(null)).await;
    assert_eq!(resumed.status, StatusCode::OK);
    assert_eq!(server.ended(&waits).await["state"], "succeeded");
    assert_eq!(server.get("/readyz").await.status, StatusCode::OK);
    let acts = server.get("/audit").await.json();
    let operations: Vec<_> = acts["items"].as_array().unwrap().iter().map(|act| &act["operation"]).collect();
    assert_eq!(operations, ["resumeNode", "drainNode"]);
    assert_eq!(server.post("/cluster/nodes/nobody/drain", &json!(null)).await.problem(404).0, "unknown-node");
}

#[tokio::test]
async fn who_is_alone_has_to_do_all() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_trine"));
    command.args(["serve", "--role", "work", "--listen", "127.0.0.1:0", "--data-dir"]).arg(folder.path());
    let refused = command.current_dir(folder.path()).output().await.unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("the role `work` is for servers that share a PostgreSQL"), "{said}");
}

#[tokio::test]
async fn what_a_job_requires_of_a_server_is_checked_and_shown() {
    let server = Server::start_with(&["--labels", "gpu=a100,zone=b"]).await;
    let node = server.get("/cluster").await.json()["items"][0].take();
    assert_eq!(
        (&node["labels"]["gpu"], &node["labels"]["zone"], &node["labels"]["node"]),
        (&json!("a100"), &json!("b"), &node["name"])
    );
    let required = json!({ "gpu": "a100", "zone": "b", "node": node["name"] });
    let job = server.submit(&with(sleep(0), json!({ "requires": required }))).await;
    let ended = server.ended(&job).await;
    assert_eq!((&ended["state"], &ended["requires"]), (&json!("succeeded"), &required));
    let free = server.submit(&with(sleep(0), json!({ "requires": {} }))).await;
    assert!(server.ended(&free).await.get("requires").is_none());
    let refused = async |requires: serde_json::Value| {
        server.post("/jobs", &with(sleep(0), json!({ "requires": requires }))).await.problem(422).1.unwrap()
    };
    assert_eq!(refused(json!({ "gpu": "a100", "zone": "c" })).await, "/requires/zone");
    assert_eq!(refused(json!({ "gpu": "" })).await, "/requires/gpu");
    assert_eq!(refused(json!({ "a b": "c" })).await, "/requires/a b");
    assert_eq!(refused(json!({ "a": 7 })).await, "/requires/a");
    assert_eq!(refused(json!(["gpu"])).await, "/requires");
    assert_eq!(refused(json!({ "a": "1", "b": "1", "c": "1", "d": "1", "e": "1" })).await, "/requires");
}
