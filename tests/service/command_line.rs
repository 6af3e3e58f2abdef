//! The command line, as a person and as a program use it.

use std::process::{Command, Output};

use serde_json::Value;

use crate::server::{Server, folder, trine};

fn run(command: &mut Command) -> Output {
    command.output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_submitted_listed_and_read() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let client = || {
        let mut command = trine();
        command.current_dir(folder.path()).env("TRINE_SERVER", &server.url);
        command
    };
    let submitted = run(client().args(["submit", "primes", "below=1000", "--wait", "--json"]));
    assert!(submitted.status.success(), "{}", stderr(&submitted));
    let result: Value = serde_json::from_str(stdout(&submitted).lines().next().unwrap()).unwrap();
    assert_eq!((&result["state"], &result["output"]["count"]), (&"succeeded".into(), &168.into()));
    let table = run(client().args(["results"]));
    assert!(stdout(&table).contains("primes") && stdout(&table).contains("succeeded"), "{}", stdout(&table));
    let listed = run(client().args(["jobs", "--state", "succeeded", "--json"]));
    assert!(stdout(&listed).contains(result["id"].as_str().unwrap()));

    let refused = run(client().args(["submit", "primes", "below=-1"]));
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("/workload/below"), "{}", stderr(&refused));
    let wrong = run(client().args(["submit"]));
    assert_eq!(wrong.status.code(), Some(2));
    let failed = run(client().args(["submit", "file", "op=read", "path=nowhere", "--wait"]));
    assert_eq!(failed.status.code(), Some(1));
}

#[test]
fn a_server_that_is_not_there_is_said_so() {
    let output = run(trine().args(["jobs", "--server", "http://127.0.0.1:9"]));
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("trine serve"), "{}", stderr(&output));
}

#[test]
fn the_configuration_says_where_each_value_comes_from() {
    let folder = folder();
    std::fs::write(folder.path().join("trine.toml"), "async_slots = 5\n[threads]\nio = 6\n").unwrap();
    let output =
        run(trine().current_dir(folder.path()).env("TRINE_ASYNC_SLOTS", "7").args(["config", "--json", "--processes", "3"]));
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    for said in ["environment", "flag", "file", "default"] {
        assert!(text.contains(said), "{said}: {text}");
    }
}

#[test]
fn the_demo_does_real_work_on_all_executors_and_ends_well() {
    let folder = folder();
    let output = run(trine().current_dir(folder.path()).arg("demo"));
    assert!(output.status.success(), "{}\n{}", stdout(&output), stderr(&output));
    for said in ["async", "threads", "processes", "http", "file", "image", "primes"] {
        assert!(stdout(&output).contains(said), "{said}: {}", stdout(&output));
    }
}
