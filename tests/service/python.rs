//! Python on the three models: what it gives, what it measures, and what it can't do to others.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::behind::begun;
use crate::server::{PATIENCE, Server, database, folder, until};

const MODELS: [&str; 3] = ["async", "threads", "processes"];

fn python(executor: &str, source: &str, args: &Value) -> Value {
    json!({ "bound": "cpu", "executor": executor, "workload": { "type": "python", "source": source, "args": args } })
}

#[tokio::test]
async fn a_function_gives_the_same_on_every_model_and_is_measured_there() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let source = "
import pathlib, time

def main(n, scale=1):
    end = time.thread_time() + 0.05
    while time.thread_time() < end:
        pass
    return {'sum': sum(range(n)) * scale, 'at_home': pathlib.Path.home() == pathlib.Path.cwd()}
";
    for model in MODELS {
        let mut submission = python(model, source, &json!([10]));
        submission["workload"]["kwargs"] = json!({ "scale": 2 });
        let job = server.ended(&submission).await;
        assert_eq!((&job["state"], &job["output"]), (&json!("succeeded"), &json!({ "sum": 90, "at_home": true })), "{job}");
        let timing = &job["timing"];
        let cpu = timing["cpu_user_us"].as_u64().unwrap() + timing["cpu_system_us"].as_u64().unwrap();
        assert!(cpu >= 50_000 && timing["gil"].is_boolean(), "{timing}");
        let (held, memory) = (&timing["longest_poll_us"], &timing["max_rss_bytes"]);
        assert_eq!(held.as_u64().is_some_and(|held| held >= 50_000), model == "async", "{timing}");
        assert_eq!(memory.is_u64(), model == "processes", "{timing}");
    }
}

/// On an event loop, what asyncio takes in goes through a buffer of 256 KiB each time: it is not to be new memory each time.
#[tokio::test]
async fn a_loop_takes_in_what_comes_without_new_memory() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let source = "
import os, resource
def faults(reader, writer):
    for _ in range(200):
        os.write(writer, b'x')
        os.read(reader, 1 << 18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def main():
    pipe = os.pipe()
    first = faults(*pipe)
    return faults(*pipe) - first
";
    let job = server.ended(&python("async", source, &json!([]))).await;
    assert!(job["output"].as_u64().is_some_and(|faults| faults < 100), "{job}");
}

#[tokio::test]
async fn the_route_follows_the_form_and_the_lock() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let gil = server.get("/executors").await["python"]["interpreters"][0]["gil"].as_bool().unwrap();
    let computing = if gil { ("processes", "cpu_processes") } else { ("threads", "cpu_threads") };
    for (bound, source, expected) in [
        ("io", "async def main(): pass", ("async", "io_async")),
        ("io", "def main(): pass", ("threads", "io_blocking")),
        ("cpu", "def main(): pass", computing),
    ] {
        let job = server.ended(&json!({ "bound": bound, "workload": { "type": "python", "source": source } })).await;
        assert_eq!((&job["route"]["executor"], &job["route"]["rule"]), (&json!(expected.0), &json!(expected.1)), "{job}");
        assert_eq!(job["state"], "succeeded");
    }
}

#[tokio::test]
async fn an_exception_is_told_with_its_frames() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let source = "def inner(x):\n    return 1 / x\n\ndef main(x):\n    try:\n        inner(x)\n    except ZeroDivisionError as error:\n        raise ValueError('no') from error\n";
    for model in MODELS {
        let job = server.ended(&python(model, source, &json!([0]))).await;
        let error = &job["error"];
        assert_eq!((&error["kind"], &error["message"]), (&json!("error"), &json!("ValueError: no")), "{job}");
        assert_eq!(
            (&error["python"]["type"], &error["python"]["cause"]["type"]),
            (&json!("ValueError"), &json!("ZeroDivisionError"))
        );
        assert_eq!(error["python"]["frames"][0]["line"], 8);
        assert!(error["python"]["traceback"].as_str().unwrap().contains("return 1 / x"), "{error}");
    }
}

#[tokio::test]
async fn a_process_that_keeps_much_memory_is_replaced() {
    let folder = folder();
    let memory = (256 << 20).to_string();
    let settings = [("TRINE_PYTHON_PROCESSES", "1"), ("TRINE_PYTHON_MEMORY_BYTES", &*memory)];
    let server = Server::start(folder.path(), &settings).await;
    let source = "import os\nkept = []\ndef main(bytes):\n    kept.append(b'x' * bytes)\n    return os.getpid()\n";
    let first = server.ended(&python("processes", source, &json!([160 << 20]))).await;
    assert!(first["output"].is_u64(), "{first}");
    for _ in 0..4 {
        let next = server.ended(&python("processes", source, &json!([1]))).await;
        assert!(next["output"].is_u64() && next["output"] != first["output"], "{next}");
    }
}

/// The jobs that share a host may have a connection each; one that has its process to itself needs no more than programs mostly do.
#[tokio::test]
async fn a_host_that_many_jobs_share_may_open_files_for_them() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let opens = |executor: &str| {
        let source = "def main():\n    return len([open('/dev/null') for _ in range(1_000)])\n";
        json!({ "bound": "io", "executor": executor, "workload": { "type": "python", "source": source } })
    };
    let job = server.ended(&opens("async")).await;
    assert_eq!(job["output"], 1_000, "{job}");
    let job = server.ended(&opens("processes")).await;
    assert!(job["error"]["message"].as_str().unwrap().contains("Too many open files"), "{job}");
}

/// Each of these ends its own job with an error that says what happened; the others go on.
#[tokio::test]
async fn a_bad_job_harms_itself_alone() {
    let folder = folder();
    let small = (64 << 20).to_string();
    let memory = (192 << 20).to_string();
    let settings = [("TRINE_PYTHON_MEMORY_BYTES", &*memory), ("TRINE_PYTHON_SCRATCH_BYTES", &*small)];
    let server = Server::start(folder.path(), &settings).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let once = json!({ "on": [] });
    let refused = "If the sandbox refused this";
    let deeds = [
        ("import os\ndef main():\n    while True:\n        os.fork()\n", json!([]), "failed", refused),
        (
            "def main():\n    hoard = []\n    while True:\n        hoard.append(bytearray(8 << 20))\n",
            json!([]),
            "failed",
            "memory",
        ),
        (
            "def main():\n    n = 0\n    while True:\n        n += 1\n        with open(f'{n}', 'wb') as file:\n            file.write(bytes(8 << 20))\n",
            json!([]),
            "failed",
            "scratch folder",
        ),
        ("def main():\n    while True:\n        pass\n", json!([]), "failed", "deadline of 300 ms"),
        ("import os, signal\ndef main():\n    os.kill(os.getpid(), signal.SIGKILL)\n", json!([]), "lost", "SIGKILL"),
        ("def main(path):\n    return open(path, 'rb').read(16)\n", json!([database(folder.path())]), "failed", refused),
        ("import socket\ndef main(port):\n    socket.create_connection(('127.0.0.1', port))\n", json!([port]), "failed", refused),
        ("import socket\ndef main():\n    socket.getaddrinfo('example.com', 80)\n", json!([]), "failed", "resolve no names"),
        ("import os\ndef main(pid):\n    os.kill(pid, 15)\n", json!([server.pid().as_raw()]), "failed", refused),
        ("import os\ndef main():\n    os._exit(3)\n", json!([]), "lost", "exit status 3"),
    ];
    for (source, args, state, message) in deeds {
        let mut bad = python("processes", source, &args);
        bad["retry"] = once.clone();
        if source.contains("pass") {
            bad["deadline_ms"] = json!(300);
        }
        let (bad, good) = tokio::join!(server.ended(&bad), async {
            let source = "import time\ndef main():\n    time.sleep(0.05)\n    return 7\n";
            server.ended(&python("processes", source, &json!([]))).await
        });
        let text = bad["error"].to_string();
        assert!(
            bad["state"] == state && (text.contains(message) || text.contains("MemoryError") && message == "memory"),
            "{bad}"
        );
        assert_eq!((&good["state"], &good["output"]), (&json!("succeeded"), &json!(7)), "{good}");
    }
    // Nothing is left behind: each host that lives has a folder, and there is no other.
    let scratch = folder.path().join("data/python/scratch");
    let tidy = async || {
        let hosts: usize = hosts(&server).await.len();
        (hosts > 0 && std::fs::read_dir(&scratch).unwrap().count() == hosts).then_some(())
    };
    until("scratch folders go with their hosts", tidy).await;
}

/// The Python processes that there are.
async fn hosts(server: &Server) -> Vec<Value> {
    let queues = server.queues().await;
    let python = queues.iter().filter(|queue| queue["name"].as_str().unwrap().starts_with("python-"));
    python.flat_map(|queue| queue["workers"].as_array().unwrap().clone()).collect()
}

#[tokio::test]
async fn a_crash_on_threads_costs_the_jobs_of_that_host_and_says_so() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    // It runs until its host is gone; then it runs again, and ends.
    let waits = "import time, trine\ndef main():\n    while trine.attempt() == 1:\n        time.sleep(0.01)\n    return 'well'\n";
    let innocent = server.submit(&python("threads", waits, &json!([]))).await;
    let elsewhere = server.submit(&python("processes", "import time\ndef main():\n    time.sleep(600)\n", &json!([]))).await;
    server.until_state(&innocent, "running").await;
    server.until_state(&elsewhere, "running").await;
    let mut crash = python("threads", "import ctypes\ndef main():\n    ctypes.string_at(0)\n", &json!([]));
    crash["retry"] = json!({ "on": [] });
    let crashed = server.ended(&crash).await;
    let message = crashed["error"]["message"].as_str().unwrap();
    assert_eq!(crashed["state"], "lost");
    assert!(message.contains("SIGSEGV") && message.contains("shared by all jobs of its kind"), "{message}");
    let innocent = server.until_state(&innocent, "succeeded").await;
    assert_eq!(innocent["losses"], 1, "{innocent}");
    assert_eq!(server.cancel(&elsewhere).await, 202, "it runs on");
    let elsewhere = server.until_state(&elsewhere, "cancelled").await;
    assert_eq!((&elsewhere["losses"], &elsewhere["attempt"]), (&json!(0), &json!(1)), "{elsewhere}");
}

#[tokio::test]
async fn what_several_jobs_exceed_together_is_a_loss_for_each_and_what_one_does_alone_its_own_fault() {
    let folder = folder();
    let memory = (192 << 20).to_string();
    let server = Server::start(folder.path(), &[("TRINE_PYTHON_MEMORY_BYTES", &memory)]).await;
    let waits = "import time, trine\ndef main():\n    while trine.attempt() == 1:\n        time.sleep(0.01)\n    return 'well'\n";
    let hoards = "import trine\ndef main(attempts):\n    hoard = []\n    while trine.attempt() <= attempts:\n        hoard.append(b'x' * (8 << 20))\n    return 'well'\n";
    for model in ["async", "threads"] {
        // On the loop, one that holds it would leave no room for the other.
        let waits = if model == "async" {
            waits.replace("def", "async def").replace("time", "asyncio").replace("asyncio.sleep", "await asyncio.sleep")
        } else {
            waits.into()
        };
        let waiting = server.submit(&python(model, &waits, &json!([]))).await;
        server.until_state(&waiting, "running").await;
        let hoarding = server.submit(&python(model, hoards, &json!([1]))).await;
        for id in [waiting, hoarding] {
            let job = server.until_ended(&id).await;
            assert_eq!((&job["output"], &job["losses"]), (&json!("well"), &json!(1)), "{job}");
        }
        let alone = server.ended(&python(model, hoards, &json!([9]))).await;
        assert_eq!((&alone["state"], &alone["losses"]), (&json!("failed"), &json!(0)), "{alone}");
        let message = alone["error"]["message"].as_str().unwrap();
        assert!(message.contains("of memory; its limit is") || message.contains("MemoryError"), "{message}");
    }
}

#[tokio::test]
async fn a_job_that_goes_on_though_it_was_told_to_stop_costs_the_others_on_its_loop_nothing() {
    let folder = folder();
    let server = Server::start(folder.path(), &[("TRINE_STOP_GRACE_MS", "100")]).await;
    let until = "import asyncio, os\nasync def main():\n    print(os.getcwd(), flush=True)\n    while not os.path.exists('go'):\n        await asyncio.sleep(0.01)\n    return os.getpid()\n";
    let other = server.submit(&python("async", until, &json!([]))).await;
    let (_, go) = begun(&server, std::slice::from_ref(&other)).await;
    let stubborn = "import asyncio, os\nasync def main():\n    while True:\n        try:\n            await asyncio.sleep(600)\n        except asyncio.CancelledError:\n            pass\n";
    let mut stubborn = python("async", stubborn, &json!([]));
    stubborn["deadline_ms"] = json!(100);
    let stubborn = server.ended(&stubborn).await;
    assert_eq!((&stubborn["state"], &stubborn["error"]["kind"]), (&json!("failed"), &json!("timeout")), "{stubborn}");
    // What comes now has another host.
    let next = server.ended(&python("async", "import os\ndef main(): return os.getpid()", &json!([]))).await;
    std::fs::write(go, "").unwrap();
    let other = server.until_state(&other, "succeeded").await;
    assert_eq!((&other["losses"], &other["attempt"]), (&json!(0), &json!(1)), "{other}");
    assert!(next["output"].is_u64() && next["output"] != other["output"], "{next} {other}");
}

#[tokio::test]
async fn a_function_that_does_not_listen_is_ended_on_every_model() {
    let folder = folder();
    let server = Server::start(folder.path(), &[("TRINE_STOP_GRACE_MS", "200")]).await;
    let endless = "def main():\n    while True:\n        try:\n            while True: pass\n        except BaseException:\n            continue\n";
    for model in MODELS {
        let mut submission = python(model, endless, &json!([]));
        submission["deadline_ms"] = json!(100);
        let job = server.ended(&submission).await;
        assert_eq!((&job["state"], &job["error"]["kind"]), (&json!("failed"), &json!("timeout")), "{job}");
        let next = server.ended(&python(model, "def main(): return 1", &json!([]))).await;
        assert_eq!(next["output"], 1, "{next}");
    }
}

#[tokio::test]
async fn a_host_is_left_with_those_that_still_run_there() {
    let folder = folder();
    let server = Server::start(folder.path(), &[("TRINE_STOP_GRACE_MS", "100")]).await;
    let sleep = "import time\ndef main(s):\n    time.sleep(s)\n    return s\n";
    let mut stuck = python("threads", sleep, &json!([1.5]));
    stuck["deadline_ms"] = json!(100);
    let stuck = server.submit(&stuck).await;
    let other = server.submit(&python("threads", sleep, &json!([3]))).await;
    // The one that did not listen ends by itself, and the other one goes on.
    assert_eq!(server.until_state(&stuck, "failed").await["error"]["kind"], "timeout");
    let other = server.until_state(&other, "succeeded").await;
    assert_eq!((&other["output"], &other["attempt"]), (&json!(3), &json!(1)), "{other}");
}

/// An interpreter of a test's own, which can be taken away.
pub(crate) fn interpreter(folder: &Path) -> PathBuf {
    let usual = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().unwrap();
    let own = folder.join("interpreter");
    symlink(String::from_utf8(usual.stdout).unwrap().trim(), &own).unwrap();
    own
}

#[tokio::test]
async fn an_interpreter_that_is_gone_shows_only_as_long_as_somebody_wants_it() {
    let folder = folder();
    let gone = interpreter(folder.path());
    let interpreters = format!("python3,gone={}", gone.display());
    let server = Server::start(folder.path(), &[("TRINE_PYTHON_INTERPRETERS", &interpreters)]).await;
    // The host of the other one is up from here on.
    server.ended(&python("async", "def main(): return 1", &json!([]))).await;
    std::fs::remove_file(&gone).unwrap();
    let mut wanting = python("async", "def main(): pass", &json!([]));
    wanting["workload"]["interpreter"] = json!("gone");
    let id = server.submit(&wanting).await;
    server.until_ready(false).await;
    // Others are served meanwhile.
    assert_eq!(server.ended(&python("async", "def main(): return 1", &json!([]))).await["output"], 1);
    server.cancel(&id).await;
    server.until_state(&id, "cancelled").await;
    server.until_ready(true).await;
}

#[tokio::test]
async fn jobs_of_an_interpreter_that_is_gone_wait_and_keep_no_others_waiting() {
    let folder = folder();
    let (gone, away) = (interpreter(folder.path()), folder.path().join("away"));
    let interpreters = format!("python3,gone={}", gone.display());
    let settings =
        [("TRINE_PYTHON_INTERPRETERS", &*interpreters), ("TRINE_PYTHON_PROCESSES", "1"), ("TRINE_PYTHON_THREADS", "1")];
    let server = Server::start(folder.path(), &settings).await;
    std::fs::rename(&gone, &away).unwrap();
    let mut all = Vec::new();
    for executor in ["processes", "threads"] {
        let mut wanting = python(executor, "def main(): return 7", &json!([]));
        wanting["workload"]["interpreter"] = json!("gone");
        let mut ids = Vec::new();
        for _ in 0..20 {
            ids.push(server.submit(&wanting).await);
        }
        // Each has been tried before any other runs.
        for id in &ids {
            server.until(id, |job| job["state"] == "scheduled").await;
        }
        for n in 0..5 {
            assert_eq!(server.ended(&python(executor, "def main(n): return n", &json!([n]))).await["output"], n);
        }
        all.extend(ids);
    }
    std::fs::rename(&away, &gone).unwrap();
    for id in &all {
        let job = server.until_state(id, "succeeded").await;
        assert_eq!((&job["output"], &job["attempt"]), (&json!(7), &json!(1)), "{job}");
    }
    server.until_ready(true).await;
}

#[tokio::test]
async fn threads_start_with_little_memory_and_with_many_of_them() {
    for (memory, threads) in [("134217728", "64"), ("1073741824", "600")] {
        let folder = folder();
        let settings = [("TRINE_PYTHON_MEMORY_BYTES", memory), ("TRINE_PYTHON_THREADS", threads)];
        let server = Server::start(folder.path(), &settings).await;
        let job = server.ended(&python("threads", "def main(): return 1", &json!([]))).await;
        assert_eq!((&job["output"], &job["attempt"]), (&json!(1), &json!(1)), "{memory} bytes, {threads} threads: {job}");
    }
}

#[tokio::test]
async fn a_host_that_is_gone_is_noticed_though_what_it_has_forked_lives() {
    let folder = folder();
    let server = Server::start(folder.path(), &[("TRINE_SANDBOX", "off")]).await;
    let forked = folder.path().join("forked");
    let source = "
import os, signal

def main(path):
    pid = os.fork()
    if pid == 0:
        os.setsid()
        while True:
            signal.pause()
    with open(path, 'w') as file:
        file.write(str(pid))
    os._exit(3)
";
    let mut submission = python("threads", source, &json!([forked]));
    submission["retry"] = json!({ "on": [] });
    let id = server.submit(&submission).await;
    let ended = tokio::time::timeout(PATIENCE, server.until_state(&id, "lost")).await;
    let forked = std::fs::read_to_string(&forked).unwrap().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(forked), nix::sys::signal::Signal::SIGKILL).unwrap();
    let job = ended.expect("the end of its host to be noticed");
    assert!(job["error"]["message"].as_str().unwrap().contains("exit status 3"), "{job}");
}

#[tokio::test]
async fn what_jobs_have_written_goes_with_their_server() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let source = "
import pathlib

def main(count):
    for number in range(count):
        (pathlib.Path.home() / str(number)).touch()
";
    for model in MODELS {
        let job = server.ended(&python(model, source, &json!([8_000]))).await;
        assert_eq!(job["state"], "succeeded", "{job}");
    }
    server.stop();
    let left = std::fs::read_dir(folder.path().join("data/python/scratch")).unwrap();
    assert_eq!(left.count(), 0);
}
