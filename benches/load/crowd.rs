//! Honest requests while thousands of other connections are open: idle ones, and some that never get to an end.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::http::{Connection, request};
use crate::noop::NOOP;
use crate::origin::raise_file_limit;
use crate::report::{Bar, Figure, add_all, print, quantile};
use crate::server::{Server, folder};
use crate::{Options, Result};

const IDLE: usize = 10_000;
const SLOW: usize = 1_000;
/// How many honest requests are timed.
const SAMPLES: usize = 2_000;

pub(crate) async fn run(options: &Options) -> Result<()> {
    raise_file_limit()?;
    let mut figures = [
        Figure::new("alone: GET /jobs/…, p99, ms"),
        Figure::new("alone: POST /jobs, p99, ms"),
        Figure::with_bar("in the crowd: GET /jobs/…, p99, ms", Bar::AtMost(50.0)),
        Figure::with_bar("in the crowd: POST /jobs, p99, ms", Bar::AtMost(50.0)),
        Figure::with_bar("in the crowd: GET /healthz on a new connection, p99, ms", Bar::AtMost(50.0)),
        Figure::new("memory of an open connection, KiB"),
    ];
    for _ in 0..options.rounds {
        let folder = folder()?;
        // Slow ones that are cut off come again, so that there are as many of them all the time.
        let mut server = Server::start(folder.path(), &[]).await?;
        let (get, post) = (gets(&server).await?, posts(&mut server).await?);
        let before = server.memory()?;
        let mut idle = Vec::with_capacity(IDLE);
        for _ in 0..IDLE {
            let mut connection = Connection::open(server.address).await?;
            connection.send(&request("GET", "/healthz", "", "")).await?.expect(200)?;
            idle.push(connection);
        }
        let slow = tokio::spawn(slow(server.address));
        let each = server.memory()?.saturating_sub(before) as f64 / IDLE as f64 / 1024.0;
        let crowd = (gets(&server).await?, posts(&mut server).await?, news(&server).await?);
        slow.abort();
        // Nobody was shut out: the idle ones are still there.
        for connection in &mut idle {
            connection.send(&request("GET", "/healthz", "", "")).await?.expect(200)?;
        }
        let values = [get, post, crowd.0, crowd.1, crowd.2, each];
        add_all(&mut figures, values);
        drop(idle);
        server.kill().await?;
    }
    print("crowd: 10,000 idle connections and 1,000 slow ones", &figures);
    Ok(())
}

/// A thousand connections, each with headers or a body that goes on a byte at a time.
async fn slow(address: std::net::SocketAddr) {
    let body = "POST /jobs HTTP/1.1\r\nHost: trine\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{";
    let headers = "GET /healthz HTTP/1.1\r\nHost: trine\r\nX-Endless: ";
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..SLOW {
        tasks.spawn(async move {
            loop {
                let Ok(mut stream) = TcpStream::connect(address).await else { continue };
                let mut next = if n % 2 == 0 { body.as_bytes() } else { headers.as_bytes() };
                while stream.write_all(next).await.is_ok() {
                    next = b" ";
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        });
    }
    tasks.join_all().await;
}

async fn gets(server: &Server) -> Result<f64> {
    let mut connection = Connection::open(server.address).await?;
    timed(async |connection| connection.send(&request("GET", "/jobs?limit=1", "", "")).await?.expect(200), &mut connection).await
}

async fn posts(server: &mut Server) -> Result<f64> {
    let mut connection = Connection::open(server.address).await?;
    server.accepted += SAMPLES as u64;
    timed(async |connection| connection.send(&request("POST", "/jobs", "", NOOP)).await?.expect(202), &mut connection).await
}

async fn news(server: &Server) -> Result<f64> {
    let mut times = Vec::with_capacity(SAMPLES);
    for _ in 0..SAMPLES {
        let start = Instant::now();
        let mut connection = Connection::open(server.address).await?;
        connection.send(&request("GET", "/healthz", "Connection: close\r\n", "")).await?.expect(200)?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(quantile(&times, 0.99))
}

/// The 99th percentile of the times that calls take, one after another, in milliseconds.
async fn timed(call: impl AsyncFn(&mut Connection) -> Result<()>, connection: &mut Connection) -> Result<f64> {
    let mut times = Vec::with_capacity(SAMPLES);
    for _ in 0..SAMPLES {
        let start = Instant::now();
        call(connection).await?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(quantile(&times, 0.99))
}
