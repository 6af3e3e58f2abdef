//! The API from outside: each test runs a server of its own, the binary as it is shipped, and talks to it over HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on fails")]

mod access;
mod batch;
mod browsers;
mod cluster;
mod comparisons;
mod errors;
mod graph;
mod jobs;
mod keys;
mod life;
mod limits;
mod owners;
#[path = "../patience/mod.rs"]
mod patience;
mod profiles;
mod quotas;
mod results;
mod schedules;
mod service;
mod webhooks;

use std::process::Stdio;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::patience::PATIENCE;

/// A running server. It is killed when this is dropped.
struct Server {
    _process: Child,
    url: String,
    client: reqwest::Client,
    folder: TempDir,
}

/// What the server answered.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Server {
    /// Starts one with small pools, so that they are easily full.
    async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts one with further settings.
    async fn start_with(settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_trine"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TRINE_")) {
            command.env_remove(name);
        }
        let mut process = command
            .args(["serve", "--listen", "127.0.0.1:0", "--log", "warn", "--processes", "1", "--threads-cpu", "1"])
            .arg("--data-dir")
            .arg(folder.path())
            .args(settings)
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let line = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().expect("the server says where it listens");
        let url = line.split_whitespace().find(|word| word.starts_with("http://")).expect("an address").to_owned();
        let client = client();
        let server = Self { _process: process, url, client, folder };
        server.until(|| async { (server.get("/readyz").await.status == 200).then_some(()) }).await;
        server
    }

    async fn get(&self, path: &str) -> Answer {
        self.request(Method::GET, path).answer().await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.request(Method::POST, path).json(body).answer().await
    }

    async fn delete(&self, path: &str) -> Answer {
        self.request(Method::DELETE, path).answer().await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url)).timeout(PATIENCE * 2)
    }

    /// Submits a job that must be accepted; its id.
    async fn submit(&self, job: &Value) -> String {
        let answer = self.post("/jobs", job).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    /// The job once it has ended.
    async fn ended(&self, id: &str) -> Value {
        self.until(|| async {
            let job = self.get(&format!("/jobs/{id}?wait=60")).await.json();
            (!job["finished_at"].is_null()).then_some(job)
        })
        .await
    }

    /// The job once it is in this state.
    async fn in_state(&self, id: &str, state: &str) -> Value {
        self.until(|| async {
            let job = self.get(&format!("/jobs/{id}")).await.json();
            (job["state"] == state).then_some(job)
        })
        .await
    }

    /// Asks until there is an answer.
    async fn until<T>(&self, ask: impl AsyncFnMut() -> Option<T>) -> T {
        patience::until("what the test waits for", ask).await
    }
}

trait Send {
    /// Sends the request and reads the answer; whatever it is, it has what all answers have.
    async fn answer(self) -> Answer;
}

impl Send for RequestBuilder {
    async fn answer(self) -> Answer {
        let response = self.send().await.expect("the server answers");
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.expect("the answer is complete");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        if status.is_client_error() || status.is_server_error() {
            assert_eq!(headers[CONTENT_TYPE], "application/problem+json", "{text}");
            let problem: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(problem["status"], status.as_u16());
            assert!(problem["type"].as_str().unwrap().starts_with("/problems/"));
            assert!(problem["title"].is_string() && problem["detail"].is_string(), "{text}");
        }
        Answer { status, headers, text }
    }
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(HeaderValue::to_str).expect("the answer has the header").unwrap()
    }

    /// The problem that is answered with this status: its type and the first pointer.
    fn problem(&self, status: u16) -> (String, Option<String>) {
        assert_eq!(self.status, status, "{}", self.text);
        let problem = self.json();
        let pointer = problem["errors"][0]["pointer"].as_str().map(str::to_owned);
        (problem["type"].as_str().unwrap().trim_start_matches("/problems/").to_owned(), pointer)
    }

    /// The ids of the items of a list.
    fn ids(&self) -> Vec<String> {
        assert!(self.status.is_success(), "{}", self.text);
        self.json()["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
    }
}

fn client() -> reqwest::Client {
    // Fails only if another test of this program was first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

/// A job that waits this long.
fn sleep(ms: u64) -> Value {
    json!({ "bound": "io", "workload": { "type": "sleep", "ms": ms } })
}

/// A job that counts the 168 primes below 1000.
fn primes() -> Value {
    json!({ "bound": "cpu", "workload": { "type": "primes", "below": 1000 } })
}

/// The job with other options.
fn with(mut job: Value, options: Value) -> Value {
    let Value::Object(options) = options else { panic!("options are an object") };
    job.as_object_mut().unwrap().extend(options);
    job
}
