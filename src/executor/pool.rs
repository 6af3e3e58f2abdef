//! A pool of processes, started ahead of need and replaced when they crash or are worn.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::slots::Slot;

/// The wait after the first failed start, and the longest one.
pub(super) const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// A process that does one job after the other. Dropped, it is killed.
pub(super) trait Worker: Send + Sized + 'static {
    /// How to start one.
    type Settings: Send + Sync;
    /// What one is started for; it serves nothing else.
    type Key: Clone + PartialEq + Send + Sync + fmt::Debug;
    /// Why it did not start.
    type Error: fmt::Display + Send;

    /// Starts one; ready when the future is.
    fn start(settings: &Self::Settings, key: &Self::Key) -> impl Future<Output = Result<Self, Self::Error>> + Send;
    /// What it was started for.
    fn key(&self) -> &Self::Key;
    /// Its process id.
    fn pid(&self) -> u32;
    /// How many jobs it was given.
    fn jobs(&self) -> u64;
    /// The interpreter that it is a process of, by name.
    fn interpreter(&self) -> Option<&str> {
        None
    }
    /// Whether it can take another job: it lives - one that waits for work may be killed like any other process - and has not served long
    /// enough.
    fn can_serve(&mut self, settings: &Self::Settings) -> bool;
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
    /// The interpreter that it is a process of, by name.
    #[serde(skip)]
    pub interpreter: Option<String>,
}

impl WorkerStatus {
    pub(super) fn of(worker: &impl Worker, busy: bool) -> Self {
        Self { pid: worker.pid(), busy, jobs: worker.jobs(), interpreter: worker.interpreter().map(str::to_owned) }
    }
}

/// A pool of worker processes. Clones are handles to the same one.
pub(super) struct Pool<W: Worker> {
    shared: Arc<Shared<W>>,
}

struct Shared<W: Worker> {
    settings: W::Settings,
    size: usize,
    /// What workers are started for ahead of need.
    usual: W::Key,
    /// Where workers are started.
    home: Handle,
    state: Mutex<State<W>>,
}

/// A worker to oneself. Unless it is given back, it is killed as this is dropped, and another is started in its place.
pub(super) struct Taken<W: Worker> {
    pub(super) worker: W,
    // Behind the worker, which is gone first.
    busy: Busy<W>,
}

/// That a worker is taken.
struct Busy<W: Worker> {
    pool: Pool<W>,
    pid: u32,
    given_back: bool,
}

struct State<W> {
    idle: Vec<W>,
    busy: BTreeMap<u32, WorkerStatus>,
    /// Being started ahead of need.
    starting: usize,
    /// Whether the latest start failed.
    fails: bool,
    closed: bool,
}

impl<W: Worker> Clone for Pool<W> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<W: Worker> Pool<W> {
    /// A pool of up to `size` workers, which are being started in the background. Must be called on a tokio runtime.
    pub(super) fn start(settings: W::Settings, size: usize, usual: W::Key) -> Self {
        let state = State { idle: Vec::new(), busy: BTreeMap::new(), starting: 0, fails: false, closed: false };
        let pool = Self { shared: Arc::new(Shared { settings, size, usual, home: Handle::current(), state: Mutex::new(state) }) };
        pool.top_up();
        pool
    }

    /// How many workers there may be at once.
    pub(super) fn size(&self) -> usize {
        self.shared.size
    }

    /// How they are started.
    pub(super) fn settings(&self) -> &W::Settings {
        &self.shared.settings
    }

    /// Whether there are no workers and the latest start failed.
    pub(super) fn can_not_start(&self) -> bool {
        let state = self.state();
        state.fails && state.idle.is_empty() && state.busy.is_empty()
    }

    /// The workers as they are now.
    pub(super) fn workers(&self) -> Vec<WorkerStatus> {
        let state = self.state();
        let idle = state.idle.iter().map(|worker| WorkerStatus::of(worker, false));
        idle.chain(state.busy.values().cloned()).collect()
    }

    /// Kills the workers that wait, and starts no more.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.idle.clear();
    }

    /// A worker to oneself: one that waits or, if none does, a new one, tried until it starts.
    pub(super) async fn take(&self, key: &W::Key, slot: &Arc<Slot>) -> Taken<W> {
        let mut backoff = BACKOFF.0;
        loop {
            if let Ok(taken) = self.try_to_take(key, slot).await {
                return taken;
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF.1);
        }
    }

    /// The same, but tried once: or why a new one can't be started.
    pub(super) async fn try_to_take(&self, key: &W::Key, slot: &Arc<Slot>) -> Result<Taken<W>, String> {
        let worker = match self.idle(key) {
            Some(worker) => Ok(worker),
            None => self.start_for(key, slot).await,
        };
        let worker = match worker {
            Ok(worker) => worker,
            Err(error) => {
                tracing::error!(error, ?key, "a worker process can't be started");
                self.state().fails = true;
                // One of the usual ones may have made room for it.
                self.top_up();
                return Err(error);
            }
        };
        let mut state = self.state();
        state.fails = false;
        let status = WorkerStatus::of(&worker, true);
        let busy = Busy { pool: self.clone(), pid: status.pid, given_back: false };
        state.busy.insert(status.pid, WorkerStatus { jobs: status.jobs + 1, ..status });
        Ok(Taken { worker, busy })
    }

    /// A new worker, or why there is none. Its start goes on though nobody waits for it any more, since jobs may have less time than it
    /// takes, and has the slot until then: whoever gets that next finds the worker, and there are no more starts than jobs that were claimed.
    async fn start_for(&self, key: &W::Key, slot: &Arc<Slot>) -> Result<W, String> {
        let (tell, started) = oneshot::channel();
        let (pool, key, slot) = (self.clone(), key.clone(), Arc::clone(slot));
        self.shared.home.spawn(async move {
            let Err(unheard) = tell.send(W::start(&pool.shared.settings, &key).await) else { return };
            pool.state().starting += 1;
            let is_done = pool.add(unheard);
            drop(slot);
            if !is_done {
                // There may be none of the usual ones any more that has made room for it.
                pool.start_ahead().await;
            }
        });
        started.await.map_err(|_| "its start broke off".to_owned())?.map_err(|error| error.to_string())
    }

    /// A worker that waits; one that can't serve any more is passed over. Without one, another that waits for something else makes room.
    fn idle(&self, key: &W::Key) -> Option<W> {
        loop {
            let (mut worker, fits) = {
                let mut state = self.state();
                let fitting = state.idle.iter().rposition(|worker| worker.key() == key);
                let room = state.idle.len() + state.busy.len() < self.shared.size;
                match fitting {
                    Some(at) => (state.idle.swap_remove(at), true),
                    None if room => return None,
                    None => (state.idle.pop()?, false),
                }
            };
            if !fits {
                return None;
            }
            if worker.can_serve(&self.shared.settings) {
                return Some(worker);
            }
        }
    }

    /// Starts as many workers ahead of need as are missing.
    fn top_up(&self) {
        let missing = {
            let mut state = self.state();
            if state.closed {
                return;
            }
            let present = state.idle.len() + state.busy.len() + state.starting;
            let missing = self.shared.size.saturating_sub(present);
            state.starting += missing;
            missing
        };
        for _ in 0..missing {
            self.shared.home.spawn(self.clone().start_ahead());
        }
    }

    /// Starts a worker ahead of need, tried until it starts or is not needed any more.
    async fn start_ahead(self) {
        let mut backoff = BACKOFF.0;
        loop {
            let started = W::start(&self.shared.settings, &self.shared.usual).await;
            if self.add(started) {
                return;
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF.1);
        }
    }

    /// Adds a worker that was started ahead of need. False if it could not be started and is still needed.
    fn add(&self, started: Result<W, W::Error>) -> bool {
        let mut state = self.state();
        let wanted = !state.closed && state.idle.len() + state.busy.len() < self.shared.size;
        match started {
            Ok(worker) => {
                state.fails = false;
                if wanted {
                    state.idle.push(worker);
                }
            }
            Err(error) if wanted => {
                tracing::error!(%error, "a worker process can't be started");
                state.fails = true;
                return false;
            }
            Err(_) => {}
        }
        state.starting -= 1;
        true
    }

    fn state(&self) -> MutexGuard<'_, State<W>> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: Worker> Taken<W> {
    /// The worker gets one more job before it is given back.
    pub(super) fn gets_another(&self) {
        if let Some(status) = self.busy.pool.state().busy.get_mut(&self.busy.pid) {
            status.jobs += 1;
        }
    }

    /// Gives a worker back that can be used again; it is replaced if it can't serve any more.
    pub(super) fn give_back(self) {
        let Self { mut worker, mut busy } = self;
        let pool = busy.pool.clone();
        let can_serve = worker.can_serve(&pool.shared.settings);
        let mut state = pool.state();
        // It is one of those that are busy.
        if !can_serve || state.closed || state.idle.len() + state.busy.len() > pool.shared.size {
            drop(state);
            drop(worker);
        } else {
            state.busy.remove(&busy.pid);
            state.idle.push(worker);
            busy.given_back = true;
        }
    }
}

impl<W: Worker> Drop for Busy<W> {
    fn drop(&mut self) {
        if !self.given_back {
            self.pool.state().busy.remove(&self.pid);
            self.pool.top_up();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicU32, Ordering};

    struct Numbered(u32, &'static str);

    impl Worker for Numbered {
        type Settings = AtomicU32;
        type Key = &'static str;
        type Error = Infallible;

        async fn start(next: &AtomicU32, key: &&'static str) -> Result<Self, Infallible> {
            if *key == "other" {
                tokio::task::yield_now().await;
            }
            Ok(Self(next.fetch_add(1, Ordering::Relaxed), key))
        }

        fn key(&self) -> &&'static str {
            &self.1
        }

        fn pid(&self) -> u32 {
            self.0
        }

        fn jobs(&self) -> u64 {
            0
        }

        fn can_serve(&mut self, _: &AtomicU32) -> bool {
            true
        }
    }

    fn workers(pool: &Pool<Numbered>) -> Vec<(u32, bool)> {
        pool.workers().into_iter().map(|worker| (worker.pid, worker.busy)).collect()
    }

    async fn until(pool: &Pool<Numbered>, expected: &[(u32, bool)]) {
        let seen = async {
            while workers(pool) != expected {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), seen).await.expect("the workers to be there");
    }

    #[tokio::test]
    async fn a_worker_that_nobody_gives_back_takes_up_no_place() {
        let pool = Pool::<Numbered>::start(AtomicU32::new(1), 1, "usual");
        until(&pool, &[(1, false)]).await;
        let first = pool.take(&"usual", &Arc::default()).await;
        assert_eq!(workers(&pool), [(1, true)]);
        drop(first);
        assert_eq!(workers(&pool), []);
        let second = pool.take(&"usual", &Arc::default()).await;
        second.give_back();
        assert_eq!(workers(&pool), [(2, false)]);
        let again = pool.take(&"usual", &Arc::default()).await;
        assert_eq!(workers(&pool), [(2, true)], "{}", again.worker.0);
    }

    #[tokio::test]
    async fn a_start_that_nobody_waits_for_any_more_goes_on() {
        let pool = Pool::<Numbered>::start(AtomicU32::new(1), 1, "usual");
        until(&pool, &[(1, false)]).await;
        // It makes room for the other one, which takes longer than there is time.
        let slot = Arc::default();
        assert!(pool.take(&"other", &slot).now_or_never().is_none());
        assert_eq!(Arc::strong_count(&slot), 2, "its start has the slot");
        until(&pool, &[(2, false)]).await;
        assert_eq!(Arc::strong_count(&slot), 1);
        assert_eq!(pool.take(&"other", &slot).now_or_never().expect("it is there").worker.0, 2);
    }
}
