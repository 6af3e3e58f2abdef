//! Ten times as many jobs as the server can run: what is accepted still runs at capacity, the rest is told so, and whoever looks after the
//! server is heard.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::task::LocalSet;
use tokio::time::sleep;

use crate::http::{Connection, request};
use crate::noop::NOOP;
use crate::report::{Bar, Figure, add_all, mebibytes, print, quantile};
use crate::server::{Server, folder};
use crate::{Options, Result};

/// What can run: so many at once, each this long.
const SLOTS: u32 = 10;
const EACH: Duration = Duration::from_millis(50);
/// How many may wait.
const WAITING: u64 = 500;
/// How many times as much is submitted.
const TIMES: f64 = 10.0;
const LONG: Duration = Duration::from_secs(5);
const CONNECTIONS: usize = 64;
/// Who submit as fast as they are answered, where nothing is refused.
const CROWD: usize = 1_000;

/// What clients see.
#[derive(Default)]
struct Seen {
    accepted: Cell<u64>,
    refused: RefCell<Vec<f64>>,
    ready: RefCell<Vec<f64>>,
    cancels: RefCell<Vec<f64>>,
    over: Cell<bool>,
}

#[derive(Deserialize)]
struct Job {
    id: String,
}

#[derive(Deserialize)]
struct Summary {
    items: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    count: u64,
}

pub(crate) async fn run(options: &Options) -> Result<()> {
    let capacity = f64::from(SLOTS) / EACH.as_secs_f64();
    let mut figures = [
        Figure::with_bar("jobs that finish, of what can run", Bar::AtLeast(0.9)),
        Figure::new("submissions that are refused, of all"),
        Figure::with_bar("429, p99, ms", Bar::AtMost(100.0)),
        Figure::with_bar("GET /readyz, p99, ms", Bar::AtMost(100.0)),
        Figure::with_bar("DELETE /jobs/…, p99, ms", Bar::AtMost(100.0)),
        Figure::with_bar("memory that is added, MiB", Bar::AtMost(100.0)),
        Figure::with_bar("seconds after it until a job is run at once", Bar::AtMost(5.0)),
        Figure::with_bar("flat out: GET /readyz, p99, ms", Bar::AtMost(100.0)),
        Figure::with_bar("flat out: DELETE /jobs/…, p99, ms", Bar::AtMost(100.0)),
    ];
    for _ in 0..options.rounds {
        let mut values = overloaded(capacity).await?;
        values.extend(flat_out().await?);
        add_all(&mut figures, values);
    }
    print("overload: ten times what can run", &figures);
    Ok(())
}

async fn overloaded(capacity: f64) -> Result<Vec<f64>> {
    let folder = folder()?;
    let (slots, waiting) = (SLOTS.to_string(), WAITING.to_string());
    let mut server = Server::start(folder.path(), &[("TRINE_ASYNC_SLOTS", &slots), ("TRINE_MAX_WAITING", &waiting)]).await?;
    let before = server.memory()?;
    let job = format!(r#"{{"bound":"io","workload":{{"type":"sleep","ms":{}}}}}"#, EACH.as_millis());
    let pause = Duration::from_secs_f64(CONNECTIONS as f64 / (capacity * TIMES));
    // From the first refusal on, the server is as busy as it can be.
    let (seen, start, finished) = drive(&server, CONNECTIONS, &job, pause, LONG).await?;
    // Those that were cancelled have results as well.
    let done = server.finished().await? - finished - seen.cancels.borrow().len() as u64;
    let rate = done as f64 / start.elapsed().as_secs_f64() / capacity;
    let added = mebibytes(server.memory_peak()?.saturating_sub(before));
    let after = Instant::now();
    let back = loop {
        let mut connection = Connection::open(server.address).await?;
        let one = request("POST", "/jobs", "Prefer: wait=60\r\n", &job);
        let asked = Instant::now();
        let response = connection.send(&one).await?;
        seen.accepted.set(seen.accepted.get() + u64::from(response.status != 429));
        if response.status == 200 && asked.elapsed() < EACH * 3 {
            break after.elapsed().as_secs_f64();
        }
        sleep(Duration::from_millis(20)).await;
    };
    let refused = seen.refused.take();
    let share = refused.len() as f64 / (refused.len() as f64 + seen.accepted.get() as f64);
    let latencies = [&refused, &seen.ready.take(), &seen.cancels.take()].map(|times| quantile(times, 0.99));
    server.kill().await?;
    Ok([rate, share].into_iter().chain(latencies).chain([added, back]).collect())
}

async fn flat_out() -> Result<Vec<f64>> {
    let folder = folder()?;
    let server = Server::start(folder.path(), &[]).await?;
    let (seen, ..) = drive(&server, CROWD, NOOP, Duration::ZERO, LONG).await?;
    server.kill().await?;
    Ok(vec![quantile(&seen.ready.take(), 0.99), quantile(&seen.cancels.take(), 0.99)])
}

/// Has clients submit jobs for so long, while somebody asks whether the server is ready, and cancels jobs. What was seen, since when, and how
/// many results there were then.
async fn drive(server: &Server, clients: usize, job: &str, pause: Duration, long: Duration) -> Result<(Rc<Seen>, Instant, u64)> {
    let (address, seen) = (server.address, Rc::new(Seen::default()));
    let post: Rc<[u8]> = request("POST", "/jobs", "Prefer: return=minimal\r\n", job).into();
    let tasks = LocalSet::new();
    for _ in 0..clients {
        let (seen, post) = (Rc::clone(&seen), Rc::clone(&post));
        tasks.spawn_local(async move {
            let Ok(mut connection) = Connection::open(address).await else { return };
            while !seen.over.get() {
                let asked = Instant::now();
                match connection.send(&post).await.map(|response| response.status) {
                    Ok(202) => seen.accepted.set(seen.accepted.get() + 1),
                    Ok(429) => seen.refused.borrow_mut().push(millis(asked)),
                    _ => return,
                }
                sleep(pause.saturating_sub(asked.elapsed())).await;
            }
        });
    }
    let watch = Rc::clone(&seen);
    tasks
        .run_until(async move {
            let mut connection = Connection::open(address).await?;
            // Some time to fill the queue.
            sleep(long / 5).await;
            let summary: Summary = connection.get("/results/summary").await?;
            let (start, finished) = (Instant::now(), summary.items.iter().map(|group| group.count).sum());
            watch.refused.borrow_mut().clear();
            while start.elapsed() < long {
                let asked = Instant::now();
                connection.send(&request("GET", "/readyz", "", "")).await?.expect(200)?;
                watch.ready.borrow_mut().push(millis(asked));
                // One that waits an hour, so that it is there to be cancelled.
                let later = r#"{"bound":"cpu","delay_ms":3600000,"workload":{"type":"primes","below":10}}"#;
                let Job { id } = connection.json(&request("POST", "/jobs", "", later), 202).await?;
                let asked = Instant::now();
                connection.send(&request("DELETE", &format!("/jobs/{id}"), "", "")).await?.expect(200)?;
                watch.cancels.borrow_mut().push(millis(asked));
                sleep(Duration::from_millis(10)).await;
            }
            watch.over.set(true);
            Ok((watch, start, finished))
        })
        .await
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
