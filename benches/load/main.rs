//! Load on the real server, each figure beside its bar.
//!
//! `cargo bench --bench load` measures all of it, `cargo bench --bench load -- noop waits` a part. What is compared is measured in
//! turns, round by round, in one run. A missed bar is only shown; a missing or wrong job ends the run with an error.
#![expect(clippy::cast_precision_loss, reason = "counts, bytes and microseconds stay far below 2^53")]

mod backlog;
mod bare;
mod cluster;
mod cpu;
mod crowd;
mod fetches;
mod graph;
mod growth;
mod history;
mod http;
mod keys;
mod metering;
mod misrouted;
mod mixed;
mod noop;
mod origin;
mod overload;
#[path = "../../tests/postgres/mod.rs"]
mod postgres;
mod python;
mod report;
mod scheduled;
mod server;
mod waits;

use std::net::SocketAddr;

use clap::{Parser, ValueEnum};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What goes wrong here is only shown.
type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Error>;

/// Measures the service under load.
#[derive(Parser)]
struct Options {
    /// What to measure; everything but `history`, `claims` and `growth` if nothing is named
    #[arg(value_enum)]
    benchmarks: Vec<Benchmark>,
    /// How often each thing is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long `noop`, `growth`, `cluster`, `metering` and `misrouted` submit, in seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// How many jobs wait in `backlog`, in `keys`, in `claims`, and in `growth` at the most
    #[arg(long, default_value_t = 1_000_000)]
    jobs: u64,
    /// How many results there are in `history` and in `claims`, and in `growth` at the most: filling the database takes some minutes for ten million
    #[arg(long, default_value_t = 10_000_000)]
    results: u64,
    /// Serves the bare route, for `noop` to compare with
    #[arg(long, hide = true)]
    bare_route: bool,
    /// Serves what is fetched in `fetches`
    #[arg(long, hide = true)]
    origin: bool,
    /// Fetches so many times without the service, for `fetches` to compare with
    #[arg(long, hide = true, requires = "from")]
    bare_fetches: Option<usize>,
    /// From where
    #[arg(long, hide = true)]
    from: Option<SocketAddr>,
    /// Given by cargo
    #[arg(long = "bench", hide = true)]
    _bench: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Benchmark {
    /// Jobs that do nothing, one a request, against a route that stores nothing
    Noop,
    /// Jobs that compute, against a bare thread pool
    Cpu,
    /// Jobs that wait, all at once
    Waits,
    /// Fetches of 100 ms, against a bare program
    Fetches,
    /// Jobs that wait beside jobs that compute
    Mixed,
    /// Many queued jobs: memory, and the time that a restart takes
    Backlog,
    /// Many jobs of one key, a few of another
    Keys,
    /// Jobs that come after other jobs
    Graph,
    /// Honest requests among thousands of idle and slow connections
    Crowd,
    /// Ten times as many jobs as can run
    Overload,
    /// Jobs that are due within one second, with a server that is killed meanwhile
    Scheduled,
    /// Python jobs: processes against threads, and fetches against asyncio alone
    Python,
    /// A long history: first pages, the summary, a start and the throughput
    History,
    /// How the cost of a job grows: with clients, with jobs that wait, with jobs that have ended; and a drawing of that
    Growth,
    /// Servers that share a PostgreSQL: three against one
    Cluster,
    /// Claims from a PostgreSQL with a long history
    Claims,
    /// Jobs of which half are tagged wrong, against measured routing and every tag right
    Misrouted,
    /// What measuring and learning cost of a job that does nothing
    Metering,
}

fn main() -> Result<()> {
    let mut options = Options::parse();
    if options.bare_route {
        return tokio::runtime::Runtime::new()?.block_on(bare::serve());
    }
    if options.origin {
        return tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(origin::serve());
    }
    if let (Some(count), Some(from)) = (options.bare_fetches, options.from) {
        return tokio::runtime::Runtime::new()?.block_on(origin::fetch_bare(from, count));
    }
    if options.benchmarks.is_empty() {
        options.benchmarks = Benchmark::value_variants().to_vec();
        options.benchmarks.retain(|benchmark| !matches!(benchmark, Benchmark::History | Benchmark::Claims | Benchmark::Growth));
    }
    // One thread: the load has to leave the cores to the server.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        for benchmark in &options.benchmarks {
            match benchmark {
                Benchmark::Noop => noop::run(&options).await?,
                Benchmark::Cpu => cpu::run(&options).await?,
                Benchmark::Waits => waits::run(&options).await?,
                Benchmark::Fetches => fetches::run(&options).await?,
                Benchmark::Mixed => mixed::run(&options).await?,
                Benchmark::Backlog => backlog::run(&options).await?,
                Benchmark::Keys => keys::run(&options).await?,
                Benchmark::Growth => growth::run(&options).await?,
                Benchmark::Graph => graph::run(&options).await?,
                Benchmark::Crowd => crowd::run(&options).await?,
                Benchmark::Cluster => cluster::run(&options).await?,
                Benchmark::Claims => cluster::claims(&options).await?,
                Benchmark::Overload => overload::run(&options).await?,
                Benchmark::Scheduled => scheduled::run(&options).await?,
                Benchmark::Python => python::run(&options).await?,
                Benchmark::History => history::run(&options).await?,
                Benchmark::Misrouted => misrouted::run(&options).await?,
                Benchmark::Metering => metering::run(&options).await?,
            }
        }
        Ok(())
    })
}
