use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

use super::{Send as _, Server, primes, sleep, with};

#[tokio::test]
async fn a_batch_is_an_array_or_lines() {
    let server = Server::start().await;
    let array = server.post("/jobs/batch", &json!([sleep(0), primes()])).await;
    let lines = format!("{}\n{}\n", sleep(0), primes());
    let lines =
        server.request(Method::POST, "/jobs/batch").header(CONTENT_TYPE, "application/x-ndjson").body(lines).answer().await;
    for answer in [array, lines] {
        assert_eq!(answer.status, 202, "{}", answer.text);
        let items = answer.json()["items"].as_array().unwrap().clone();
        let executors: Vec<_> = items.iter().map(|item| item["route"]["executor"].as_str().unwrap()).collect();
        assert_eq!(executors, ["async", "threads"]);
        for item in &items {
            assert_eq!(item["state"], "queued");
            assert_eq!(server.ended(item["id"].as_str().unwrap()).await["state"], "succeeded");
        }
    }
}

#[tokio::test]
async fn all_are_accepted_or_none() {
    let server = Server::start().await;
    let refused = |second: Value| {
        let server = &server;
        async move { server.post("/jobs/batch", &json!([sleep(0), second])).await.problem(422) }
    };
    let at = |pointer: &str| ("invalid-job".to_owned(), Some(pointer.to_owned()));
    assert_eq!(refused(json!({ "bound": "io" })).await, at("/1/workload"));
    assert_eq!(refused(json!({ "bound": "io", "workload": { "type": "dream" } })).await, at("/1/workload/type"));
    assert_eq!(refused(json!({ "bound": "io", "workload": { "type": "sleep" } })).await, at("/1/workload/ms"));
    assert_eq!(refused(json!({ "bound": "io", "workload": { "type": "sleep", "ms": 1, "s": 1 } })).await, at("/1/workload/s"));
    assert_eq!(server.post("/jobs/batch", &json!([])).await.problem(422), at(""));
    assert!(server.get("/jobs").await.ids().is_empty());
}

#[tokio::test]
async fn all_jobs_at_fault_are_pointed_at() {
    let server = Server::start().await;
    let wrong = |workload: Value| json!({ "bound": "io", "workload": workload });
    let wrong_workloads = [wrong(json!({ "type": "dream" })), sleep(0), wrong(json!({ "type": "sleep" }))];
    let pointers = async |batch: &[Value]| {
        let answer = server.post("/jobs/batch", &json!(batch)).await;
        assert_eq!(answer.status, 422);
        let faults = answer.json()["errors"].as_array().unwrap().clone();
        faults.iter().map(|fault| fault["pointer"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(pointers(&wrong_workloads).await, ["/0/workload/type", "/2/workload/ms"]);
    // Fields and names of jobs are told in the same answer.
    let mut batch = wrong_workloads.to_vec();
    batch.push(with(sleep(0), json!({ "priority": 1_000 })));
    assert_eq!(pointers(&batch).await, ["/0/workload/type", "/2/workload/ms", "/3/priority"]);
    batch.push(with(sleep(0), json!({ "name": "a" })));
    batch.push(with(sleep(0), json!({ "name": "a" })));
    assert_eq!(pointers(&batch).await, ["/0/workload/type", "/2/workload/ms", "/3/priority", "/5/name"]);
    assert!(server.get("/jobs").await.ids().is_empty());
}

#[tokio::test]
async fn of_a_line_that_is_not_json_the_line_of_the_body_is_told() {
    let server = Server::start().await;
    let lines = format!("{}\n\n{{\"bound\"\n", sleep(0));
    let answer =
        server.request(Method::POST, "/jobs/batch").header(CONTENT_TYPE, "application/x-ndjson").body(lines).answer().await;
    assert_eq!(answer.problem(400), ("malformed-json".into(), Some("/1".into())));
    assert!(answer.json()["detail"].as_str().unwrap().contains("at line 3 column"), "{}", answer.text);
}

#[tokio::test]
async fn ten_thousand_jobs_are_a_batch_and_one_more_is_not() {
    let server = Server::start().await;
    let lines = |jobs: usize| {
        let request = server.request(Method::POST, "/jobs/batch").header(CONTENT_TYPE, "application/x-ndjson");
        request.body(format!("{}\n", sleep(0)).repeat(jobs))
    };
    assert_eq!(lines(10_001).answer().await.problem(413).0, "too-large");
    assert!(server.get("/jobs").await.ids().is_empty());
    assert_eq!(lines(10_000).answer().await.ids().len(), 10_000);
}

#[tokio::test]
async fn a_body_has_at_most_32_mib() {
    let server = Server::start().await;
    let body = vec![b' '; (32 << 20) + 1];
    let answer = server.request(Method::POST, "/jobs/batch").header(CONTENT_TYPE, "application/json").body(body).answer().await;
    assert_eq!(answer.problem(413).0, "too-large");
}
