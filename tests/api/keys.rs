use serde_json::{Value, json};

use super::{Server, sleep, with};

#[tokio::test]
async fn a_limit_holds_and_says_so() {
    let server = Server::start().await;
    let limited = || with(sleep(60_000), json!({ "concurrency": { "key": "customer-7", "limit": 1 } }));
    let (first, second) = (server.submit(&limited()).await, server.submit(&limited()).await);
    server.in_state(&first, "running").await;
    let waiting = server.until(|| async {
        let job = server.get(&format!("/jobs/{second}")).await.json();
        (job["waiting"]["reason"] == "concurrency").then_some(job)
    });
    let job = waiting.await;
    assert_eq!(job["state"], "queued");
    assert_eq!(job["waiting"], json!({ "reason": "concurrency", "key": "customer-7", "limit": 1, "running": 1 }));
    assert_eq!(job["concurrency"], json!({ "key": "customer-7", "limit": 1 }));
    let limits = server.get("/limits").await.json();
    assert_eq!(limits["items"], json!([{ "kind": "concurrency", "key": "customer-7", "limit": 1, "running": 1, "waiting": 1 }]));
    // Another one is not held up, and the next one runs when the first has ended.
    let other = server.submit(&sleep(0)).await;
    assert_eq!(server.ended(&other).await["state"], "succeeded");
    server.delete(&format!("/jobs/{first}")).await;
    let job = server.in_state(&second, "running").await;
    assert!(job.get("waiting").is_none());
}

#[tokio::test]
async fn a_rate_holds_and_says_so() {
    let server = Server::start().await;
    let rated = || with(sleep(0), json!({ "rate": { "key": "api.example.org", "limit": 2, "per_ms": 3_600_000 } }));
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(server.submit(&rated()).await);
    }
    server.ended(&ids[0]).await;
    server.ended(&ids[1]).await;
    let job = server.get(&format!("/jobs/{}", ids[2])).await.json();
    assert_eq!(
        (&job["state"], &job["waiting"]["reason"], &job["waiting"]["limit"]),
        (&json!("queued"), &json!("rate"), &json!(2))
    );
    let limits = server.get("/limits").await.json();
    let limit = &limits["items"][0];
    assert_eq!((&limit["kind"], &limit["started"], &limit["waiting"]), (&json!("rate"), &json!(2), &json!(1)));
    assert_eq!(limit["opens_at"], job["waiting"]["until"]);
}

#[tokio::test]
async fn limits_are_listed_page_by_page() {
    let server = Server::start().await;
    for key in ["a", "b", "c"] {
        let job = server.submit(&with(sleep(60_000), json!({ "concurrency": { "key": key, "limit": 1 } }))).await;
        server.in_state(&job, "running").await;
    }
    let first = server.get("/limits?limit=2").await.json();
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = server.get(&format!("/limits?limit=2&cursor={cursor}")).await.json();
    let keys = |page: &Value| page["items"].as_array().unwrap().iter().map(|item| item["key"].clone()).collect::<Vec<_>>();
    assert_eq!((keys(&first), keys(&second)), (vec![json!("a"), json!("b")], vec![json!("c")]));
    assert!(second["next_cursor"].is_null());
    assert_eq!(server.get("/limits?cursor=x").await.problem(400).0, "bad-query");
}

#[tokio::test]
async fn limits_that_are_none_are_refused() {
    let server = Server::start().await;
    let refused = async |options: Value| server.post("/jobs", &with(sleep(0), options)).await.problem(422).1.unwrap();
    assert_eq!(refused(json!({ "concurrency": { "key": "", "limit": 1 } })).await, "/concurrency/key");
    assert_eq!(refused(json!({ "concurrency": { "key": "a", "limit": 0 } })).await, "/concurrency/limit");
    assert_eq!(refused(json!({ "concurrency": { "key": "a" } })).await, "/concurrency/limit");
    assert_eq!(refused(json!({ "concurrency": 3 })).await, "/concurrency");
    assert_eq!(refused(json!({ "rate": { "key": "a", "limit": 1 } })).await, "/rate/per_ms");
    assert_eq!(refused(json!({ "rate": { "key": "a", "limit": 1, "per_ms": 0 } })).await, "/rate/per_ms");
    assert_eq!(refused(json!({ "rate": { "key": "a", "limit": 1, "per_s": 1 } })).await, "/rate/per_s");
}
