//! What a job costs in allocations of the whole server: unlike seconds, they are the same on a busy machine. More of them than before is
//! a regression; see docs/performance.md. This program is also the worker program of the server that it runs in itself.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on fails")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use dhat::HeapStats;
use libtest_mimic::{Arguments, Trial};
use tempfile::TempDir;
use trine::config::Config;
use trine::shutdown::Stop;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// As many allocations a job may take that comes alone and whose end is waited for, HTTP and its share of the writer included.
const ALONE: u128 = 135;
/// As many one of a batch of [`BATCH`] may.
const IN_A_BATCH: u128 = 46;

const JOBS: u128 = 200;
const BATCH: usize = 1_000;
const NOOP: &str = r#"{"bound":"io","workload":{"type":"sleep","ms":0}}"#;
const WAITING: &str = r#"{"bound":"io","workload":{"type":"sleep","ms":2000}}"#;
/// Long enough for anything that happens at all on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

fn main() -> ExitCode {
    if matches!(std::env::args().nth(1).as_deref(), Some("worker" | "sandbox")) {
        return trine::cli::main();
    }
    let trial = Trial::test("a_job_takes_no_more_allocations_than_it_did", || {
        measure();
        Ok(())
    });
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit_code()
}

fn measure() {
    let folder = tempfile::tempdir().unwrap();
    let stop = Stop::default();
    let (mut connection, server) = serve(&folder, stop.clone());
    let alone = request("/jobs", "Prefer: wait=60\r\n", NOOP);
    let batch = request("/jobs/batch", "Prefer: return=minimal\r\n", &format!("[{}]", vec![NOOP; BATCH].join(",")));
    let waiting = request("/jobs", "Prefer: wait=60\r\n", WAITING);
    let _counting = dhat::Profiler::builder().testing().build();
    connection.send(&alone);
    let by_itself = allocations(|| connection.send(&waiting));
    let mut one_by_one = || (0..JOBS).for_each(|_| connection.send(&alone));
    one_by_one();
    let of_one = of_jobs(allocations(&mut one_by_one), by_itself) / JOBS;
    let mut many = || {
        connection.send(&batch);
        connection.until_idle();
    };
    many();
    let of_many = of_jobs(allocations(&mut many), by_itself) / BATCH as u128;
    println!("allocations a job: {of_one} alone, {of_many} in a batch");
    stop.asked.cancel();
    drop(connection);
    server.join().unwrap();
    assert!(of_one <= ALONE, "a job takes {of_one} allocations, and took no more than {ALONE}");
    assert!(of_many <= IN_A_BATCH, "a job of a batch takes {of_many} allocations, and took no more than {IN_A_BATCH}");
}

/// A server in this process, and a connection to it.
fn serve(folder: &TempDir, stop: Stop) -> (Connection, thread::JoinHandle<()>) {
    // The settings of whoever runs the tests must not reach it.
    let config =
        Config { data_dir: folder.path().into(), processes: 1, threads_cpu: 1, python_processes: 1, ..Config::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let server = thread::spawn(move || runtime.block_on(trine::app::serve(config, listener, stop, || {})).unwrap());
    (Connection { stream, buffer: vec![0; 1 << 20] }, server)
}

/// How many allocations this process makes meanwhile, and how long that is.
fn allocations(work: impl FnOnce()) -> (u128, Duration) {
    let (before, begun) = (HeapStats::get().total_blocks, Instant::now());
    work();
    ((HeapStats::get().total_blocks - before).into(), begun.elapsed())
}

/// How many of them are for the jobs. The others it makes from time to time, whatever runs: more for each job, the slower the machine is.
fn of_jobs((made, took): (u128, Duration), (by_itself, meanwhile): (u128, Duration)) -> u128 {
    made.saturating_sub(by_itself * took.as_nanos() / meanwhile.as_nanos())
}

fn request(target: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{headers}\r\n{body}")
        .into_bytes()
}

/// A client that allocates nothing.
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Sends a request that has to succeed.
    fn send(&mut self, request: &[u8]) {
        let answer = self.answer(request);
        assert!(answer.starts_with(b"HTTP/1.1 20"), "{}", String::from_utf8_lossy(answer));
    }

    /// Until no job waits or runs.
    fn until_idle(&mut self) {
        let begun = Instant::now();
        for state in ["queued", "running"] {
            let request = format!("GET /jobs?limit=1&state={state} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            while !self.answer(request.as_bytes()).windows(10).any(|part| part == br#""items":[]"#) {
                assert!(begun.elapsed() < PATIENCE, "there still are jobs that are {state}");
                thread::sleep(Duration::from_millis(20));
            }
        }
    }

    fn answer(&mut self, request: &[u8]) -> &[u8] {
        self.stream.write_all(request).unwrap();
        let mut filled = 0;
        loop {
            filled += self.stream.read(&mut self.buffer[filled..]).unwrap();
            if is_whole(&self.buffer[..filled]) {
                return &self.buffer[..filled];
            }
        }
    }
}

/// Whether all of an answer is here.
fn is_whole(answer: &[u8]) -> bool {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(answer).unwrap() else { return false };
    let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length")).expect("a length");
    answer.len() == head + std::str::from_utf8(length.value).unwrap().parse::<usize>().unwrap()
}
