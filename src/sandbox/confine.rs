//! `trine sandbox`: confines this process, then becomes the program.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use caps::{CapSet, Capability};
use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{getppid, setsid};

use super::{Limits, NOT_CONFINED, NOT_STARTED, Order, VARIABLE, calls, files, probe};

/// Fewer file descriptors than this, and hosts could not keep theirs out of users' way.
const FEWEST_FILES: u64 = 128;
/// Tasks that this user may have besides those that there are, where the kernel counts them: it does not for root. A fork bomb runs
/// into this before the watch comes by; what the server starts meanwhile must not.
const SPARE_TASKS: u64 = 4_096;

/// Why the program was not started.
#[derive(Debug, thiserror::Error)]
enum ConfineError {
    #[error("there is no policy in the environment ({0}); the server starts this command, nobody else")]
    NoPolicy(std::env::VarError),
    #[error("the policy can't be read: {0}")]
    Policy(#[from] serde_json::Error),
    #[error("the server is gone")]
    Orphan,
    #[error("a limit can't be set: {0}")]
    Limit(Errno),
    #[error("files can't be closed: {0}")]
    Files(io::Error),
    #[error("no_new_privs: {0}")]
    NoNewPrivs(Errno),
    #[error("capabilities can't be dropped: {0}")]
    Capabilities(#[from] caps::errors::CapsError),
    #[error("Landlock: {0}")]
    Landlock(#[from] landlock::RulesetError),
    #[error("seccomp: {0}")]
    Filter(#[from] seccompiler::BackendError),
    #[error("seccomp: {0}")]
    Seccomp(#[from] seccompiler::Error),
    #[error("can't start {0}: {1}")]
    Start(String, io::Error),
}

/// Confines this process as the policy in its environment says, and becomes the program. Returns only if that fails. The process must
/// have no other thread.
pub fn main(program: &Path, arguments: &[OsString]) -> ExitCode {
    let Err(error) = confine_and_become(program, arguments);
    eprintln!("trine sandbox: {error}");
    ExitCode::from(if matches!(error, ConfineError::Start(..)) { NOT_STARTED } else { NOT_CONFINED })
}

fn confine_and_become(program: &Path, arguments: &[OsString]) -> Result<Infallible, ConfineError> {
    let order: Order = serde_json::from_str(&std::env::var(VARIABLE).map_err(ConfineError::NoPolicy)?)?;
    let policy = &order.policy;
    die_with(order.server)?;
    // A session of its own, without a terminal: its group is killed as a whole, and the kernel shares the cores out between sessions.
    // Started by hand it may lead a group already.
    let _ = setsid();
    leave_files_behind()?;
    umask(Mode::from_bits_truncate(0o077));
    // Where memory is short, users' programs go first.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    limit(&policy.limits)?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("TMPDIR", &policy.scratch).envs(&policy.environment);
    if order.confine {
        confine(&order, program)?;
    }
    // Last of all: the allocator of this program has taken more than the program may.
    if let Some(bytes) = policy.limits.address_space_bytes {
        set(Resource::RLIMIT_AS, bytes)?;
    }
    Err(ConfineError::Start(program.display().to_string(), command.exec()))
}

/// As far as the kernel goes; what it has must work.
fn confine(order: &Order, program: &Path) -> Result<(), ConfineError> {
    let (policy, kernel) = (&order.policy, probe());
    drop_capabilities()?;
    if kernel.no_new_privs {
        prctl::set_no_new_privs().map_err(ConfineError::NoNewPrivs)?;
    }
    if kernel.landlock_abi > 0 {
        files::confine(policy, program)?;
    }
    if kernel.seccomp {
        for filter in calls::filters(policy, &kernel, std::process::id())?.unwrap_or_default() {
            seccompiler::apply_filter(&filter)?;
        }
    }
    Ok(())
}

fn die_with(server: u32) -> Result<(), ConfineError> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(ConfineError::Limit)?;
    // If it died before, nobody will send that signal.
    if getppid().as_raw().unsigned_abs() == server { Ok(()) } else { Err(ConfineError::Orphan) }
}

/// What the server had open when it was started itself is none of the program's business.
#[expect(unsafe_code, reason = "no crate here marks all files at once")]
fn leave_files_behind() -> Result<(), ConfineError> {
    let (first, last) = (3_u32, u32::MAX);
    // SAFETY: the call takes numbers only. The files stay open until the program takes over, so nobody here loses one.
    let marked = unsafe { libc::syscall(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_CLOEXEC) };
    match Errno::result(marked) {
        // Linux before 5.11 can't. All that the server itself opens is marked already.
        Ok(_) | Err(Errno::ENOSYS | Errno::EINVAL) => Ok(()),
        Err(error) => Err(ConfineError::Files(error.into())),
    }
}

fn limit(limits: &Limits) -> Result<(), ConfineError> {
    set(Resource::RLIMIT_CORE, 0)?;
    set(Resource::RLIMIT_NOFILE, limits.open_files.max(FEWEST_FILES))?;
    set(Resource::RLIMIT_FSIZE, limits.file_bytes)?;
    set(Resource::RLIMIT_NPROC, tasks_of_this_user().saturating_add(SPARE_TASKS))
}

/// Sets a limit, or the one that is in force if that is lower.
fn set(resource: Resource, limit: u64) -> Result<(), ConfineError> {
    let (_, most) = getrlimit(resource).map_err(ConfineError::Limit)?;
    setrlimit(resource, limit.min(most), limit.min(most)).map_err(ConfineError::Limit)
}

fn tasks_of_this_user() -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(processes) = fs::read_dir("/proc") else { return 0 };
    let Ok(own) = fs::metadata("/proc/self").map(|own| own.uid()) else { return 0 };
    let is_own = |entry: &fs::DirEntry| entry.metadata().is_ok_and(|process| process.uid() == own);
    // A folder has a link for each folder in it: a task each, and two more.
    let tasks = |entry: fs::DirEntry| fs::metadata(entry.path().join("task")).map_or(0, |tasks| tasks.nlink().saturating_sub(2));
    processes.flatten().filter(is_own).map(tasks).sum()
}

fn drop_capabilities() -> Result<(), ConfineError> {
    // Only who may hand out capabilities can give up that right; nobody else has it.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        caps::clear(None, CapSet::Bounding)?;
    }
    caps::clear(None, CapSet::Ambient)?;
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        caps::clear(None, set)?;
    }
    Ok(())
}
