//! What is said to a host: written at once as far as its socket takes it, the rest by a task, in order.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::mpsc;

/// The way of messages to a host. It never waits. Messages to a host that is gone are dropped.
#[derive(Debug)]
pub(super) struct Outbox {
    shared: Arc<Shared>,
    later: mpsc::UnboundedSender<Vec<u8>>,
}

#[derive(Debug)]
struct Shared {
    socket: OwnedWriteHalf,
    /// How many messages are left to the task. While there are some, all further ones have to wait behind them.
    left: Mutex<usize>,
}

impl Outbox {
    /// Must be called on a tokio runtime.
    pub(super) fn new(socket: OwnedWriteHalf) -> Self {
        let shared = Arc::new(Shared { socket, left: Mutex::new(0) });
        let (later, messages) = mpsc::unbounded_channel();
        tokio::spawn(write(Arc::clone(&shared), messages));
        Self { shared, later }
    }

    pub(super) fn send(&self, mut message: Vec<u8>) {
        let mut left = self.shared.left.lock().unwrap_or_else(PoisonError::into_inner);
        if *left == 0 {
            match self.shared.socket.try_write(&message) {
                Ok(written) if written == message.len() => return,
                Ok(written) => drop(message.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Whoever waits for an answer learns it from there.
                Err(_) => return,
            }
        }
        *left += 1;
        // If the task has ended, the socket has, too.
        let _ = self.later.send(message);
    }
}

async fn write(shared: Arc<Shared>, mut messages: mpsc::UnboundedReceiver<Vec<u8>>) {
    while let Some(message) = messages.recv().await {
        let mut rest = &message[..];
        while !rest.is_empty() {
            if shared.socket.writable().await.is_err() {
                return;
            }
            match shared.socket.try_write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
        *shared.left.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
    }
}
