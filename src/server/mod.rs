//! The accept loop: HTTP/1.1 connections, with limits that slow clients run into and honest ones don't.

mod full;
mod patience;
mod tls;

pub use patience::Patience;
pub use tls::{Tls, TlsError, TlsFiles};

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::BoxError;
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt as _};

use full::Full;

/// How long to wait after the system refused to hand over a connection, for example because all file descriptors are in use.
const BACK_OFF: Duration = Duration::from_millis(50);
/// How long the headers of a request and its first line may be together, in bytes. The HTTP library takes 100 headers at most.
const MAX_HEADER_BYTES: usize = 64 * 1024;

/// What a client may take of the server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long a connection may keep the server waiting.
    pub patience: Patience,
    /// How many connections may be open at once. Further ones are told so, and closed.
    pub max_connections: usize,
    /// How long to wait for the requests in flight once the server shuts down.
    pub grace: Duration,
}

/// Answers requests until `shutdown` resolves; once `leaving` is set, each is the last on its connection. Then it takes no more
/// connections, and returns when what was asked is answered, or when the grace period is over. What is not answered by then goes on as long
/// as the runtime does.
pub async fn serve<S, B>(
    listener: TcpListener,
    tls: Option<Tls>,
    api: S,
    limits: Limits,
    leaving: CancellationToken,
    shutdown: impl Future<Output = ()>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(limits.max_connections.min(Semaphore::MAX_PERMITS)));
    let (open, full) = (GracefulShutdown::new(), Full::new());
    let mut http = http1::Builder::new();
    http.max_header_size(MAX_HEADER_BYTES).header_read_timeout(limits.patience.headers);
    // The token itself would be cloned for each request, and looked at, under a lock.
    let is_leaving = Arc::new(AtomicBool::new(false));
    let is_last = Arc::clone(&is_leaving);
    let service = TowerToHyperService::new(api.map_response(move |mut response| {
        if is_last.load(Ordering::Relaxed) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }));
    let mut shutdown = pin!(shutdown);
    loop {
        let stream = tokio::select! {
            accepted = accept(&listener) => accepted,
            () = leaving.cancelled(), if !is_leaving.load(Ordering::Relaxed) => {
                is_leaving.store(true, Ordering::Relaxed);
                continue;
            }
            () = &mut shutdown => break,
        };
        // Better a quick no than a wait without an end: whoever is told can turn to another server.
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            // In TLS nothing can be said without shaking hands first, which is what there is no room for.
            if tls.is_none() {
                full.turn_away(stream);
            }
            continue;
        };
        let talk = Talk { http: http.clone(), service: service.clone(), watcher: open.watcher(), patience: limits.patience };
        let tls = tls.clone();
        tokio::spawn(async move {
            match tls {
                None => talk.over(stream).await,
                Some(tls) => match tokio::time::timeout(limits.patience.headers, tls.accept(stream)).await {
                    Ok(Ok(stream)) => talk.over(stream).await,
                    Ok(Err(error)) => tracing::debug!(%error, "no TLS connection came about"),
                    Err(_) => tracing::debug!("a TLS connection took too long to come about"),
                },
            }
            drop(slot);
        });
    }
    drop(listener);
    if tokio::time::timeout(limits.grace, open.shutdown()).await.is_err() {
        tracing::info!("some requests did not end within the grace period");
    }
}

/// What it takes to answer the requests of one connection.
struct Talk<A> {
    http: http1::Builder,
    service: TowerToHyperService<A>,
    watcher: Watcher,
    patience: Patience,
}

impl<A, B> Talk<A>
where
    A: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    A::Future: Send,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    async fn over<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(mut self, stream: S) {
        let (stream, timer) = patience::watch(stream, self.patience);
        // Without a timer, a header timeout does nothing.
        let connection = self.http.timer(timer).serve_connection(TokioIo::new(stream), self.service);
        if let Err(error) = self.watcher.watch(connection).await {
            tracing::debug!(%error, "a connection broke off");
        }
    }
}

/// The next connection.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Answers are written whole, so there is nothing to gain from waiting for more.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "TCP_NODELAY can't be set");
                }
                return stream;
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
    use axum::Router;
    use axum::routing::get;
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::Notify;
    use tokio::task::JoinHandle;
    use tokio::time::timeout;

    /// Long enough to be told from one that is far longer.
    const SHORT: Duration = Duration::from_millis(200);
    const PATIENCE: Patience = Patience { headers: SHORT, idle: LONG, answer: SHORT };
    /// Far longer than anything here takes.
    const LONG: Duration = Duration::from_secs(20);
    /// More than the system keeps for a client that does not read.
    const MUCH: usize = 64 << 20;

    struct Server {
        address: SocketAddr,
        stop: Arc<Notify>,
        /// Requests that have reached the handler of `/never`.
        reached: Arc<Semaphore>,
        task: JoinHandle<()>,
    }

    async fn start(patience: Patience, max_connections: usize) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, reached) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
        let (stopped, arrived) = (Arc::clone(&stop), Arc::clone(&reached));
        let never = get(move || async move {
            arrived.add_permits(1);
            std::future::pending::<()>().await;
        });
        let router = Router::new()
            .route("/", get(|| async { "hello" }))
            .route("/much", get(|| async { vec![b'x'; MUCH] }))
            .route("/never", never);
        let limits = Limits { patience, max_connections, grace: SHORT };
        let task = tokio::spawn(async move {
            serve(listener, None, router, limits, CancellationToken::new(), async move { stopped.notified().await }).await;
        });
        Server { address, stop, reached, task }
    }

    async fn send(address: SocketAddr, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }

    /// What arrives until the server closes the connection, or breaks it.
    async fn rest(mut stream: TcpStream) -> String {
        let mut text = Vec::new();
        let _ = timeout(LONG, stream.read_to_end(&mut text)).await.unwrap();
        String::from_utf8(text).unwrap()
    }

    const ASK: &str = "GET / HTTP/1.1\r\nHost: t\r\n\r\n";
    const ASK_ONCE: &str = "GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";

    /// Asks on a connection that stays open, and reads the answer.
    async fn ask(stream: &mut TcpStream) {
        stream.write_all(ASK.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"hello") {
            let mut bytes = [0; 1024];
            let length = timeout(LONG, stream.read(&mut bytes)).await.unwrap().unwrap();
            assert!(length > 0, "the connection is closed");
            answer.extend(&bytes[..length]);
        }
    }

    #[tokio::test]
    async fn a_request_is_answered() {
        let server = start(PATIENCE, 2).await;
        let answer = rest(send(server.address, ASK_ONCE).await).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("hello"), "{answer}");
    }

    #[tokio::test]
    async fn headers_that_never_end_are_cut_off() {
        let server = start(PATIENCE, 2).await;
        let slow = send(server.address, "GET / HTTP/1.1\r\nHost: t\r\nX-More: ").await;
        assert!(!rest(slow).await.contains("200 OK"));
        // Nor is a connection kept on which nothing was ever asked.
        assert_eq!(rest(TcpStream::connect(server.address).await.unwrap()).await, "");
    }

    #[tokio::test]
    async fn a_connection_may_be_idle_for_longer_than_headers_may_take() {
        let server = start(PATIENCE, 1).await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        for _ in 0..3 {
            ask(&mut stream).await;
            tokio::time::sleep(SHORT * 2).await;
        }
        // Once the next request has begun, its headers have to come.
        stream.write_all(b"GET / HTTP/1.1\r\nX-More: ").await.unwrap();
        assert!(!rest(stream).await.contains("200 OK"));
        // The place is free again.
        assert!(rest(send(server.address, ASK_ONCE).await).await.ends_with("hello"));
    }

    #[tokio::test]
    async fn a_connection_is_not_idle_for_ever() {
        let server = start(Patience { headers: LONG, idle: SHORT, answer: LONG }, 2).await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        ask(&mut stream).await;
        assert_eq!(rest(stream).await, "");
    }

    #[tokio::test]
    async fn an_answer_that_nobody_reads_is_given_up() {
        let server = start(PATIENCE, 1).await;
        let unread = send(server.address, "GET /much HTTP/1.1\r\nHost: t\r\n\r\n").await;
        // There is room for one connection, so this one tells when the other is gone.
        let room = async {
            while !rest(send(server.address, ASK_ONCE).await).await.ends_with("hello") {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LONG, room).await.unwrap();
        drop(unread);
    }

    #[tokio::test]
    async fn whoever_comes_when_there_is_no_room_is_told_so() {
        let server = start(PATIENCE, 2).await;
        let mut open = [TcpStream::connect(server.address).await.unwrap(), TcpStream::connect(server.address).await.unwrap()];
        for stream in &mut open {
            ask(stream).await;
        }
        for _ in 0..3 {
            let answer = rest(send(server.address, ASK_ONCE).await).await;
            assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("/problems/unavailable"), "{answer}");
        }
        ask(&mut open[1]).await;
    }

    #[tokio::test]
    async fn headers_have_an_end() {
        let server = start(PATIENCE, 8).await;
        let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(MAX_HEADER_BYTES));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(101));
        for request in [long, many] {
            assert!(rest(send(server.address, &request).await).await.starts_with("HTTP/1.1 431 "));
        }
        let enough = format!("GET / HTTP/1.1\r\nConnection: close\r\n{}\r\n", "X: y\r\n".repeat(99));
        assert!(rest(send(server.address, &enough).await).await.ends_with("hello"));
    }

    #[tokio::test]
    async fn shutting_down_closes_idle_connections_and_leaves_late_answers_behind() {
        let server = start(PATIENCE, 2).await;
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
