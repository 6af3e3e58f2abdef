//! Worker processes, started ahead of need and replaced when they crash or have served their number.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::worker::{StartError, Worker};
use crate::workload::WorkloadSettings;

/// The wait after the first failed start, and the longest one.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// The worker processes.
#[derive(Clone, Debug)]
pub struct ProcessSettings {
    /// The program that is started with the argument `worker`: this one, unless Trine is embedded in another.
    pub program: PathBuf,
    /// How many at once.
    pub size: usize,
    /// A worker is replaced after so many jobs.
    pub max_jobs: u64,
    /// What workloads may reach.
    pub workloads: WorkloadSettings,
}

/// One worker process as it is now.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct WorkerStatus {
    /// The process id.
    pub pid: u32,
    /// Whether it runs a job.
    pub busy: bool,
    /// How many jobs it was given.
    pub jobs: u64,
}

/// A pool of worker processes. Clones are handles to the same one.
#[derive(Clone, Debug)]
pub struct ProcessPool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: ProcessSettings,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Worker>,
    busy: BTreeMap<u32, u64>,
    /// Being started ahead of need.
    starting: usize,
    /// Why the latest start failed, if it did.
    trouble: Option<String>,
    closed: bool,
}

impl ProcessPool {
    /// A pool whose workers are being started in the background.
    pub fn start(settings: ProcessSettings) -> Self {
        let state = Mutex::default();
        let pool = Self { shared: Arc::new(Shared { settings, state }) };
        pool.top_up();
        pool
    }

    /// How many workers there may be at once.
    pub fn size(&self) -> usize {
        self.shared.settings.size
    }

    /// Why there are no workers, if there are none and the latest start failed.
    pub fn trouble(&self) -> Option<String> {
        let state = self.state();
        state.trouble.clone().filter(|_| state.idle.is_empty() && state.busy.is_empty())
    }

    /// The workers as they are now.
    pub fn workers(&self) -> Vec<WorkerStatus> {
        let state = self.state();
        let idle = state.idle.iter().map(|worker| WorkerStatus { pid: worker.pid(), busy: false, jobs: worker.jobs() });
        let busy = state.busy.iter().map(|(pid, jobs)| WorkerStatus { pid: *pid, busy: true, jobs: *jobs });
        idle.chain(busy).collect()
    }

    /// Kills the workers that wait, and starts no more.
    pub fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.idle.clear();
    }

    /// A worker to oneself: one that waits or, if none does, a new one, tried until it starts.
    pub(super) async fn take(&self) -> Worker {
        let mut backoff = BACKOFF.0;
        loop {
            // One that died while it waited is passed over.
            let idle = std::iter::from_fn(|| self.state().idle.pop()).find_map(|mut worker| worker.is_alive().then_some(worker));
            let worker = match idle {
                Some(worker) => Ok(worker),
                None => Worker::start(&self.shared.settings).await,
            };
            match worker {
                Ok(worker) => {
                    let mut state = self.state();
                    state.trouble = None;
                    state.busy.insert(worker.pid(), worker.jobs() + 1);
                    return worker;
                }
                Err(error) => {
                    tracing::error!(%error, "a worker process can't be started");
                    self.state().trouble = Some(error.to_string());
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(BACKOFF.1);
                }
            }
        }
    }

    /// Gives a worker back that can be used again; it is replaced if it has served its number.
    pub(super) fn give_back(&self, worker: Worker) {
        let mut state = self.state();
        state.busy.remove(&worker.pid());
        let worn = worker.jobs() >= self.shared.settings.max_jobs;
        if worn || state.closed || state.idle.len() + state.busy.len() >= self.shared.settings.size {
            drop(state);
            drop(worker);
            self.top_up();
        } else {
            state.idle.push(worker);
        }
    }

    /// Forgets a worker that is gone, and starts another in its place.
    pub(super) fn forget(&self, pid: u32) {
        self.state().busy.remove(&pid);
        self.top_up();
    }

    /// Starts as many workers ahead of need as are missing.
    fn top_up(&self) {
        let missing = {
            let mut state = self.state();
            if state.closed {
                return;
            }
            let present = state.idle.len() + state.busy.len() + state.starting;
            let missing = self.shared.settings.size.saturating_sub(present);
            state.starting += missing;
            missing
        };
        for _ in 0..missing {
            tokio::spawn(self.clone().start_ahead());
        }
    }

    /// Starts a worker ahead of need, tried until it starts or is not needed any more.
    async fn start_ahead(self) {
        let mut backoff = BACKOFF.0;
        loop {
            let started = Worker::start(&self.shared.settings).await;
            if self.add(started) {
                return;
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF.1);
        }
    }

    /// Adds a worker that was started ahead of need. False if it could not be started and is still needed.
    fn add(&self, started: Result<Worker, StartError>) -> bool {
        let mut state = self.state();
        let wanted = !state.closed && state.idle.len() + state.busy.len() < self.shared.settings.size;
        match started {
            Ok(worker) => {
                state.trouble = None;
                if wanted {
                    state.idle.push(worker);
                }
            }
            Err(error) if wanted => {
                tracing::error!(%error, "a worker process can't be started");
                state.trouble = Some(error.to_string());
                return false;
            }
            Err(_) => {}
        }
        state.starting -= 1;
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
