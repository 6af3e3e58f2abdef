//! Work that takes down whatever runs it is kept out for a while; its neighbours go on.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::python::interpreter;
use crate::server::{Server, folder, until};

fn python(executor: &str, source: &str) -> Value {
    json!({ "bound": "cpu", "executor": executor, "workload": { "type": "python", "source": source } })
}

/// The kinds of work that are kept out.
async fn kept_out(server: &Server) -> Vec<Value> {
    server.get("/executors").await["quarantined"].as_array().unwrap().clone()
}

/// Waits until the job says why it waits.
async fn until_told(server: &Server, job: &str, words: &str) {
    let told = async || server.get(&format!("/jobs/{job}/logs")).await.to_string().contains(words).then_some(());
    until(&format!("the job says {words:?}"), told).await;
}

#[tokio::test]
async fn what_takes_its_process_down_again_and_again_waits_and_its_neighbours_go_on() {
    let folder = folder();
    let server = Server::start(folder.path(), &[("TRINE_MAX_LOSSES", "100")]).await;
    for executor in ["processes", "threads"] {
        let crash = python(executor, &format!("import os\ndef main():\n    os._exit(3) # on {executor}\n"));
        let fine = python(executor, &format!("def main():\n    return {executor:?}\n"));
        let bad = server.submit(&crash).await;
        // It runs again each time, until it is kept out: then it waits, and what it did before does not count against it.
        let job = server.until(&bad, |job| job["state"] == "scheduled" && job["waiting"]["reason"] == "quarantine").await;
        assert_eq!(job["attempt"], 3, "{job}");
        let listed = kept_out(&server).await;
        let case = listed.last().unwrap();
        assert!(case["key"].as_str().unwrap().starts_with("python") && case["deaths"].as_u64().unwrap() >= 3, "{listed:?}");
        until_told(&server, &bad, "again and again").await;
        // Another one like it does not even start; others do.
        let another = server.submit(&crash).await;
        let neighbour = server.submit(&fine).await;
        server.until_state(&neighbour, "succeeded").await;
        let job = server.until_state(&another, "scheduled").await;
        assert_eq!(job["attempt"], 0);
        // One that was put off waits for its time first.
        let mut later = crash.clone();
        later["delay_ms"] = json!(3_600_000);
        let later = server.submit(&later).await;
        assert_eq!(server.get(&format!("/jobs/{later}")).await["waiting"]["reason"], "time");
        for job in [bad, another] {
            assert_eq!(server.cancel(&job).await, 200);
        }
    }
    assert_eq!(kept_out(&server).await.len(), 2);
    let metrics = server.client.get(format!("{}/metrics", server.url)).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("trine_quarantined 2"), "{metrics}");
}

/// The one that is let in to see may find no process: that says nothing, and the next one sees.
#[tokio::test]
async fn what_is_let_in_to_see_and_gets_no_process_is_let_in_again() {
    let folder = folder();
    let (interpreter, away) = (interpreter(folder.path()), folder.path().join("away"));
    let interpreters = format!("python3, other={}", interpreter.display());
    let settings = [("TRINE_MAX_LOSSES", "100"), ("TRINE_PYTHON_INTERPRETERS", &*interpreters)];
    let server = Server::start(folder.path(), &settings).await;
    let mut crash = python("processes", "import os\ndef main():\n    os._exit(3)\n");
    crash["workload"]["interpreter"] = json!("other");
    let bad = server.submit(&crash).await;
    server.until(&bad, |job| job["waiting"]["reason"] == "quarantine").await;
    // No process can be started any more, and none is there.
    fs::rename(&interpreter, &away).unwrap();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        if line.starts_with(interpreter.as_os_str().as_bytes()) {
            let id = process.file_name().to_str().unwrap().parse().unwrap();
            kill(Pid::from_raw(id), Signal::SIGKILL).unwrap();
        }
    }
    until_told(&server, &bad, "no process").await;
    fs::rename(&away, &interpreter).unwrap();
    server.until(&bad, |job| job["losses"] == 4).await;
}
