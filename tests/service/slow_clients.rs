//! Clients that are idle, slow, or never read; and honest ones at the same time. `cargo bench --bench load -- crowd` is the same at
//! full size.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::server::{PATIENCE, Server, folder};

const IDLE: usize = 1_000;
const SLOW: usize = 1_000;

/// Both ends of some thousand connections.
fn raise_file_limit() {
    let (soft, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, soft.max(8_192).min(hard), hard).unwrap();
}

/// A connection on which this was sent.
async fn begin(address: &str, text: &str) -> TcpStream {
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(text.as_bytes()).await.unwrap();
    connection
}

/// Reads an answer of 200 from a connection that stays open.
async fn answered(connection: &mut TcpStream) {
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") {
        let mut bytes = [0; 1024];
        let length = connection.read(&mut bytes).await.unwrap();
        assert!(length > 0, "the connection is closed");
        answer.extend(&bytes[..length]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
}

/// Waits until the server has closed all of them; an answer such as 408 may come before.
async fn cut_off(connections: Vec<TcpStream>) {
    let all = async {
        for mut connection in connections {
            let mut rest = Vec::new();
            let _ = connection.read_to_end(&mut rest).await;
            assert!(!rest.starts_with(b"HTTP/1.1 2"));
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("the slow connections to be cut off");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_that_wants_nothing_slows_nobody_down() {
    raise_file_limit();
    let folder = folder();
    let settings = [("TRINE_HEADER_TIMEOUT_MS", "3000"), ("TRINE_BODY_TIMEOUT_MS", "3000")];
    let server = Server::start(folder.path(), &settings).await;
    let address = server.url.strip_prefix("http://").unwrap().to_owned();
    let mut idle = Vec::with_capacity(IDLE);
    for _ in 0..IDLE {
        let mut connection = begin(&address, "GET /healthz HTTP/1.1\r\nHost: trine\r\n\r\n").await;
        answered(&mut connection).await;
        idle.push(connection);
    }
    let mut slow = Vec::with_capacity(SLOW);
    for n in 0..SLOW {
        let body = "POST /jobs HTTP/1.1\r\nHost: trine\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{";
        let headers = "GET /healthz HTTP/1.1\r\nHost: trine\r\nX-Endless: ";
        slow.push(begin(&address, if n % 2 == 0 { body } else { headers }).await);
    }
    let mut honest = Vec::with_capacity(200);
    for _ in 0..200 {
        let asked = Instant::now();
        server.get("/healthz").await;
        honest.push(asked.elapsed());
    }
    honest.sort_unstable();
    assert!(honest[honest.len() * 9 / 10] < Duration::from_secs(1), "{honest:?}");
    cut_off(slow).await;
    // By now the idle ones have been idle for longer than headers may take. They are welcome all the same.
    for connection in &mut idle {
        connection.write_all(b"GET /healthz HTTP/1.1\r\nHost: trine\r\n\r\n").await.unwrap();
        answered(connection).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_connections_than_there_may_be_get_a_quick_no() {
    let folder = folder();
    let settings = [("TRINE_MAX_CONNECTIONS", "50"), ("TRINE_HEADER_TIMEOUT_MS", "5000")];
    let server = Server::start(folder.path(), &settings).await;
    let address = server.url.strip_prefix("http://").unwrap().to_owned();
    let mut crowd = Vec::new();
    for _ in 0..100 {
        crowd.push(TcpStream::connect(&address).await.unwrap());
    }
    let mut refused = 0;
    for _ in 0..20 {
        let mut connection = begin(&address, "GET /healthz HTTP/1.1\r\nHost: trine\r\nConnection: close\r\n\r\n").await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, connection.read_to_end(&mut answer)).await.expect("an answer");
        let answer = String::from_utf8_lossy(&answer);
        if let Some((head, body)) = answer.split_once("\r\n\r\n").filter(|_| answer.starts_with("HTTP/1.1 503 ")) {
            assert!(head.contains("Retry-After: 2"));
            assert_eq!(serde_json::from_str::<Value>(body).unwrap()["type"], "/problems/unavailable");
            refused += 1;
        }
    }
    assert!(refused > 0, "there was room for all");
    // Those that never ask anything lose their places.
    cut_off(crowd).await;
    server.until_ready(true).await;
}
