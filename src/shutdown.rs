//! When to stop: at the first SIGTERM or SIGINT in good order, at the second one sooner, at the third one at once.

use std::io;

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

/// Listens for both signals from now on: the first one asks to stop, the second one hurries, the third one ends the process.
///
/// Must be called within a tokio runtime.
///
/// # Errors
/// The signals can't be listened for.
pub fn requested() -> io::Result<Stop> {
    let mut signals = Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
    let stop = Stop::default();
    let Stop { asked, hurried } = stop.clone();
    tokio::spawn(async move {
        signals.next().await;
        tracing::info!("told to stop; told once more, what still runs is handed back at once");
        asked.cancel();
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
}

impl Signals {
    async fn next(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
        }
    }
}
