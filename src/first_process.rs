//! What the first process of a container has to do: it becomes the parent of whatever lost its own, such as what a command leaves behind,
//! and has to collect it when it ends. The server itself runs as a child of it.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

/// Whether this is the first process, and starts a server: only that starts what may be left behind.
pub(crate) fn is_needed() -> bool {
    Pid::this().as_raw() == 1 && std::env::args_os().nth(1).is_some_and(|command| command == "serve")
}

/// Runs the same command line as a child, passes signals on to it, and collects whatever ends, until the child does.
pub(crate) fn run() -> io::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(attend())
}

async fn attend() -> io::Result<ExitCode> {
    // Before there is a child, so that nothing is missed.
    let mut ended = signal(SignalKind::child())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    // In a group of its own, or Ctrl-C would reach it twice, which means to hurry. Its handle is not kept: it is collected with all others.
    let mut arguments = std::env::args_os();
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    let child = command.args(arguments).process_group(0).spawn()?.id();
    let child = Pid::from_raw(i32::try_from(child).map_err(io::Error::other)?);
    loop {
        let passed_on = tokio::select! {
            _ = ended.recv() => None,
            _ = terminate.recv() => Some(Signal::SIGTERM),
            _ = interrupt.recv() => Some(Signal::SIGINT),
            _ = hang_up.recv() => Some(Signal::SIGHUP),
        };
        if let Some(signal) = passed_on {
            // Until it is collected here, its number is nobody else's.
            kill(child, signal)?;
        } else if let Some(code) = collect(child)? {
            return Ok(code);
        }
    }
}

/// Collects all that have ended; the exit code, if the child is one of them.
fn collect(child: Pid) -> io::Result<Option<ExitCode>> {
    let mut code = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) if pid == child => code = Some(status),
            // As shells tell of it.
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => code = Some(128 + signal as i32),
            Ok(WaitStatus::StillAlive) | Err(nix::Error::ECHILD) => break,
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(code.map(|code| ExitCode::from(u8::try_from(code).unwrap_or(1))))
}
