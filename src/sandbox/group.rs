//! A running program with all that it starts: its process group.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use landlock::PathFd;
use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{self, Signal, killpg};
use nix::unistd::Pid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::watch::{Watch, Watched};
use super::{Limits, Policy, Violation, files};

/// By how much the copy of this program that becomes another one may be larger.
const COPY: u64 = 2 << 20;

/// A program that was started, and leads its own process group. Dropped, the whole group is killed.
#[derive(Debug)]
pub struct Group {
    leader: Pid,
    limits: Limits,
    watched: Watched,
    /// Readable from the moment when the leader has ended.
    handle: AsyncFd<OwnedFd>,
    /// What it may read of itself must stay what it is.
    _held: Vec<PathFd>,
    ended: Option<Ended>,
    /// The pipes that the command asked for.
    pub stdin: Option<ChildStdin>,
    /// See `stdin`.
    pub stdout: Option<ChildStdout>,
    /// See `stdin`.
    pub stderr: Option<ChildStderr>,
}

/// How a program ended, and what it has used.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// Its exit status, or the signal that ended it.
    pub status: ExitStatus,
    /// The limit for which it was ended, if that is why.
    pub violation: Option<Violation>,
    /// What it and those that it started and waited for have used.
    pub cost: Cost,
}

/// What the kernel counted of processes that have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// CPU time in user mode.
    pub cpu_user: Duration,
    /// CPU time in the kernel.
    pub cpu_system: Duration,
    /// Peak resident memory of the largest of them, in bytes; `None` if it may be that of this program, of which each of them was a copy
    /// until it became another one.
    pub max_rss_bytes: Option<u64>,
    /// Context switches because they waited.
    pub ctx_voluntary: u64,
    /// Context switches because the kernel took the core away.
    pub ctx_involuntary: u64,
}

impl Group {
    pub(super) fn spawn(command: &mut Command, watch: &Watch, policy: &Policy) -> io::Result<Self> {
        let mut child = command.spawn()?;
        // Process numbers are positive and fit.
        let leader = Pid::from_raw(child.id().cast_signed());
        let held = files::hold_own(leader);
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        match open(leader) {
            Ok(handle) => {
                let watched = watch.group(leader, policy.limits, &policy.scratch);
                Ok(Self { leader, limits: policy.limits, watched, handle, _held: held, ended: None, stdin, stdout, stderr })
            }
            Err(error) => {
                kill(leader, Signal::SIGKILL);
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// The number of the process group, which is that of its leader.
    pub const fn id(&self) -> Pid {
        self.leader
    }

    /// Whether it was short of files, threads or room in its scratch folder when it was looked at last, which is several times a second.
    pub fn is_short(&self) -> Arc<AtomicBool> {
        self.watched.is_short()
    }

    /// Waits until the program has ended, kills what it left running, and collects it. Dropping the future changes nothing.
    pub async fn wait(&mut self) -> io::Result<Ended> {
        if let Some(ended) = self.ended {
            return Ok(ended);
        }
        drop(self.handle.readable().await?);
        // As long as its leader is not collected, the number of the group is nobody else's.
        let seen = self.watched.end();
        kill(self.leader, Signal::SIGKILL);
        let (status, cost) = collect(self.leader)?;
        let ended = Ended { status, violation: seen.or_else(|| self.limits.violated_by(status)), cost };
        self.ended = Some(ended);
        Ok(ended)
    }

    /// Tells the group to end, kills it if it has not after `grace`, and collects it.
    pub async fn end(&mut self, grace: Duration) -> io::Result<Ended> {
        if self.ended.is_none() {
            kill(self.leader, Signal::SIGTERM);
            if let Ok(ended) = tokio::time::timeout(grace, self.wait()).await {
                return ended;
            }
            kill(self.leader, Signal::SIGKILL);
        }
        self.wait().await
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.ended.is_none() {
            self.watched.end();
            kill(self.leader, Signal::SIGKILL);
            let leader = self.leader;
            // The kernel may take its time to end it. If there is no thread to be had, it is not collected before this program ends.
            let _ = thread::Builder::new().spawn(move || collect(leader));
        }
    }
}

/// To the whole group; to its leader alone as long as that has not made the group. That it is gone is no error.
pub(super) fn kill(leader: Pid, signal: Signal) {
    if killpg(leader, signal).is_err() {
        let _ = signal::kill(leader, signal);
    }
}

#[expect(unsafe_code, reason = "no crate here opens a process")]
fn open(process: Pid) -> io::Result<AsyncFd<OwnedFd>> {
    let no_flags = 0_u32;
    // SAFETY: the call takes numbers only.
    let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, process.as_raw(), no_flags) };
    let opened = Errno::result(opened)?;
    // SAFETY: the kernel has just made this descriptor (and one fits) for us alone.
    let handle = unsafe { OwnedFd::from_raw_fd(RawFd::try_from(opened).map_err(io::Error::other)?) };
    // SAFETY: an owned descriptor stays the same until it is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(handle, Interest::READABLE) }?)
}

/// Waits for the end of a child.
#[expect(unsafe_code, reason = "no crate here waits for a child and tells what it has used")]
fn collect(child: Pid) -> io::Result<(ExitStatus, Cost)> {
    loop {
        let mut status = 0;
        // SAFETY: all zeros is a valid value: it holds only numbers.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes to two places that live until the call returns.
        let waited = unsafe { libc::wait4(child.as_raw(), &raw mut status, 0, &raw mut usage) };
        match Errno::result(waited) {
            Ok(_) => return Ok((ExitStatus::from_raw(status), Cost::of(usage, own_peak_bytes()))),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The most memory that this program ever had. A process keeps the peak that it had as a copy of it: `setmax_mm_hiwater_rss` in the kernel's
/// `fs/exec.c`.
fn own_peak_bytes() -> u64 {
    // It fails for a wrong argument only.
    getrusage(UsageWho::RUSAGE_SELF).ok().and_then(|usage| u64::try_from(usage.max_rss()).ok()).unwrap_or(0) * 1024
}

impl Cost {
    /// Of a child of this program, which has had so much memory itself.
    fn of(usage: libc::rusage, own_peak_bytes: u64) -> Self {
        let count = |number: libc::c_long| u64::try_from(number).unwrap_or(0);
        let time = |time: libc::timeval| Duration::from_secs(count(time.tv_sec)) + Duration::from_micros(count(time.tv_usec));
        Self {
            cpu_user: time(usage.ru_utime),
            cpu_system: time(usage.ru_stime),
            max_rss_bytes: Some(count(usage.ru_maxrss) * 1024).filter(|bytes| *bytes > own_peak_bytes + COPY),
            ctx_voluntary: count(usage.ru_nvcsw),
            ctx_involuntary: count(usage.ru_nivcsw),
        }
    }
}
