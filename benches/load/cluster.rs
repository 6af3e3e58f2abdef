//! Servers that share a PostgreSQL, which is started for this: three of them against one, and claims behind a long history.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::{Connection as _, PgConnection};
use trine::job::Queue;
use trine::store::postgres::{PostgresOptions, PostgresStore};
use trine::store::{Store, Urgency};

use crate::http::{Connection, request};
use crate::postgres::Postgres;
use crate::report::{Bar, Figure, add_all, print, quantile};
use crate::server::{Server, folder};
use crate::{Error, Options, Result, history, noop};

/// How many connections there are in all: as many as one server has in other benchmarks, and as many on each of three. With few, each turn of a
/// node finds a third of the jobs.
const CONNECTIONS: [usize; 2] = [noop::CONNECTIONS, 3 * noop::CONNECTIONS];
const BATCH: usize = 1_000;
/// How many batches are submitted in all, this many at once.
const BATCHES: usize = 60;
const AT_ONCE: usize = 6;
/// How often jobs are claimed, and how many at once.
const CLAIMS: usize = 2_000;
const CLAIMED: usize = 16;
/// How many rows are made by one statement.
const ROWS: u64 = 500_000;

/// An id of version 7 that is as random as a number's digest.
const ID: &str =
    "(lpad(to_hex(1700000000000 + n), 12, '0') || '7' || substr(md5(n::TEXT), 1, 3) || 'a' || substr(md5(n::TEXT), 4, 15))::UUID";

pub(crate) async fn run(options: &Options) -> Result<()> {
    let postgres = Postgres::start();
    let mut figures = [
        Figure::new("one server, jobs/s, one a request, 256 connections"),
        Figure::new("three servers, jobs/s, one a request, 256 connections in all"),
        Figure::with_bar("three over one", Bar::AtLeast(1.0)),
        Figure::new("one server, jobs/s, one a request, 768 connections"),
        Figure::new("three servers, jobs/s, one a request, 256 connections each"),
        Figure::with_bar("three over one", Bar::AtLeast(1.0)),
        Figure::new("one server, jobs/s, in batches of 1,000, six at once"),
        Figure::new("three servers, jobs/s, in batches of 1,000, six at once"),
        Figure::with_bar("three over one", Bar::AtLeast(1.0)),
    ];
    for round in 0..options.rounds {
        let duration = Duration::from_secs(options.seconds);
        let one = measure(&postgres, &format!("one_{round}"), 1, duration).await?;
        let three = measure(&postgres, &format!("three_{round}"), 3, duration).await?;
        let values = one.into_iter().zip(three).flat_map(|(one, three)| [one, three, three / one]);
        add_all(&mut figures, values);
    }
    print("cluster: servers that share a PostgreSQL, jobs that do nothing", &figures);
    Ok(())
}

/// Completed jobs a second of so many servers: one a request, with few connections and with many, and in batches.
async fn measure(postgres: &Postgres, schema: &str, count: usize, duration: Duration) -> Result<[f64; 3]> {
    let (url, folders) = (postgres.url(), (0..count).map(|_| folder()).collect::<Result<Vec<_>>>()?);
    let settings = [("TRINE_DATABASE", &*url), ("TRINE_DATABASE_SCHEMA", schema), ("TRINE_PYTHON_INTERPRETERS", "none")];
    let mut servers = Vec::new();
    for folder in &folders {
        servers.push(Server::start(folder.path(), &settings).await?);
    }
    servers[0].accepted += load(&servers, noop::CONNECTIONS, duration / 5).await?;
    servers[0].finish(|_| Ok(())).await?;

    let mut singles = [0.0; CONNECTIONS.len()];
    for (rate, connections) in singles.iter_mut().zip(CONNECTIONS) {
        let start = Instant::now();
        let jobs = load(&servers, connections, duration).await?;
        servers[0].accepted += jobs;
        *rate = jobs as f64 / (servers[0].finish(|_| Ok(())).await? - start).as_secs_f64();
    }

    let body = format!("[{}]", [noop::NOOP; BATCH].join(","));
    let batch = request("POST", "/jobs/batch", noop::MINIMAL, &body);
    let start = Instant::now();
    let mut submitting = Vec::new();
    for place in 0..AT_ONCE {
        let mut connection = Connection::open(servers[place % count].address).await?;
        let batch = &batch;
        submitting.push(async move {
            for _ in 0..BATCHES / AT_ONCE {
                connection.send(batch).await?.expect(202)?;
            }
            Ok::<_, Error>(())
        });
    }
    futures_util::future::try_join_all(submitting).await?;
    servers[0].accepted += (BATCH * BATCHES) as u64;
    let batches = (BATCH * BATCHES) as f64 / (servers[0].finish(|_| Ok(())).await? - start).as_secs_f64();
    for server in servers {
        server.stop().await?;
    }
    let [few, many] = singles;
    Ok([few, many, batches])
}

/// Submits to all of them at once, on so many connections in all; how many jobs were accepted.
async fn load(servers: &[Server], connections: usize, duration: Duration) -> Result<u64> {
    let each = connections / servers.len();
    let loads = servers.iter().map(|server| noop::load(server.address, noop::MINIMAL, each, duration));
    Ok(futures_util::future::try_join_all(loads).await?.into_iter().sum())
}

/// How long claims take with many jobs that wait, and many more that have ended.
pub(crate) async fn claims(options: &Options) -> Result<()> {
    let postgres = Postgres::start();
    let options_of_store = PostgresOptions {
        urls: vec![postgres.url()],
        schema: "trine".into(),
        partitions: false,
        role: trine::job::Role::All,
        labels: trine::job::Labels::new(),
        node: "claims".into(),
        lease: Duration::from_secs(30),
        connections: 4,
        clock: None,
        max_losses: 3,
        job_log_lines: 1_000,
        job_log_bytes: 1 << 20,
    };
    let store = PostgresStore::open(options_of_store.clone()).await?;
    // One that has ended and one that waits, of which all others are copies.
    let (ended, waits) = (history::job(1)?, history::job(1)?);
    store.accept(vec![ended.clone()]).await?;
    for claimed in store.claim(Queue::Async, 1).await? {
        store.settle(claimed.lease, Arc::new(history::settlement(claimed.bound)), Urgency::Awaited).await?;
    }
    store.accept(vec![waits.clone()]).await?;
    store.close().await;
    let mut raw = PgConnection::connect(&format!("{}&options[search_path]=trine", postgres.url())).await?;
    let jobs = "INSERT INTO jobs (id, queue, rule, bound, choice, priority, accepted_at, owner, type, workload, options) \
                SELECT {ID}, queue, rule, bound, choice, priority, accepted_at - 1000000000 + n, owner, type, workload, options \
                FROM jobs, generate_series($2::BIGINT, $3::BIGINT) AS n WHERE id = $1";
    let results = "INSERT INTO results (id, ending, attempt, losses, started_at, finished_at, token, node, findings, failure, output, error, timing) \
                   SELECT {ID}, ending, attempt, losses, started_at - 1000000000 + n, finished_at - 1000000000 + n, token, node, findings, failure, output, error, timing \
                   FROM results, generate_series($2::BIGINT, $3::BIGINT) AS n WHERE id = $1";
    let work = "INSERT INTO work (id, state, queue, priority, due_at, attempt) \
                SELECT {ID}, state, queue, priority, due_at - 1000000000 + n, attempt \
                FROM work, generate_series($2::BIGINT, $3::BIGINT) AS n WHERE id = $1";
    let mut copy = async |text: &str, id: trine::job::JobId, first: u64, count: u64| -> Result<()> {
        for from in (first..first + count).step_by(usize::try_from(ROWS)?) {
            let to = (from + ROWS).min(first + count) - 1;
            let text = sqlx::AssertSqlSafe(text.replace("{ID}", ID));
            let id = uuid::Uuid::from_bytes(*id.as_bytes());
            sqlx::query(text).bind(id).bind(i64::try_from(from)?).bind(i64::try_from(to)?).execute(&mut raw).await?;
        }
        Ok(())
    };
    copy(jobs, ended.id, 1, options.results).await?;
    copy(results, ended.id, 1, options.results).await?;
    copy(jobs, waits.id, options.results + 1, options.jobs).await?;
    copy(work, waits.id, options.results + 1, options.jobs).await?;
    sqlx::query("VACUUM ANALYZE").execute(&mut raw).await?;

    let store = PostgresStore::open(options_of_store).await?;
    let queued = store.depth(Queue::Async).queued;
    if queued != options.jobs + 1 {
        return Err(format!("{queued} jobs wait of {}", options.jobs + 1).into());
    }
    let mut figures = [
        Figure::new("claim of 16 jobs, p50, ms"),
        Figure::with_bar("claim of 16 jobs, p99, ms", Bar::AtMost(20.0)),
        Figure::new("claim of 16 jobs, longest, ms"),
    ];
    for _ in 0..options.rounds {
        let mut times = Vec::with_capacity(CLAIMS);
        for _ in 0..CLAIMS {
            let start = Instant::now();
            let claimed = store.claim(Queue::Async, CLAIMED).await?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
            let settled = claimed.into_iter().map(|claimed| {
                let settlement = Arc::new(history::settlement(claimed.bound));
                store.settle(claimed.lease, settlement, Urgency::Awaited)
            });
            futures_util::future::try_join_all(settled).await?;
        }
        let values = [quantile(&times, 0.5), quantile(&times, 0.99), quantile(&times, 1.0)];
        add_all(&mut figures, values);
    }
    print(&format!("claims: PostgreSQL, {} jobs that wait, {} that have ended", options.jobs, options.results), &figures);
    store.close().await;
    Ok(())
}
