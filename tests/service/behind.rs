//! Jobs that were claimed ahead of a slot, and Python calls that were sent to a process which was still making another one: they have not begun,
//! and whatever those before them do is not theirs.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::server::{Server, folder, until};

/// What these calls do, each in one process.
const SOURCE: &str = "
import ctypes, os, pathlib, threading, time, trine

def short(value=None):
    return value

def until(path):
    print(os.getcwd(), flush=True)
    while not os.path.exists('go'):
        time.sleep(0.001)
    os.remove('go')
    return 'through'

def crashes(path):
    ctypes.string_at(0)

def holds(seconds):
    time.sleep(seconds)

def leaves_a_thread():
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()

def leaves_a_file():
    (trine.artifacts() / 'mine').write_bytes(bytes(10_000_000))

def meddles():
    for file in pathlib.Path('artifacts').glob('*/mine'):
        file.write_bytes(b'')
    return threading.active_count()
";

/// How long the file is that one of them leaves, in bytes.
const FILE: usize = 10_000_000;

fn call(entrypoint: &str, args: &Value) -> Value {
    let workload = json!({ "type": "python", "source": SOURCE, "entrypoint": entrypoint, "args": args });
    json!({ "bound": "cpu", "executor": "processes", "workload": workload })
}

/// A server with so many processes, whose calls have been so short that the next ones are claimed ahead.
async fn server(folder: &tempfile::TempDir, processes: &str) -> Server {
    let server = Server::start(folder.path(), &[("TRINE_PYTHON_PROCESSES", processes)]).await;
    let ids = server.submit_all(&[(); 60].map(|()| call("short", &json!([])))).await;
    for id in ids {
        server.until_state(&id, "succeeded").await;
    }
    server
}

/// Waits until one of these calls of `until` has begun: which, and the file that lets it end.
pub(crate) async fn begun(server: &Server, ids: &[String]) -> (usize, PathBuf) {
    let said = async || {
        for (n, id) in ids.iter().enumerate() {
            let lines = server.get(&format!("/jobs/{id}/logs")).await;
            if let Some(line) = lines["items"].as_array().unwrap().first() {
                return Some((n, PathBuf::from(line["line"].as_str().unwrap()).join("go")));
            }
        }
        None
    };
    until("a call begins", said).await
}

#[tokio::test]
async fn what_stands_behind_a_call_that_takes_long_is_made_by_another_process() {
    let folder = folder();
    let server = server(&folder, "2").await;
    for round in 0..5 {
        let mut calls = vec![call("until", &json!([round]))];
        calls.extend((0..20).map(|n| call("short", &json!([n]))));
        let ids = server.submit_all(&calls).await;
        for (n, id) in ids[1..].iter().enumerate() {
            let job = server.until_state(id, "succeeded").await;
            assert_eq!((&job["output"], &job["attempt"], &job["losses"]), (&json!(n), &json!(1), &json!(0)), "{job}");
        }
        std::fs::write(begun(&server, &ids[..1]).await.1, "").unwrap();
        assert_eq!(server.until_state(&ids[0], "succeeded").await["output"], "through");
    }
}

#[tokio::test]
async fn what_stands_behind_calls_that_take_long_waits_again() {
    let folder = folder();
    let server = server(&folder, "1").await;
    let mut calls = vec![call("until", &json!([0]))];
    calls.extend((1..6).map(|n| call("short", &json!([n]))));
    let ids = server.submit_all(&calls).await;
    let (_, file) = begun(&server, &ids[..1]).await;
    for id in &ids[1..] {
        server.until(id, |job| job["state"] == "queued" || job["state"] == "succeeded").await;
    }
    std::fs::write(file, "").unwrap();
    for id in &ids {
        assert_eq!(server.until_state(id, "succeeded").await["attempt"], 1);
    }
}

#[tokio::test]
async fn of_calls_that_are_claimed_together_the_most_urgent_comes_first() {
    let folder = folder();
    let server = server(&folder, "1").await;
    let with_priority = |entrypoint, priority: i8| {
        let mut call = call(entrypoint, &json!([priority]));
        call["priority"] = json!(priority);
        call
    };
    for round in 0..5 {
        let calls = [with_priority("until", -100), with_priority("short", 100), with_priority("short", 99)];
        let ids = server.submit_all(&calls).await;
        for id in &ids[1..] {
            server.until_state(id, "succeeded").await;
        }
        let long = server.get(&format!("/jobs/{}", ids[0])).await;
        assert!(long["finished_at"].is_null(), "round {round}: {long}");
        std::fs::write(begun(&server, &ids[..1]).await.1, "").unwrap();
        server.until_state(&ids[0], "succeeded").await;
    }
}

#[tokio::test]
async fn what_was_claimed_ahead_of_a_thread_waits_again_if_that_takes_long() {
    let folder = folder();
    let server = Server::start(folder.path(), &[("TRINE_THREADS_CPU", "1")]).await;
    let primes = |below: u64| json!({ "bound": "cpu", "workload": { "type": "primes", "below": below } });
    for id in server.submit_all(&[(); 60].map(|()| primes(1_000))).await {
        server.until_state(&id, "succeeded").await;
    }
    let mut expires = primes(1_000);
    expires["expires_at"] = json!((jiff::Timestamp::now() + jiff::SignedDuration::from_secs(1)).to_string());
    let ids = server.submit_all(&[primes(1_000_000_000), primes(1_000), expires]).await;
    // It stands in the line, or waits already.
    server.until(&ids[1], |job| job["state"] == "queued").await;
    assert_eq!(server.until_state(&ids[2], "failed").await["error"]["kind"], "expired");
    assert_eq!(server.until_state(&ids[0], "running").await["attempt"], 1);
    server.cancel(&ids[0]).await;
    assert_eq!(server.until_state(&ids[1], "succeeded").await["attempt"], 1);
}

#[tokio::test]
async fn a_crash_costs_only_the_call_that_was_being_made() {
    let folder = folder();
    let server = server(&folder, "1").await;
    for round in 0..3 {
        let once = |entrypoint, args| {
            let mut call = call(entrypoint, &args);
            call["retry"] = json!({ "on": [] });
            call
        };
        let calls =
            [once("short", json!([0])), once("crashes", json!([round])), once("short", json!([1])), once("short", json!([2]))];
        let ids = server.submit_all(&calls).await;
        assert_eq!(server.until_state(&ids[1], "lost").await["losses"], 0);
        for id in [&ids[0], &ids[2], &ids[3]] {
            let job = server.until_ended(id).await;
            assert_eq!((&job["state"], &job["attempt"], &job["losses"]), (&json!("succeeded"), &json!(1), &json!(0)), "{job}");
        }
    }
}

#[tokio::test]
async fn one_that_is_cancelled_behind_another_never_begins_and_the_other_goes_on() {
    let folder = folder();
    let server = server(&folder, "1").await;
    for round in 0..3 {
        let ids = server.submit_all(&[call("until", &json!([round])), call("until", &json!([round]))]).await;
        let (first, go) = begun(&server, &ids).await;
        let (first, other) = (&ids[first], &ids[1 - first]);
        server.cancel(other).await;
        let cancelled = server.until_state(other, "cancelled").await;
        assert!(cancelled["timing"].is_null(), "{cancelled}");
        assert_eq!(server.get(&format!("/jobs/{other}/logs")).await["items"], json!([]));
        assert_eq!(server.get(&format!("/jobs/{first}")).await["state"], "running");
        std::fs::write(go, "").unwrap();
        server.until_state(first, "succeeded").await;
    }
}

#[tokio::test]
async fn a_deadline_counts_from_the_turn_of_its_call() {
    let folder = folder();
    let server = server(&folder, "1").await;
    let mut calls = [call("holds", &json!([2])), call("short", &json!([1])), call("holds", &json!([600]))];
    (calls[1]["deadline_ms"], calls[2]["deadline_ms"]) = (json!(1_000), json!(1_000));
    let ids = server.submit_all(&calls).await;
    for (id, state) in ids.iter().zip(["succeeded", "succeeded", "failed"]) {
        server.until_state(id, state).await;
    }
    assert_eq!(server.get(&format!("/jobs/{}", ids[2])).await["error"]["kind"], "timeout");
}

#[tokio::test]
async fn what_a_call_leaves_in_its_process_is_met_by_none_that_stood_behind_it() {
    let folder = folder();
    let server = server(&folder, "1").await;
    for leaves in ["leaves_a_thread", "leaves_a_file"] {
        let ids = server.submit_all(&[call(leaves, &json!([])), call("meddles", &json!([])), call("meddles", &json!([]))]).await;
        server.until_state(&ids[0], "succeeded").await;
        for id in &ids[1..] {
            // Two threads are the host's own.
            assert_eq!(server.until_state(id, "succeeded").await["output"], 2);
        }
        let kept = server.get(&format!("/jobs/{}/artifacts", ids[0])).await;
        let sizes: Vec<_> = kept["items"].as_array().unwrap().iter().map(|file| file["bytes"].clone()).collect();
        assert_eq!(sizes, if leaves == "leaves_a_file" { vec![json!(FILE)] } else { vec![] }, "{kept}");
    }
}
