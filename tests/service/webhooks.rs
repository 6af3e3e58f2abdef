//! Webhooks against a real receiver: one that fails, hangs, redirects, is gone; and across `kill -9`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::server::{PATIENCE, Server, folder, log, sleep, until};

pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OLD_SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const QUICK: [(&str, &str); 4] = [
    ("TRINE_HTTP_ALLOW", "127.0.0.1"),
    ("TRINE_WEBHOOK_SECRETS", SECRET),
    ("TRINE_WEBHOOK_BACKOFF_MS", "1"),
    ("TRINE_WEBHOOK_ATTEMPTS", "5"),
];

/// How the receiver answers a message.
#[derive(Clone, Copy)]
pub(crate) enum Answer {
    Status(u16),
    /// Not before it is dropped.
    Never,
    /// Points to a place that would take it.
    Redirect,
}

/// A message that arrived.
#[derive(Clone)]
pub(crate) struct Message {
    headers: HeaderMap,
    body: Bytes,
    path: &'static str,
}

/// Somebody who is told: answers by its script, then with 204.
#[derive(Clone, Default)]
pub(crate) struct Receiver {
    script: Arc<Mutex<VecDeque<Answer>>>,
    messages: Arc<Mutex<Vec<Message>>>,
    arrived: Arc<Notify>,
}

impl Receiver {
    /// Starts; the URL to tell it things.
    pub(crate) async fn start(script: &[Answer]) -> (Self, String) {
        let receiver = Self { script: Arc::new(Mutex::new(script.iter().copied().collect())), ..Self::default() };
        let app = Router::new()
            .route("/hook", post(|State(receiver): State<Self>, headers, body| receiver.take("/hook", headers, body)))
            .route("/other", post(|State(receiver): State<Self>, headers, body| receiver.take("/other", headers, body)))
            .with_state(receiver.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        (receiver, url)
    }

    async fn take(self, path: &'static str, headers: HeaderMap, body: Bytes) -> Response {
        self.messages.lock().unwrap().push(Message { headers, body, path });
        self.arrived.notify_one();
        let answer = self.script.lock().unwrap().pop_front();
        match answer.unwrap_or(Answer::Status(204)) {
            Answer::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
            Answer::Never => std::future::pending().await,
            Answer::Redirect => (StatusCode::TEMPORARY_REDIRECT, [("location", "/other")]).into_response(),
        }
    }

    /// What arrived, once there is so much.
    pub(crate) async fn messages(&self, least: usize) -> Vec<Message> {
        let enough = async {
            loop {
                let messages = self.messages.lock().unwrap().clone();
                if messages.len() >= least {
                    break messages;
                }
                self.arrived.notified().await;
            }
        };
        tokio::time::timeout(PATIENCE, enough).await.expect("messages")
    }
}

impl Message {
    pub(crate) fn id(&self) -> &str {
        self.headers["webhook-id"].to_str().unwrap()
    }

    /// What it says, if it is signed with this secret.
    fn verified(&self, secret: &str) -> Option<Value> {
        Webhook::new(secret).unwrap().verify(&self.body, &self.headers).ok()?;
        Some(serde_json::from_slice(&self.body).unwrap())
    }
}

fn job(workload: &Value, webhook: &Value) -> Value {
    json!({ "bound": "io", "workload": workload, "webhook": webhook, "tags": { "team": "search" } })
}

fn told(url: &str) -> Value {
    job(&json!({ "type": "sleep", "ms": 1 }), &json!({ "url": url }))
}

/// The job's only delivery, once it stands so.
pub(crate) async fn delivery(server: &Server, job: &str, state: &str) -> Value {
    let path = format!("/jobs/{job}/deliveries");
    let seen = async || {
        let deliveries = server.get(&path).await;
        let [delivery] = &deliveries["items"].as_array().unwrap()[..] else { return None };
        (delivery["state"] == state).then(|| delivery.clone())
    };
    until(&format!("the delivery is {state}"), seen).await
}

fn statuses(delivery: &Value) -> Vec<Value> {
    delivery["attempts"].as_array().unwrap().iter().map(|attempt| attempt["status"].clone()).collect()
}

#[tokio::test]
async fn a_message_is_signed_and_says_what_came_of_the_job() {
    let folder = folder();
    let secrets = format!("{SECRET},{OLD_SECRET}");
    let settings = [("TRINE_HTTP_ALLOW", "127.0.0.1"), ("TRINE_WEBHOOK_SECRETS", secrets.as_str())];
    let server = Server::start(folder.path(), &settings).await;
    let (receiver, url) = Receiver::start(&[]).await;
    let id = server.submit(&told(&url)).await;
    let message = receiver.messages(1).await.remove(0);
    for secret in [SECRET, OLD_SECRET] {
        let said = message.verified(secret).expect("each secret signs");
        let finished = server.get(&format!("/jobs/{id}")).await;
        assert_eq!((&said["type"], &said["timestamp"]), (&json!("job.succeeded"), &finished["finished_at"]));
        let data = &said["data"];
        assert_eq!((&data["id"], &data["state"], &data["workload"]), (&json!(id), &json!("succeeded"), &json!("sleep")));
        for field in ["output", "error", "timing", "tags", "attempt", "accepted_at", "started_at", "finished_at"] {
            assert_eq!(data[field], finished[field], "{field}");
        }
        assert_eq!(data["output_omitted"], false);
    }
    let delivered = delivery(&server, &id, "delivered").await;
    assert_eq!(
        (&delivered["id"], &delivered["type"], &delivered["url"]),
        (&json!(message.id()), &json!("job.succeeded"), &json!(url))
    );
    assert_eq!((statuses(&delivered), &delivered["due_at"]), (vec![json!(204)], &Value::Null));

    // A secret of the job's own signs instead, and nobody is shown it.
    let own = "whsec_Dw4NDAsKCQgHBgUEAwIBAA8ODQwLCgkIBwYFBAMCAQA=";
    let id = server.submit(&job(&json!({ "type": "sleep", "ms": 1 }), &json!({ "url": url, "secret": own }))).await;
    let message = receiver.messages(2).await.remove(1);
    assert!(message.verified(own).is_some() && message.verified(SECRET).is_none());
    delivery(&server, &id, "delivered").await;
    for path in ["/jobs".to_owned(), format!("/jobs/{id}"), "/webhooks/deliveries".to_owned(), format!("/results/{id}")] {
        let shown = server.get(&path).await.to_string();
        assert!(!shown.contains("whsec_") && !shown.contains(&own[6..]), "{shown}");
    }
    let config = crate::server::trine().arg("config").envs(settings).output().unwrap();
    assert!(!String::from_utf8(config.stdout).unwrap().contains(&SECRET[6..]));
    assert!(!log(folder.path()).contains("whsec_"));
}

#[tokio::test]
async fn what_fails_hangs_or_redirects_is_tried_again_with_the_same_id() {
    let folder = folder();
    let settings = [&QUICK[..], &[("TRINE_WEBHOOK_TIMEOUT_MS", "5000")]].concat();
    let server = Server::start(folder.path(), &settings).await;
    let (receiver, url) = Receiver::start(&[Answer::Status(500), Answer::Never, Answer::Redirect, Answer::Status(201)]).await;
    let id = server.submit(&told(&url)).await;
    let delivered = delivery(&server, &id, "delivered").await;
    assert_eq!(statuses(&delivered), [json!(500), Value::Null, json!(307), json!(201)]);
    assert_eq!(delivered["attempts"][1]["error"], "no answer within 5000 ms");
    let messages = receiver.messages(4).await;
    assert!(messages.iter().all(|message| message.path == "/hook" && message.id() == delivered["id"]), "a redirect was followed");
    assert!(messages.iter().all(|message| message.verified(SECRET).is_some() && message.body == messages[0].body));
}

#[tokio::test]
async fn what_is_given_up_can_be_delivered_again_and_what_is_gone_is_left() {
    let folder = folder();
    let server = Server::start(folder.path(), &QUICK).await;
    let (receiver, url) = Receiver::start(&[Answer::Status(503); 5]).await;
    let id = server.submit(&told(&url)).await;
    let failed = delivery(&server, &id, "failed").await;
    assert_eq!(statuses(&failed), vec![json!(503); 5]);
    let message = failed["id"].as_str().unwrap();
    let again = server.client.post(format!("{}/webhooks/deliveries/{message}/redeliver", server.url)).send().await.unwrap();
    assert_eq!(again.status(), 202);
    assert_eq!(again.json::<Value>().await.unwrap()["state"], "pending");
    assert_eq!(delivery(&server, &id, "delivered").await["attempts"].as_array().unwrap().len(), 6);
    assert_eq!(receiver.messages(6).await[5].id(), message);
    let nobody = server.client.post(format!("{}/webhooks/deliveries/msg_1/redeliver", server.url)).send().await.unwrap();
    assert_eq!(nobody.status(), 404);

    receiver.script.lock().unwrap().push_back(Answer::Status(410));
    let id = server.submit(&told(&url)).await;
    assert_eq!(statuses(&delivery(&server, &id, "gone").await), [json!(410)]);
    let gone = server.get("/webhooks/deliveries?state=gone").await;
    assert_eq!((gone["items"].as_array().unwrap().len(), &gone["items"][0]["job"]), (1, &json!(id)));
    let metrics = server.client.get(format!("{}/metrics", server.url)).send().await.unwrap().text().await.unwrap();
    for count in [r#"outcome="delivered"} 1"#, r#"outcome="again"} 4"#, r#"outcome="failed"} 1"#, r#"outcome="gone"} 1"#] {
        assert!(metrics.contains(&format!("trine_webhook_attempts_total{{{count}\n")), "{count} is not in\n{metrics}");
    }
    assert!(metrics.contains("\ntrine_webhooks_pending 0.0\n"), "{metrics}");
    let shown = crate::server::trine().arg("deliveries").env("TRINE_SERVER", &server.url).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("gone") && shown.contains("410") && shown.contains(message), "{shown}");

    server.stop();
    let log = log(folder.path());
    let told: Vec<&str> = log.lines().filter(|line| line.contains("it is given up")).collect();
    assert!(told.len() == 1 && told[0].contains(message) && told[0].contains("status=503"), "{log}");
    assert!(!log.contains(&url), "{log}");
}

#[tokio::test]
async fn what_is_wanted_again_while_its_last_attempt_is_on_its_way_is_sent_again() {
    let folder = folder();
    let settings = [&QUICK[..3], &[("TRINE_WEBHOOK_ATTEMPTS", "1"), ("TRINE_WEBHOOK_TIMEOUT_MS", "2000")]].concat();
    let server = Server::start(folder.path(), &settings).await;
    let (receiver, url) = Receiver::start(&[Answer::Never]).await;
    let id = server.submit(&told(&url)).await;
    let message = receiver.messages(1).await.remove(0);
    let again =
        server.client.post(format!("{}/webhooks/deliveries/{}/redeliver", server.url, message.id())).send().await.unwrap();
    assert_eq!(again.status(), 202);
    assert_eq!(receiver.messages(2).await[1].id(), message.id());
    assert_eq!(statuses(&delivery(&server, &id, "delivered").await), [Value::Null, json!(204)]);
}

#[tokio::test]
async fn a_crash_between_the_result_and_its_delivery_loses_no_message() {
    let folder = folder();
    let server = Server::start(folder.path(), &QUICK).await;
    let (receiver, url) = Receiver::start(&[Answer::Never]).await;
    let id = server.submit(&told(&url)).await;
    let first = receiver.messages(1).await.remove(0);
    server.crash();
    let server = Server::start(folder.path(), &QUICK).await;
    let second = receiver.messages(2).await.remove(1);
    assert_eq!((first.id(), &first.body), (second.id(), &second.body));
    assert!(second.verified(SECRET).is_some());
    let delivered = delivery(&server, &id, "delivered").await;
    assert_eq!(delivered["id"], second.id());
}

#[tokio::test]
async fn each_ending_is_told_if_it_is_wanted_and_long_outputs_are_left_out() {
    let folder = folder();
    let server = Server::start(folder.path(), &QUICK).await;
    let (receiver, url) = Receiver::start(&[]).await;
    let only_failures = json!({ "url": url, "events": ["failed", "lost"] });
    let unwanted = server.submit(&job(&json!({ "type": "sleep", "ms": 1 }), &only_failures)).await;
    server.until_state(&unwanted, "succeeded").await;
    let failing = server.submit(&job(&json!({ "type": "file", "op": "digest", "path": "nowhere" }), &only_failures)).await;
    let said = receiver.messages(1).await[0].verified(SECRET).unwrap();
    assert_eq!((&said["type"], &said["data"]["id"]), (&json!("job.failed"), &json!(failing)));
    assert_eq!(said["data"]["error"]["kind"], "error");

    let waiting = server.submit(&job(&json!({ "type": "sleep", "ms": 600_000 }), &json!({ "url": url }))).await;
    server.cancel(&waiting).await;
    let said = receiver.messages(2).await[1].verified(SECRET).unwrap();
    assert_eq!((&said["type"], &said["data"]["id"]), (&json!("job.cancelled"), &json!(waiting)));

    let page = axum::Router::new().route("/page", axum::routing::get(|| async { "x".repeat(300_000) }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let source = format!("http://{}/page", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, page).await.unwrap() });
    server.submit(&job(&json!({ "type": "http", "url": source }), &json!({ "url": url }))).await;
    let said = receiver.messages(3).await[2].verified(SECRET).unwrap();
    assert_eq!((&said["data"]["state"], &said["data"]["output"]), (&json!("succeeded"), &Value::Null));
    assert_eq!(said["data"]["output_omitted"], true);
}

#[tokio::test]
async fn a_server_without_a_secret_makes_one_and_keeps_it() {
    let folder = folder();
    let settings = [("TRINE_HTTP_ALLOW", "127.0.0.1")];
    let (receiver, url) = Receiver::start(&[]).await;
    for start in 0..2 {
        let server = Server::start(folder.path(), &settings).await;
        let arguments = ["submit", "sleep", "ms=1", "--webhook", url.as_str()];
        let output = crate::server::trine().args(arguments).env("TRINE_SERVER", &server.url).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let secret = std::fs::read_to_string(folder.path().join("data").join("webhook.secret")).unwrap();
        assert!(receiver.messages(start + 1).await[start].verified(secret.trim()).is_some());
    }
}

#[tokio::test]
async fn a_message_on_its_way_and_a_job_that_runs_are_waited_for_at_the_same_time() {
    let folder = folder();
    let settings = [&QUICK[..], &[("TRINE_GRACE_MS", "5000")]].concat();
    let server = Server::start(folder.path(), &settings).await;
    let (receiver, url) = Receiver::start(&[Answer::Never]).await;
    server.submit(&told(&url)).await;
    receiver.messages(1).await;
    let running = server.submit(&sleep(600_000)).await;
    server.until_state(&running, "running").await;
    let begin = std::time::Instant::now();
    server.stop();
    // One after the other, it is five seconds for each.
    assert!(begin.elapsed() < std::time::Duration::from_secs(9), "{:?}", begin.elapsed());
}
