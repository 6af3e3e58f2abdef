//! Worker processes that die.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::server::{Server, folder, log, until};

async fn workers(server: &Server) -> Vec<Value> {
    let queues = server.queues().await;
    queues.iter().find(|queue| queue["name"] == "processes").unwrap()["workers"].as_array().unwrap().clone()
}

pub(crate) async fn busy_worker(server: &Server) -> Pid {
    let busy = async || {
        let busy = workers(server).await.into_iter().find(|worker| worker["busy"] == true)?;
        Some(Pid::from_raw(busy["pid"].as_i64().unwrap().try_into().unwrap()))
    };
    until("a worker is busy", busy).await
}

/// Waits for the ends of processes that are not this one's. A zombie that nobody has collected yet is gone as well.
pub(crate) async fn until_gone(pids: &[Pid]) {
    let alive = |pid: &Pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    until("the processes end", async || (!pids.iter().any(alive)).then_some(())).await;
}

#[tokio::test]
async fn a_job_whose_worker_is_killed_runs_again_and_the_next_job_runs() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let sleep = |ms: u64| json!({"bound": "io", "workload": {"type": "sleep", "ms": ms}, "executor": "processes"});
    let id = server.submit(&sleep(3_000)).await;
    kill(busy_worker(&server).await, Signal::SIGKILL).unwrap();
    let next = server.submit(&sleep(1)).await;
    server.until_state(&next, "succeeded").await;
    let job = server.until_state(&id, "succeeded").await;
    assert_eq!(job["attempt"], 2);
}

#[tokio::test]
async fn a_job_that_must_not_be_repeated_says_what_happened() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let job =
        json!({"bound": "io", "workload": {"type": "sleep", "ms": 600_000}, "executor": "processes", "retry": {"on": ["error"]}});
    let id = server.submit(&job).await;
    let pid = busy_worker(&server).await;
    kill(pid, Signal::SIGKILL).unwrap();
    let job = server.until_state(&id, "lost").await;
    let message = job["error"]["message"].as_str().unwrap();
    assert!(message.contains("SIGKILL") && message.contains(&pid.to_string()), "{message}");
}

#[tokio::test]
async fn why_no_worker_starts_is_in_the_log_and_in_no_answer() {
    let folder = folder();
    let workspace = folder.path().join("workspace");
    let server = Server::start(folder.path(), &[("TRINE_WORKSPACE", workspace.to_str().unwrap())]).await;
    // What is no folder can't be opened as one.
    std::fs::remove_dir(&workspace).unwrap();
    std::fs::write(&workspace, "").unwrap();
    let unready = async || {
        for worker in workers(&server).await {
            // It may have ended meanwhile.
            let _ = kill(Pid::from_raw(worker["pid"].as_i64().unwrap().try_into().unwrap()), Signal::SIGKILL);
        }
        server.submit(&json!({"bound": "io", "workload": {"type": "sleep", "ms": 0}, "executor": "processes"})).await;
        let answer = server.client.get(format!("{}/readyz", server.url)).send().await.unwrap();
        if answer.status() == 503 { Some(answer.json::<Value>().await.unwrap()) } else { None }
    };
    let problem = until("the server is not ready", unready).await;
    assert_eq!(problem["detail"], "worker processes die as soon as they start: the server's log says how");
    let log = log(folder.path());
    assert!(log.contains(&format!("the workspace folder {} can't be opened", workspace.display())), "{log}");
}

#[tokio::test]
async fn workers_go_with_their_server() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    server.submit(&json!({"bound": "io", "workload": {"type": "sleep", "ms": 600_000}, "executor": "processes"})).await;
    // Not only running: a job is from its claim on, which may be before any worker has started.
    busy_worker(&server).await;
    let pids: Vec<Pid> =
        workers(&server).await.iter().map(|worker| Pid::from_raw(worker["pid"].as_i64().unwrap().try_into().unwrap())).collect();
    assert!(!pids.is_empty());
    server.crash();
    until_gone(&pids).await;
}

#[tokio::test]
async fn an_isolated_job_goes_to_a_worker_process_by_that_rule() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let job = json!({"bound": "io", "workload": {"type": "sleep", "ms": 1}, "isolated": true});
    let job = server.until_state(&server.submit(&job).await, "succeeded").await;
    assert_eq!((&job["route"]["executor"], &job["route"]["rule"]), (&json!("processes"), &json!("isolated")));
}
