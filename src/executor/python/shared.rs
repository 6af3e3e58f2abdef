//! Hosts that work on many jobs at once: one for each interpreter and network permission, replaced when they are worn or stuck.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::host::Host;
use super::run::NoProcess;
use super::{HostSettings, Key};
use crate::executor::pool::{BACKOFF, Worker, WorkerStatus};

/// For so long after a start has failed somebody waits for the host: whoever can't have it comes again sooner.
const WANTED: Duration = Duration::from_secs(40);
/// How long a host that is stuck with one job may still work on its others.
const LAST_CALLS: Duration = Duration::from_secs(30);

/// The hosts of one mode.
#[derive(Clone)]
pub(super) struct SharedHosts {
    shared: Arc<Shared>,
}

struct Shared {
    settings: HostSettings,
    places: Mutex<HashMap<Key, Arc<Place>>>,
    /// When the latest start failed, of the hosts that could not be started since.
    failed: Mutex<HashMap<Key, Instant>>,
}

/// The host of a key, once it is started. Whoever wants it meanwhile waits for the one start, which goes on though nobody waits any more:
/// jobs may have less time than it takes.
#[derive(Debug, Default)]
struct Place {
    /// Whoever waits, subscribes.
    host: watch::Sender<Option<Arc<Host>>>,
    starting: Mutex<bool>,
}

impl Place {
    fn starting(&self) -> MutexGuard<'_, bool> {
        self.starting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn places(&self) -> MutexGuard<'_, HashMap<Key, Arc<Place>>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self) -> MutexGuard<'_, HashMap<Key, Instant>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SharedHosts {
    /// Starts the host of `usual` in the background.
    pub(super) fn start(settings: HostSettings, usual: Key) -> Self {
        let hosts = Self { shared: Arc::new(Shared { settings, places: Mutex::default(), failed: Mutex::default() }) };
        let ahead = hosts.clone();
        tokio::spawn(async move { drop(ahead.get(&usual).await) });
        hosts
    }

    /// The host for this key; one of the first interpreter that can't be started is tried again and again.
    ///
    /// # Errors
    /// One of another can't be started.
    pub(super) async fn get(&self, key: &Key) -> Result<Arc<Host>, NoProcess> {
        let is_first = self.shared.settings.is_first(key);
        let began = Instant::now();
        let place = Arc::clone(self.shared.places().entry(key.clone()).or_default());
        // Before looking, so that nothing is missed, and whoever starts it knows that it is wanted.
        let mut changes = place.host.subscribe();
        loop {
            if let Some(host) = self.usable(&place, key) {
                return Ok(host);
            }
            // The place is kept here, so its sender is there.
            let _ = changes.changed().await;
            if !is_first && self.shared.failed().get(key).is_some_and(|at| *at >= began) {
                return Err(NoProcess);
            }
        }
    }

    /// The host in a place; without one that can be used, one is being started from here on.
    fn usable(&self, place: &Arc<Place>, key: &Key) -> Option<Arc<Host>> {
        let mut starting = place.starting();
        let host = place.host.borrow().clone().filter(|host| host.is_usable(&self.shared.settings));
        if host.is_none() && !std::mem::replace(&mut *starting, true) {
            // The one before lives on until its last job has ended.
            place.host.send_replace(None);
            tokio::spawn(start(Arc::clone(&self.shared), Starting(Arc::clone(place)), key.clone()));
        }
        host
    }

    /// Replaces a host that is stuck with a job that does not listen: its other jobs may end within a while, then it is killed.
    pub(super) fn leave(host: Arc<Host>) {
        host.retire();
        tokio::spawn(async move {
            let _ = tokio::time::timeout(LAST_CALLS, host.drained()).await;
            host.kill();
        });
    }

    /// Whether a host can't be started that somebody waits for.
    pub(super) fn can_not_start(&self) -> bool {
        self.shared.failed().values().any(|at| at.elapsed() < WANTED)
    }

    /// The hosts as they are now; one that is just being started is left out, and so is one that is gone and was not needed since.
    pub(super) fn workers(&self) -> Vec<WorkerStatus> {
        let places = self.shared.places();
        let hosts = places.values().filter_map(|place| place.host.borrow().clone());
        let hosts = hosts.filter(|host| !host.is_gone());
        hosts.map(|host| WorkerStatus::of(&host, host.open() > 0)).collect()
    }

    /// Kills them all.
    pub(super) fn close(&self) {
        for place in self.shared.places().values() {
            if let Some(host) = place.host.send_replace(None) {
                host.kill();
            }
        }
    }
}

/// That the host of a place is being started, until this is dropped: whoever waits looks again then.
struct Starting(Arc<Place>);

impl Drop for Starting {
    fn drop(&mut self) {
        *self.0.starting() = false;
        self.0.host.send_modify(|_| ());
    }
}

/// Fills a place with a new host, tried until it starts or nobody waits for it any more.
async fn start(shared: Arc<Shared>, starting: Starting, key: Key) {
    let Starting(place) = &starting;
    let mut backoff = BACKOFF.0;
    loop {
        match <Arc<Host> as Worker>::start(&shared.settings, &key).await {
            Ok(host) => {
                shared.failed().remove(&key);
                return drop(place.host.send_replace(Some(host)));
            }
            Err(error) => {
                tracing::error!(%error, ?key, "a Python host can't be started");
                shared.failed().insert(key.clone(), Instant::now());
                // Some wait no longer.
                place.host.send_modify(|_| ());
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF.1);
            }
        }
        if place.host.receiver_count() == 0 {
            return;
        }
    }
}
