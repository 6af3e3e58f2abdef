//! How much a key may have the server do.

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{Connection as _, SqliteConnection};

use super::access::with_key;
use super::{Answer, Send as _, Server, primes, sleep, with};

/// What each request waits for.
const LONG: u64 = 600_000;

struct Client<'a> {
    server: &'a Server,
    key: String,
    id: String,
}

impl Client<'_> {
    async fn ask(&self, method: Method, path: &str, body: &Value) -> Answer {
        with_key(self.server.request(method, path).json(body), &self.key).answer().await
    }

    async fn submit(&self, job: &Value) -> Answer {
        self.ask(Method::POST, "/jobs", job).await
    }

    async fn get(&self, path: &str) -> Value {
        with_key(self.server.request(Method::GET, path), &self.key).answer().await.json()
    }

    async fn used(&self, part: &str) -> u64 {
        self.get("/quota").await[part]["used"].as_u64().unwrap()
    }
}

/// An administrator, and a key with this quota.
async fn keys(server: &Server, quota: Value) -> (Client<'_>, Client<'_>) {
    let (id, key) = server.key("", &["admin"]).await;
    let admin = Client { server, key, id };
    let wanted = json!({ "name": "k", "scopes": ["submit", "read", "cancel"], "quota": quota });
    let answer = admin.ask(Method::POST, "/keys", &wanted).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let made = answer.json();
    assert_eq!(made["quota"], quota);
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    let client = Client { server, key: text("key"), id: text("id") };
    (admin, client)
}

fn later() -> Value {
    with(sleep(0), json!({ "delay_ms": LONG }))
}

fn refused(answer: &Answer, part: &str) {
    assert_eq!(answer.problem(429).0, "quota-used-up");
    assert!(answer.text.contains(&format!("`{part}`")), "{}", answer.text);
    assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
}

#[tokio::test]
async fn what_waits_is_counted_whatever_way_it_came() {
    let server = Server::start().await;
    let (admin, client) = keys(&server, json!({ "queued": 4 })).await;
    // One that waits for its time, one that waits for that, and a batch that does not fit, of which nothing is taken.
    let first = client.submit(&later()).await.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(client.submit(&with(sleep(0), json!({ "after": [{ "job": first }] }))).await.status, 202);
    refused(&client.ask(Method::POST, "/jobs/batch", &json!([later(), later(), later()])).await, "queued");
    assert_eq!(client.ask(Method::POST, "/jobs/batch", &json!([later(), later()])).await.status, 202);
    refused(&client.submit(&sleep(0)).await, "queued");
    assert_eq!(client.used("queued").await, 4);
    // What would never fit is not told to come back.
    let batch = client.ask(Method::POST, "/jobs/batch", &json!(vec![later(); 5])).await;
    assert_eq!(batch.problem(413).0, "too-large");
    assert_eq!(batch.json()["title"], "This is more than can be taken at once");
    assert!(batch.text.contains("more than the quota of this key ever takes: its `queued` is 4"), "{}", batch.text);
    let comparison = primes();
    refused(&client.ask(Method::POST, "/comparisons", &comparison).await, "queued");
    // So does a schedule's, when it is run; others have their own.
    let schedule = json!({ "name": "nightly", "cron": "0 0 1 1 *", "job": primes() });
    assert_eq!(client.ask(Method::POST, "/schedules", &schedule).await.status, 201);
    refused(&client.ask(Method::POST, "/schedules/nightly/run", &json!({})).await, "queued");
    assert_eq!(admin.submit(&sleep(0)).await.status, 202);
    // There is room as soon as something is cancelled.
    let cancelled = client.ask(Method::DELETE, &format!("/jobs/{first}"), &json!({})).await;
    assert_eq!(cancelled.status, 200, "{}", cancelled.text);
    assert_eq!(client.ask(Method::POST, "/schedules/nightly/run", &json!({})).await.status, 202);
    // Running it again counts as well.
    for _ in 0..2 {
        server.until(|| async { (client.submit(&later()).await.status == 202).then_some(()) }).await;
    }
    server.until(|| async { (client.used("queued").await == 4).then_some(()) }).await;
    refused(&client.ask(Method::POST, &format!("/jobs/{first}/retry"), &json!({})).await, "queued");
    refused(&client.ask(Method::POST, "/jobs/retry", &json!({ "state": "cancelled" })).await, "queued");
}

#[tokio::test]
async fn what_is_cancelled_leaves_its_place_at_once() {
    let server = Server::start().await;
    let (_, client) = keys(&server, json!({ "queued": 2 })).await;
    for _ in 0..10 {
        assert_eq!(client.ask(Method::POST, "/jobs/batch", &json!([later(), later()])).await.status, 202);
        refused(&client.submit(&later()).await, "queued");
        assert_eq!(client.ask(Method::POST, "/jobs/cancel", &json!({ "all": true })).await.json()["cancelled"], 2);
        let job = client.submit(&later()).await.json()["id"].as_str().unwrap().to_owned();
        assert_eq!(client.submit(&later()).await.status, 202);
        refused(&client.submit(&later()).await, "queued");
        assert_eq!(client.ask(Method::DELETE, &format!("/jobs/{job}"), &json!({})).await.status, 200);
        let answer = client.ask(Method::POST, &format!("/jobs/{job}/retry"), &json!({})).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
        assert_eq!(client.ask(Method::POST, "/jobs/cancel", &json!({ "all": true })).await.status, 200);
    }
}

#[tokio::test]
async fn a_minute_brings_so_many_and_bytes_are_counted() {
    let server = Server::start().await;
    let (admin, client) = keys(&server, json!({ "per_minute": 3, "bytes": 400 })).await;
    let long = |bytes: usize| json!({ "bound": "io", "delay_ms": LONG, "workload": { "type": "http", "url": format!("https://example.org/{}", "x".repeat(bytes)) } });
    assert_eq!(client.submit(&long(200)).await.status, 202);
    refused(&client.submit(&long(200)).await, "bytes");
    assert_eq!(client.submit(&long(500)).await.problem(413).0, "too-large");
    assert_eq!(client.submit(&later()).await.status, 202);
    assert_eq!(client.submit(&sleep(0)).await.status, 202);
    // What was refused did not count.
    refused(&client.submit(&sleep(0)).await, "per_minute");
    assert_eq!(client.used("per_minute").await, 3);
    // An administrator sees it, and may allow more, from the answer on.
    let path = format!("/keys/{}/quota", client.id);
    assert_eq!(admin.get(&path).await["per_minute"], json!({ "most": 3, "used": 3 }));
    let answer = admin.ask(Method::PUT, &path, &json!({ "per_minute": 6000 })).await;
    assert_eq!(answer.json()["quota"], json!({ "per_minute": 6000 }), "{}", answer.text);
    // Ten milliseconds after the first of them, there is room for one more.
    server.until(|| async { (client.submit(&long(500)).await.status == 202).then_some(()) }).await;
    for (quota, pointer) in
        [(json!({ "queued": 0 }), "/queued"), (json!({ "jobs": 1 }), "/jobs"), (json!({ "bytes": -1 }), "/bytes")]
    {
        let problem = admin.ask(Method::PUT, &path, &quota).await.problem(422);
        assert_eq!(problem, ("invalid-key".into(), Some(pointer.into())));
    }
    assert_eq!(admin.ask(Method::PUT, "/keys/000000000000/quota", &json!({})).await.problem(404).0, "unknown-key");
    assert_eq!(admin.ask(Method::GET, "/quota", &json!({})).await.problem(404).0, "unknown-key");
}

#[tokio::test]
async fn what_is_refused_counts_for_no_minute() {
    let server = Server::start_with(&["--max-waiting", "async=1"]).await;
    let (_, client) = keys(&server, json!({ "per_minute": 60 })).await;
    let waits = client.submit(&later()).await.json()["id"].as_str().unwrap().to_owned();
    for _ in 0..5 {
        let refused = client.ask(Method::POST, &format!("/jobs/{waits}/retry"), &json!({})).await;
        assert_eq!(refused.problem(409).0, "not-finished", "{}", refused.text);
        assert_eq!(client.submit(&later()).await.problem(429).0, "queue-full");
    }
    // Each second, one of them counts no more.
    assert!(client.used("per_minute").await <= 1);
}

#[tokio::test]
async fn a_comparison_that_the_store_refuses_counts_for_no_minute() {
    let server = Server::start().await;
    let (_, client) = keys(&server, json!({ "per_minute": 60 })).await;
    let mut raw =
        SqliteConnection::connect(&format!("sqlite:{}", server.folder.path().join("trine.db").display())).await.unwrap();
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON comparisons BEGIN SELECT RAISE(ABORT, 'no'); END";
    sqlx::raw_sql(refuse).execute(&mut raw).await.unwrap();
    for _ in 0..5 {
        let refused = client.ask(Method::POST, "/comparisons", &primes()).await;
        assert!(refused.status.is_server_error(), "{}", refused.text);
    }
    assert_eq!(client.used("per_minute").await, 0);
}

#[tokio::test]
async fn what_was_run_again_before_the_quota_was_used_up_is_told() {
    let server = Server::start().await;
    let (_, client) = keys(&server, json!({ "per_minute": 6 })).await;
    for _ in 0..4 {
        assert_eq!(client.submit(&later()).await.status, 202);
    }
    let cancelled = client.ask(Method::POST, "/jobs/cancel", &json!({ "all": true })).await.json();
    assert_eq!(cancelled["cancelled"], 4);
    let retry = async || client.ask(Method::POST, "/jobs/retry", &json!({ "state": "cancelled" })).await;
    let first = retry().await;
    assert_eq!(first.status, 200, "{}", first.text);
    // A minute brings six, so one may have come back meanwhile.
    assert!(matches!(first.json()["retried"].as_u64(), Some(2 | 3)) && first.json()["more"] == true, "{}", first.text);
    // Where nothing was done, that is all there is to say.
    server.until(|| async { (retry().await.status == 429).then_some(()) }).await;
}

#[tokio::test]
async fn no_more_run_at_once_than_may_and_the_others_wait() {
    let server = Server::start().await;
    let (admin, client) = keys(&server, json!({ "running": 2 })).await;
    let mut ids = Vec::new();
    for number in 0..5 {
        // Those with a limit of their own count, too.
        let options = if number == 0 { json!({ "concurrency": { "key": "a", "limit": 9 } }) } else { json!({}) };
        let answer = client.submit(&with(sleep(LONG), options)).await;
        assert_eq!(answer.status, 202);
        ids.push(answer.json()["id"].as_str().unwrap().to_owned());
    }
    let running = async || client.get("/jobs?state=running").await["items"].as_array().unwrap().len();
    server.until(|| async { (running().await == 2).then_some(()) }).await;
    let states = async || {
        let mut states = Vec::new();
        for id in &ids {
            let job = client.get(&format!("/jobs/{id}")).await;
            states.push((job["state"].as_str().unwrap().to_owned(), job["waiting"].clone()));
        }
        states
    };
    let now = states().await;
    let waiting: Vec<_> = now.iter().filter(|(state, _)| state == "queued").collect();
    assert_eq!((now.len(), waiting.len()), (5, 3));
    server
        .until(|| async {
            let waiting = states()
                .await
                .into_iter()
                .filter(|(state, _)| state == "queued")
                .all(|(_, why)| why == json!({ "reason": "quota", "running": 2 }));
            waiting.then_some(())
        })
        .await;
    // Others go on, and are not slower for it.
    assert_eq!(admin.submit(&sleep(0)).await.status, 202);
    // When one ends the next one starts.
    let ran = now.iter().position(|(state, _)| state == "running").unwrap();
    client.ask(Method::DELETE, &format!("/jobs/{}", ids[ran]), &json!({})).await;
    server
        .until(|| async {
            let states = states().await;
            let count = |wanted: &str| states.iter().filter(|(state, _)| state == wanted).count();
            ((count("running"), count("queued")) == (2, 2)).then_some(())
        })
        .await;
    // Another number holds at once, also for those that wait.
    let answer = admin.ask(Method::PUT, &format!("/keys/{}/quota", client.id), &json!({ "running": 3 })).await;
    assert_eq!(answer.status, 200);
    server.until(|| async { (running().await == 3).then_some(()) }).await;
    admin.ask(Method::PUT, &format!("/keys/{}/quota", client.id), &json!({})).await;
    server.until(|| async { (running().await == 4).then_some(()) }).await;
}

#[tokio::test]
async fn who_has_no_quota_has_that_of_the_settings_and_rotation_changes_nothing() {
    let server = Server::start_with(&["--quota-queued", "1", "--quota-bytes", "100000"]).await;
    let (admin, client) = keys(&server, json!({ "bytes": 5000 })).await;
    assert_eq!(client.submit(&later()).await.status, 202);
    refused(&client.submit(&later()).await, "queued");
    let rotated = admin.ask(Method::POST, &format!("/keys/{}/rotate", client.id), &json!({})).await.json();
    let second = Client { server: &server, key: rotated["key"].as_str().unwrap().to_owned(), id: String::new() };
    let quota = second.get("/quota").await;
    assert_eq!(quota["queued"], json!({ "most": 1, "used": 1 }));
    assert_eq!(quota["bytes"]["most"], 5000);
    refused(&second.submit(&later()).await, "queued");
    // An administrator has none.
    for _ in 0..3 {
        assert_eq!(admin.submit(&later()).await.status, 202);
    }
    assert!(!admin.id.is_empty());
}
