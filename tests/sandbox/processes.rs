//! Signals, threads, processes, and the end of a group.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;
use trine::sandbox::{NOT_CONFINED, NOT_STARTED};

use crate::bench::{Bench, PATIENCE, finish, landlock, python};

#[tokio::test]
async fn only_itself_can_be_signalled() {
    let script = r"
import signal, threading
server = os.getppid()
caught = []
signal.signal(signal.SIGUSR1, lambda *_: caught.append(1))
os.kill(os.getpid(), signal.SIGUSR1)
os.kill(0, signal.SIGUSR1)
signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
tell([len(caught) >= 2] + [attempt(os.kill, target, 0) for target in (server, 1, -server)])";
    let tried = Bench::new().answer(script).await;
    // A group that is not there is another matter.
    assert_eq!((&tried[0], &tried[1], &tried[2]), (&json!(true), &json!("EPERM"), &json!("EPERM")));
    assert!(tried[3] == "EPERM" || tried[3] == "ESRCH", "{tried}");
}

#[tokio::test]
async fn threads_work_and_processes_do_not_unless_they_are_allowed() {
    let mut bench = Bench::new();
    let script = r"
import subprocess
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(8) as pool:
    squares = list(pool.map(lambda n: n * n, range(3)))
def forked():
    child = os.fork()
    if child == 0:
        os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
tell([squares, attempt(subprocess.call, ['/bin/true']), attempt(forked)])";
    assert_eq!(bench.answer(script).await, json!([[0, 1, 4], "EPERM", "EPERM"]));
    bench.policy.limits.processes = 4;
    assert_eq!(bench.answer(script).await, json!([[0, 1, 4], 0, 7]));
}

#[tokio::test]
async fn what_it_started_can_be_signalled_by_it() {
    if !landlock(6) {
        return;
    }
    let mut bench = Bench::new();
    bench.policy.limits.processes = 4;
    let script = r"
import signal, subprocess
child = subprocess.Popen(['/bin/sleep', '1000'])
child.terminate()
tell([child.wait(), attempt(lambda: subprocess.Popen(['/bin/true'], start_new_session=True).wait())])";
    assert_eq!(bench.answer(script).await, json!([-15, "EPERM"]));
}

#[tokio::test]
async fn a_program_that_kills_itself_is_collected() {
    let ran = Bench::new().run("import os; os.kill(os.getpid(), 9)").await;
    assert_eq!(ran.ended.status.signal(), Some(Signal::SIGKILL as i32));
}

#[tokio::test]
async fn what_a_program_leaves_running_ends_with_it() {
    let mut bench = Bench::new();
    bench.policy.limits.processes = 4;
    // The child holds standard output, so reading it to its end waits for the child as well.
    let ran = bench.run("import subprocess; subprocess.Popen(['/bin/sleep', '1000'])").await;
    assert!(ran.ended.status.success(), "{}", ran.stderr);
}

#[tokio::test]
async fn a_group_is_asked_to_end_and_then_killed() {
    let mut bench = Bench::new();
    bench.policy.limits.processes = 4;
    let deaf = r"
import signal, subprocess
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen(['/bin/sleep', '1000'])
print('ready', flush=True)
signal.pause()
signal.pause()";
    let mut group = bench.start(deaf);
    let mut stdout = BufReader::new(group.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let ended = group.end(Duration::from_millis(20)).await.unwrap();
    assert_eq!(ended.status.signal(), Some(Signal::SIGKILL as i32));
    stdout.read_to_string(&mut line).unwrap();
    let polite = bench.start("import signal; print('ready', flush=True); signal.pause()");
    let mut polite = polite;
    BufReader::new(polite.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(polite.end(PATIENCE).await.unwrap().status.signal(), Some(Signal::SIGTERM as i32));
}

#[tokio::test]
async fn a_group_that_is_dropped_is_killed() {
    let bench = Bench::new();
    let mut group = bench.start("import signal; print('ready', flush=True); signal.pause()");
    let mut stdout = BufReader::new(group.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    drop(group);
    stdout.read_to_string(&mut line).unwrap();
    assert_eq!(line, "ready\n");
}

#[tokio::test]
async fn what_was_used_is_told() {
    // More than this test program ever has.
    let ran = Bench::new().run("data = bytearray(400 << 20); sum(i for i in range(1_000_000))").await;
    assert!(ran.ended.cost.cpu_user > Duration::from_millis(5), "{:?}", ran.ended.cost);
    assert!(ran.ended.cost.max_rss_bytes.is_some_and(|bytes| bytes > 400 << 20), "{:?}", ran.ended.cost);
}

#[tokio::test]
async fn a_program_that_is_not_there_is_told_apart_from_one_that_fails() {
    let bench = Bench::new();
    let start = |program: &str| bench.spawn(&mut bench.command(program.as_ref(), &[]));
    let ran = finish(start("/nowhere/program")).await;
    assert_eq!(ran.ended.status.code(), Some(i32::from(NOT_STARTED)));
    assert!(ran.stderr.starts_with("trine sandbox: can't start /nowhere/program: "), "{}", ran.stderr);
    let mut alone = std::process::Command::new(env!("CARGO_BIN_EXE_trine"));
    let status = alone.arg("sandbox").arg(&python().program).output().unwrap().status;
    assert_eq!(status.code(), Some(i32::from(NOT_CONFINED)));
}
