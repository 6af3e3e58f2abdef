//! The hosts on which the database may be. The one that can be written in is used; after a failover that is another.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;

/// Several, or one.
pub(super) struct Hosts {
    all: Vec<PgConnectOptions>,
    /// Which one was used last.
    latest: Mutex<usize>,
    /// It goes where the others went last.
    pool: OnceLock<PgPool>,
}

impl Hosts {
    pub(super) const fn new(all: Vec<PgConnectOptions>) -> Self {
        Self { all, latest: Mutex::new(0), pool: OnceLock::new() }
    }

    pub(super) const fn count(&self) -> usize {
        self.all.len()
    }

    /// The one that was used last.
    pub(super) fn latest(&self) -> &PgConnectOptions {
        &self.all[*self.number()]
    }

    /// All of them with their numbers, from the one on that was used last.
    pub(super) fn in_turn(&self) -> impl Iterator<Item = (usize, &PgConnectOptions)> {
        let latest = *self.number();
        (latest..self.all.len()).chain(0..latest).map(|number| (number, &self.all[number]))
    }

    /// The one of this number can be written in, so the pool goes there as well.
    pub(super) fn go_to(&self, number: usize) {
        let mut latest = self.number();
        if *latest != number {
            *latest = number;
            tracing::warn!(at = at(&self.all[number]), "the PostgreSQL that can be written in is another one now");
            if let Some(pool) = self.pool.get() {
                pool.set_connect_options(self.all[number].clone());
            }
        }
    }

    /// Has the connections that this pool opens go where the others go.
    pub(super) fn lead(&self, pool: &PgPool) {
        // There is one pool a store.
        let _ = self.pool.set(pool.clone());
    }

    /// That pool, once there is one.
    pub(super) fn pool(&self) -> Option<&PgPool> {
        self.pool.get()
    }

    fn number(&self) -> MutexGuard<'_, usize> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where one is, for people.
pub(super) fn at(host: &PgConnectOptions) -> String {
    format!("{}:{}", host.get_host(), host.get_port())
}
