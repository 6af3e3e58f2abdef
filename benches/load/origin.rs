//! What is fetched: a server in a process of its own that answers after a while; and the bare program that fetches from it.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::Result;

/// How long an answer takes.
const DELAY: Duration = Duration::from_millis(100);
/// Connections that may wait to be accepted: all of a benchmark's come at once.
const BACKLOG: u32 = 16_384;

/// The first of the addresses that are fetched from, all of them the same server.
const FIRST: Ipv4Addr = Ipv4Addr::new(127, 1, 0, 1);

/// The running server; it ends with this value.
pub(crate) struct Origin {
    next: Ipv4Addr,
    port: u16,
    _process: Child,
}

impl Origin {
    /// Starts this program once more, as the server.
    pub(crate) async fn start() -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("--origin")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = process.stdout.take().ok_or("no standard output")?;
        let line = BufReader::new(stdout).lines().next_line().await?.ok_or("the origin did not start")?;
        Ok(Self { next: FIRST, port: line.parse()?, _process: process })
    }

    /// An address that nobody has fetched from. A connection keeps its port for a minute after its end, and whoever connects to the same
    /// address then has to search among those: by `perf`, a sixth of the CPU time of the second of two programs with 10,000 each.
    pub(crate) fn fresh(&mut self) -> SocketAddr {
        let address = SocketAddrV4::new(self.next, self.port);
        self.next = Ipv4Addr::from_bits(self.next.to_bits() + 1);
        address.into()
    }
}

/// Serves on a free port of every address, which it prints, until the process is killed.
pub(crate) async fn serve() -> Result<()> {
    raise_file_limit()?;
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::UNSPECIFIED, 0).into())?;
    let listener: TcpListener = socket.listen(BACKLOG)?;
    println!("{}", listener.local_addr()?.port());
    loop {
        let (stream, _) = listener.accept().await?;
        // Whoever goes away before it is answered is not waited for.
        tokio::spawn(answer(stream));
    }
}

async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let (mut request, mut length) = ([0; 1024], 0);
    loop {
        while !request[..length].ends_with(b"\r\n\r\n") {
            match stream.read(&mut request[length..]).await? {
                0 => return Ok(()),
                count => length += count,
            }
        }
        sleep(DELAY).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell").await?;
        length = 0;
    }
}

/// How long this many fetches take, all at once, in a program of its own that does nothing else.
pub(crate) async fn fetched_bare(origin: SocketAddr, count: usize) -> Result<Duration> {
    let program = Command::new(std::env::current_exe()?)
        .args(["--bare-fetches", &count.to_string(), "--from", &origin.to_string()])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = program.await?;
    let text = String::from_utf8(output.stdout)?;
    let seconds: f64 = text.trim().parse().map_err(|_| format!("the bare fetches failed: {}", output.status))?;
    Ok(Duration::from_secs_f64(seconds))
}

/// Fetches, and prints the seconds that it took.
pub(crate) async fn fetch_bare(origin: SocketAddr, count: usize) -> Result<()> {
    raise_file_limit()?;
    // A client is not built without one, whatever it fetches.
    rustls::crypto::ring::default_provider().install_default().map_err(|_| "there is a provider already")?;
    let client = reqwest::Client::new();
    let url = format!("http://{origin}/");
    let start = Instant::now();
    let mut fetches = JoinSet::new();
    for _ in 0..count {
        let request = client.get(&url);
        fetches.spawn(async move { request.send().await?.error_for_status()?.text().await });
    }
    while let Some(text) = fetches.join_next().await {
        if text?? != "well" {
            return Err("another answer".into());
        }
    }
    println!("{}", start.elapsed().as_secs_f64());
    Ok(())
}

pub(crate) fn raise_file_limit() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}
