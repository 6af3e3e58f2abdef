//! Comparisons over restarts, and from the command line.

use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::server::{Server, folder, trine, until};

pub(crate) fn asks(ms: u64) -> Value {
    json!({
        "bound": "io",
        "workload": { "type": "sleep", "ms": ms },
        "tasks": 2,
        "concurrency": [1, 2],
        "executors": ["async"],
        "budget_ms": if ms > 1_000 { 3_600_000 } else { 1_000 },
    })
}

pub(crate) async fn ask(server: &Server, request: &Value) -> String {
    let answer = server.client.post(format!("{}/comparisons", server.url)).json(request).send().await.unwrap();
    assert_eq!(answer.status(), 202);
    answer.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned()
}

pub(crate) async fn until_state(server: &Server, id: &str, state: &str) -> Value {
    let path = format!("/comparisons/{id}?wait=1");
    let seen = async || Some(server.get(&path).await).filter(|comparison| comparison["state"] == state);
    until(&format!("{id} is {state}"), seen).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_ran_during_a_crash_has_failed_and_those_that_waited_run() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let (running, waiting) = (ask(&server, &asks(600_000)).await, ask(&server, &asks(1)).await);
    until_state(&server, &running, "running").await;
    server.crash();
    let server = Server::start(folder.path(), &[]).await;
    let interrupted = until_state(&server, &running, "failed").await;
    assert!(interrupted["error"].as_str().unwrap().contains("interrupted"), "{interrupted}");
    let finished = until_state(&server, &waiting, "finished").await;
    assert!(finished["verdict"]["because"].is_string(), "{finished}");
}

/// Whoever asked for a comparison has heard of it once it has asked how it stands.
async fn until_asked(server: &Server) {
    let asked = async || {
        let metrics = server.client.get(format!("{}/metrics", server.url)).send().await.unwrap().text().await.unwrap();
        metrics.contains(r#"trine_http_request_seconds_count{operation="getComparison",status="200"}"#).then_some(())
    };
    until("whoever waits asks", asked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_nobody_waits_for_any_more_is_cancelled() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let compare = ["compare", "sleep", "ms=600000", "--tasks", "2", "--budget", "1h", "--server", &server.url];
    let mut waits = trine().args(compare).stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let seen = async || {
        let comparisons = server.get("/comparisons").await;
        let first = comparisons["items"].get(0).filter(|first| first["state"] == "running")?;
        Some(first["id"].as_str().unwrap().to_owned())
    };
    let id = until("it runs", seen).await;
    until_asked(&server).await;
    kill(Pid::from_raw(waits.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    assert_eq!(waits.wait().unwrap().code(), Some(1));
    let said = std::io::read_to_string(waits.stderr.take().unwrap()).unwrap();
    assert!(said.contains(&format!("comparison {id} is cancelled")), "{said}");
    until_state(&server, &id, "cancelled").await;
    // By its id, from elsewhere.
    let id = ask(&server, &asks(600_000)).await;
    let cancelled = trine().args(["compare", "--cancel", &id, "--server", &server.url]).output().unwrap();
    assert!(cancelled.status.success() && String::from_utf8(cancelled.stdout).unwrap().starts_with(&id));
    until_state(&server, &id, "cancelled").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_told_to_end_does_not_wait_for_a_comparison() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let id = ask(&server, &asks(600_000)).await;
    until_state(&server, &id, "running").await;
    server.stop();
    let server = Server::start(folder.path(), &[]).await;
    let interrupted = until_state(&server, &id, "failed").await;
    assert!(interrupted["error"].as_str().unwrap().contains("interrupted"), "{interrupted}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_told_to_end_does_not_wait_for_a_job_that_holds_the_event_loop() {
    let folder = folder();
    let server = Server::start(folder.path(), &[("TRINE_GRACE_MS", "50")]).await;
    let primes = json!({"bound": "cpu", "executor": "async", "workload": {"type": "primes", "below": 2_000_000_000}});
    let holds = server.submit(&primes).await;
    server.until_state(&holds, "running").await;
    let on = |executor: &str| {
        let mut asks = asks(1);
        asks["executors"] = json!([executor]);
        asks["budget_ms"] = json!(3_600_000);
        asks
    };
    // What runs beside the tasks is on the loop, wherever they are.
    for (executor, doing) in [("threads", "repetition"), ("async", "warming up: pure waiting on async")] {
        let id = ask(&server, &on(executor)).await;
        let path = format!("/comparisons/{id}");
        let is_held = |comparison: &Value| comparison["progress"]["doing"].as_str().is_some_and(|now| now.starts_with(doing));
        until(&format!("it is at {doing:?}"), async || Some(server.get(&path).await).filter(is_held)).await;
        assert_eq!(server.client.delete(format!("{}{path}", server.url)).send().await.unwrap().status(), 202);
        until_state(&server, &id, "cancelled").await;
    }
    let id = ask(&server, &on("threads")).await;
    until_state(&server, &id, "running").await;
    server.stop();
    let server = Server::start(folder.path(), &[]).await;
    until_state(&server, &id, "failed").await;
    let handed_back = server.until_state(&holds, "running").await;
    assert_eq!(handed_back["attempt"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_loses_the_server_is_told_which_comparison_it_was() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let arguments = ["compare", "sleep", "ms=20", "--budget", "60s", "--server", &server.url];
    let asks = trine().args(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    until_asked(&server).await;
    let comparisons = server.get("/comparisons").await;
    let id = comparisons["items"][0]["id"].as_str().unwrap().to_owned();
    server.crash();
    let output = asks.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains(&id), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_compares_on_a_running_server_and_on_one_of_its_own() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let page = folder.path().join("report.html");
    let compare = |of_its_own: bool, arguments: &[&str]| {
        let mut command = trine();
        command.current_dir(folder.path()).args([
            "compare",
            "sleep",
            "ms=5",
            "--tasks",
            "4",
            "--concurrency",
            "1,4",
            "--budget",
            "1s",
        ]);
        if !of_its_own {
            command.env("TRINE_SERVER", &server.url);
        }
        let output = command.args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let shown = compare(false, &["--html", page.to_str().unwrap()]);
    for expected in ["sleep, tagged io", "confidence:", "async", "threads", "processes", "█", "pure waiting"] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    assert!(std::fs::read_to_string(page).unwrap().starts_with("<!doctype html>"));
    let json: Value = serde_json::from_str(&compare(false, &["--executors", "async,threads", "--json"])).unwrap();
    assert_eq!((&json["executors"], &json["state"]), (&json!(["async", "threads"]), &json!("finished")));
    assert_eq!(server.get("/comparisons").await["items"].as_array().unwrap().len(), 2);

    // One that has ended is removed by what cancels others.
    let id = json["id"].as_str().unwrap();
    for (format, said) in [(None, format!("{id}  removed\n")), (Some("--json"), String::new())] {
        let id = server.get("/comparisons").await["items"][0]["id"].as_str().unwrap().to_owned();
        let output = trine().args(["compare", "--server", &server.url, "--cancel", &id]).args(format).output().unwrap();
        assert_eq!((output.status.success(), String::from_utf8(output.stdout).unwrap()), (true, said));
    }
    assert_eq!(server.get("/comparisons").await["items"], json!([]));

    let alone: Value = serde_json::from_str(&compare(true, &["--json"])).unwrap();
    assert_eq!(alone["matrix"].as_array().unwrap().len(), 6);
    assert_eq!(server.get("/comparisons").await["items"], json!([]), "it had a server of its own");
    assert!(!folder.path().join("trine-data").exists());
}

#[test]
fn a_workload_that_is_not_there_is_refused_in_words() {
    let output = trine().current_dir(folder().path()).args(["compare", "primes", "below=-1", "--budget", "1s"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("The comparison is not valid") && said.contains("/workload/below"), "{said}");
}
