//! What is said to those for whom there is no room.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// The answer, whatever is asked. Its body is a problem as the API has them.
const ANSWER: &str = "HTTP/1.1 503 Service Unavailable\r\n\
    Content-Type: application/problem+json\r\n\
    Content-Length: 149\r\n\
    X-Content-Type-Options: nosniff\r\n\
    Retry-After: 2\r\n\
    Connection: close\r\n\r\n\
    {\"type\":\"/problems/unavailable\",\"title\":\"The server can't take this now\",\"status\":503,\
    \"detail\":\"as many connections are open as the server can have\"}";
/// How many are told at once. Further ones are closed without a word.
const AT_ONCE: usize = 64;
/// How long one may take to listen.
const PATIENCE: Duration = Duration::from_secs(1);
/// The most that is read of what it asks.
const MAX_BYTES: u64 = 64 * 1024;

/// Turns clients away.
pub(super) struct Full {
    places: Arc<Semaphore>,
}

impl Full {
    pub(super) fn new() -> Self {
        Self { places: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Tells a client to come back later, and closes its connection.
    pub(super) fn turn_away(&self, stream: TcpStream) {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            tokio::spawn(async move {
                let _ = tokio::time::timeout(PATIENCE, tell(stream)).await;
                drop(place);
            });
        }
    }
}

/// Says it, and then listens to the end: what was sent and not read would make the system throw the answer away.
async fn tell(mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(ANSWER.as_bytes()).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(MAX_BYTES), &mut tokio::io::sink()).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_as_long_as_it_says() {
        let (head, body) = ANSWER.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
        assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap()["status"], 503);
    }
}
