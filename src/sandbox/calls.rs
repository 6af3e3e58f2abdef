//! Which system calls a program can make: by seccomp.
//!
//! The filters let everything pass but what they name. What is refused looks to the program as if it lacked the right (EPERM).

use std::collections::BTreeMap;

use nix::libc::{self, c_long};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::{Policy, Report};

/// The architecture that this program is built for, if there are filters for it.
pub(super) const ARCHITECTURE: Option<TargetArch> = if cfg!(target_arch = "x86_64") {
    Some(TargetArch::x86_64)
} else if cfg!(target_arch = "aarch64") {
    Some(TargetArch::aarch64)
} else {
    None
};

/// Calls that are refused whatever their arguments.
const REFUSED: &[c_long] = &[
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    // Leaving the process group, which is killed as a whole.
    libc::SYS_setsid,
    libc::SYS_setpgid,
    // File systems and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    OPEN_TREE_ATTR,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    // They watch also what Landlock keeps closed; and there are few for each user.
    libc::SYS_fanotify_init,
    libc::SYS_inotify_init1,
    // Parts of the kernel that few programs need and many attacks use.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_userfaultfd,
    // The machine.
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
    // Memory that is no process's, and would outlive the program or escape its limits.
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
    // Likewise, and by numbers and names that anybody finds: those of other programs as well.
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_msgget,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_msgctl,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_semctl,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
    // Attributes of files, which Landlock does not cover, also where a file is only read.
    libc::SYS_fchownat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    SETXATTRAT,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    REMOVEXATTRAT,
    FILE_SETATTR,
];
/// What older kernels lack, so that programs do without: `clone3`, since its flags are in memory, where no filter sees them; asynchronous
/// reads, for which all programs of the machine have so much room; and to put memory into a pipe, of which a byte there holds a huge page, also
/// when the program has given that back.
const MISSING: &[c_long] = &[libc::SYS_clone3, libc::SYS_io_setup, libc::SYS_vmsplice];
/// Calls that other architectures than `x86_64` never had.
#[cfg(target_arch = "x86_64")]
const REFUSED_OLD: &[c_long] = &[libc::SYS_chown, libc::SYS_lchown, libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_inotify_init];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_OLD: &[c_long] = &[];

/// Calls that change the mode, the owner or the times of a file, by its path or open. Landlock does not cover them, so they could lock the
/// server out of its own files, or give others' programs rights; and copying a file must not fail for want of them. So they do nothing.
const IGNORED: &[c_long] = &[libc::SYS_fchmod, libc::SYS_fchmodat, FCHMODAT2, libc::SYS_fchown];
#[cfg(target_arch = "x86_64")]
const IGNORED_OLD: &[c_long] = &[libc::SYS_chmod, libc::SYS_utime, libc::SYS_utimes, libc::SYS_futimesat];
#[cfg(not(target_arch = "x86_64"))]
const IGNORED_OLD: &[c_long] = &[];

/// Calls that start a process and no thread.
#[cfg(target_arch = "x86_64")]
const FORKS: &[c_long] = &[libc::SYS_fork, libc::SYS_vfork];
#[cfg(not(target_arch = "x86_64"))]
const FORKS: &[c_long] = &[];

/// Calls without which a socket reaches nobody; and nobody but the network's makes one.
const SOCKETS: &[c_long] =
    &[libc::SYS_socket, libc::SYS_connect, libc::SYS_bind, libc::SYS_listen, libc::SYS_accept, libc::SYS_accept4];
const FAMILIES: [i32; 3] = [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

// Newer than what the library names; their numbers are the same on all architectures.
const FCHMODAT2: c_long = 452;
const SETXATTRAT: c_long = 463;
const REMOVEXATTRAT: c_long = 466;
const OPEN_TREE_ATTR: c_long = 467;
const FILE_SETATTR: c_long = 469;

/// Of `fcntl`, likewise.
const F_SETOWN_EX: u64 = 15;
const F_SETDELEG: u64 = 1040;
/// Of `ioctl`, as `asm-generic/sockios.h` and `linux/fs.h` have them.
const FIOSETOWN: u64 = 0x8901;
const SIOCSPGRP: u64 = 0x8902;
const FS_IOC_SETFLAGS: u64 = 0x4008_6602;
const FS_IOC32_SETFLAGS: u64 = 0x4004_6602;
const FS_IOC_FSSETXATTR: u64 = 0x401c_5820;
const FS_IOC_ENABLE_VERITY: u64 = 0x4080_6685;
/// Before this version of its interface, Landlock let every file be cut short.
const LANDLOCK_WITH_TRUNCATE: u32 = 3;

const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

/// The filters, to be installed all; `None` on an architecture that has none. They make up for what Landlock lacks in this kernel.
/// `pid` is this process, which will be the program.
pub(super) fn filters(policy: &Policy, kernel: &Report, pid: u32) -> Result<Option<Vec<BpfProgram>>, BackendError> {
    let Some(architecture) = ARCHITECTURE else { return Ok(None) };
    let filter = |rules, errno: i32| -> Result<BpfProgram, BackendError> {
        SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno.unsigned_abs()), architecture)?.try_into()
    };
    let mut filters =
        vec![filter(refused(policy, kernel, pid)?, libc::EPERM)?, filter(ignored()?, 0)?, filter(whole(MISSING), libc::ENOSYS)?];
    #[cfg(target_arch = "x86_64")]
    filters.push(x32::filter());
    Ok(Some(filters))
}

fn refused(policy: &Policy, kernel: &Report, pid: u32) -> Result<Rules, BackendError> {
    let own = u64::from(pid);
    let mut rules = whole(REFUSED);
    rules.append(&mut whole(REFUSED_OLD));
    if policy.network {
        // Only protocols of the network: sockets of this machine's services are none, nor is what else the kernel tells by netlink.
        let netlink = [equal(0, Op::Eq, number(libc::AF_NETLINK))?, equal(2, Op::Ne, number(libc::NETLINK_ROUTE))?];
        rules.insert(libc::SYS_socket, vec![none_of(0, FAMILIES.map(number))?, SeccompRule::new(netlink.into())?]);
    } else {
        rules.append(&mut whole(SOCKETS));
    }
    // Pairs that are connected to each other for good.
    let pair = [equal(0, Op::Ne, number(libc::AF_UNIX))?, masked(1, 0xf, libc::SOCK_DGRAM)?, masked(1, 0xf, libc::SOCK_RAW)?];
    rules.insert(libc::SYS_socketpair, pair.into_iter().map(one).collect::<Result<_, _>>()?);
    // A child of the parent would be the server's; the rest would be a way round the rules.
    let mut clone = Vec::new();
    for flag in NAMESPACES.into_iter().chain([libc::CLONE_PARENT]) {
        clone.push(one(masked(0, number(flag), flag)?)?);
    }
    if policy.limits.processes == 0 {
        clone.push(one(masked(0, number(libc::CLONE_THREAD), 0)?)?);
        rules.append(&mut whole(FORKS));
    }
    rules.insert(libc::SYS_clone, clone);
    // What is typed at a terminal must come from its user. The others change attributes of files.
    let mut requests = vec![libc::TIOCSTI, libc::TIOCLINUX];
    requests.extend([FS_IOC_SETFLAGS, FS_IOC32_SETFLAGS, FS_IOC_FSSETXATTR, FS_IOC_ENABLE_VERITY]);
    // Whoever else opens a file that is held so waits for most of a minute. And a user's pipes have so much room together.
    let mut commands = vec![number(libc::F_SETLEASE), F_SETDELEG, number(libc::F_SETPIPE_SZ)];
    if !kernel.signal_scope {
        // Whoever a file belongs to gets signals when something happens to it.
        requests.extend([FIOSETOWN, SIOCSPGRP]);
        commands.extend([number(libc::F_SETOWN), F_SETOWN_EX]);
    }
    for (call, values) in [(libc::SYS_ioctl, requests), (libc::SYS_fcntl, commands)] {
        let asked = values.into_iter().map(|value| one(equal(1, Op::Eq, value)?));
        rules.insert(call, asked.collect::<Result<_, _>>()?);
    }
    // It dies with the server.
    rules.insert(libc::SYS_prctl, vec![one(equal(0, Op::Eq, number(libc::PR_SET_PDEATHSIG))?)?]);
    // Limits and priorities of other processes of the same user.
    for call in [libc::SYS_prlimit64, libc::SYS_sched_setaffinity, libc::SYS_sched_setscheduler] {
        rules.insert(call, vec![none_of(0, [0, own])?]);
    }
    for call in [libc::SYS_sched_setparam, libc::SYS_sched_setattr] {
        rules.insert(call, vec![none_of(0, [0, own])?]);
    }
    for (call, process) in [(libc::SYS_setpriority, 0), (libc::SYS_ioprio_set, 1)] {
        rules.insert(call, vec![one(equal(0, Op::Ne, process)?)?, none_of(1, [0, own])?]);
    }
    if !kernel.signal_scope {
        let group = u64::from(pid.wrapping_neg());
        rules.insert(libc::SYS_kill, vec![none_of(0, [0, own, group])?]);
        for call in [libc::SYS_tkill, libc::SYS_tgkill, libc::SYS_rt_sigqueueinfo, libc::SYS_rt_tgsigqueueinfo] {
            rules.insert(call, vec![one(equal(0, Op::Ne, own)?)?]);
        }
    }
    // Whoever wants a file to be there and new tries this first, and makes one only if it fails.
    rules.insert(libc::SYS_utimensat, vec![times_by_path(Op::Eq)?]);
    if kernel.landlock_abi < LANDLOCK_WITH_TRUNCATE {
        rules.append(&mut whole(&[libc::SYS_truncate]));
    }
    Ok(rules)
}

fn ignored() -> Result<Rules, BackendError> {
    let mut rules = whole(IGNORED);
    rules.append(&mut whole(IGNORED_OLD));
    rules.insert(libc::SYS_utimensat, vec![times_by_path(Op::Ne)?, one(SeccompCondition::new(1, Len::Qword, Op::Eq, 0)?)?]);
    // What is on its way through a socket is no process's memory. Libraries ask for more of it, and do without.
    let buffer = |option| SeccompRule::new(vec![equal(1, Op::Eq, number(libc::SOL_SOCKET))?, equal(2, Op::Eq, number(option))?]);
    rules.insert(libc::SYS_setsockopt, vec![buffer(libc::SO_SNDBUF)?, buffer(libc::SO_RCVBUF)?]);
    Ok(rules)
}

/// That the times of a file are set by its path (without one it is about an open file), and to some that are given or, without any, to now.
fn times_by_path(given: Op) -> Result<SeccompRule, BackendError> {
    let path = SeccompCondition::new(1, Len::Qword, Op::Ne, 0)?;
    SeccompRule::new(vec![path, SeccompCondition::new(2, Len::Qword, given, 0)?])
}

/// These calls, whatever their arguments.
fn whole(calls: &[c_long]) -> Rules {
    calls.iter().map(|call| (*call, Vec::new())).collect()
}

fn one(condition: SeccompCondition) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![condition])
}

/// The argument is none of these values.
fn none_of<const N: usize>(argument: u8, values: [u64; N]) -> Result<SeccompRule, BackendError> {
    let differs = |value| SeccompCondition::new(argument, Len::Dword, Op::Ne, value);
    SeccompRule::new(values.into_iter().map(differs).collect::<Result<_, _>>()?)
}

fn equal(argument: u8, operator: Op, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, Len::Dword, operator, value)
}

/// Under this mask, the argument is this value.
fn masked(argument: u8, mask: u64, value: i32) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, Len::Dword, Op::MaskedEq(mask), number(value))
}

/// The 32 bits of an argument, as the kernel sees them.
const fn number(value: i32) -> u64 {
    value.cast_unsigned() as u64
}

/// The second set of numbers that `x86_64` may have for the same calls. Filters go by numbers, so it is closed.
#[cfg(target_arch = "x86_64")]
mod x32 {
    use nix::libc;
    use seccompiler::{BpfProgram, sock_filter};

    /// Set in each number of the second set.
    const BIT: u32 = 0x4000_0000;

    /// Loads the number (the first word of what a filter sees); refuses it if it is as large as the bit, else allows it.
    pub(super) fn filter() -> BpfProgram {
        let refuse = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
        vec![
            sock_filter { code: 0x20, jt: 0, jf: 0, k: 0 },   // load word, absolute
            sock_filter { code: 0x35, jt: 0, jf: 1, k: BIT }, // jump if greater or equal
            sock_filter { code: 0x06, jt: 0, jf: 0, k: refuse },
            sock_filter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW },
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use nix::errno::Errno;
    use nix::sys::prctl;

    use super::super::{Limits, probe};
    use super::*;

    #[test]
    fn the_filters_can_be_built_for_every_policy_and_kernel() {
        for bits in 0..8 {
            let is = |bit: u32| bits & (1 << bit) != 0;
            let limits = Limits { processes: u64::from(is(0)), ..Limits::default() };
            let policy = Policy { limits, network: is(1), ..Policy::default() };
            let kernel = Report { landlock_abi: if is(2) { 6 } else { 0 }, signal_scope: is(2), ..probe() };
            assert_eq!(filters(&policy, &kernel, 4_194_303).unwrap().is_some(), ARCHITECTURE.is_some());
        }
    }

    /// By a way that only these filters close where Landlock closes none.
    #[test]
    #[expect(unsafe_code, reason = "no crate here gives a socket to another process")]
    fn without_a_scope_no_socket_sends_signals_to_others() {
        if !probe().seccomp {
            return;
        }
        let kernel = Report { signal_scope: false, ..probe() };
        // A thread has filters of its own.
        let tried = std::thread::spawn(move || {
            let (socket, _other) = UnixStream::pair().unwrap();
            prctl::set_no_new_privs().unwrap();
            for filter in filters(&Policy::default(), &kernel, std::process::id()).unwrap().unwrap() {
                seccompiler::apply_filter(&filter).unwrap();
            }
            let parent = nix::unistd::getppid().as_raw();
            [FIOSETOWN, SIOCSPGRP].map(|request| {
                // SAFETY: the kernel reads one number, which lives until the call returns.
                Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw const parent) })
            })
        });
        assert_eq!(tried.join().unwrap(), [Err(Errno::EPERM); 2]);
    }
}
