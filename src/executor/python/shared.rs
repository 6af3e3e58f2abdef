//! Hosts that work on many jobs at once: one for each interpreter and network permission, replaced when they are worn or stuck.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::host::Host;
use super::{HostSettings, Key, PATIENCE};
use crate::executor::pool::{BACKOFF, Worker, WorkerStatus};

/// How long a host that is stuck with one job may still work on its others.
const LAST_CALLS: Duration = Duration::from_secs(30);

/// The hosts of one mode.
#[derive(Clone)]
pub(super) struct SharedHosts {
    shared: Arc<Shared>,
}

struct Shared {
    settings: HostSettings,
    /// What a host is started for ahead of need.
    usual: Key,
    places: Mutex<HashMap<Key, Arc<Place>>>,
    /// Why the latest start failed, of the hosts that somebody waits for.
    trouble: Mutex<HashMap<Key, String>>,
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

/// Whoever tries to start a host. Gone, be it with a host or because nobody wants it any more, its trouble is nobody's.
struct Trying<'a> {
    shared: &'a Shared,
    key: &'a Key,
}

impl Trying<'_> {
    fn failed(&self, why: String) {
        self.shared.trouble().insert(self.key.clone(), why);
    }
}

impl Drop for Trying<'_> {
    fn drop(&mut self) {
        self.shared.trouble().remove(self.key);
    }
}

impl Shared {
    fn places(&self) -> MutexGuard<'_, HashMap<Key, Arc<Place>>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trouble(&self) -> MutexGuard<'_, HashMap<Key, String>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SharedHosts {
    /// Starts the host of `usual` in the background.
    pub(super) fn start(settings: HostSettings, usual: Key) -> Self {
        let hosts = Self { shared: Arc::new(Shared { settings, usual, places: Mutex::default(), trouble: Mutex::default() }) };
        let ahead = hosts.clone();
        tokio::spawn(async move { drop(ahead.wait(&ahead.shared.usual).await) });
        hosts
    }

    /// The host for this key.
    ///
    /// # Errors
    /// It can't be started, though those of other keys may do well.
    pub(super) async fn get(&self, key: &Key) -> Result<Arc<Host>, String> {
        if *key == self.shared.usual {
            return Ok(self.wait(key).await);
        }
        let why = async {
            tokio::time::sleep(PATIENCE).await;
            self.shared.trouble().get(key).cloned()
        };
        tokio::select! {
            host = self.wait(key) => Ok(host),
            Some(why) = why => Err(why),
        }
    }

    /// The same; one that can't be started is tried again and again.
    async fn wait(&self, key: &Key) -> Arc<Host> {
        let place = Arc::clone(self.shared.places().entry(key.clone()).or_default());
        // Before looking, so that nothing is missed, and whoever starts it knows that it is wanted.
        let mut changes = place.host.subscribe();
        loop {
            if let Some(host) = self.usable(&place, key) {
                return host;
            }
            // The place is kept here, so its sender is there.
            let _ = changes.changed().await;
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

    /// Why a host can't be started that somebody waits for, if there is one.
    pub(super) fn why_not(&self) -> Option<String> {
        self.shared.trouble().values().next().cloned()
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
    let trying = Trying { shared: &shared, key: &key };
    let mut backoff = BACKOFF.0;
    loop {
        match <Arc<Host> as Worker>::start(&shared.settings, &key).await {
            Ok(host) => return drop(place.host.send_replace(Some(host))),
            Err(error) => {
                tracing::error!(%error, ?key, "a Python host can't be started");
                trying.failed(error.to_string());
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF.1);
            }
        }
        if place.host.receiver_count() == 0 {
            return;
        }
    }
}
