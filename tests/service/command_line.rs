//! The command line, as a person and as a program use it.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
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

/// The program as a client of a server, in a folder.
fn client_of(server: &Server, folder: &Path) -> Command {
    let mut command = trine();
    command.current_dir(folder).env("TRINE_SERVER", &server.url);
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_can_not_be_followed_at_once_is_named() {
    let folder = folder();
    let server = Server::start(folder.path(), &[("TRINE_MAX_EVENT_STREAMS", "1")]).await;
    let taken = crate::events::open(&server, "/events", None).await;
    let mut command = client_of(&server, folder.path());
    command.args(["submit", "sleep", "ms=1", "--follow"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut following = command.spawn().unwrap();
    let mut said = String::new();
    BufReader::new(following.stderr.as_mut().unwrap()).read_line(&mut said).unwrap();
    assert!(said.starts_with("Following the job 0"), "{said}");
    drop(taken);
    let followed = following.wait_with_output().unwrap();
    assert!(followed.status.success() && stdout(&followed).contains("succeeded"), "{}", stdout(&followed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_submitted_listed_and_read() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let client = || client_of(&server, folder.path());
    let submitted = run(client().args(["submit", "primes", "below=1000", "--wait", "--json"]));
    assert!(submitted.status.success(), "{}", stderr(&submitted));
    let result: Value = serde_json::from_str(stdout(&submitted).lines().next().unwrap()).unwrap();
    assert_eq!((&result["state"], &result["output"]["count"]), (&"succeeded".into(), &168.into()));
    let table = run(client().args(["results"]));
    assert!(stdout(&table).contains("primes") && stdout(&table).contains("succeeded"), "{}", stdout(&table));
    let listed = run(client().args(["jobs", "--state", "running,succeeded", "--json"]));
    assert!(stdout(&listed).contains(result["id"].as_str().unwrap()));

    let refused = run(client().args(["submit", "primes", "below=-1"]));
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("/workload/below"), "{}", stderr(&refused));
    let wrong = run(client().args(["submit"]));
    assert_eq!(wrong.status.code(), Some(2));
    let failed = run(client().args(["submit", "file", "op=read", "path=nowhere", "--wait"]));
    assert_eq!(failed.status.code(), Some(1));
    let unknown = run(client().args(["profile", "a b+c"]));
    assert!(stderr(&unknown).contains("no runs are known of \"a b+c\""), "{}", stderr(&unknown));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_a_job_can_be_is_said_on_the_command_line() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let submit = |arguments: &str| {
        let mut command = trine();
        command.current_dir(folder.path()).env("TRINE_SERVER", &server.url);
        let submitted = run(command.args(["submit", "sleep", "ms=1", "--json"]).args(arguments.split_whitespace()));
        assert!(submitted.status.success(), "{}", stderr(&submitted));
        serde_json::from_str::<Value>(stdout(&submitted).lines().next().unwrap()).unwrap()
    };
    let parent = submit("--delay 1h --tag team=search --unique=1m");
    assert_eq!((&parent["state"], &parent["unique"]), (&json!("scheduled"), &json!({ "within_ms": 60_000 })));
    assert_eq!(submit("--unique=1m")["id"], parent["id"]);
    // People see what was there before: of a unique job, and of a request that came again.
    let shown =
        |flags: &str| run(client_of(&server, folder.path()).args(["submit", "sleep", "ms=1"]).args(flags.split_whitespace()));
    let existing = shown("--unique=1m");
    assert!(stdout(&existing).contains("scheduled (existing)"), "{}", stdout(&existing));
    let (once, again) = (shown("--idempotency-key k"), shown("--idempotency-key k"));
    assert_eq!((stderr(&once), stderr(&again).contains("nothing was submitted again")), (String::new(), true));
    assert_eq!(submit("--isolated --executor auto")["route"]["executor"], "processes");
    let after = format!("--after {}=run", parent["id"].as_str().unwrap());
    let retry = "--retries 4 --backoff 2m --retry-on timeout,lost";
    let limits = "--concurrency customer-7=3 --rate api.example.org=10/1s";
    let job =
        submit(&format!("{after} {retry} {limits} --priority -5 --deadline 30s --expires 1h --webhook https://example.com/"));
    assert_eq!((&job["state"], &job["priority"], &job["deadline_ms"]), (&json!("blocked"), &json!(-5), &json!(30_000)));
    let retry =
        json!({ "attempts": 5, "backoff_ms": 120_000, "factor": 2.0, "max_backoff_ms": 120_000, "on": ["timeout", "lost"] });
    assert_eq!((&job["retry"], &job["webhook"]["url"]), (&retry, &json!("https://example.com/")));
    let rate = json!({ "key": "api.example.org", "limit": 10, "per_ms": 1_000 });
    assert_eq!((&job["concurrency"], &job["rate"]), (&json!({ "key": "customer-7", "limit": 3 }), &rate));
    assert!(job["expires_at"].is_string(), "{job}");
    // What there is for jobs is shown by commands of its own; a limit, while jobs with it are queued or have started lately.
    submit("--rate api.example.org=10/1h");
    let shown = |what: &str, flag: &[&str]| stdout(&run(client_of(&server, folder.path()).arg(what).args(flag)));
    for (what, said) in [("workloads", "primes"), ("executors", "threads-cpu"), ("limits", "api.example.org")] {
        assert!(shown(what, &[]).contains(said) && shown(what, &["--json"]).contains(said), "{}", shown(what, &[]));
    }
    let details = run(client_of(&server, folder.path()).args(["jobs", job["id"].as_str().unwrap()]));
    assert!(
        stdout(&details).contains(&format!("after        {} scheduled", parent["id"].as_str().unwrap())),
        "{}",
        stdout(&details)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_for_a_job_is_told_what_that_waits_for() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let mut command = client_of(&server, folder.path());
    let submit = command.args(["submit", "sleep", "ms=0", "--delay", "30s", "--wait"]);
    let mut waiting = submit.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(waiting.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(said.any(|line| line.contains("waits for its time, ")), "it says nothing");
    let id = server.get("/jobs").await["items"][0]["id"].take();
    server.cancel(id.as_str().unwrap()).await;
    assert_eq!(waiting.wait().unwrap().code(), Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_followed_and_its_lines_are_read() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let client = || client_of(&server, folder.path());
    let workload = json!({ "type": "python", "source": "def main():\n    print('hello')\n    return 7\n" }).to_string();
    let followed = run(client().args(["submit", "--workload", &workload, "--bound", "io", "--follow"]));
    assert!(followed.status.success(), "{}", stderr(&followed));
    let shown = stdout(&followed);
    let words: Vec<_> = shown.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(words, ["accepted", "running", "log", "succeeded"], "{shown}");
    assert!(shown.contains("log       hello") && shown.contains("succeeded 7"), "{shown}");
    let failed = run(client().args(["submit", "file", "op=read", "path=nowhere", "--follow", "--json"]));
    assert_eq!(failed.status.code(), Some(1));
    let last: Value = serde_json::from_str(stdout(&failed).lines().last().unwrap()).unwrap();
    assert_eq!((&last["event"], &last["data"]["state"]), (&json!("finished"), &json!("failed")));

    let jobs = server.get("/jobs?workload=python").await;
    let id = jobs["items"][0]["id"].as_str().unwrap();
    for arguments in [&["logs", id][..], &["logs", id, "--follow"]] {
        let lines = run(client().args(arguments));
        assert_eq!((lines.status.success(), stdout(&lines).as_str()), (true, "hello\n"), "{}", stderr(&lines));
    }

    assert!(run(client().args(["retry", id])).status.success());
    server.until_state(id, "succeeded").await;
    let lines = run(client().args(["logs", id, "--follow"]));
    assert_eq!(stdout(&lines), "hello\nhello\n", "a job that was run again has ended twice: {}", stderr(&lines));

    let mut watching =
        client().args(["events", "--kinds", "finished", "--tag", "team=search"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut reader = std::io::BufReader::new(watching.stdout.take().unwrap());
    let seen = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut reader, &mut line).unwrap();
        line
    });
    // Events are seen from when it began to watch, so jobs come until it has.
    while !seen.is_finished() {
        assert!(run(client().args(["submit", "sleep", "ms=0", "--tag", "team=search", "--wait"])).status.success());
    }
    watching.kill().unwrap();
    watching.wait().unwrap();
    let line = seen.await.unwrap();
    assert!(line.contains("succeeded {\"slept_ms\":0}"), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ready_server_is_said_to_be_ready() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let output = run(trine().args(["health", "--server", &server.url]));
    assert_eq!((output.status.code(), stdout(&output).trim()), (Some(0), "ready"), "{}", stderr(&output));
    let output = run(trine().args(["health", "--json", "--server", &server.url]));
    assert_eq!((output.status.code(), stdout(&output).trim()), (Some(0), r#"{"status":"ok"}"#), "{}", stderr(&output));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_does_not_have_is_no_wrong_usage() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let client = || client_of(&server, folder.path());
    let unknown = run(client().args(["submit", "nope"]));
    assert_eq!(unknown.status.code(), Some(1), "{}", stderr(&unknown));
    assert!(stderr(&unknown).contains("no workload \"nope\"; there are command, "), "{}", stderr(&unknown));
    // What is one answer, and no list, is said to be one.
    let executors = run(client().args(["executors", "--json"]));
    assert_eq!(stdout(&executors).lines().count(), 1);
    assert!(stdout(&run(trine().args(["executors", "--help"]))).contains("One JSON object, as the API has it"));
}

#[test]
fn a_server_that_is_not_there_is_said_so() {
    let output = run(trine().args(["jobs", "--server", "http://127.0.0.1:9"]));
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("trine serve"), "{}", stderr(&output));
    // Nor is it the end of the program if it can't be said.
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = trine().args(["jobs", "--server", "http://127.0.0.1:9"]).stderr(full).status().unwrap();
    assert_eq!(output.code(), Some(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_jobs_say_moves_nothing_on_the_terminal() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let client = || client_of(&server, folder.path());
    let shown = |arguments: &[&str]| {
        let output = run(client().args(arguments));
        let text = stdout(&output) + &stderr(&output);
        assert!(text.contains("mine") && !text.contains(['\x1b', '\x07', '\u{9b}']), "{arguments:?}: {text:?}");
        text
    };
    let title = "\x1b]0;mine\x07\u{9b}2J";
    let source = |end: &str| format!("def main(title):\n    print(title)\n    {end}\n");
    let job = |end: &str| json!({ "type": "python", "source": source(end), "args": [title] }).to_string();
    let tag = format!("{title}=\nstate        failed");
    let good = job("return title + '\\nstate        failed'");
    let followed = shown(&["submit", "--workload", &good, "--bound", "io", "--tag", &tag, "--follow"]);
    assert!(followed.contains("log       ␛]0;mine␇�2J"), "{followed}");
    let id = server.get("/jobs").await["items"][0]["id"].take();
    let id = id.as_str().unwrap();
    let details = shown(&["jobs", id]);
    assert_eq!(details.lines().filter(|line| line.starts_with("state")).count(), 1, "{details}");
    let listed = shown(&["results"]);
    assert_eq!(listed.lines().count(), 2, "{listed}");
    shown(&["submit", "--workload", &job("raise ValueError(title)"), "--bound", "io", "--wait"]);
    // Programs get what was written.
    assert_eq!(stdout(&run(client().args(["logs", id]))), format!("{title}\n"));
    let output: Value = serde_json::from_slice(&run(client().args(["results", id, "--json"])).stdout).unwrap();
    assert!(output["output"].as_str().unwrap().starts_with(title), "{output}");
}

#[test]
fn the_configuration_says_where_each_value_comes_from() {
    let folder = folder();
    std::fs::write(folder.path().join("trine.toml"), "async_slots = 5\n[threads]\nio = 6\n").unwrap();
    let environment = [("TRINE_ASYNC_SLOTS", "7"), ("TRINE_ASYNC_SLOT", "8")];
    let output = run(trine().current_dir(folder.path()).envs(environment).args(["config", "--json", "--processes", "3"]));
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).ends_with("are no settings: TRINE_ASYNC_SLOT\n"), "{}", stderr(&output));
    let text = stdout(&output);
    for said in ["environment", "flag", "file", "default"] {
        assert!(text.contains(said), "{said}: {text}");
    }
    // What depends on other settings is told as it is in force.
    let shown: Value = serde_json::from_str(&text).unwrap();
    let in_force = ["database", "workspace", "artifacts", "python_pickles"].map(|name| shown[name]["value"].to_string());
    assert!(in_force.iter().all(|value| value != "null"), "{in_force:?}");
    assert!(shown["artifacts"]["value"].as_str().unwrap().ends_with("artifacts"), "{in_force:?}");
    assert_eq!(shown["python_pickles"]["value"], "allow");
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
    // Though the service here is set up for a database that it shares with others, which would run this one's jobs.
    let shared =
        [("TRINE_DATABASE", "postgres://nobody@127.0.0.1:1/none"), ("TRINE_ARTIFACTS", "s3://shared"), ("TRINE_ROLE", "api")];
    let output = run(trine().current_dir(folder.path()).envs(shared).arg("demo"));
    assert!(output.status.success(), "{}\n{}", stdout(&output), stderr(&output));
    for said in ["async", "threads", "processes", "http", "file", "image", "primes"] {
        assert!(stdout(&output).contains(said), "{said}: {}", stdout(&output));
    }
}

#[test]
fn a_comparison_without_a_server_leaves_nothing_behind_and_shows_nothing_to_others() {
    let folder = folder();
    let compare = |arguments: &[&str]| {
        let mut command = trine();
        command.current_dir(folder.path()).env("TMPDIR", folder.path()).arg("compare").args(arguments);
        command
    };
    let is_empty = || std::fs::read_dir(folder.path()).unwrap().next().is_none();
    let output = run(&mut compare(&["nosuch"]));
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(!stderr(&output).contains("chmod") && is_empty(), "{}", stderr(&output));
    // Nor does one that is told to end, which it says.
    let told = compare(&["sleep", "ms=50"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let has_begun = || {
        let made = std::fs::read_dir(folder.path()).unwrap().next()?.unwrap().path();
        made.join("trine.db").exists().then_some(made)
    };
    let wait = |_: &_| std::thread::sleep(Duration::from_millis(5));
    let made = std::iter::repeat_with(has_begun).inspect(wait).take(12_000).flatten().next().unwrap();
    assert_eq!(made.metadata().unwrap().permissions().mode() & 0o077, 0);
    kill(Pid::from_raw(told.id().cast_signed()), Signal::SIGTERM).unwrap();
    let output = told.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).ends_with("stopped before the end\n") && is_empty(), "{}", stderr(&output));
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
fn what_commands_have_in_their_environment_is_not_shown() {
    let (good, bad) = (
        "x = { path = '/bin/sh', environment = { TOKEN = 'canary' } }",
        "x = { path = 'sh', environment = { TOKEN = 'canary' } }",
    );
    for (arguments, commands) in
        [(&["config"][..], good), (&["config", "--json"], good), (&["serve", "--help"], good), (&["serve"], bad)]
    {
        let folder = folder();
        let said = run(trine().current_dir(folder.path()).env("TRINE_COMMANDS", commands).args(arguments));
        let said = stdout(&said) + &stderr(&said);
        assert!(!said.contains("canary"), "{said}");
        assert!(arguments != ["config", "--json"] || said.contains("\"TOKEN\": \"…\""), "{said}");
    }
}

#[test]
fn wrong_settings_end_with_2_and_are_named() {
    let folder = folder();
    let wrong: [(&[&str], &str); 15] = [
        (&["health", "--server", "127.0.0.1:8040"], "http://127.0.0.1:8040"),
        (&["serve", "--database", "mysql://db/trine"], "SQLite or in PostgreSQL"),
        (&["serve", "--processes", "0"], "at least 1"),
        (&["serve", "--max-waiting", "async=5,10,async=6"], "`max_waiting` says two things of async"),
        (&["config", "--labels", "gpu=a100", "--labels", "gpu=h100"], "`labels` says two things of gpu"),
        (&["serve", "--max-body-memory-bytes", "1000"], "`max_body_memory_bytes` is 1000 and `max_body_bytes` is 33554432"),
        (&["serve", "--config", "nowhere.toml"], "nowhere.toml"),
        (&["jobs", "not-an-id"], "an id has 36 characters, such as"),
        (&["events", "--after", "abc"], "the id of an event is a number"),
        (&["submit", "sleep", "ms=1", "--deadline", "0s"], "at least 1ms"),
        (&["submit", "sleep", "ms=1", "--tag", "a=b", "--tag", "a=c"], "--tag a is there twice"),
        (&["submit", "sleep", "ms=1", "--expires", "1h", "--idempotency-key", "k"], "--expires 2026-01-31T12:00:00Z"),
        (&["submit", "--file", "jobs.ndjson", "--tag", "a=b"], "--tag"),
        (&["schedule", "add", "pulse", "* * * * *", "--job", "{}", "--retries", "1"], "--retries"),
        (&["results", "--summary", "--error", "timeout"], "--error"),
    ];
    for (arguments, message) in wrong {
        let output = run(trine().current_dir(folder.path()).args(arguments));
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains(message), "{arguments:?}: {}", stderr(&output));
    }
    std::fs::write(folder.path().join("trine.toml"), "[http]\nalow = []").unwrap();
    let output = run(trine().current_dir(folder.path()).arg("config"));
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("`http.alow`"), "{}", stderr(&output));
}

#[test]
fn a_password_in_a_wrong_url_is_not_shown() {
    let folder = folder();
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--database", "postgres://me:canary@db:no/trine"];
    let output = run(trine().current_dir(folder.path()).args(arguments));
    let (said, error) = (String::from_utf8_lossy(&output.stdout), stderr(&output));
    assert!(!output.status.success() && error.contains("no URL of a PostgreSQL (invalid port number)"), "{error}");
    assert!(!said.contains("canary") && !error.contains("canary"), "{said}{error}");
    // Other programs have another form of it.
    for command in [&["serve"][..], &["keys", "create", "k", "--scopes", "read"]] {
        let output = run(trine().current_dir(folder.path()).args(command).args(["--database", "host=db password=canary"]));
        let error = stderr(&output);
        assert!(output.status.code() == Some(2) && error.contains("postgres://USER:PASSWORD@HOST"), "{error}");
        assert!(!error.contains("canary"), "{error}");
    }
}

#[test]
fn a_malformed_key_is_not_shown() {
    let output = run(trine().env("TRINE_KEY", "trine_canary\nanother").arg("jobs"));
    let error = stderr(&output);
    assert!(output.status.code() == Some(2) && error.contains("for 'TRINE_KEY': not the text of a key"), "{error}");
    assert!(!error.contains("canary"), "{error}");
    let error = stderr(&run(trine().args(["jobs", "--key"])));
    assert!(error.contains("a value is required for '--key <KEY>'"), "{error}");
}

#[test]
fn variables_mean_the_same_to_a_command_in_a_command() {
    for command in [&["jobs"][..], &["keys", "list"], &["cluster", "drain", "n"]] {
        let wrong = run(trine().env("TRINE_SERVER", "nonsense").args(command));
        assert!(stderr(&wrong).contains("invalid value 'nonsense' for 'TRINE_SERVER'"), "{command:?}: {}", stderr(&wrong));
        // An empty one is as if it were not set: what is wrong is the next thing.
        let empty = run(trine().env("TRINE_SERVER", "").args(command).args(["--ca-cert", "nowhere.pem"]));
        assert!(stderr(&empty).contains("nowhere.pem"), "{command:?}: {}", stderr(&empty));
    }
}

#[test]
fn a_settings_file_that_programs_can_read_is_told_of_whatever_came_from_it() {
    let folder = folder();
    std::fs::write(folder.path().join("trine.toml"), "log = 'warn'").unwrap();
    let commands = format!("c = {{ path = '/bin/true', folder = '{}' }}", folder.path().display());
    for command in ["serve", "demo"] {
        let mut trine = trine();
        trine.current_dir(folder.path()).env("TRINE_LOG", "error").env("TRINE_COMMANDS", &commands);
        let refused = run(trine.args([command, "--listen", "127.0.0.1:0", "--sandbox", "required"]));
        let error = stderr(&refused);
        assert!(!refused.status.success() && error.contains("the settings file trine.toml is among what"), "{command}: {error}");
    }
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
    let printed = stdout(&submitted);
    let jobs = serde_json::Deserializer::from_str(&printed).into_iter::<Value>().map(Result::unwrap);
    assert_eq!(jobs.map(|job| job["state"].clone()).collect::<Vec<_>>(), ["succeeded"; 2]);
    let refused = submit([sleep(1.into()), sleep("long".into())]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("line 3") && stderr(&refused).contains("/workload/ms"), "{}", stderr(&refused));
    let refused = submit([sleep("long".into()), sleep("longer".into())]);
    let said = stderr(&refused);
    assert!(said.contains("line 1: /workload/ms: ") && said.contains("line 3: /workload/ms: "), "{said}");
    assert_eq!(server.count().await, 2, "a batch is accepted as a whole or not at all");
    let list = submit([json!([sleep(1.into())]), sleep(1.into())]);
    assert_eq!(list.status.code(), Some(2));
    assert!(stderr(&list).contains("line 1: a list of jobs"), "{}", stderr(&list));
    for (text, said) in
        [("\nno\n", "line 2: no JSON, from column 2 on; a file has one job a line (NDJSON)"), ("\n", "there is no job in it")]
    {
        std::fs::write(folder.path().join("jobs.ndjson"), text).unwrap();
        let wrong = run(client_of(&server, folder.path()).args(["submit", "--file", "jobs.ndjson"]));
        assert_eq!((wrong.status.code(), stderr(&wrong)), (Some(2), format!("trine: jobs.ndjson: {said}\n")));
    }
}

#[test]
fn the_document_is_printed_and_nothing_is_left_behind() {
    let folder = folder();
    let document: Value = serde_json::from_slice(&run(trine().current_dir(folder.path()).arg("openapi")).stdout).unwrap();
    assert!(document["paths"]["/jobs"]["post"].is_object());
    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none());
}

#[test]
fn a_shell_completes_commands_flags_and_what_these_may_be() {
    let folder = folder();
    let complete = |words: &[&str]| {
        let (command, [.., before, last]) = (trine().get_program().to_owned(), words) else { panic!("too few words") };
        // As bash calls it: the program, the word that is to be completed, and the one before.
        let script = r#"source <("$0" completions bash); COMP_WORDS=("${@:3}"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _trine trine "$2" "$1"; echo "${COMPREPLY[@]}""#;
        let completed = run(Command::new("bash")
            .current_dir(folder.path())
            .args(["-c", script])
            .arg(command)
            .args([before, last])
            .args(words));
        String::from_utf8(completed.stdout).unwrap().trim_end().to_owned()
    };
    assert_eq!(complete(&["trine", "su"]), "submit");
    assert_eq!(complete(&["trine", "submit", "--bound", ""]), "io cpu");
    assert_eq!(complete(&["trine", "schedule", "pau"]), "pause");
    assert_eq!(complete(&["trine", "sand"]), "", "what is for Trine itself is not offered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_is_deployed_called_and_removed() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let function = |arguments: &[&str]| {
        let mut command = trine();
        command.current_dir(folder.path()).env("TRINE_SERVER", &server.url);
        run(command.arg("function").args(arguments))
    };
    let done = |arguments: &[&str]| {
        let output = function(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        stdout(&output)
    };
    std::fs::write(folder.path().join("area.py"), "def main(a, b=1):\n    print('at work')\n    return a * b\n").unwrap();
    std::fs::create_dir_all(folder.path().join("tools/pkg")).unwrap();
    std::fs::write(folder.path().join("tools/pkg/__init__.py"), "def call():\n    raise ValueError('no')\n").unwrap();
    let deployed = done(&["deploy", "area.py", "--name", "area", "--bound", "cpu", "--deadline", "30s", "--json"]);
    let deployed: Value = serde_json::from_str(&deployed).unwrap();
    assert_eq!((&deployed["deadline_ms"], &deployed["latest"]), (&30_000.into(), &true.into()));
    done(&["deploy", "tools", "--name", "fails", "--entrypoint", "pkg:call", "--bound", "io"]);
    assert_eq!(done(&["run", "area", "--args", "[6]", "--kwargs", "{\"b\": 7}"]), "42\n");
    assert!(done(&["run", "area", "--args", "[6]", "--follow"]).contains("at work"));
    // What can be said of other jobs can be said of a call.
    let called =
        || function(&["run", "area", "--args", "[6]", "--tag", "team=search", "--retries", "1", "--idempotency-key", "k"]);
    assert_eq!((stdout(&called()), stderr(&called()).contains("came before")), ("6\n".to_owned(), true));
    let found = server.get("/results?tag=team:search").await["items"].take();
    assert_eq!(found.as_array().unwrap().len(), 1, "{found}");
    assert_eq!(server.get(&format!("/jobs/{}", found[0]["id"].as_str().unwrap())).await["retry"]["attempts"], 2);
    assert!(stderr(&function(&["run", "area", "--args", "[6]", "--network"])).contains("python_network"));
    let failed = function(&["run", "fails"]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(stderr(&failed).contains("pkg/__init__.py") && stderr(&failed).contains("ValueError: no"), "{}", stderr(&failed));
    // Which job it was, is said.
    let id = server.get("/results?workload=function&state=failed").await["items"][0]["id"].take();
    assert!(stderr(&failed).starts_with(&format!("Waiting for the job {}\n", id.as_str().unwrap())), "{}", stderr(&failed));
    // A folder is sent as a whole, which may be too much.
    std::fs::create_dir(folder.path().join("tools/venv")).unwrap();
    let bytes = std::iter::successors(Some(1_u64), |last| Some(last.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1)));
    let bytes: Vec<u8> = bytes.map(|word| word.to_be_bytes()[0]).take(9 << 20).collect();
    std::fs::write(folder.path().join("tools/venv/lib.so"), bytes).unwrap();
    let refused = function(&["deploy", "tools", "--name", "large"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("a virtual environment such as venv"), "{}", stderr(&refused));
    // What has no traceback says why all the same.
    std::fs::write(folder.path().join("set.py"), "def main():\n    return {1}\n").unwrap();
    done(&["deploy", "set.py", "--name", "set", "--bound", "cpu"]);
    assert!(stderr(&function(&["run", "set"])).contains("can't be written as JSON"));
    // Numbers of any length stay as they are, and what one job gave is in the way of no other.
    let long = format!("[1{}1]", "0".repeat(400));
    std::fs::write(folder.path().join("same.py"), "def main(a):\n    return a\n").unwrap();
    done(&["deploy", "same.py", "--name", "same", "--bound", "cpu"]);
    assert_eq!(done(&["run", "same", "--args", &long]), format!("{}\n", &long[1..long.len() - 1]));
    for list in ["jobs", "results"] {
        let listed = run(trine().current_dir(folder.path()).env("TRINE_SERVER", &server.url).arg(list));
        assert!(stdout(&listed).contains("function"), "{}", stderr(&listed));
    }
    let failed = server.get("/results?workload=function&state=failed&order=oldest").await["items"][0]["id"].take();
    let shown = run(trine().env("TRINE_SERVER", &server.url).args(["jobs", failed.as_str().unwrap()]));
    assert!(stdout(&shown).contains("pkg/__init__.py") && stdout(&shown).contains("ValueError: no"), "{}", stdout(&shown));
    let listed = done(&["list"]);
    assert!(listed.contains("area") && listed.contains("fails"), "{listed}");

    std::fs::write(folder.path().join("area.py"), "def main(a):\n    return 'new'\n").unwrap();
    // What the version before declared and this one does not is said, as it would be written.
    let bare = function(&["deploy", "area.py", "--name", "area"]);
    assert!(stderr(&bare).contains("with --bound cpu --deadline 30000ms, which"), "{}", stderr(&bare));
    assert!(stderr(&function(&["run", "area", "--args", "[1]"])).contains("\nSay whether"), "no word of --bound");
    let again = function(&["deploy", "area.py", "--name", "area", "--bound", "cpu", "--executor", "auto"]);
    assert_eq!((again.status.success(), stderr(&again)), (true, String::new()));
    assert_eq!(done(&["run", "area", "--args", "[1]"]), "\"new\"\n");
    let first = deployed["version"].as_str().unwrap();
    assert_eq!(done(&["run", "area", "--args", "[1]", "--version", &first[..8]]), "1\n");
    done(&["rollback", "area", first]);
    assert_eq!(done(&["run", "area", "--args", "[1]"]), "1\n");
    assert_eq!(done(&["show", "area"]).lines().count(), 3);
    done(&["remove", "area"]);
    assert_eq!(function(&["run", "area"]).status.code(), Some(1));
}
