//! Hosts that work on many jobs at once: one for each interpreter and network permission, replaced when they are worn or stuck.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::host::Host;
use super::{HostSettings, Key};
use crate::executor::pool::{Worker, WorkerStatus};

/// The wait after the first failed start, and the longest one.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// How long a host that is stuck with one job may still work on its others.
const LAST_CALLS: Duration = Duration::from_secs(30);

/// The hosts of one mode.
#[derive(Clone)]
pub(super) struct SharedHosts {
    shared: Arc<Shared>,
}

struct Shared {
    settings: HostSettings,
    hosts: Mutex<HashMap<Key, Place>>,
    /// Why the latest start failed, of the hosts that somebody waits for.
    trouble: Mutex<HashMap<Key, String>>,
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
    fn trouble(&self) -> MutexGuard<'_, HashMap<Key, String>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The host of a key, once it is started; whoever wants it meanwhile waits for the one start.
type Place = Arc<tokio::sync::Mutex<Option<Arc<Host>>>>;

impl SharedHosts {
    /// Starts the host of `usual` in the background.
    pub(super) fn start(settings: HostSettings, usual: Key) -> Self {
        let hosts = Self { shared: Arc::new(Shared { settings, hosts: Mutex::default(), trouble: Mutex::default() }) };
        let ahead = hosts.clone();
        tokio::spawn(async move { drop(ahead.get(&usual).await) });
        hosts
    }

    /// The host for this key; one that can't be started is tried again and again.
    pub(super) async fn get(&self, key: &Key) -> Arc<Host> {
        let place = Arc::clone(self.shared.hosts.lock().unwrap_or_else(PoisonError::into_inner).entry(key.clone()).or_default());
        let mut place = place.lock().await;
        if let Some(host) = place.as_ref().filter(|host| host.is_usable(&self.shared.settings)) {
            return Arc::clone(host);
        }
        // The one before lives on until its last job has ended.
        *place = None;
        let trying = Trying { shared: &self.shared, key };
        let mut backoff = BACKOFF.0;
        loop {
            match Host::start(&self.shared.settings, key).await {
                Ok(host) => {
                    let host = Arc::new(host);
                    *place = Some(Arc::clone(&host));
                    return host;
                }
                Err(error) => {
                    tracing::error!(%error, ?key, "a Python host can't be started");
                    trying.failed(error.to_string());
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(BACKOFF.1);
                }
            }
        }
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
        let places: Vec<Place> =
            self.shared.hosts.lock().unwrap_or_else(PoisonError::into_inner).values().map(Arc::clone).collect();
        let hosts = places.iter().filter_map(|place| place.try_lock().ok().and_then(|host| host.clone()));
        let hosts = hosts.filter(|host| !host.is_gone());
        hosts.map(|host| WorkerStatus::of(&*host, host.open() > 0)).collect()
    }

    /// Kills them all.
    pub(super) fn close(&self) {
        for place in self.shared.hosts.lock().unwrap_or_else(PoisonError::into_inner).values() {
            if let Some(host) = place.try_lock().ok().and_then(|mut host| host.take()) {
                host.kill();
            }
        }
    }
}
