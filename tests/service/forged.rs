//! A job is code in the process of its Python host, and can write to the socket that this talks with the server by: what it says there is
//! believed as far as a host may say it.

use serde_json::{Value, json};

use crate::server::{Server, folder, log, until_said};

/// Says something in the host's place, of the job that says it.
const PRELUDE: &str = "
import os, struct, sys, time

running = next(module for name, module in sys.modules.items() if name.endswith('.running') and hasattr(module, 'forked'))

def say(text):
    data = text.replace('ID', str(running.current().id)).encode()
    data = struct.pack('>I', len(data)) + data
    while data: data = data[os.write(100, data):]

";

fn forging(body: &str) -> Value {
    let workload = json!({ "type": "python", "source": format!("{PRELUDE}def main():\n    {body}\n") });
    json!({ "bound": "cpu", "executor": "processes", "workload": workload, "retry": { "attempts": 1 } })
}

/// It begins once more each time, with a new deadline.
const AGAIN: &str = "time.sleep(0.1); say('{\"returned\": {\"id\": ID}}'); time.sleep(0.05)";

#[tokio::test]
async fn a_job_does_not_begin_again_by_giving_itself_back() {
    let folder = folder();
    // Workloads under which processes die again and again are kept out.
    let settings = [("TRINE_PYTHON_PROCESSES", "1"), ("TRINE_MAX_LOSSES", "1")];
    let server = Server::start(folder.path(), &settings).await;
    let call = |body| {
        let mut call = forging(body);
        call["deadline_ms"] = json!(2_000);
        call
    };
    let (short, again) = (call("time.sleep(0.001)"), call(AGAIN));
    // From here on, a process is there.
    server.ended(&forging("pass")).await;
    let job = server.ended(&again).await;
    assert_eq!(job["error"]["kind"], "lost", "{job}");
    // Behind short ones it may be given back, once.
    let calls: Vec<_> = (0..40).map(|n| if n == 30 { again.clone() } else { short.clone() }).collect();
    for (n, id) in server.submit_all(&calls).await.iter().enumerate() {
        let job = server.until_ended(id).await;
        assert!(n != 30 || ["lost", "timeout"].map(Value::from).contains(&job["error"]["kind"]), "{job}");
    }
}

#[tokio::test]
async fn what_a_job_says_in_its_hosts_place_is_bounded_as_what_a_host_says() {
    let folder = folder();
    let server = Server::start(folder.path(), &[("TRINE_PYTHON_PROCESSES", "1")]).await;
    for (body, message) in [
        (
            "say('{\"done\": {\"id\": ID, \"output\": \"' + 'x' * 13_000_000 + '\"}}')",
            "ValueError: the output takes 13000002 bytes; the most is 12582912",
        ),
        (
            "say('{\"done\": {\"id\": ID, \"output\": ' + '[' * 100_000 + ']' * 100_000 + '}}')",
            "the output is nested more than 100 deep",
        ),
        ("return eval('[' * 101 + ']' * 101)", "the output is nested more than 100 deep"),
        (
            "say('{\"done\": {\"id\": ID, \"error\": {\"kind\": \"error\", \"type\": \"E\", \"message\": \"' + 'x' * 30_000_000 + '\"}}}')",
            &format!("E: {}", "x".repeat((1 << 14) - 3)),
        ),
    ] {
        let job = server.ended(&forging(body)).await;
        assert_eq!(job["error"]["message"], message, "{body}");
    }
    let measured = r#"{"began_ns": 1, "started_at_us": -1, "wall_us": 9223372036854775808, "cpu_user_us": 1, "cpu_system_us": 1,
                       "ctx_voluntary": 1, "ctx_involuntary": 1}"#;
    let figures = format!("say('''{{\"done\": {{\"id\": ID, \"output\": 1, \"measured\": {measured}}}}}''')");
    let job = server.ended(&forging(&figures)).await;
    assert_eq!((&job["output"], &job["timing"]), (&json!(1), &Value::Null), "{job}");
}

#[tokio::test]
async fn what_a_job_writes_as_its_process_dies_is_in_its_error_and_not_in_the_log() {
    let folder = folder();
    let server = Server::start(folder.path(), &[("TRINE_LOG", "trace")]).await;
    // Where its host says why it crashed.
    let job = server.ended(&forging("os.write(101, b'my ' + b'secret'); os.abort()")).await;
    assert!(job["error"]["message"].as_str().unwrap().contains("its last words: my secret"), "{job}");
    until_said(folder.path(), "a Python host has ended by itself").await;
    drop(server);
    let log = log(folder.path());
    assert!(!log.contains("my secret"));
}
