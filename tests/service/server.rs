//! A `trine serve` of its own for each test, on a free port and in a folder of its own.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::{Connection as _, SqliteConnection};

pub(crate) use crate::patience::{PATIENCE, until};
use crate::port::Port;

pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
    pub(crate) client: reqwest::Client,
    _port: Port,
}

/// The program under test.
pub(crate) fn trine() -> Command {
    program(env!("CARGO_BIN_EXE_trine"))
}

/// A program that may start it.
pub(crate) fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    // Settings of whoever runs the tests must not reach the program under test.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TRINE_")) {
        command.env_remove(name);
    }
    command
}

impl Server {
    /// Starts on the data in `folder` and waits until it is ready.
    pub(crate) async fn start(folder: &Path, settings: &[(&str, &str)]) -> Self {
        Self::start_by(trine(), folder, settings).await
    }

    /// The same by a command that becomes the program under test.
    pub(crate) async fn start_by(command: Command, folder: &Path, settings: &[(&str, &str)]) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST, "http", client(), command, folder, settings).await
    }

    /// The same at another address, or with another scheme and a client that speaks it.
    pub(crate) async fn start_at(
        host: Ipv4Addr,
        scheme: &str,
        client: reqwest::Client,
        mut command: Command,
        folder: &Path,
        settings: &[(&str, &str)],
    ) -> Self {
        let port = Port::free();
        let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
        let child = command
            .arg("serve")
            .current_dir(folder)
            .env("TRINE_LISTEN", format!("{host}:{}", port.number))
            .env("TRINE_DATA_DIR", folder.join("data"))
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let server = Self { child, url: format!("{scheme}://{host}:{}", port.number), client, _port: port };
        let ready = async {
            while !server.client.get(format!("{}/readyz", server.url)).send().await.is_ok_and(|answer| answer.status() == 200) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ready).await.unwrap_or_else(|_| panic!("not ready: {}", self::log(folder)));
        server
    }

    /// Waits until it says that it is ready, or that it is not.
    pub(crate) async fn until_ready(&self, ready: bool) {
        let is_ready = async || self.client.get(format!("{}/readyz", self.url)).send().await.unwrap().status().is_success();
        until(&format!("ready is {ready}"), async || (is_ready().await == ready).then_some(())).await;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    /// Whether it has not ended yet.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// `SIGTERM`, which it ends well by.
    pub(crate) fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        assert_eq!(self.wait().code(), Some(0));
    }

    /// `kill -9`.
    pub(crate) fn crash(mut self) {
        self.signal(Signal::SIGKILL);
        self.wait();
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let answer = self.client.get(format!("{}{path}", self.url)).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {answer:?}");
        answer.json().await.unwrap()
    }

    /// Submits a job; its id.
    pub(crate) async fn submit(&self, submission: &Value) -> String {
        let answer = self.client.post(format!("{}/jobs", self.url)).json(submission).send().await.unwrap();
        assert_eq!(answer.status(), 202);
        answer.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned()
    }

    /// Submits jobs in one batch; their ids.
    pub(crate) async fn submit_all(&self, submissions: &[Value]) -> Vec<String> {
        let answer = self.client.post(format!("{}/jobs/batch", self.url)).json(submissions).send().await.unwrap();
        assert_eq!(answer.status(), 202);
        let answer: Value = answer.json().await.unwrap();
        answer["items"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect()
    }

    /// Submits a job and waits for its end.
    pub(crate) async fn ended(&self, submission: &Value) -> Value {
        let id = self.submit(submission).await;
        self.until_ended(&id).await
    }

    /// The job once it has ended, however that was.
    pub(crate) async fn until_ended(&self, id: &str) -> Value {
        self.until(id, |job| job["finished_at"].is_string()).await
    }

    /// Cancels a job; the status of the answer, which tells whether it ran.
    pub(crate) async fn cancel(&self, id: &str) -> StatusCode {
        let answer = self.client.delete(format!("{}/jobs/{id}", self.url)).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
        answer.status()
    }

    /// The job once `good` says so.
    pub(crate) async fn until(&self, id: &str, good: impl Fn(&Value) -> bool) -> Value {
        let path = format!("/jobs/{id}");
        until("the job gets there", async || Some(self.get(&path).await).filter(&good)).await
    }

    pub(crate) async fn until_state(&self, id: &str, state: &str) -> Value {
        self.until(id, |job| job["state"] == state).await
    }

    /// The queues of all executors.
    pub(crate) async fn queues(&self) -> Vec<Value> {
        let executors = self.get("/executors").await;
        let executors = executors["items"].as_array().unwrap();
        executors.iter().flat_map(|executor| executor["queues"].as_array().unwrap()).cloned().collect()
    }

    /// Every result there is, page by page.
    pub(crate) async fn results(&self) -> Vec<Value> {
        let mut results = Vec::new();
        let mut path = "/results?limit=1000".to_owned();
        loop {
            let page = self.get(&path).await;
            results.extend(page["items"].as_array().unwrap().iter().cloned());
            let Some(cursor) = page["next_cursor"].as_str() else { break results };
            path = format!("/results?limit=1000&cursor={cursor}");
        }
    }

    /// How many results there are, by the summary.
    pub(crate) async fn count(&self) -> u64 {
        let summary = self.get("/results/summary").await;
        summary["items"].as_array().unwrap().iter().map(|group| group["count"].as_u64().unwrap()).sum()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a server says that is to end by itself, as it does not start.
pub(crate) async fn refusal(folder: &Path, settings: &[(&str, &str)]) -> String {
    refusal_by(trine(), folder, settings).await
}

/// The same of a server that is started by a command which becomes it.
pub(crate) async fn refusal_by(command: Command, folder: &Path, settings: &[(&str, &str)]) -> String {
    let mut command = tokio::process::Command::from(command);
    command.arg("serve").current_dir(folder).env("TRINE_LISTEN", "127.0.0.1:0").env("TRINE_DATA_DIR", folder.join("data"));
    command.envs(settings.iter().copied()).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("a server that does not start").unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}

/// A client that only knows this machine.
pub(crate) fn client() -> reqwest::Client {
    let roots = rustls::RootCertStore::empty();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    reqwest::Client::builder().no_proxy().tls_backend_preconfigured(tls).build().unwrap()
}

/// A job that waits this long.
pub(crate) fn sleep(ms: u64) -> Value {
    json!({ "bound": "io", "workload": { "type": "sleep", "ms": ms } })
}

/// The job with other options.
pub(crate) fn with(mut job: Value, options: Value) -> Value {
    let Value::Object(options) = options else { panic!("options are an object") };
    job.as_object_mut().unwrap().extend(options);
    job
}

/// A number of the environment; whoever sets it wants more than `make test` has time for.
pub(crate) fn number(name: &str, usual: usize) -> usize {
    std::env::var(name).map_or(usual, |number| number.parse().unwrap())
}

pub(crate) fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// What the servers in this folder have said.
pub(crate) fn log(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("log")).unwrap()
}

/// Waits until the log of a server in this folder has these words; the first line that has them. It is written by a thread of its own, which may
/// be some moments behind what the server answers.
pub(crate) async fn until_said(folder: &Path, words: &str) -> String {
    let said = async || log(folder).lines().find(|line| line.contains(words)).map(str::to_owned);
    until(&format!("it says {words:?}"), said).await
}

pub(crate) fn database(folder: &Path) -> PathBuf {
    folder.join("data").join("trine.db")
}

/// A connection to a database, past the server.
pub(crate) async fn raw(database: &Path) -> SqliteConnection {
    SqliteConnection::connect(&format!("sqlite:{}", database.display())).await.unwrap()
}
