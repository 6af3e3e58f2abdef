//! When to stop: at the first SIGTERM or SIGINT in good order, at the second one sooner, at the third one at once. SIGHUP, which says that the terminal
//! is gone, may be the first.

use std::future::pending;
use std::io;

use nix::sys::signal::Signal::SIGXFSZ;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// That a server is to stop. Clones are handles to the same.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Set when it is to stop: what runs may end within the grace period.
    pub asked: CancellationToken,
    /// Set when it is to stop sooner: the grace period is over.
    pub hurried: CancellationToken,
}

/// Listens for the signals from now on: the first one asks to stop, the second one hurries, the third one ends the process. SIGHUP is heeded only
/// `at_hangup`. Where a file may grow no further (`ulimit -f`), which ends a process as well, whoever writes has an error from now on, as on a full
/// disk; what is started for jobs does not inherit that.
///
/// Must be called within a tokio runtime.
///
/// # Errors
/// The signals can't be listened for.
pub fn requested(at_hangup: bool) -> io::Result<Stop> {
    let mut signals = Signals {
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
        hangup: (at_hangup && !is_to_outlive_its_terminal()).then(|| signal(SignalKind::hangup())).transpose()?,
    };
    let _unheeded = signal(SignalKind::from_raw(SIGXFSZ as i32))?;
    let stop = Stop::default();
    let Stop { asked, hurried } = stop.clone();
    tokio::spawn(async move {
        signals.next().await;
        tracing::info!("told to stop; told once more, what still runs is handed back at once");
        asked.cancel();
        // That a terminal is gone may be said by the kernel and by a shell: that is no hurry.
        signals.hangup = None;
        signals.next().await;
        tracing::info!("told to hurry; told once more, the process ends at once, and what runs counts as lost");
        hurried.cancel();
        let kind = signals.next().await;
        // What a shell shows for a process that this signal ended.
        std::process::exit(128 + kind.as_raw_value());
    });
    Ok(stop)
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Option<Signal>,
}

impl Signals {
    async fn next(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            () = next_of(self.hangup.as_mut()) => SignalKind::hangup(),
        }
    }
}

async fn next_of(signal: Option<&mut Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => pending().await,
    }
}

/// Whether it was started by a program like `nohup`, which has it ignore SIGHUP.
fn is_to_outlive_its_terminal() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    // Each signal has the bit before its number.
    ignored.is_some_and(|ignored| ignored & 1 << (SignalKind::hangup().as_raw_value() - 1) != 0)
}
