//! Programs that the operator offers.

use std::path::Path;

use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::network::is_root;
use crate::server::{PATIENCE, Server, folder, program, until};
use crate::workers::until_gone;

pub(crate) const COMMANDS: &str = r#"
[commands.word-count]
about = "Counts what is in its standard input"
path = "/usr/bin/wc"
arguments = ["{what}"]
parameters.what = { type = "choice", choices = ["-w", "-l"], default = "-w", about = "Words or lines" }
limits.stdin_bytes = 100

# A shell that an operator offers is a program like any other; the tests do with it what they like.
[commands.shell]
path = "/bin/sh"
arguments = ["-c", "{script}", "sh", "{argument}"]
parameters.script = { type = "text", max_length = 1000 }
parameters.argument = { type = "text", default = "" }
environment = { GREETING = "hello" }
limits = { processes = 16, output_bytes = 1000, scratch_bytes = 10_000_000, memory_bytes = 200_000_000 }

[commands.nap]
path = "/bin/sleep"
arguments = ["{seconds}"]
parameters.seconds = { type = "integer", min = 0 }
limits.deadline_ms = 300
"#;

async fn start() -> (Server, TempDir) {
    let folder = folder();
    std::fs::write(folder.path().join("trine.toml"), COMMANDS).unwrap();
    (Server::start(folder.path(), &[]).await, folder)
}

fn job(command: &str, parameters: &Value) -> Value {
    json!({"bound": "cpu", "workload": {"type": "command", "name": command, "parameters": parameters}})
}

pub(crate) fn script(script: &str) -> Value {
    job("shell", &json!({"script": script}))
}

/// The message of a job that has to fail.
async fn failure(server: &Server, job: &Value) -> String {
    let job = server.ended(job).await;
    assert_eq!(job["state"], "failed", "{job}");
    job["error"]["message"].as_str().unwrap().to_owned()
}

/// How many scratch folders there are.
fn scratches(folder: &Path) -> usize {
    std::fs::read_dir(folder.join("data/commands")).unwrap().count()
}

/// They are removed behind the jobs' backs.
async fn until_tidy(folder: &Path) {
    until("the scratch folders go", async || (scratches(folder) == 0).then_some(())).await;
}

#[tokio::test]
async fn a_command_runs_in_a_process_of_its_own_and_is_measured() {
    let (server, _folder) = start().await;
    let mut submission = job("word-count", &json!({}));
    submission["workload"]["stdin"] = json!("one two\nthree\n");
    let job = server.ended(&submission).await;
    let output = json!({"exit_status": 0, "stdout": "3\n", "stderr": "", "stdout_truncated": false, "stderr_truncated": false});
    assert_eq!(job["output"], output, "{job}");
    assert_eq!((&job["route"]["executor"], &job["route"]["rule"]), (&json!("processes"), &json!("command")));
    let timing = &job["timing"];
    assert!(timing["cpu_user_us"].is_u64() && timing["ctx_voluntary"].is_u64(), "{timing}");
    assert!(timing["max_rss_bytes"].is_null(), "what the server took is not the command's: {timing}");
    submission["workload"]["parameters"] = json!({"what": "-l"});
    assert_eq!(server.ended(&submission).await["output"]["stdout"], "2\n");
}

#[tokio::test]
async fn what_can_be_run_is_published() {
    let (server, _folder) = start().await;
    let workloads = server.get("/workloads").await;
    let workload = workloads["items"].as_array().unwrap().iter().find(|workload| workload["name"] == "command").unwrap();
    let count = &workload["commands"]["word-count"];
    assert_eq!((&count["about"], &count["stdin_bytes"]), (&json!("Counts what is in its standard input"), &json!(100)));
    let what = json!({"type": "string", "enum": ["-w", "-l"], "default": "-w", "description": "Words or lines"});
    assert_eq!(count["parameters"]["properties"]["what"], what);
    // Where its programs are is the operator's business.
    assert!(!workloads.to_string().contains("/usr/bin/wc"));
    let executors = server.get("/executors").await;
    let queues = executors["items"][2]["queues"].as_array().unwrap();
    assert!(queues.iter().any(|queue| queue["name"] == "commands" && queue["slots"].as_u64() > Some(0)), "{executors}");
}

#[tokio::test]
async fn what_can_not_be_run_is_refused_at_the_field_at_fault() {
    let (server, _folder) = start().await;
    let mut on_threads = job("word-count", &json!({}));
    on_threads["executor"] = json!("threads");
    let mut long = job("word-count", &json!({}));
    long["workload"]["stdin"] = json!("x".repeat(101));
    for (submission, pointer) in [
        (job("rm", &json!({})), "/workload/name"),
        (job("word-count", &json!({"what": "--files0-from=/etc/passwd"})), "/workload/parameters/what"),
        (job("nap", &json!({"seconds": -1})), "/workload/parameters/seconds"),
        (long, "/workload/stdin"),
        (on_threads, "/executor"),
    ] {
        let answer = server.client.post(format!("{}/jobs", server.url)).json(&submission).send().await.unwrap();
        assert_eq!(answer.status(), 422);
        assert_eq!(answer.json::<Value>().await.unwrap()["errors"][0]["pointer"], pointer);
    }
}

#[tokio::test]
async fn a_value_is_one_argument_whatever_is_in_it() {
    let (server, _folder) = start().await;
    let tricky = "a b; echo c $(echo d) 'e' \"f\" * | g";
    let job = server.ended(&job("shell", &json!({"script": "printf '%s|%s' $# \"$1\"", "argument": tricky}))).await;
    assert_eq!(job["output"]["stdout"], format!("1|{tricky}"));
}

#[tokio::test]
async fn an_exit_status_is_a_failure_with_the_last_words() {
    let (server, _folder) = start().await;
    let message = failure(&server, &script("echo said; echo first >&2; echo last >&2; exit 3")).await;
    assert_eq!(message, "exit status 3: first\nlast");
    assert_eq!(failure(&server, &script("kill -9 $$")).await, "it was ended by SIGKILL");
}

#[tokio::test]
async fn bytes_go_in_and_come_out_and_no_character_is_cut() {
    let (server, _folder) = start().await;
    let mut submission = script("cat");
    (submission["workload"]["stdin"], submission["workload"]["stdin_encoding"]) = (json!("iVBORwD/"), json!("base64"));
    let output = server.ended(&submission).await["output"].clone();
    assert_eq!((&output["stdout"], &output["stdout_encoding"]), (&json!("iVBORwD/"), &json!("base64")));
    let euros = "printf '%0.s\u{20ac}' $(seq 1000); printf '%0.sx\u{20ac}' $(seq 1000) >&2";
    let output = server.ended(&script(euros)).await["output"].clone();
    assert_eq!((&output["stdout"], &output.get("stdout_encoding")), (&json!("\u{20ac}".repeat(333)), &None));
    assert!(output["stderr"].as_str().unwrap().chars().all(|one| matches!(one, 'x' | '\u{20ac}')), "{output}");
}

#[tokio::test]
async fn output_is_cut_to_what_is_kept() {
    let (server, _folder) = start().await;
    let job = server
        .ended(&script("head -c 5000000 /dev/zero | tr '\\0' a; echo; head -c 2000 /dev/zero | tr '\\0' b >&2; echo end >&2"))
        .await;
    let output = &job["output"];
    assert_eq!(output["stdout"], "a".repeat(1000));
    assert_eq!(output["stderr"], format!("{}end\n", "b".repeat(996)));
    assert_eq!((&output["stdout_truncated"], &output["stderr_truncated"]), (&json!(true), &json!(true)));
}

#[tokio::test]
async fn a_command_sees_its_scratch_folder_and_nothing_of_the_server() {
    let (server, folder) = start().await;
    let database = folder.path().join("data/trine.db");
    assert!(database.exists());
    let look = format!(
        "echo kept > file; cat file; pwd; env | sort; cat {0}; echo x >> {0}; ls {1}; kill -0 {2}; exit 0",
        database.display(),
        folder.path().display(),
        server.pid()
    );
    let job = server.ended(&script(&look)).await;
    let (stdout, stderr) = (job["output"]["stdout"].as_str().unwrap(), job["output"]["stderr"].as_str().unwrap());
    let lines: Vec<_> = stdout.lines().collect();
    let scratch = lines[1];
    let own = [("PWD", ""), ("TMPDIR", ""), ("TRINE_ARTIFACT_FOLDER", "/artifacts")];
    let own = own.map(|(name, folder)| format!("{name}={scratch}{folder}"));
    assert_eq!(lines, ["kept", scratch, "GREETING=hello", &own[0], &own[1], &own[2]]);
    if trine::sandbox::probe().landlock_abi > 0 {
        assert_eq!(stderr.lines().filter(|line| line.contains("ermission denied")).count(), 3, "{stderr}");
    }
    assert!(stderr.contains("not permitted"), "{stderr}");
    until_tidy(folder.path()).await;
}

#[tokio::test]
async fn what_is_used_up_ends_the_command_and_nothing_else() {
    let (server, _folder) = start().await;
    let other = server.submit(&json!({"bound": "io", "workload": {"type": "sleep", "ms": 1_000}, "executor": "processes"})).await;
    let fork_bomb = "n=0; while [ $n -lt 100 ]; do sleep 1000 & n=$((n + 1)); done; wait";
    assert!(failure(&server, &script(fork_bomb)).await.contains("processes; its limit is 16"));
    let disk = failure(&server, &script("while true; do head -c 1000000 /dev/zero >> file; done")).await;
    assert!(disk.contains("its limit is 10 MiB") || disk.contains("File size limit"), "{disk}");
    let memory = failure(&server, &script("x=$(head -c 1000 /dev/zero | tr '\\0' a); while true; do x=$x$x; done")).await;
    assert!(memory.contains("of memory; its limit is 191 MiB") || memory.contains("xit status 2"), "{memory}");
    server.until_state(&other, "succeeded").await;
    assert_eq!(server.ended(&script("echo fine")).await["output"]["stdout"], "fine\n");
}

#[tokio::test]
async fn a_cancel_and_each_deadline_end_the_whole_group() {
    let (server, folder) = start().await;
    let deaf = "trap '' TERM; sleep 1000 & sleep 1000";
    let id = server.submit(&script(deaf)).await;
    server.until_state(&id, "running").await;
    assert_eq!(server.cancel(&id).await, 202);
    server.until_state(&id, "cancelled").await;
    let mut short = script(deaf);
    short["deadline_ms"] = json!(100);
    let late = server.ended(&short).await;
    assert_eq!(late["error"], json!({"kind": "timeout", "message": "it ran longer than its deadline of 100 ms"}), "{late}");
    let late = server.ended(&job("nap", &json!({"seconds": 1000}))).await;
    let message = "it ran longer than the command's deadline of 300 ms";
    assert_eq!(late["error"], json!({"kind": "timeout", "message": message}), "{late}");
    until_tidy(folder.path()).await;
}

#[tokio::test]
async fn a_command_goes_with_its_server_and_runs_again_with_the_next() {
    let (server, folder) = start().await;
    // It tells its number by the name of a file, in the one place where it can.
    let id = server.submit(&script("touch pid-$$; exec sleep 1000")).await;
    let commands = folder.path().join("data/commands");
    let number = || -> Option<i32> {
        let scratch = std::fs::read_dir(&commands).ok()?.next()?.ok()?.path();
        let mut names = std::fs::read_dir(scratch).ok()?.map_while(|entry| Some(entry.ok()?.file_name()));
        names.find_map(|name| name.to_str()?.strip_prefix("pid-")?.parse().ok())
    };
    let pid = until("the command runs", async || number().map(Pid::from_raw)).await;
    server.crash();
    until_gone(&[pid]).await;
    let server = Server::start(folder.path(), &[]).await;
    server.until(&id, |job| job["state"] == "running" && job["attempt"] == 2).await;
}

#[tokio::test]
async fn a_server_whose_program_was_replaced_goes_on_with_its_own() {
    let folder = folder();
    std::fs::write(folder.path().join("trine.toml"), COMMANDS).unwrap();
    let trine = folder.path().join("trine");
    std::fs::copy(env!("CARGO_BIN_EXE_trine"), &trine).unwrap();
    let server = Server::start_by(program(trine.to_str().unwrap()), folder.path(), &[]).await;
    std::fs::remove_file(&trine).unwrap();
    std::fs::copy("/bin/false", &trine).unwrap();
    assert_eq!(server.ended(&script("echo well")).await["output"]["stdout"], "well\n");
}

#[tokio::test]
async fn the_first_process_of_a_container_collects_what_nobody_else_does() {
    let folder = folder();
    std::fs::write(folder.path().join("trine.toml"), COMMANDS).unwrap();
    let mut container = program("unshare");
    if !is_root() {
        container.args(["--user", "--map-current-user"]);
    }
    container.args(["--pid", "--fork", "--kill-child", "--mount-proc", env!("CARGO_BIN_EXE_trine")]);
    let mut server = Server::start_by(container, folder.path(), &[]).await;
    let job = server.ended(&script("sleep 1000 & echo $!")).await;
    let children = format!("/proc/{0}/task/{0}/children", server.pid());
    let first: i32 = std::fs::read_to_string(children).unwrap().trim().parse().unwrap();
    let orphan = format!("/proc/{first}/root/proc/{}", job["output"]["stdout"].as_str().unwrap().trim());
    let collected = async {
        while Path::new(&orphan).exists() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE / 4, collected).await.expect("what was left behind to be collected");
    // It ends as it is told to, with the status of the server.
    nix::sys::signal::kill(Pid::from_raw(first), nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(server.wait().success());
}
