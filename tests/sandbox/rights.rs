//! What can be asked of the kernel.

use serde_json::json;

use crate::bench::Bench;

/// System calls by number, which is not the same everywhere.
#[cfg(target_arch = "x86_64")]
const CALLS: &str = "PTRACE, MOUNT, UNSHARE, SETNS, KEYCTL, ADD_KEY, BPF, PERF, VM_READV, CHROOT, SETSID, CLONE, MEMFD, AIO, MQ = \
                     101, 165, 272, 308, 250, 248, 321, 298, 310, 161, 112, 56, 319, 206, 241";
#[cfg(target_arch = "aarch64")]
const CALLS: &str = "PTRACE, MOUNT, UNSHARE, SETNS, KEYCTL, ADD_KEY, BPF, PERF, VM_READV, CHROOT, SETSID, CLONE, MEMFD, AIO, MQ = \
                     117, 40, 97, 268, 219, 217, 280, 241, 270, 51, 157, 220, 279, 0, 181";

#[tokio::test]
async fn dangerous_calls_are_refused() {
    let bench = Bench::new();
    let script = r"
PTRACE_TRACEME, NEWUSER, NEWNS = 0, 0x10000000, 0x20000
tell({
    'ptrace': syscall(PTRACE, PTRACE_TRACEME, 0, 0, 0),
    'ptrace the parent': syscall(PTRACE, 16, os.getppid(), 0, 0),
    'mount': syscall(MOUNT, 0, 0, 0, 0, 0),
    'unshare': syscall(UNSHARE, NEWUSER),
    'setns': syscall(SETNS, 0, 0),
    'keyctl': syscall(KEYCTL, 0, -3, 0),
    'add_key': syscall(ADD_KEY, 0, 0, 0, 0, -3),
    'bpf': syscall(BPF, 0, 0, 0),
    'perf': syscall(PERF, 0, 0, -1, -1, 0),
    'io_uring': syscall(425, 8, 0),
    'process_vm_readv': syscall(VM_READV, os.getppid(), 0, 0, 0, 0, 0),
    'pidfd_getfd': syscall(438, 0, 0, 0),
    'chroot': syscall(CHROOT, 0),
    'setsid': syscall(SETSID),
    'clone in a namespace': syscall(CLONE, NEWUSER | NEWNS | 17, 0, 0, 0, 0),
    'memfd': syscall(MEMFD, 0, 0),
    'the end of a queue': syscall(MQ, 0),
    'watches': name(ctypes.get_errno()) if libc.inotify_init() < 0 else 'made',
    'watches with flags': name(ctypes.get_errno()) if libc.inotify_init1(0) < 0 else 'made',
})";
    let tried = bench.answer(&format!("{CALLS}\n{script}")).await;
    for (call, result) in tried.as_object().unwrap() {
        assert_eq!(result, "EPERM", "{call}");
    }
    // It is as if they did not exist.
    let tried = bench.answer(&format!("{CALLS}\ntell([syscall(435, 0, 0), syscall(AIO, 1, 0)])")).await;
    assert_eq!(tried, json!(["ENOSYS", "ENOSYS"]));
}

/// They are found by number, whosever they are.
#[tokio::test]
async fn segments_queues_and_semaphores_of_others_are_out_of_reach() {
    let script = r"
def called(call, *args):
    return name(ctypes.get_errno()) if getattr(libc, call)(*args) == -1 else 'done'
calls = 'shmget shmat shmctl msgget msgsnd msgrcv msgctl semget semop semtimedop semctl'.split()
tell({call: called(call, -1, 0, 0, 0, 0) for call in calls})";
    for (call, result) in Bench::new().answer(script).await.as_object().unwrap() {
        assert_eq!(result, "EPERM", "{call}");
    }
}

#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn calls_by_their_other_numbers_do_not_exist() {
    assert_eq!(
        Bench::new().answer("tell([syscall(0x40000000 + call, 0, 0, 0) for call in (521, 39, 41)])").await,
        json!(["ENOSYS", "ENOSYS", "ENOSYS"])
    );
}

#[tokio::test]
async fn no_capability_is_left_and_none_can_be_gained() {
    let script = r"
status = dict(line.split(':', 1) for line in open('/proc/self/status').read().splitlines())
tell([int(status[name], 16) for name in ('CapInh', 'CapPrm', 'CapEff', 'CapAmb', 'NoNewPrivs')] + [status['Seccomp'].strip()])";
    assert_eq!(Bench::new().answer(script).await, json!([0, 0, 0, 0, 1, "2"]));
}

#[tokio::test]
async fn limits_and_priorities_of_the_server_can_not_be_changed() {
    let script = r"
import resource
server = os.getppid()
tell([
    attempt(resource.prlimit, server, resource.RLIMIT_NOFILE, (0, 0)),
    attempt(os.setpriority, os.PRIO_PROCESS, server, 19),
    attempt(os.setpriority, os.PRIO_USER, 0, 19),
    attempt(os.sched_setaffinity, server, {0}),
    attempt(os.sched_setaffinity, 0, os.sched_getaffinity(0)),
    attempt(os.nice, 0) + 1 == attempt(os.nice, 1),
])";
    assert_eq!(Bench::new().answer(script).await, json!(["EPERM", "EPERM", "EPERM", "EPERM", null, true]));
}
