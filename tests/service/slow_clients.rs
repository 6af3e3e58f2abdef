//! Requests that never end.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::server::{PATIENCE, Server, folder};

const SLOW: usize = 2_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_that_never_end_are_cut_off_and_slow_nobody_down() {
    // Both ends of 2,000 connections.
    let (soft, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, soft.max(8_192).min(hard), hard).unwrap();
    let folder = folder();
    let server = Server::start(folder.path(), &[("TRINE_HEADER_TIMEOUT_MS", "3000")]).await;
    let address = server.url.strip_prefix("http://").unwrap().to_owned();
    let mut slow = Vec::with_capacity(SLOW);
    for _ in 0..SLOW {
        let mut connection = TcpStream::connect(&address).await.unwrap();
        connection.write_all(b"GET /healthz HTTP/1.1\r\nHost: trine\r\nX-Endless: ").await.unwrap();
        slow.push(connection);
    }
    let mut honest = Vec::with_capacity(200);
    for _ in 0..200 {
        let asked = Instant::now();
        server.get("/healthz").await;
        honest.push(asked.elapsed());
    }
    honest.sort_unstable();
    assert!(honest[honest.len() * 9 / 10] < Duration::from_secs(1), "{honest:?}");
    let cut_off = async {
        for mut connection in slow {
            // An answer such as 408 may come before the end.
            let mut rest = Vec::new();
            let _ = connection.read_to_end(&mut rest).await;
        }
    };
    tokio::time::timeout(PATIENCE, cut_off).await.expect("the slow connections to be cut off");
    server.get("/healthz").await;
}
