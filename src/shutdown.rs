//! When to stop: at the first SIGTERM or SIGINT in good order, at the second one at once.

use std::future::Future;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens for both signals from now on; the future resolves at the first one. From then on, another one ends the process.
///
/// Must be called within a tokio runtime.
///
/// # Errors
/// The signals can't be listened for.
pub fn requested() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut signals = Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
    Ok(async move {
        signals.next().await;
        tracing::info!("told to stop; told once more, the process ends at once");
        tokio::spawn(async move {
            let kind = signals.next().await;
            // What a shell shows for a process that this signal ended.
            std::process::exit(128 + kind.as_raw_value());
        });
    })
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
