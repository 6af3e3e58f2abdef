//! Schedules across `kill -9`: no time is lost, and none has two jobs.

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

use crate::server::{Server, folder, until};

const SCHEDULES: usize = 50;

/// Puts a schedule that is due every second.
async fn every_second(server: &Server, name: &str, catch_up: &str, tag: &str) {
    let job = json!({ "bound": "io", "workload": { "type": "sleep", "ms": 0 }, "tags": { "schedule": tag } });
    let schedule = json!({ "cron": "* * * * * *", "catch_up": catch_up, "job": job });
    let answer = server.client.put(format!("{}/schedules/{name}", server.url)).json(&schedule).send().await.unwrap();
    assert_eq!(answer.status(), 201);
}

async fn runs(server: &Server, name: &str) -> Vec<Value> {
    server.get(&format!("/schedules/{name}")).await["last_runs"].as_array().unwrap().clone()
}

/// The runs of a schedule, once there are at least so many.
pub(crate) async fn until_runs(server: &Server, name: &str, least: usize) -> Vec<Value> {
    until("the schedule is due", async || Some(runs(server, name).await).filter(|runs| runs.len() >= least)).await
}

#[tokio::test]
async fn crashes_between_times_and_amid_them_lose_and_repeat_nothing() {
    let folder = folder();
    let mut server = Server::start(folder.path(), &[]).await;
    let names: Vec<_> = (0..SCHEDULES).map(|n| format!("s{n}")).collect();
    for name in &names {
        every_second(&server, name, "all", name).await;
    }
    let mut seen: BTreeMap<&str, BTreeMap<String, String>> = BTreeMap::new();
    for least in [2, 4, 6, 8] {
        until_runs(&server, &names[0], least).await;
        if least < 8 {
            server.crash();
            server = Server::start(folder.path(), &[]).await;
        }
    }
    for name in &names {
        // All times up to the latest that the first schedule had seen.
        for run in runs(&server, name).await {
            assert_eq!(run["outcome"], "submitted", "{run}");
            let (due_at, job) = (run["due_at"].as_str().unwrap().to_owned(), run["job"].as_str().unwrap().to_owned());
            assert!(seen.entry(name).or_default().insert(due_at, job).is_none(), "{name} ran twice at {run}");
        }
    }
    for (name, times) in &seen {
        let seconds: Vec<i64> =
            times.keys().map(|at| at.parse::<trine::clock::Timestamp>().unwrap().as_micros() / 1_000_000).collect();
        assert!(seconds.is_sorted_by(|a, b| b - a == 1), "{name} misses a time: {seconds:?}");
    }
    // Nothing was submitted that no schedule knows of.
    for name in &names {
        let answer = server.client.delete(format!("{}/schedules/{name}", server.url)).send().await.unwrap();
        assert_eq!(answer.status(), 204);
    }
    for name in &names {
        let jobs = server.get(&format!("/jobs?tag=schedule:{name}&limit=1000&until={}", last(&seen[name.as_str()]))).await;
        let jobs: BTreeSet<_> =
            jobs["items"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect();
        let known: BTreeSet<_> = seen[name.as_str()].values().cloned().collect();
        let unknown: Vec<_> = jobs.difference(&known).collect();
        assert!(unknown.is_empty(), "{name} submitted more: {unknown:?}");
        for id in known {
            server.until(&id, |job| job["state"] == "succeeded").await;
        }
    }
}

/// The latest of these times.
fn last(times: &BTreeMap<String, String>) -> &str {
    times.keys().next_back().unwrap()
}

/// A file of a database of time zones (RFC 9636) without any transitions.
fn utc() -> Vec<u8> {
    let counts = [0_u32, 0, 0, 0, 1, 4].map(u32::to_be_bytes).concat();
    let block = [&b"TZif2"[..], &[0; 15], &counts, &[0; 6], b"UTC\0"].concat();
    [&block[..], &block, b"\nUTC0\n"].concat()
}

#[tokio::test]
async fn a_schedule_of_the_command_line_runs_and_is_shown() {
    let folder = folder();
    // The system knows few time zones, so Trine's own are asked for the others.
    let zones = folder.path().join("zones");
    std::fs::create_dir(&zones).unwrap();
    std::fs::write(zones.join("UTC"), utc()).unwrap();
    let server = Server::start(folder.path(), &[("TZDIR", zones.to_str().unwrap())]).await;
    let trine = |arguments: &[&str]| {
        let output = crate::server::trine().args(arguments).env("TRINE_SERVER", &server.url).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let added = trine(&["schedule", "add", "pulse", "* * * * * *", "sleep", "ms=1", "--timezone", "Europe/Paris"]);
    assert!(added.contains("pulse") && added.contains("Europe/Paris") && added.contains("next runs"), "{added}");
    until_runs(&server, "pulse", 1).await;
    let paused = trine(&["schedule", "pause", "pulse"]);
    assert!(paused.contains("paused"), "{paused}");
    let job = trine(&["schedule", "run", "pulse", "--json"]);
    let job: Value = serde_json::from_str(&job).unwrap();
    server.until_state(job["id"].as_str().unwrap(), "succeeded").await;
    let shown = trine(&["schedule", "show", "pulse"]);
    assert!(
        shown.contains("submitted by hand") && shown.contains(job["id"].as_str().unwrap()) && shown.contains("succeeded"),
        "{shown}"
    );
    trine(&["schedule", "add", "yearly", "0 0 1 1 *", "--job", r#"{"bound":"io","workload":{"type":"sleep","ms":1}}"#]);
    trine(&["schedule", "add", "yearly", "0 0 2 1 *", "sleep", "ms=1", "--replace", "--overlap", "skip", "--priority", "7"]);
    assert_eq!(server.get("/schedules/yearly").await["job"]["priority"], 7);
    let list = trine(&["schedule", "list"]);
    assert!(
        list.contains("0 0 2 1 *") && list.contains("skip") && list.contains("pulse") && list.contains("succeeded"),
        "{list}"
    );
    // What came of it before is not gone.
    assert!(trine(&["schedule", "resume", "pulse"]).contains("submitted by hand"));
    trine(&["schedule", "remove", "pulse"]);
    assert_eq!(trine(&["schedule", "list", "--json"]).lines().count(), 1);
}
