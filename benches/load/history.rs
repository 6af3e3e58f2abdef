//! A long history: whether first pages, the summary, a start and the throughput suffer from what has been done before.
//!
//! The database is filled through the store, as a server would fill it, but without the HTTP.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use trine::clock::{SystemClock, Timestamp};
use trine::dispatch::router::{Facts, route};
use trine::job::{
    Bound, Choice, Conclusion, Ending, Failure, Form, JobId, NewJob, Outcome, Queue, Runtime, Spec, Submission, Timing, Written,
};
use trine::store::sqlite::{SqliteOptions, SqliteStore};
use trine::store::{Settlement, Store, Urgency};

use crate::backlog::{HOLD_UP, ONE_PROCESS, queue};
use crate::http::{Connection, request};
use crate::noop;
use crate::report::{Bar, Figure, print, quantile};
use crate::server::{Server, folder};
use crate::{Options, Result};

/// How many results the short history has.
const FEW: u64 = 10_000;
const BATCH: u64 = 2_000;
/// Every so many results, one is rare: it failed, has another type, another executor and a label.
const RARE: u64 = 1_000;
/// How often each page is read.
const SAMPLES: usize = 50;
/// How long jobs are submitted.
const LOAD: Duration = Duration::from_secs(5);

/// Every filter, and both orders. Of what is rare, the short history has no more than ten: so many are asked for of both.
const PAGES: [&str; 13] = [
    "/results",
    "/results?order=oldest",
    "/results?state=succeeded",
    "/results?state=failed&limit=10",
    "/results?bound=io",
    "/results?bound=cpu&limit=10",
    "/results?executor=async",
    "/results?executor=threads&limit=10",
    "/results?workload=sleep",
    "/results?workload=primes&limit=10",
    "/results?tag=rare:yes&limit=10",
    "/results?since=2020-01-01T00:00:00Z",
    "/results?until=2100-01-01T00:00:00Z",
];

pub(crate) async fn run(options: &Options) -> Result<()> {
    let (short, long) = (folder()?, folder()?);
    fill(short.path(), FEW).await?;
    fill(long.path(), options.results).await?;
    // How long an interpreter takes to say what it is has nothing to do with the history.
    let settings = [ONE_PROCESS[0], ("TRINE_PYTHON_INTERPRETERS", "none")];
    let mut few = Server::start(short.path(), &settings).await?;
    let mut many = Server::start(long.path(), &settings).await?;
    for (server, results) in [(&mut few, FEW), (&mut many, options.results)] {
        // Some of those that are there have failed, as planned.
        (server.accepted, server.since) = (results, Timestamp::now());
    }
    let first = first_job(&mut many).await?;
    let mut figures = vec![Figure::with_bar("start to first job done, ms", Bar::AtMost(100.0))];
    figures[0].add(first);
    for page in PAGES.into_iter().chain(["/results/summary"]) {
        let mut figure = Figure::with_bar(page, Bar::AtMost(2.0));
        for _ in 0..options.rounds {
            figure.add(read(&many, page).await? / read(&few, page).await?);
        }
        figures.push(figure);
    }
    figures.push(throughput("no-op jobs/s, long over short history", options, &mut few, &mut many).await?);
    many.submit(&[HOLD_UP]).await?;
    queue(&mut many, options.jobs).await?;
    // Those that wait have no results.
    many.accepted = many.finished().await?;
    let name = format!("the same with {} jobs that wait besides", options.jobs);
    figures.push(throughput(&name, options, &mut few, &mut many).await?);
    print(&format!("history: {} results over {FEW}, times of first pages", options.results), &figures);
    few.stop().await?;
    many.kill().await
}

/// Jobs a second of one server over those of the other, in turns.
async fn throughput(name: &str, options: &Options, few: &mut Server, many: &mut Server) -> Result<Figure> {
    let mut figure = Figure::with_bar(name, Bar::AtLeast(0.85));
    for _ in 0..options.rounds {
        let short = noop::rate(few, noop::MINIMAL, noop::CONNECTIONS, LOAD).await?;
        figure.add(noop::rate(many, noop::MINIMAL, noop::CONNECTIONS, LOAD).await? / short);
    }
    Ok(figure)
}

/// The time from the server's start until it has done a job, in milliseconds.
async fn first_job(server: &mut Server) -> Result<f64> {
    let start = Instant::now();
    let mut connection = Connection::open(server.address).await?;
    let _: IgnoredAny = connection.json(&request("POST", "/jobs", "Prefer: wait=10\r\n", noop::NOOP), 200).await?;
    server.accepted += 1;
    Ok((server.ready_after + start.elapsed()).as_secs_f64() * 1e3)
}

/// How long a page takes, in microseconds.
async fn read(server: &Server, page: &str) -> Result<f64> {
    let mut connection = Connection::open(server.address).await?;
    let mut times = Vec::with_capacity(SAMPLES);
    for _ in 0..SAMPLES {
        let start = Instant::now();
        let _: IgnoredAny = connection.get(page).await?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(quantile(&times, 0.5))
}

/// Adds so many results to a database, which is made if it is not there.
pub(crate) async fn fill(folder: &Path, results: u64) -> Result<()> {
    let path = folder.join("data").join("trine.db");
    let options = SqliteOptions {
        path,
        node: "one".into(),
        labels: trine::job::Labels::new(),
        clock: Arc::new(SystemClock),
        max_losses: 3,
        job_log_lines: 1_000,
        job_log_bytes: 1 << 20,
    };
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(options).await?);
    let mut made = 0;
    while made < results {
        let count = BATCH.min(results - made);
        let jobs = (made..made + count).map(job).collect::<Result<Vec<_>>>()?;
        store.accept(jobs).await?;
        let mut left = count;
        while left > 0 {
            let mut claimed = Vec::new();
            for queue in [Queue::Async, Queue::ThreadsCpu] {
                if store.depth(queue).queued > 0 {
                    claimed.extend(store.claim(queue, usize::try_from(left)?).await?);
                }
            }
            left -= claimed.len() as u64;
            let settled = claimed.into_iter().map(|claimed| {
                let (store, settlement) = (Arc::clone(&store), settlement(claimed.bound));
                async move { store.settle(claimed.lease, Arc::new(settlement), Urgency::Awaited).await }
            });
            futures_util::future::try_join_all(settled).await?;
        }
        made += count;
    }
    store.close().await;
    Ok(())
}

pub(crate) fn job(number: u64) -> Result<NewJob> {
    let rare = number.is_multiple_of(RARE);
    let (bound, form, kind, json) = if rare {
        (Bound::Cpu, Form::Blocking, "primes", r#"{"type":"primes","below":10}"#)
    } else {
        (Bound::Io, Form::Async, "sleep", r#"{"type":"sleep","ms":0}"#)
    };
    let mut submission = Box::new(Submission::new(bound, Spec { kind: kind.into(), json: RawValue::from_string(json.into())? }));
    if rare {
        submission.tags.insert("rare".into(), "yes".into());
    }
    let written = Written { runtime: Runtime::Native, form, gil: false, needs_a_process: false };
    let route = route(Facts { bound, choice: Choice::Auto, isolated: false, written }).map_err(|unable| unable.to_string())?;
    Ok(NewJob {
        id: JobId::new(),
        submission,
        route,
        after: Vec::new(),
        accepted_at: Timestamp::now(),
        due_at: None,
        profile: None,
    })
}

pub(crate) fn settlement(bound: Bound) -> Settlement {
    let timing = Timing {
        queue_us: 210,
        dispatch_us: 35,
        wall_us: 2,
        cpu_user_us: Some(1),
        cpu_system_us: Some(0),
        polls: Some(1),
        longest_poll_us: Some(2),
        ..Timing::default()
    };
    let output = RawValue::from_string(r#"{"slept_ms":0}"#.into()).map_err(|error| error.to_string());
    let (ending, outcome) = match (bound, output) {
        (Bound::Io, Ok(output)) => (Ending::Succeeded, Outcome::Output(output)),
        _ => (Ending::Failed, Outcome::Error(Failure::error("as planned"))),
    };
    Settlement::Finish(Conclusion { ending, outcome, timing: Some(timing) })
}
