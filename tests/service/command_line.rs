//! The command line, as a person and as a program use it.

use std::process::{Command, Output};

use serde_json::{Value, json};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ready_server_is_said_to_be_ready() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let output = run(trine().args(["health", "--server", &server.url]));
    assert_eq!((output.status.code(), stdout(&output).trim()), (Some(0), "ready"), "{}", stderr(&output));
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
fn a_server_that_requires_the_sandbox_does_not_start_with_a_gap_in_it() {
    let serve = ["serve", "--listen", "127.0.0.1:0", "--sandbox", "required", "--data-dir", "/usr/share/trine"];
    let output = run(trine().args(serve));
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("which every sandboxed program can read"), "{}", stderr(&output));
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

#[test]
fn the_highest_source_of_a_setting_wins() {
    let folder = folder();
    let file = "listen = '127.0.0.1:1'\ndata_dir = 'of-the-file'\ngrace_ms = 3\n[http]\nallow = ['10.0.0.0/8']\n";
    std::fs::write(folder.path().join("trine.toml"), file).unwrap();
    let output = run(trine()
        .current_dir(folder.path())
        .args(["config", "--json", "--listen", "127.0.0.1:3"])
        .env("TRINE_LISTEN", "127.0.0.1:2")
        .env("TRINE_DATA_DIR", "of-the-environment")
        .env("TRINE_HTTP_ALLOW", "127.0.0.1, fd00::/8")
        .env("TRINE_LOG", "")
        .env("TRINE_NO_SUCH_SETTING", "not a setting"));
    let settings: Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = json!({
        "listen": { "value": "127.0.0.1:3", "source": "flag", "from": "--listen" },
        "data_dir": { "value": "of-the-environment", "source": "environment", "from": "TRINE_DATA_DIR" },
        "http_allow": { "value": ["127.0.0.1/32", "fd00::/8"], "source": "environment", "from": "TRINE_HTTP_ALLOW" },
        "grace_ms": { "value": 3, "source": "file", "from": "trine.toml" },
        "database": { "value": "sqlite:of-the-environment/trine.db", "source": "default" },
        "log": { "value": "info", "source": "default" },
    });
    for (name, setting) in expected.as_object().unwrap() {
        assert_eq!(settings[name], *setting, "{name}");
    }
}

#[test]
fn wrong_settings_end_with_2_and_are_named() {
    let folder = folder();
    let wrong: [(&[&str], &str); 4] = [
        (&["serve", "--database", "postgres://db/trine"], "SQLite only"),
        (&["serve", "--processes", "0"], "at least 1"),
        (&["serve", "--config", "nowhere.toml"], "nowhere.toml"),
        (&["jobs", "not-an-id"], "not-an-id"),
    ];
    for (arguments, message) in wrong {
        let output = run(trine().current_dir(folder.path()).args(arguments));
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains(message), "{arguments:?}: {}", stderr(&output));
    }
    std::fs::write(folder.path().join("trine.toml"), "[http]\nalow = []").unwrap();
    let output = run(trine().current_dir(folder.path()).arg("config"));
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("`http_alow`"), "{}", stderr(&output));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_of_a_file_are_submitted_and_the_wrong_one_is_named() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let submit = |lines: [Value; 2]| {
        std::fs::write(folder.path().join("jobs.ndjson"), format!("{}\n\n{}\n", lines[0], lines[1])).unwrap();
        let mut command = trine();
        command.current_dir(folder.path()).env("TRINE_SERVER", &server.url);
        run(command.args(["submit", "--file", "jobs.ndjson", "--wait", "--json"]))
    };
    let sleep = |ms: Value| json!({ "bound": "io", "workload": { "type": "sleep", "ms": ms } });
    let submitted = submit([sleep(1.into()), sleep(2.into())]);
    assert_eq!(stdout(&submitted).matches("succeeded").count(), 2);
    let refused = submit([sleep(1.into()), sleep("long".into())]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("line 3") && stderr(&refused).contains("/workload/ms"), "{}", stderr(&refused));
    assert_eq!(server.count().await, 2, "a batch is accepted as a whole or not at all");
}

#[test]
fn the_document_is_printed_and_nothing_is_left_behind() {
    let folder = folder();
    let document: Value = serde_json::from_slice(&run(trine().current_dir(folder.path()).arg("openapi")).stdout).unwrap();
    assert!(document["paths"]["/jobs"]["post"].is_object());
    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none());
}
