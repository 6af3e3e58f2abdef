//! The real server in a process of its own, and what is asked of it in every benchmark.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use trine::clock::Timestamp;

use crate::http::{Connection, request};
use crate::{Error, Result};

/// How long the server may take to start.
const START: Duration = Duration::from_mins(1);
/// How long no job may end before the ones that are left count as missing.
const STALL: Duration = Duration::from_secs(30);

/// A running server. Killed when dropped.
pub(crate) struct Server {
    process: Child,
    connection: Connection,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// How long it took from its start until it was ready.
    pub(crate) ready_after: Duration,
    /// How many jobs were accepted since the database was new. Whoever submits counts them here.
    pub(crate) accepted: u64,
    /// Since when every job has to succeed.
    pub(crate) since: Timestamp,
}

/// One page of a list.
#[derive(Deserialize)]
struct Page<T> {
    items: Vec<T>,
    next_cursor: Option<String>,
}

/// A folder on the disk that the build is on, deleted when dropped.
pub(crate) fn folder() -> Result<TempDir> {
    Ok(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?)
}

/// CPU time that a process has used, in user mode and in the kernel.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration> {
    /// The kernel counts in hundredths of a second, whatever its own clock does.
    const TICK: Duration = Duration::from_millis(10);
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Behind the name, which may hold anything, come the state and then numbers: user and system time are the 12th and 13th.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    let ticks = fields.skip(11).take(2).map(str::parse::<u32>).sum::<std::result::Result<u32, _>>()?;
    Ok(TICK * ticks)
}

impl Server {
    /// Starts it on the data in `folder` and waits until it is ready. `settings` are environment variables.
    pub(crate) async fn start(folder: &Path, settings: &[(&str, &str)]) -> Result<Self> {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let log = folder.join("log");
        let started = Instant::now();
        let mut command = Command::new(env!("CARGO_BIN_EXE_trine"));
        // Settings of whoever runs the benchmarks must not reach the server: it would be their database that gets the jobs.
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TRINE_")) {
            command.env_remove(name);
        }
        let mut process = command
            .arg("serve")
            // Away from a trine.toml that happens to lie in the working folder.
            .current_dir(folder)
            .env("TRINE_LISTEN", address.to_string())
            .env("TRINE_DATA_DIR", folder.join("data"))
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .kill_on_drop(true)
            .spawn()?;
        let ready = async {
            let probe = request("GET", "/readyz", "", "");
            loop {
                if let Some(status) = process.try_wait()? {
                    return Err(format!("the server ended at once, {status}: {}", std::fs::read_to_string(&log)?).into());
                }
                if let Ok(mut connection) = Connection::open(address).await
                    && connection.send(&probe).await.is_ok_and(|response| response.status == 200)
                {
                    return Ok::<_, Error>(connection);
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        let connection = timeout(START, ready).await.map_err(|_| "the server is not ready")??;
        Ok(Self { process, connection, address, ready_after: started.elapsed(), accepted: 0, since: Timestamp::from_micros(0) })
    }

    /// Opens another connection, after so long a time that the server may have shut this one.
    pub(crate) async fn reconnect(&mut self) -> Result<()> {
        self.connection = Connection::open(self.address).await?;
        Ok(())
    }

    /// Submits jobs, each the text of a submission, all or none.
    pub(crate) async fn submit(&mut self, jobs: &[&str]) -> Result<()> {
        let body = format!("[{}]", jobs.join(","));
        self.connection.send(&request("POST", "/jobs/batch", "", &body)).await?.expect(202)?;
        self.accepted += jobs.len() as u64;
        Ok(())
    }

    /// How many results are recorded.
    pub(crate) async fn finished(&mut self) -> Result<u64> {
        #[derive(Deserialize)]
        struct Group {
            count: u64,
        }
        let summary: Page<Group> = self.connection.get("/results/summary").await?;
        Ok(summary.items.iter().map(|group| group.count).sum())
    }

    /// How long these jobs take together, from their submission until every one has a result.
    pub(crate) async fn take(&mut self, jobs: &[&str]) -> Result<Duration> {
        let start = Instant::now();
        self.submit(jobs).await?;
        Ok(self.finish(|_| Ok(())).await? - start)
    }

    /// Waits until every accepted job has a result; calls `meanwhile` now and then. Since when that is known: it is made sure of then.
    ///
    /// Fails if a job is missing, has more than one result or did not succeed.
    pub(crate) async fn finish(&mut self, mut meanwhile: impl FnMut(&Self) -> Result<()>) -> Result<Instant> {
        let begun = Instant::now();
        let (mut finished, mut changed) = (0, begun);
        loop {
            let now = self.finished().await?;
            if now == self.accepted {
                break;
            }
            if now != finished {
                (finished, changed) = (now, Instant::now());
            }
            if now > self.accepted || changed.elapsed() > STALL {
                return Err(format!("{now} results of {} jobs", self.accepted).into());
            }
            meanwhile(self)?;
            // To a hundredth of what it takes, and no oftener than that: whoever asks takes from what is measured.
            sleep((begun.elapsed() / 100).clamp(Duration::from_millis(1), Duration::from_millis(10))).await;
        }
        let done = Instant::now();
        for ending in ["failed", "lost", "cancelled"] {
            let wrong = format!("/results?state={ending}&since={}&limit=1", self.since);
            let wrong: Page<serde_json::Value> = self.connection.get(&wrong).await?;
            if let Some(job) = wrong.items.first() {
                return Err(format!("a job has not succeeded: {job}").into());
            }
        }
        Ok(done)
    }

    /// All items of a list such as `/results`, page by page.
    pub(crate) async fn list<T: DeserializeOwned>(&mut self, list: &str, mut each: impl FnMut(T)) -> Result<()> {
        let mut target = format!("{list}?limit=1000");
        loop {
            let page: Page<T> = self.connection.get(&target).await?;
            page.items.into_iter().for_each(&mut each);
            let Some(cursor) = page.next_cursor else { return Ok(()) };
            target = format!("{list}?limit=1000&cursor={cursor}");
        }
    }

    /// Resident memory now, in bytes; of the server alone, not of its worker processes.
    pub(crate) fn memory(&self) -> Result<u64> {
        self.status("VmRSS:")
    }

    /// The most resident memory that it ever had, in bytes.
    pub(crate) fn memory_peak(&self) -> Result<u64> {
        self.status("VmHWM:")
    }

    /// CPU time that it has used, of all its threads.
    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        cpu_time(self.pid()?)
    }

    /// Asks it to stop, and waits for a clean end.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let pid = i32::try_from(self.pid()?)?;
        kill(Pid::from_raw(pid), Signal::SIGTERM)?;
        let status = timeout(START, self.process.wait()).await.map_err(|_| "the server does not stop")??;
        if status.success() { Ok(()) } else { Err(format!("the server ended with {status}").into()) }
    }

    /// Kills it without warning, and waits until it is gone.
    pub(crate) async fn kill(mut self) -> Result<()> {
        Ok(self.process.kill().await?)
    }

    /// A size from the kernel's page about the process, in bytes.
    fn status(&self, name: &str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()?))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such line in the process status")?;
        let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kibibytes << 10)
    }

    fn pid(&self) -> Result<u32> {
        Ok(self.process.id().ok_or("the server has ended")?)
    }
}
