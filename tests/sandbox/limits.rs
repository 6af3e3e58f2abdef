//! What is used up.

use serde_json::json;
use trine::sandbox::Violation;

use crate::bench::Bench;

const MIB: u64 = 1 << 20;

/// Runs a script that exceeds a limit: what is said of it.
async fn violation(bench: &Bench, script: &str) -> Violation {
    let ran = bench.run(script).await;
    let ended = ran.ended;
    ended.violation.unwrap_or_else(|| panic!("no violation: {} {}", ended.status, ran.stderr))
}

#[tokio::test]
async fn a_fork_bomb_is_refused_or_seen() {
    let mut bench = Bench::new();
    // Twelve generations only, so that a sandbox that does not hold does not cost whoever tests it their machine.
    let bomb = "
import os, time
for _ in range(12):
    os.fork()
time.sleep(1000)";
    let refused = bench.answer("tell(attempt(os.fork))").await;
    assert_eq!(refused, json!("EPERM"));
    bench.policy.limits.processes = 20;
    let violation = violation(&bench, bomb).await;
    assert!(matches!(violation, Violation::Processes { started: 21.., limit: 20 }), "{violation}");
}

#[tokio::test]
async fn a_thread_bomb_is_seen() {
    let mut bench = Bench::new();
    bench.policy.limits.threads = 20;
    let bomb = "
import threading, time
threading.stack_size(1 << 16)
for _ in range(100):
    threading.Thread(target=time.sleep, args=(1000,)).start()";
    assert!(matches!(violation(&bench, bomb).await, Violation::Threads { running: 21.., limit: 20 }));
}

#[tokio::test]
async fn a_memory_bomb_is_refused_or_seen() {
    let mut bench = Bench::new();
    bench.policy.limits.memory_bytes = 100 * MIB;
    let bomb = "import time\nkept = []\nwhile True: kept.append(bytearray(8 << 20)); time.sleep(0.01)";
    let violation = violation(&bench, bomb).await;
    assert!(
        matches!(violation, Violation::Memory { .. }) && violation.to_string().ends_with("its limit is 100 MiB"),
        "{violation}"
    );
    bench.policy.limits.address_space_bytes = Some(400 * MIB);
    let script = "
try:
    bytearray(1 << 30)
except MemoryError:
    tell('refused')";
    assert_eq!(bench.answer(script).await, json!("refused"));
}

#[tokio::test]
async fn memory_is_seen_of_a_process_whose_name_is_no_text_and_of_one_whose_first_thread_has_ended() {
    let mut bench = Bench::new();
    bench.policy.limits.memory_bytes = 100 * MIB;
    let renamed = "
import ctypes, time
ctypes.CDLL(None).prctl(15, b'\\xff\\xfe', 0, 0, 0)
kept = bytearray(b'x') * (300 << 20)
time.sleep(1000)";
    let headless = "
import ctypes, threading, time
def go_on():
    time.sleep(0.1)
    globals()['kept'] = bytearray(b'x') * (300 << 20)
    time.sleep(1000)
threading.Thread(target=go_on).start()
ctypes.CDLL(None).syscall(60, 0)";
    for script in [renamed, headless] {
        let violation = violation(&bench, script).await;
        assert!(matches!(violation, Violation::Memory { .. }), "{violation}");
    }
}

#[tokio::test]
async fn memory_that_processes_share_counts_once() {
    let mut bench = Bench::new();
    bench.policy.limits.processes = 10;
    bench.policy.limits.memory_bytes = 300 * MIB;
    let script = "
import os, time
data = bytearray(b'x') * (100 << 20)
for _ in range(6):
    if os.fork() == 0:
        time.sleep(1000)
print('ready', flush=True)
kept = bytearray(b'x') * (400 << 20)
time.sleep(1000)";
    let violation = violation(&bench, script).await;
    // Seven times 100 MiB would be more.
    assert!(matches!(violation, Violation::Memory { used, .. } if used > 300 * MIB && used < 650 * MIB), "{violation}");
}

#[tokio::test]
async fn a_disk_filler_is_seen() {
    let mut bench = Bench::new();
    bench.policy.limits.scratch_bytes = 10 * MIB;
    let many = "
import time
for n in range(1000):
    with open(f'file{n}', 'wb') as file: file.write(b'x' * (1 << 20))
    time.sleep(0.01)
time.sleep(1000)";
    let seen = violation(&bench, many).await;
    assert!(matches!(seen, Violation::Scratch { .. }) && seen.to_string().ends_with("its limit is 10 MiB"), "{seen}");
}

#[tokio::test]
async fn what_is_too_deep_to_be_looked_at_fills_the_disk_as_well() {
    let mut bench = Bench::new();
    bench.policy.limits.scratch_bytes = 10 * MIB;
    let script = "
import os, time
for _ in range(20):
    os.mkdir('x' * 250)
    os.chdir('x' * 250)
time.sleep(1000)";
    assert!(matches!(violation(&bench, script).await, Violation::Scratch { .. }));
}

#[tokio::test]
async fn a_file_without_a_name_fills_the_disk_as_well() {
    let mut bench = Bench::new();
    bench.policy.limits.scratch_bytes = 10 * MIB;
    let script = "
import os, time
with open('file', 'wb', buffering=0) as file:
    os.remove('file')
    for _ in range(20): file.write(b'x' * (1 << 20))
    time.sleep(1000)";
    assert!(matches!(violation(&bench, script).await, Violation::Scratch { .. }));
}

#[tokio::test]
async fn a_file_that_is_too_long_is_refused() {
    let mut bench = Bench::new();
    bench.policy.limits.file_bytes = MIB;
    let script = "tell([attempt(open('file', 'wb', buffering=0).write, bytes(1 << 20)), attempt(open('file', 'ab', buffering=0).write, b'x')])";
    assert_eq!(bench.answer(script).await, json!([MIB, "EFBIG"]));
    let ran = bench
        .run("import signal; signal.signal(signal.SIGXFSZ, signal.SIG_DFL); open('file', 'ab', buffering=0).write(b'x')")
        .await;
    assert_eq!(ran.ended.violation.unwrap().to_string(), "it wrote a file longer than its limit of 1 MiB");
}

#[tokio::test]
async fn files_can_be_opened_up_to_the_limit() {
    let mut bench = Bench::new();
    bench.policy.limits.open_files = 130;
    let script = "
files = []
try:
    while True: files.append(open('/dev/null'))
except OSError as error:
    tell([name(error.errno), len(files)])";
    assert_eq!(bench.answer(script).await, json!(["EMFILE", 127]));
}

#[tokio::test]
async fn one_that_keeps_to_its_limits_is_left_alone() {
    let bench = Bench::new();
    let ran = bench.run("import time; time.sleep(0.5); print('done')").await;
    assert_eq!((ran.stdout.as_str(), ran.ended.violation), ("done\n", None));
}

/// No process's memory shows what is on its way.
#[tokio::test]
async fn what_sockets_and_pipes_hold_stays_little() {
    let script = r"
import fcntl, socket
ours, theirs = socket.socketpair()
def size(option):
    before = ours.getsockopt(socket.SOL_SOCKET, option)
    ours.setsockopt(socket.SOL_SOCKET, option, before * 8)
    return ours.getsockopt(socket.SOL_SOCKET, option) == before
ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 2)
kept = [size(socket.SO_SNDBUF), size(socket.SO_RCVBUF), ours.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)]
read, write = os.pipe()
spliced = libc.vmsplice(write, ctypes.byref((ctypes.c_size_t * 2)(ctypes.addressof(ctypes.create_string_buffer(1)), 1)), 1, 0)
spliced = name(ctypes.get_errno()) if spliced < 0 else spliced
tell([*kept, spliced, attempt(fcntl.fcntl, write, 1031, 1 << 20)])";
    assert_eq!(Bench::new().answer(script).await, json!([true, true, 2, "ENOSYS", "EPERM"]));
}
