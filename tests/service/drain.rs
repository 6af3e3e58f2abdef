//! SIGTERM: nothing new, what runs is finished, what waits is kept.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::cancel::descendants;
use crate::load::check;
use crate::server::{PATIENCE, Server, client, folder, log, number, program, sleep, trine, until, until_said};

#[tokio::test]
async fn what_runs_is_finished_and_what_waits_is_kept() {
    let folder = folder();
    let settings = [("TRINE_THREADS_CPU", "1")];
    let server = Server::start(folder.path(), &settings).await;
    let primes = json!({"bound": "cpu", "workload": {"type": "primes", "below": 2_000_000}});
    let running = server.submit(&primes).await;
    server.until_state(&running, "running").await;
    let waiting = server.submit(&primes).await;
    server.stop();

    let server = Server::start(folder.path(), &settings).await;
    let done = server.get(&format!("/jobs/{running}")).await;
    assert_eq!((&done["state"], &done["attempt"]), (&json!("succeeded"), &json!(1)));
    let done = server.until_state(&waiting, "succeeded").await;
    assert_eq!(done["attempt"], 1);
}

#[tokio::test]
async fn clients_are_handed_over_before_anything_is_refused() {
    let folder = folder();
    let server = Server::start(folder.path(), &[("TRINE_HANDOVER_MS", "3600000")]).await;
    let job = sleep(0);
    let submit = async || server.client.post(format!("{}/jobs", server.url)).json(&job).send().await.unwrap();
    let before = submit().await;
    assert_eq!((before.status().as_u16(), before.headers().get("connection")), (202, None));
    drop(before.bytes().await.unwrap());
    server.signal(Signal::SIGTERM);
    server.until_ready(false).await;
    // It goes on as before, but for its connections.
    let after = submit().await;
    assert_eq!((after.status().as_u16(), after.headers()["connection"].to_str().unwrap()), (202, "close"));
    let accepted: Value = after.json().await.unwrap();
    server.until_state(accepted["id"].as_str().unwrap(), "succeeded").await;
    server.stop();
}

/// Jobs that run for an hour, one on each executor.
async fn running_on_all(server: &Server) -> Vec<String> {
    let mut ids = Vec::new();
    for executor in ["async", "threads", "processes"] {
        let job = json!({"bound": "io", "executor": executor, "workload": {"type": "sleep", "ms": 3_600_000}});
        let id = server.submit(&job).await;
        server.until_state(&id, "running").await;
        ids.push(id);
    }
    ids
}

#[tokio::test]
async fn what_does_not_end_in_time_is_handed_back_uncounted() {
    let folder = folder();
    let server = Server::start(folder.path(), &[("TRINE_GRACE_MS", "50")]).await;
    let ids = running_on_all(&server).await;
    let retry = json!({"on": ["error"]});
    let once = server.submit(&json!({"bound": "io", "workload": {"type": "sleep", "ms": 3_600_000}, "retry": retry})).await;
    server.until_state(&once, "running").await;
    server.stop();

    let server = Server::start(folder.path(), &[]).await;
    // It must not be repeated.
    server.until_state(&once, "lost").await;
    for id in ids {
        // It runs again, as its first attempt.
        let job = server.until_state(&id, "running").await;
        assert_eq!(job["attempt"], 1);
    }
}

#[tokio::test]
async fn told_twice_it_does_not_wait_for_the_grace_period() {
    let folder = folder();
    let settings = [("TRINE_GRACE_MS", "3600000"), ("TRINE_STOP_GRACE_MS", "30000"), ("TRINE_LOG", "info")];
    let mut server = Server::start(folder.path(), &settings).await;
    let ids = running_on_all(&server).await;
    let mut late = TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap();
    late.write_all(format!("GET /jobs/{}?wait=60 HTTP/1.1\r\nhost: it\r\n", ids[0]).as_bytes()).await.unwrap();
    server.signal(Signal::SIGTERM);
    until_said(folder.path(), "nothing new is taken").await;
    assert!(server.runs(), "it should wait for what runs");
    // Who asks to wait for a job only now hears where it is.
    late.write_all(b"\r\n").await.unwrap();
    let mut answer = String::new();
    late.read_to_string(&mut answer).await.unwrap();
    let log = log(folder.path());
    assert!(!log.contains("did not end within the grace period"), "{log}");
    assert!(answer.contains(" 200 OK") && answer.contains(r#""state":"running""#), "{answer}");
    server.stop();

    let server = Server::start(folder.path(), &[]).await;
    for id in ids {
        let job = server.until_state(&id, "running").await;
        assert_eq!(job["attempt"], 1, "what was handed back does not count");
    }
}

#[tokio::test]
async fn what_runs_is_finished_though_all_processes_are_told() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let python =
        |executor, source| json!({"bound": "io", "executor": executor, "workload": {"type": "python", "source": source}});
    let source = "import time\ndef main():\n    time.sleep(3)\n";
    let jobs = [
        json!({"bound": "io", "executor": "processes", "workload": {"type": "sleep", "ms": 3_000}}),
        python("async", "import asyncio\nasync def main():\n    await asyncio.sleep(3)\n"),
        python("threads", source),
        python("processes", source),
    ];
    for executor in ["async", "threads", "processes"] {
        // What runs the others is there by then.
        assert_eq!(server.ended(&python(executor, "def main(): pass")).await["state"], "succeeded");
    }
    let mut ids = Vec::new();
    for job in jobs {
        let id = server.submit(&job).await;
        server.until_state(&id, "running").await;
        ids.push(id);
    }
    // As systemd stops a service that does not ask for something else. One of them may have ended by itself.
    for process in descendants(&server) {
        let _ = kill(Pid::from_raw(process), Signal::SIGTERM);
    }
    server.stop();

    let server = Server::start(folder.path(), &[]).await;
    for id in ids {
        let job = server.get(&format!("/jobs/{id}")).await;
        assert_eq!((&job["state"], &job["attempt"]), (&json!("succeeded"), &json!(1)), "{job}");
    }
}

#[tokio::test]
async fn a_terminal_that_is_gone_drains_what_is_not_to_outlive_it() {
    let folder = folder();
    let mut server = Server::start(folder.path(), &[]).await;
    let id = server.submit(&json!({"bound": "cpu", "workload": {"type": "primes", "below": 2_000_000}})).await;
    server.until_state(&id, "running").await;
    server.signal(Signal::SIGHUP);
    assert_eq!(server.wait().code(), Some(0));

    let mut kept = program("nohup");
    kept.arg(trine().get_program());
    let server = Server::start_by(kept, folder.path(), &[]).await;
    let job = server.get(&format!("/jobs/{id}")).await;
    assert_eq!((&job["state"], &job["attempt"]), (&json!("succeeded"), &json!(1)), "{job}");
    server.signal(Signal::SIGHUP);
    assert_eq!(server.ended(&sleep(0)).await["state"], "succeeded");
    server.stop();
}

/// Submits jobs for each executor, one by one and in batches, until it is told to stop; goes on with the next server.
#[derive(Default)]
struct Load {
    url: Mutex<String>,
    accepted: Mutex<HashSet<String>>,
    enough: AtomicBool,
}

impl Load {
    async fn run(self: Arc<Self>, batch: usize) {
        let client = client();
        let mut sent = 0;
        while !self.enough.load(Ordering::SeqCst) {
            let url = self.url.lock().unwrap().clone();
            let jobs: Vec<Value> = (sent..sent + batch).map(job).collect();
            sent += batch;
            let answer = client.post(format!("{url}/jobs/batch")).json(&jobs).send().await;
            // Only what was answered counts as accepted.
            let Ok(answer) = answer else {
                tokio::time::sleep(Duration::from_millis(2)).await;
                continue;
            };
            if answer.status() != 202 {
                assert_eq!(answer.status(), 503);
                continue;
            }
            let Ok(body) = answer.json::<Value>().await else { continue };
            let ids = body["items"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned());
            self.accepted.lock().unwrap().extend(ids);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn count(&self) -> usize {
        self.accepted.lock().unwrap().len()
    }
}

/// Work for each executor: most of it is over soon, some takes longer than some servers wait.
fn job(n: usize) -> Value {
    match n % 20 {
        0 => sleep(400),
        1 => json!({"bound": "io", "executor": "threads", "workload": {"type": "sleep", "ms": 400}}),
        2 => json!({"bound": "io", "executor": "processes", "workload": {"type": "sleep", "ms": 20}}),
        3..10 => json!({"bound": "cpu", "workload": {"type": "primes", "below": 2_000}}),
        _ => json!({"bound": "io", "workload": {"type": "sleep", "ms": n % 7}}),
    }
}

/// The long form: `TRINE_TEST_DRAINS=30 cargo test --test service drained_under_load -- --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drained_under_load_it_loses_nothing_and_nothing_fails() {
    let drains = number("TRINE_TEST_DRAINS", 3);
    let folder = folder();
    let load = Arc::new(Load::default());
    let mut clients = Vec::new();
    let (mut turned, mut ended, mut told_so) = (Vec::new(), Vec::new(), 0);
    for round in 0..drains {
        // Some servers have time for all that runs, some hand back what takes longer.
        let grace = Duration::from_millis(if round % 2 == 0 { 10_000 } else { 50 });
        let mut server = Server::start(folder.path(), &[("TRINE_GRACE_MS", &grace.as_millis().to_string())]).await;
        load.url.lock().unwrap().clone_from(&server.url);
        if clients.is_empty() {
            clients.extend([1, 1, 3, 20].map(|batch| tokio::spawn(Arc::clone(&load).run(batch))));
        }
        let before = load.count();
        until("jobs are accepted", async || (load.count() >= before + 300).then_some(())).await;
        let told = Instant::now();
        server.signal(Signal::SIGTERM);
        let ready = || server.client.get(format!("{}/readyz", server.url)).send();
        // It says so as long as it answers, which on a busy machine may be over before it is asked again.
        let turned_away = async {
            loop {
                match ready().await.map(|answer| answer.status()) {
                    Ok(status) if status == 200 => {}
                    other => break other,
                }
            }
        };
        let status = tokio::time::timeout(PATIENCE, turned_away).await.expect("it to be not ready");
        assert!(status.as_ref().map_or_else(reqwest::Error::is_connect, |status| *status == 503), "round {round}: {status:?}");
        told_so += usize::from(status.is_ok());
        turned.push(told.elapsed());
        let status = tokio::task::spawn_blocking(move || server.wait()).await.unwrap();
        assert_eq!(status.code(), Some(0), "round {round}");
        ended.push((told.elapsed(), grace));
    }
    load.enough.store(true, Ordering::SeqCst);
    let server = Server::start(folder.path(), &[]).await;
    load.url.lock().unwrap().clone_from(&server.url);
    for client in clients {
        tokio::time::timeout(PATIENCE, client).await.expect("the load to end").unwrap();
    }
    let accepted = load.accepted.lock().unwrap().clone();
    let results = check(&server, &accepted).await;
    let again: Vec<_> = results.iter().filter(|result| result["attempt"] != 1).take(3).collect();
    assert!(again.is_empty(), "{again:?}");
    let beyond = ended.iter().map(|(took, grace)| took.saturating_sub(*grace)).max().unwrap();
    eprintln!(
        "{drains} drains, {} jobs: not ready after {:?} at the most ({told_so} said so), ended after {:?} at the most, {beyond:?} beyond the grace period",
        results.len(),
        turned.iter().max().unwrap(),
        ended.iter().map(|(took, _)| took).max().unwrap(),
    );
    // Beyond it, what is handed back is written.
    assert!(beyond < Duration::from_secs(10), "{beyond:?}");
}
