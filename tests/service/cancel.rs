//! A cancelled job leaves no process behind, whatever ran it.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::commands::{COMMANDS, script};
use crate::server::{Server, folder, until};
use crate::workers::busy_worker;

/// The processes of a server, and those that they started.
pub(crate) fn descendants(server: &Server) -> Vec<i32> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        // Behind the name, which may hold anything: the state and the parent. What has ended and is not collected yet counts.
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        children.entry(parent.unwrap_or_default()).or_default().push(pid);
    }
    let mut found = Vec::new();
    let mut look = vec![server.pid().as_raw()];
    while let Some(pid) = look.pop() {
        let of_it = children.remove(&pid).unwrap_or_default();
        found.extend(&of_it);
        look.extend(of_it);
    }
    found.sort_unstable();
    found
}

/// Whether a process of the machine was started with this argument.
fn is_run(argument: &str) -> bool {
    let started_with = |entry: &std::fs::DirEntry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|part| part == argument.as_bytes())
    };
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| started_with(&entry))
}

/// Waits until there is a process of each kind that the server starts ahead of need, which it does while it answers already.
async fn until_warm(server: &Server) {
    const KEPT: [&str; 4] = ["processes", "python-async", "python-threads", "python-processes"];
    let warm = async || {
        let mut kept = server.queues().await;
        kept.retain(|queue| KEPT.contains(&queue["name"].as_str().unwrap()));
        assert_eq!(kept.len(), KEPT.len(), "{kept:?}");
        kept.iter().all(|queue| !queue["workers"].as_array().unwrap().is_empty()).then_some(())
    };
    until("processes are warm", warm).await;
}

#[tokio::test]
async fn no_process_is_left_of_a_cancelled_job() {
    // A number that no other process of the machine sleeps for.
    let nap = format!("86{:06}.5", std::process::id() % 1_000_000);
    let folder = folder();
    std::fs::write(folder.path().join("trine.toml"), COMMANDS).unwrap();
    let settings = [("TRINE_PROCESSES", "1"), ("TRINE_PYTHON_PROCESSES", "1"), ("TRINE_STOP_GRACE_MS", "200")];
    let server = Server::start(folder.path(), &settings).await;
    let deaf = "
import signal, sys, threading, time

def main():
    print('began', flush=True)
    while True:
        try:
            time.sleep(0.01)
        except BaseException:
            pass
";
    let stubborn = format!("trap '' TERM; (trap '' TERM; sleep {nap}; sleep {nap}) & echo began; while :; do sleep {nap}; done");
    let primes = json!({ "type": "primes", "below": 200_000_000 });
    let jobs: [(&str, Value); 3] = [
        ("native", json!({ "bound": "cpu", "executor": "processes", "workload": primes })),
        ("python", json!({ "bound": "cpu", "executor": "processes", "workload": { "type": "python", "source": deaf } })),
        ("command", script(&stubborn)),
    ];
    // From then on their number stays.
    until_warm(&server).await;
    for (kind, job) in jobs {
        let id = server.submit(&job).await;
        if kind == "native" {
            busy_worker(&server).await;
        } else if kind == "command" {
            until("the command begins", async || is_run(&nap).then_some(())).await;
        } else {
            let line = async || server.get(&format!("/jobs/{id}/logs")).await["items"].as_array().unwrap().first().map(drop);
            until("the source begins", line).await;
        }
        let during = descendants(&server);
        assert_eq!(server.cancel(&id).await, 202, "{kind}");
        server.until_state(&id, "cancelled").await;
        until(&format!("{kind}: no process goes on"), async || (!is_run(&nap)).then_some(())).await;
        // What ran the job has ended, or waits for the next one: nothing came to what was there.
        let no_more = async || (descendants(&server).len() <= during.len()).then_some(());
        until(&format!("{kind}: there are no more processes than before"), no_more).await;
        let ran = descendants(&server).len();
        // The next job finds a place.
        let next = match kind {
            "native" => json!({ "bound": "cpu", "executor": "processes", "workload": { "type": "primes", "below": 10 } }),
            "python" => {
                json!({ "bound": "cpu", "executor": "processes", "workload": { "type": "python", "source": "def main(): return 1" } })
            }
            _ => script("true"),
        };
        let next = server.submit(&next).await;
        server.until_state(&next, "succeeded").await;
        let no_more = async || (descendants(&server).len() <= ran.max(during.len())).then_some(());
        until(&format!("{kind}: processes do not come to more and more"), no_more).await;
    }
}
