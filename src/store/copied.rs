use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::MutexGuard;

use super::looks::{Latest, Looks};
use super::{Store, StoreError};

/// How long to wait before something is read again that could not be read.
const RETRY: Duration = Duration::from_millis(500);

/// What each server that shares a store has a copy of in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    /// The API keys, with their quotas.
    Keys,
    /// The registered functions.
    Functions,
}

/// Whether copies are still right. Where nobody else changes the store, they always are.
#[async_trait]
pub trait CopyStore {
    /// How often what is copied was changed, by whichever server.
    async fn version(&self, _of: Copied) -> Result<i64, StoreError> {
        Ok(0)
    }

    /// Waits until this server hears of a change behind the version `known`.
    async fn changed(&self, _of: Copied, _known: i64) {
        std::future::pending::<()>().await;
    }
}

/// How old a copy is that somebody has, who brings it up to date by `refresh`.
pub struct Age {
    store: Arc<dyn Store>,
    of: Copied,
    /// The changes up to this one are in the copy.
    version: AtomicI64,
    /// For changes. Its turn is held while the copy is changed.
    looks: Looks,
}

impl Age {
    /// That of a copy that is still empty.
    pub fn new(store: Arc<dyn Store>, of: Copied) -> Self {
        Self { store, of, version: AtomicI64::new(-1), looks: Looks::new(Duration::ZERO) }
    }

    /// Held from a change in the store to the same change in the copy, so that they are in the same order.
    pub async fn turn(&self) -> MutexGuard<'_, Latest> {
        self.looks.turn().await
    }

    /// Which changes are in the copy.
    pub fn version(&self) -> i64 {
        self.version.load(Ordering::SeqCst)
    }

    /// Brings the copy up to date, in the turn of whoever calls this.
    pub async fn renew(&self, refresh: impl Future<Output = Result<(), StoreError>>) -> Result<(), StoreError> {
        // Before the copy is made: what is changed meanwhile may be in it or not.
        let version = self.store.version(self.of).await?;
        refresh.await?;
        self.version.store(version, Ordering::SeqCst);
        Ok(())
    }

    /// Brings the copy up to date with all that was changed before. Many who ask at once ask the database once.
    pub async fn catch_up(&self, refresh: impl Future<Output = Result<(), StoreError>>) -> Result<(), StoreError> {
        let looking = async {
            if self.store.version(self.of).await? != self.version() {
                self.renew(refresh).await?;
            }
            Ok(())
        };
        self.looks.look(looking).await
    }

    /// Waits until others have changed something.
    pub async fn changed(&self) {
        self.store.changed(self.of, self.version()).await;
    }

    /// The copy could not be brought up to date: waits until that may be tried again.
    pub async fn rest(&self, error: &StoreError) {
        tracing::warn!(%error, of = ?self.of, "what other servers have changed can't be read; it is tried again");
        tokio::time::sleep(RETRY).await;
    }
}

impl fmt::Debug for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Age").field("of", &self.of).field("version", &self.version).finish_non_exhaustive()
    }
}
