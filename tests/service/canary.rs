//! Secrets that pass through the server are in no line of its log, in no metric and in no error that others see.

use std::collections::BTreeMap;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::server::{Server, folder, log, until};

/// What stands for a secret, a different one in each place, so that it is known where one came from.
fn canary(place: &str) -> String {
    format!("canary-{place}-5b1f")
}

/// A site that answers with a secret, and leads on to an address with one where it is asked to.
async fn site() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut head = [0; 16 * 1024];
                let length = stream.read(&mut head).await.unwrap_or(0);
                let head = String::from_utf8_lossy(&head[..length]).into_owned();
                let body = canary("fetched");
                let answer = if head.contains("/lead") {
                    format!(
                        "HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/?token={}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                        canary("redirect")
                    )
                } else if head.contains("/break") {
                    "HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nx".into()
                } else {
                    format!(
                        "HTTP/1.1 200 OK\r\nX-Secret: {body}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                        body.len()
                    )
                };
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    address
}

/// What the server says besides what was asked for.
#[derive(Default)]
struct Heard(BTreeMap<&'static str, String>);

impl Heard {
    fn add(&mut self, place: &'static str, text: &str) {
        self.0.entry(place).or_default().push_str(text);
    }

    /// The places in which one of the secrets was heard, with what stands round it.
    fn secrets(&self) -> Vec<String> {
        let found = self.0.iter().flat_map(|(place, text)| {
            text.match_indices("canary-").map(move |(at, _)| {
                let from = (0..=at.saturating_sub(200)).rev().find(|&from| text.is_char_boundary(from)).unwrap_or(0);
                format!("{place}: {}", text[from..].chars().take(300).collect::<String>())
            })
        });
        found.collect()
    }
}

/// Jobs that succeed, and jobs that fail in all ways: their secrets are in what they were given and in what they return, nowhere else.
fn jobs(site: &str) -> Vec<Value> {
    let http = |path: &str, more: Value| {
        let mut workload = json!({
            "type": "http", "url": format!("{site}{path}?token={}", canary("url")), "method": "POST", "body": canary("body"),
            "headers": {"Authorization": format!("Bearer {}", canary("authorization"))}, "timeout_ms": 10_000,
        });
        workload.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"bound": "io", "workload": workload, "webhook": {"url": format!("http://127.0.0.1:1/?token={}", canary("webhook"))}})
    };
    let closed = json!({"url": format!("http://127.0.0.1:1/?token={}", canary("closed"))});
    let python = |call: &str| {
        let source = format!("import os, sys\ndef main(text):\n    print(text)\n    {call}\n");
        json!({"bound": "cpu", "executor": "processes", "workload": {"type": "python", "source": source, "args": [canary("argument")]}})
    };
    // Nobody's line: on threads, it is not known which job wrote it.
    let mut on_threads = python("os.write(1, text.encode() + bytes([10]))");
    on_threads["executor"] = json!("threads");
    vec![
        http("/", json!({})),
        http("/lead", json!({})),
        http("/break", json!({})),
        http("/", json!({"expect_status": 404})),
        http("/", json!({"max_bytes": 1})),
        http("/", closed),
        http("/", json!({"url": format!("http://nowhere.invalid/?token={}", canary("name"))})),
        python(&format!("return [text, {:?}]", canary("result"))),
        python("return sorted(os.environ.items())"),
        python("os._exit(3)"),
        python("return object()"),
        on_threads,
        json!({"bound": "io", "workload": {"type": "file", "op": "read", "path": canary("path")}}),
    ]
}

/// Requests that are refused.
fn refused() -> Vec<(Method, String, String)> {
    let long = "x".repeat(9_000);
    vec![
        (Method::POST, "/jobs".to_owned(), format!("{{\"bound\": \"io\", {}", canary("malformed"))),
        (Method::GET, format!("/nothing/{}?token={}", canary("nothing"), canary("query")), String::new()),
        (Method::GET, format!("/healthz?token={}{long}", canary("long")), String::new()),
        (Method::PATCH, format!("/jobs?token={}", canary("method")), canary("unread")),
        (Method::POST, "/jobs".into(), json!({"bound": "io", "workload": {"type": "http", "url": format!("http://10.0.0.1/?token={}", canary("refused"))}}).to_string()),
        (Method::POST, "/jobs".into(), json!({"bound": "io", "workload": {"type": "http", "url": format!("http://user:{}@example.org/", canary("password"))}}).to_string()),
        (Method::POST, "/jobs".into(), json!({"bound": "io", "workload": {"type": "sleep", "ms": 0}, "webhook": {"url": format!("http://10.0.0.1/?token={}", canary("hook"))}}).to_string()),
    ]
}

async fn ask(server: &Server, method: Method, path: &str, body: &str, headers: &[(&str, String)]) -> (StatusCode, String) {
    let mut request = server.client.request(method, format!("{}{path}", server.url)).header("Content-Type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let answer = request.body(body.to_owned()).send().await.unwrap();
    (answer.status(), answer.text().await.unwrap())
}

#[tokio::test]
async fn secrets_are_in_no_log_no_metric_and_no_error() {
    let folder = folder();
    let (site, environment) = (site().await, canary("environment"));
    let signing = format!("whsec_{}", "Y2FuYXJ5".repeat(4));
    let settings = [
        ("TRINE_LOG", "trace"),
        ("TRINE_HTTP_ALLOW", "127.0.0.1"),
        ("TRINE_PROCESSES", "1"),
        ("TRINE_WEBHOOK_BACKOFF_MS", "1"),
        ("TRINE_WEBHOOK_ATTEMPTS", "2"),
        ("TRINE_WEBHOOK_SECRETS", signing.as_str()),
        ("A_SECRET", environment.as_str()),
    ];
    let server = Server::start(folder.path(), &settings).await;
    let mut heard = Heard::default();
    let headers = [
        ("Cookie", canary("cookie")),
        ("X-Secret", canary("header")),
        ("Idempotency-Key", canary("idempotency")),
        ("User-Agent", canary("agent")),
    ];
    let jobs = jobs(&site);
    for (at, job) in jobs.iter().enumerate() {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, format!("{value}-{at}"))).collect();
        let (status, text) = ask(&server, Method::POST, "/jobs?", &job.to_string(), &headers).await;
        assert_eq!(status, 202, "{text}");
        let id = serde_json::from_str::<Value>(&text).unwrap()["id"].as_str().unwrap().to_owned();
        let ended = server.until_ended(&id).await;
        // The path is what the job is about, and its error is for who gave it.
        if ended["workload"]["type"] != "file" {
            heard.add("the error of a job", &ended["error"].to_string());
        }
        assert!(!ended["output"].to_string().contains(&environment), "the environment is seen by jobs: {ended}");
    }
    // Messages that do not get through: their addresses are seen by who gave them, why they failed is said without.
    let failed = async || {
        let page = server.get("/webhooks/deliveries?limit=100").await;
        let failed = page["items"].as_array().unwrap().iter().find(|delivery| delivery["state"] == "failed");
        failed.map(|delivery| delivery["attempts"].to_string())
    };
    heard.add("a delivery", &until("a message fails", failed).await);
    for (method, path, body) in refused() {
        let (status, text) = ask(&server, method, &path, &body, &headers[..2]).await;
        assert!(status.is_client_error() || path.contains("healthz"), "{path}: {status}");
        heard.add("the answer to a request", &text);
    }
    // A key that is none.
    let key = [("Authorization", format!("Bearer trine_3f1c09a2b47d_{}", canary("key")))];
    let (status, made) = ask(&server, Method::POST, "/keys", r#"{"name": "admin", "scopes": ["admin"]}"#, &[]).await;
    assert_eq!(status, 201);
    let (status, text) = ask(&server, Method::GET, "/jobs", "", &key).await;
    assert_eq!(status, 401);
    heard.add("the answer to a request", &text);
    let admin = serde_json::from_str::<Value>(&made).unwrap()["key"].as_str().unwrap().to_owned();
    let by_admin = [("Authorization", format!("Bearer {admin}"))];
    for (place, path) in [
        ("a metric", "/metrics"),
        ("the executors", "/executors"),
        ("a profile", "/profiles"),
        ("a finding", "/findings"),
        ("the audit", "/audit"),
        ("the limits", "/limits"),
        ("a summary", "/results/summary?by=workload"),
    ] {
        let (status, text) = ask(&server, Method::GET, path, "", &by_admin).await;
        assert_eq!(status, 200, "{path}: {text}");
        heard.add(place, &text);
    }
    drop(server);
    let log = log(folder.path());
    assert!(log.contains("TRACE") && log.contains("DEBUG"), "the log has all levels");
    assert!(!log.contains(admin.splitn(3, '_').nth(2).unwrap()), "an API key is in the log");
    assert!(!log.contains(&signing[6..]), "what signs webhooks is in the log");
    heard.add("the log", &log);
    let secrets = heard.secrets();
    assert!(secrets.is_empty(), "{} secrets, such as\n{}", secrets.len(), secrets[..secrets.len().min(12)].join("\n"));
}
