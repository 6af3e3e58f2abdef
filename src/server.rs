//! The accept loop: HTTP/1.1 connections, with limits that slow clients run into and honest ones don't.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long to wait after the system refused to hand over a connection, for example because all file descriptors are in use.
const BACK_OFF: Duration = Duration::from_millis(50);

/// What a client may take of the server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The longest that the headers of a request may take to arrive; also the longest that a connection may be idle.
    pub header_timeout: Duration,
    /// How many connections may be open at once. Further ones wait until one is closed.
    pub max_connections: usize,
    /// How long to wait for the requests in flight once the server shuts down.
    pub grace: Duration,
}

/// Answers requests until `shutdown` resolves; then takes no more connections, and returns when those that are open have answered what
/// they were asked, or when the grace period is over. What is not answered by then goes on as long as the runtime does.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, shutdown: impl Future<Output = ()>) {
    let slots = Arc::new(Semaphore::new(limits.max_connections.min(Semaphore::MAX_PERMITS)));
    let open = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    // Without a timer, a header timeout does nothing.
    http.timer(TokioTimer::new()).header_read_timeout(limits.header_timeout);
    let service = TowerToHyperService::new(router);
    let mut shutdown = pin!(shutdown);
    loop {
        let (stream, slot) = tokio::select! {
            accepted = accept(&listener, &slots) => accepted,
            () = &mut shutdown => break,
        };
        let connection = open.watch(http.serve_connection(TokioIo::new(stream), service.clone()));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection broke off");
            }
            drop(slot);
        });
    }
    drop(listener);
    if tokio::time::timeout(limits.grace, open.shutdown()).await.is_err() {
        tracing::info!("some requests did not end within the grace period");
    }
}

/// The next connection, once there is room for it.
#[expect(clippy::expect_used, reason = "only a closed semaphore refuses, and nothing closes this one")]
async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    let slot = Arc::clone(slots).acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Answers are written whole, so there is nothing to gain from waiting for more.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "TCP_NODELAY can't be set");
                }
                return (stream, slot);
            }
            // The client was gone before it was its turn.
            Err(error) if is_of_client(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted");
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}

fn is_of_client(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::Notify;
    use tokio::task::JoinHandle;
    use tokio::time::timeout;

    const LIMITS: Limits =
        Limits { header_timeout: Duration::from_millis(200), max_connections: 2, grace: Duration::from_millis(200) };
    /// Far longer than anything here takes.
    const LONG: Duration = Duration::from_secs(20);

    struct Server {
        address: SocketAddr,
        stop: Arc<Notify>,
        /// Requests that have reached the handler of `/never`.
        reached: Arc<Semaphore>,
        task: JoinHandle<()>,
    }

    async fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, reached) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
        let (stopped, arrived) = (Arc::clone(&stop), Arc::clone(&reached));
        let never = get(move || async move {
            arrived.add_permits(1);
            std::future::pending::<()>().await;
        });
        let router = Router::new().route("/", get(|| async { "hello" })).route("/never", never);
        let task = tokio::spawn(async move { serve(listener, router, LIMITS, async move { stopped.notified().await }).await });
        Server { address, stop, reached, task }
    }

    async fn send(address: SocketAddr, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }

    /// What arrives until the server closes the connection.
    async fn rest(mut stream: TcpStream) -> String {
        let mut text = Vec::new();
        timeout(LONG, stream.read_to_end(&mut text)).await.unwrap().unwrap();
        String::from_utf8(text).unwrap()
    }

    #[tokio::test]
    async fn a_request_is_answered() {
        let server = start().await;
        let answer = rest(send(server.address, "GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").await).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("hello"), "{answer}");
    }

    #[tokio::test]
    async fn headers_that_never_end_are_cut_off() {
        let server = start().await;
        let slow = send(server.address, "GET / HTTP/1.1\r\nHost: t\r\nX-More: ").await;
        assert!(!rest(slow).await.contains("200 OK"));
    }

    #[tokio::test]
    async fn slow_clients_give_their_places_back() {
        let server = start().await;
        let slow: Vec<_> = futures_util::future::join_all((0..10).map(|_| send(server.address, "GET / HT"))).await;
        let answer = rest(send(server.address, "GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").await).await;
        assert!(answer.ends_with("hello"), "{answer}");
        drop(slow);
    }

    #[tokio::test]
    async fn shutting_down_closes_idle_connections_and_leaves_late_answers_behind() {
        let server = start().await;
        let idle = TcpStream::connect(server.address).await.unwrap();
        let late = send(server.address, "GET /never HTTP/1.1\r\nHost: t\r\n\r\n").await;
        timeout(LONG, server.reached.acquire()).await.unwrap().unwrap().forget();
        server.stop.notify_one();
        timeout(LONG, server.task).await.unwrap().unwrap();
        assert_eq!(rest(idle).await, "");
        assert!(TcpStream::connect(server.address).await.is_err());
        drop(late);
    }
}
