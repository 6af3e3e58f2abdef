//! When a job runs, that it runs once, and what is done to many of them.

use std::time::Duration;

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::access::with_key;
use super::{Answer, Send as _, Server, primes, sleep, with};

#[tokio::test]
async fn a_job_can_wait_for_its_time() {
    let server = Server::start().await;
    let answer = server.post("/jobs", &with(sleep(0), json!({ "delay_ms": 300 }))).await;
    let job = answer.json();
    assert_eq!((answer.status.as_u16(), &job["state"]), (202, &json!("scheduled")), "{job}");
    assert_eq!((&job["due_at"], job["run_at"].is_string()), (&job["run_at"], true));
    let ended = server.ended(job["id"].as_str().unwrap()).await;
    // Both are UTC with microseconds, so their texts sort as they do.
    assert!(ended["started_at"].as_str() >= ended["run_at"].as_str(), "{ended}");
    assert_eq!((&ended["state"], &ended["attempt"]), (&json!("succeeded"), &json!(1)));

    let far = server.submit(&with(sleep(0), json!({ "run_at": "2999-01-01T00:00:00Z" }))).await;
    assert_eq!(server.get("/jobs?state=scheduled").await.ids(), std::slice::from_ref(&far));
    assert_eq!(server.delete(&format!("/jobs/{far}")).await.status, 200);
    let past = server.submit(&with(sleep(0), json!({ "run_at": "2001-01-01T00:00:00Z" }))).await;
    assert_eq!(server.ended(&past).await["state"], "succeeded");
}

#[tokio::test]
async fn a_job_that_is_too_late_is_not_started() {
    let server = Server::start_with(&["--async-slots", "1"]).await;
    let holds_up = server.submit(&sleep(60_000)).await;
    server.in_state(&holds_up, "running").await;
    let soon = (jiff::Timestamp::now() + jiff::SignedDuration::from_millis(100)).to_string();
    let answer = server.post("/jobs", &with(sleep(0), json!({ "expires_at": soon }))).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    // Whoever waits for it is told as soon as it is so.
    let ended = server.ended(&id).await;
    assert_eq!((&ended["state"], &ended["error"]["kind"]), (&json!("failed"), &json!("expired")));
    assert_eq!((&ended["attempt"], &ended["attempts"]), (&json!(0), &json!([])));
    assert_eq!(server.get("/results?error=expired").await.ids(), std::slice::from_ref(&id));
    assert_eq!(server.get("/jobs?error=timeout").await.ids(), [""; 0]);

    // By hand, it runs all the same.
    server.delete(&format!("/jobs/{holds_up}")).await;
    assert_eq!(server.request(Method::POST, &format!("/jobs/{id}/retry")).answer().await.status, 202);
    let ended = server.until(|| async { Some(server.ended(&id).await).filter(|job| job["attempt"] == 1) }).await;
    assert_eq!(ended["state"], "succeeded");
}

#[tokio::test]
async fn every_attempt_is_told_of_also_those_before_it_was_run_again_by_hand() {
    let server = Server::start().await;
    let retry = json!({ "deadline_ms": 10, "retry": { "attempts": 2, "backoff_ms": 1 } });
    let id = server.submit(&with(sleep(60_000), retry)).await;
    assert_eq!(server.ended(&id).await["attempt"], 2);
    assert_eq!(server.request(Method::POST, &format!("/jobs/{id}/retry")).answer().await.status, 202);
    // The retry rule applies anew.
    let job = server.until(|| async { Some(server.ended(&id).await).filter(|job| job["attempt"] == 4) }).await;
    let attempts = job["attempts"].as_array().unwrap();
    let numbers: Vec<_> = attempts.iter().map(|attempt| attempt["attempt"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    for attempt in attempts {
        assert_eq!((&attempt["state"], &attempt["error"]["kind"]), (&json!("failed"), &json!("timeout")));
        assert!(attempt["timing"]["wall_us"].as_u64().unwrap() >= 9_000, "{attempt}");
        assert!(attempt["started_at"].as_str() < attempt["finished_at"].as_str(), "{attempt}");
    }
    assert_eq!(job["timing"], attempts[3]["timing"]);
    let result = server.get(&format!("/results/{id}")).await.json();
    assert_eq!(result["attempts"], job["attempts"]);
    assert!(server.get("/jobs").await.json()["items"][0].get("attempts").is_none());

    let one = server.submit(&primes()).await;
    let attempts = server.ended(&one).await["attempts"].take();
    assert_eq!((attempts.as_array().unwrap().len(), &attempts[0]["state"]), (1, &json!("succeeded")));
    let runs = server.submit(&sleep(60_000)).await;
    let attempts = server.in_state(&runs, "running").await["attempts"].take();
    assert_eq!((&attempts[0]["state"], &attempts[0]["finished_at"]), (&json!("running"), &Value::Null));
}

#[tokio::test]
async fn many_jobs_are_cancelled_by_what_they_have_in_common() {
    let server = Server::start_with(&["--async-slots", "2"]).await;
    let mine = json!({ "tags": { "team": "search" } });
    let batch: Vec<_> = (0..50).map(|_| with(sleep(60_000), mine.clone())).collect();
    let ids = server.post("/jobs/batch", &json!(batch)).await.ids();
    let later = server.submit(&with(sleep(0), json!({ "delay_ms": 60_000, "tags": { "team": "search" } }))).await;
    let other = server.submit(&sleep(0)).await;
    server.in_state(&ids[1], "running").await;

    let waiting = server.post("/jobs/cancel", &json!({ "state": "queued,scheduled", "tag": "team:search" })).await;
    assert_eq!(waiting.json(), json!({ "cancelled": 49, "stopping": 0 }), "{}", waiting.text);
    let rest = server.post("/jobs/cancel", &json!({ "tag": "team:search" })).await;
    assert_eq!(rest.json(), json!({ "cancelled": 0, "stopping": 2 }), "{}", rest.text);
    for id in [&ids[0], &ids[1], &ids[49], &later] {
        assert_eq!(server.ended(id).await["state"], "cancelled");
    }
    assert_eq!(server.ended(&other).await["state"], "succeeded");
    let none = server.post("/jobs/cancel", &json!({ "all": true })).await;
    assert_eq!(none.json(), json!({ "cancelled": 0, "stopping": 0 }));
}

#[tokio::test]
async fn many_dead_jobs_are_run_again() {
    let server = Server::start().await;
    let batch: Vec<_> = (0..20).map(|n| with(sleep(if n % 2 == 0 { 60_000 } else { 0 }), json!({ "deadline_ms": 20 }))).collect();
    for id in server.post("/jobs/batch", &json!(batch)).await.ids() {
        server.ended(&id).await;
    }
    let dead = server.post("/jobs/retry", &json!({ "error": "timeout", "workload": "sleep" })).await;
    assert_eq!(dead.json(), json!({ "retried": 10, "more": false }), "{}", dead.text);
    let failed = || async { server.get("/results?state=failed").await.ids() };
    server.until(|| async { (failed().await.len() == 10).then_some(()) }).await;
    // Unless it is asked for, those that went well are left alone.
    let dead = server.post("/jobs/retry", &json!({ "all": true })).await;
    assert_eq!(dead.json(), json!({ "retried": 10, "more": false }));
    let good = server.post("/jobs/retry", &json!({ "state": "cancelled,succeeded" })).await;
    assert_eq!(good.json(), json!({ "retried": 10, "more": false }));
}

#[rstest]
#[case("cancel", json!({}), "")]
#[case("cancel", json!({ "all": false }), "")]
#[case("cancel", json!({ "state": "queued,failed" }), "/state")]
#[case("cancel", json!({ "state": "queued,done" }), "/state")]
#[case("cancel", json!({ "error": "timeout" }), "/error")]
#[case("cancel", json!({ "tag": "team" }), "/tag")]
#[case("cancel", json!({ "colour": "red" }), "/colour")]
#[case("cancel", json!([]), "")]
#[case("retry", json!({ "state": "queued" }), "/state")]
#[case("retry", json!({ "error": "boredom" }), "/error")]
#[case("retry", json!({}), "")]
#[tokio::test]
async fn a_filter_is_checked(#[case] what: &str, #[case] filter: Value, #[case] pointer: &str) {
    let server = Server::start().await;
    let problem = server.post(&format!("/jobs/{what}"), &filter).await.problem(422);
    assert_eq!(problem, ("invalid-filter".to_owned(), Some(pointer.to_owned())), "{filter}");
}

async fn submit_with_key(server: &Server, path: &str, key: &str, body: &Value) -> Answer {
    server.request(Method::POST, path).header("Idempotency-Key", key).json(body).answer().await
}

#[tokio::test]
async fn a_request_that_comes_again_is_answered_as_before() {
    let server = Server::start().await;
    let job = with(sleep(0), json!({ "delay_ms": 60_000 }));
    let first = submit_with_key(&server, "/jobs", "order-1", &job).await;
    assert_eq!((first.status.as_u16(), first.headers.get("idempotent-replayed")), (202, None), "{}", first.text);
    let again = submit_with_key(&server, "/jobs", "order-1", &job).await;
    assert_eq!((again.status.as_u16(), again.header("idempotent-replayed")), (202, "true"), "{}", again.text);
    assert_eq!((&again.json()["id"], again.header("location")), (&first.json()["id"], first.header("location")));

    for (path, body) in [("/jobs", with(sleep(1), json!({ "delay_ms": 60_000 }))), ("/jobs/batch", json!([job]))] {
        let reused = submit_with_key(&server, path, "order-1", &body).await;
        assert_eq!(reused.problem(422).0, "idempotency-key-reused");
    }
    // What was refused was not accepted, so its key is free.
    assert_eq!(submit_with_key(&server, "/jobs", "order-2", &json!({ "bound": "io" })).await.status, 422);
    assert_eq!(submit_with_key(&server, "/jobs", "order-2", &job).await.status, 202);

    let batch = json!([sleep(0), primes()]);
    let first = submit_with_key(&server, "/jobs/batch", "batch", &batch).await;
    let again = submit_with_key(&server, "/jobs/batch", "batch", &batch).await;
    assert_eq!((first.ids(), again.header("idempotent-replayed")), (again.ids(), "true"));
    assert_eq!(server.get("/jobs").await.ids().len(), 4);
    // Each has its place in the answer, so there is none without one of them.
    let gone = &first.ids()[1];
    server.ended(gone).await;
    assert_eq!(server.delete(&format!("/results/{gone}")).await.status, 204);
    assert_eq!(submit_with_key(&server, "/jobs/batch", "batch", &batch).await.problem(404).0, "unknown-job");
    assert_eq!(submit_with_key(&server, "/jobs", "", &job).await.problem(400).0, "bad-idempotency-key");
    // Where no key is looked at, nobody is to rely on one.
    for path in ["/comparisons", "/schedules/nightly/run", "/jobs/retry", "/keys"] {
        assert_eq!(submit_with_key(&server, path, "order-3", &json!({})).await.problem(400).0, "bad-idempotency-key");
    }

    // Whoever comes again may wait for the result as well.
    let wait = server.request(Method::POST, "/jobs").header("Idempotency-Key", "w").header("Prefer", "wait=30");
    let (first, again) = (wait.try_clone().unwrap().json(&sleep(1)).answer().await, wait.json(&sleep(1)).answer().await);
    assert_eq!((first.status.as_u16(), again.status.as_u16(), again.header("idempotent-replayed")), (200, 200, "true"));
    assert_eq!((&again.json()["output"], again.json()["id"] == first.json()["id"]), (&json!({ "slept_ms": 1 }), true));
}

#[tokio::test]
async fn of_many_requests_at_once_with_one_key_one_is_accepted() {
    let server = Server::start().await;
    let job = sleep(0);
    let requests = (0..40).map(|_| submit_with_key(&server, "/jobs", "k", &job));
    let answers = futures_util::future::join_all(requests).await;
    assert!(answers.iter().all(|answer| answer.status == 202 && answer.json()["id"] == answers[0].json()["id"]));
    assert_eq!(answers.iter().filter(|answer| answer.headers.contains_key("idempotent-replayed")).count(), 39);
    assert_eq!(server.get("/jobs").await.ids().len(), 1);
}

#[tokio::test]
async fn a_unique_job_is_there_once() {
    let server = Server::start().await;
    let unique = |ms: u64, unique: Value| with(sleep(ms), json!({ "unique": unique, "tags": { "n": ms.to_string() } }));
    let first = server.post("/jobs", &unique(60_000, json!({}))).await;
    assert_eq!((first.status.as_u16(), first.json().get("existing")), (202, None));
    let twin = server.post("/jobs", &with(unique(60_000, json!({})), json!({ "priority": 5 }))).await;
    assert_eq!((twin.status.as_u16(), &twin.json()["existing"]), (200, &json!(true)), "{}", twin.text);
    assert_eq!((&twin.json()["id"], twin.header("location")), (&first.json()["id"], first.header("location")));
    // One with other parameters, and one that is not unique, are others.
    assert_eq!(server.post("/jobs", &unique(60_001, json!({}))).await.status, 202);
    assert_eq!(server.post("/jobs", &sleep(60_000)).await.status, 202);

    // Nor is one with another long number, though the nearest that a computer reckons with is the same.
    let long = |end: u8| {
        let workload = format!(r#"{{"type":"python","source":"def main(n): return n","args":[5555555555555555555555{end}]}}"#);
        format!(r#"{{"bound":"io","executor":"async","unique":{{"within_ms":600000}},"workload":{workload}}}"#)
    };
    let submit = async |end: u8| {
        let request = server.request(reqwest::Method::POST, "/jobs").header("prefer", "wait=60");
        request.header("content-type", "application/json").body(long(end)).answer().await
    };
    for (end, existing) in [(1, None), (2, None), (1, Some(&json!(true)))] {
        let answer = submit(end).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert!(answer.text.contains(&format!("\"output\":5555555555555555555555{end}")), "{}", answer.text);
        assert_eq!(answer.json().get("existing"), existing);
    }

    // Until it has ended; or for a while, whether it has or not.
    let id = first.json()["id"].as_str().unwrap().to_owned();
    server.delete(&format!("/jobs/{id}")).await;
    server.ended(&id).await;
    let within = server.post("/jobs", &unique(60_000, json!({ "within_ms": 600_000 }))).await;
    assert_eq!((within.status.as_u16(), &within.json()["id"]), (200, &json!(id)));
    let next = server.post("/jobs", &unique(60_000, json!({}))).await;
    assert_eq!(next.status, 202);
    assert_ne!(next.json()["id"], json!(id));

    let batch = json!([unique(7, json!({ "within_ms": 600_000 })), sleep(7), unique(7, json!({})), unique(60_000, json!({}))]);
    let items = server.post("/jobs/batch", &batch).await.json()["items"].take();
    let existing: Vec<_> = items.as_array().unwrap().iter().map(|item| item["existing"] == true).collect();
    assert_eq!(existing, [false, false, true, true], "{items}");
    assert_eq!((&items[2]["id"], &items[3]["id"]), (&items[0]["id"], &next.json()["id"]));
    // A key keeps that, too.
    let twice = async || submit_with_key(&server, "/jobs", "u", &unique(60_000, json!({}))).await;
    let (first, again) = (twice().await, twice().await);
    assert_eq!((first.status.as_u16(), again.status.as_u16(), first.text), (200, 200, again.text));
}

#[tokio::test]
async fn a_queue_that_is_full_takes_no_more() {
    let server = Server::start_with(&["--async-slots", "1", "--max-waiting", "async=3"]).await;
    let runs = server.submit(&sleep(60_000)).await;
    server.in_state(&runs, "running").await;
    let batch = |jobs: usize| json!(vec![sleep(0); jobs]);
    assert_eq!(server.post("/jobs/batch", &batch(2)).await.status, 202);
    let full = server.post("/jobs/batch", &batch(2)).await;
    assert_eq!(full.problem(429).0, "queue-full");
    let wait: u64 = full.header("retry-after").parse().unwrap();
    assert!((1..=3_600).contains(&wait), "{wait}");
    // None of them was accepted, so there is room for one.
    assert_eq!(server.post("/jobs", &sleep(0)).await.status, 202);
    assert_eq!(server.post("/jobs", &sleep(0)).await.problem(429).0, "queue-full");
    assert_eq!(server.post("/jobs", &with(sleep(0), json!({ "delay_ms": 60_000 }))).await.problem(429).0, "queue-full");
    let prefer = server.request(Method::POST, "/jobs").header("Prefer", "wait=5").json(&sleep(0));
    assert_eq!(prefer.answer().await.problem(429).0, "queue-full");
    // Never enough: waiting does not help.
    assert_eq!(server.post("/jobs/batch", &batch(4)).await.problem(413).0, "too-large");
    // Other queues have room.
    let primes = server.submit(&primes()).await;
    assert_eq!(server.ended(&primes).await["state"], "succeeded");
    server.delete(&format!("/jobs/{runs}")).await;
    server.until(|| async { (server.post("/jobs", &sleep(0)).await.status == 202).then_some(()) }).await;
}

#[tokio::test]
async fn what_hangs_up_while_the_store_is_slow_has_no_more_room_than_others() {
    let server = Server::start_with(&["--max-waiting", "async=3"]).await;
    let (_, admin) = server.key("", &["admin"]).await;
    let wanted = json!({ "name": "k", "scopes": ["submit"], "quota": { "queued": 2 } });
    let made = with_key(server.request(Method::POST, "/keys").json(&wanted), &admin).answer().await.json();
    let confined = made["key"].as_str().unwrap();
    let options = SqliteConnectOptions::new().filename(server.folder.path().join("trine.db"));
    let mut database = options.connect().await.unwrap();
    // Those of the quota go to a queue that has room for any number.
    let computing = with(primes(), json!({ "delay_ms": 600_000, "executor": "threads" }));
    for (key, job, most) in [(&*admin, with(sleep(0), json!({ "delay_ms": 600_000 })), 3), (confined, computing, 2)] {
        // As long as somebody else writes, whoever submits waits. Here they do not wait for long, and come again.
        let writes = database.begin_with("BEGIN IMMEDIATE").await.unwrap();
        for _ in 0..15 {
            let submission = with_key(server.request(Method::POST, "/jobs").json(&job), key);
            let _ = submission.timeout(Duration::from_millis(100)).send().await;
        }
        writes.rollback().await.unwrap();
        // What is written behind them comes after them.
        let behind = with_key(server.request(Method::POST, "/jobs").json(&primes()), &admin).answer().await;
        assert_eq!(behind.status, 202, "{}", behind.text);
        let kind = job["workload"]["type"].as_str().unwrap();
        let path = format!("/jobs?state=scheduled&workload={kind}");
        let waiting = with_key(server.request(Method::GET, &path), &admin).answer().await.ids().len();
        assert!(waiting <= most, "{waiting} wait where {most} may");
    }
}

#[tokio::test]
async fn what_a_client_has_asked_for_is_done_though_it_hangs_up() {
    let server = Server::start().await;
    let id = server.submit(&sleep(600_000)).await;
    server.in_state(&id, "running").await;
    let options = SqliteConnectOptions::new().filename(server.folder.path().join("trine.db"));
    let mut database = options.connect().await.unwrap();
    let address = server.url.trim_start_matches("http://");
    let request = format!("DELETE /jobs/{id} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    let untouched = async || {
        let job = server.get(&format!("/jobs/{id}")).await.json();
        job["state"] == "running" && job["stopping"] == false
    };
    // Whoever hangs up before the server has looked at the request has asked for nothing.
    while untouched().await {
        // As long as somebody else writes, whoever cancels it waits.
        let writes = database.begin_with("BEGIN IMMEDIATE").await.unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(request.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let mut nothing = Vec::new();
        client.read_to_end(&mut nothing).await.unwrap();
        assert!(nothing.is_empty(), "the server has seen that its client hung up");
        writes.rollback().await.unwrap();
        // What is written behind it comes after it.
        server.submit(&sleep(0)).await;
    }
    assert_eq!(server.ended(&id).await["state"], "cancelled");
}
