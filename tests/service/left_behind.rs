//! What a job leaves behind in the process that it shared is not what others fail for.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::server::{Server, folder, until};

fn python(executor: &str, source: &str) -> Value {
    json!({ "bound": "io", "executor": executor, "workload": { "type": "python", "source": source } })
}

/// Many of these jobs, at the same time; none of them may fail.
async fn go_on(server: &Server, executor: &str, source: &str) {
    let ids = join_all((0..20).map(|_| async { server.submit(&python(executor, source)).await })).await;
    for id in ids {
        let job = server.until_ended(&id).await;
        assert_eq!(job["state"], "succeeded", "{executor}: {job}");
    }
}

#[tokio::test]
async fn files_that_one_keeps_open() {
    let folder = folder();
    let server = Server::start(folder.path(), &[("TRINE_PYTHON_PROCESSES", "1")]).await;
    let all = "import os\ndef main():\n    while True:\n        os.open('/dev/null', 0)\n";
    let one = "import tempfile\ndef main():\n    with tempfile.TemporaryFile() as file:\n        return file.fileno()\n";
    for executor in ["processes", "threads", "async"] {
        let id = server.submit(&python(executor, all)).await;
        if executor == "processes" {
            // Also those that are sent to its process while it runs.
            go_on(&server, executor, one).await;
        }
        let job = server.until_state(&id, "failed").await;
        assert!(job["error"]["message"].to_string().contains("Too many open files"), "{job}");
        go_on(&server, executor, one).await;
    }
}

#[tokio::test]
async fn threads_that_go_on() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let many = "import threading, time\ndef main():\n    threading.stack_size(1 << 16)\n    for _ in range(1000):\n        \
                threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n";
    for executor in ["threads", "async"] {
        // It may have ended before that is seen.
        server.ended(&python(executor, many)).await;
        go_on(&server, executor, "import time\ndef main():\n    time.sleep(0.2)\n").await;
    }
}

#[tokio::test]
async fn what_it_has_written() {
    let folder = folder();
    let server = Server::start(
        folder.path(),
        &[("TRINE_PYTHON_PROCESSES", "1"), ("TRINE_PYTHON_SCRATCH_BYTES", "30000000"), ("TRINE_WORKER_MAX_JOBS", "1000000")],
    )
    .await;
    let most = "import os\ndef main():\n    with open('left', 'wb') as file:\n        file.write(bytes(25_000_000))\n    return os.getpid()\n";
    let some = "import os, time\ndef main():\n    with open(f'file{time.time_ns()}', 'wb') as file:\n        file.write(bytes(6_000_000))\n    \
                time.sleep(0.3)\n    os.remove(file.name)\n";
    let pid = "import os\ndef main():\n    return os.getpid()\n";
    // Whatever was started beside it as the server came up is gone.
    server.ended(&python("processes", pid)).await;
    let job = server.ended(&python("processes", most)).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    // Until it is seen that there is little room left there.
    let is_replaced = async || (server.ended(&python("processes", pid)).await["output"] != job["output"]).then_some(());
    until("there is another process", is_replaced).await;
    go_on(&server, "processes", some).await;
}

#[tokio::test]
async fn a_signal_that_stops_its_host() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let stops = "import os, signal\ndef main():\n    os.kill(os.getpid(), signal.SIGSTOP)\n";
    for executor in ["threads", "async", "processes"] {
        let job = server.ended(&python(executor, stops)).await;
        assert_eq!(job["state"], "succeeded", "{job}");
        go_on(&server, executor, "def main():\n    return 1\n").await;
    }
}
