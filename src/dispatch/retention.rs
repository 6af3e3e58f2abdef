//! Removes finished jobs that are older, or more, than are to be kept, and comparisons that are older; and sees to it that there is a place for the next ones.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock::Timestamp;
use crate::store::{Store, StoreError};

/// The most results of one step: the store does nothing else for a millisecond or two.
const STEP: usize = 500;
/// After a step, by how much longer than it took, its commit included, nothing is removed.
const REST: u32 = 3;
const SHORTEST_REST: Duration = Duration::from_millis(10);
/// How often to look whether there is anything to remove.
const LOOK: Duration = Duration::from_secs(10);

/// How long finished jobs and comparisons are kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct Retention {
    /// Since their end; for ever if it is not said.
    pub age: Option<Duration>,
    /// How many jobs; all if it is not said.
    pub count: Option<u64>,
}

impl Retention {
    /// Removes what is not to be kept, until `end`.
    pub async fn keep_to(self, store: Arc<dyn Store>, end: impl Future<Output = ()>) {
        // A database that is cut off may say nothing for long.
        tokio::select! {
            () = self.go_on(&*store) => {}
            () = end => {}
        }
    }

    async fn go_on(self, store: &dyn Store) {
        let mut looked_ahead_at: Option<Instant> = None;
        loop {
            let began = Instant::now();
            if looked_ahead_at.is_none_or(|at| at.elapsed() >= LOOK) {
                looked_ahead_at = Some(began);
                match store.look_ahead().await {
                    Err(StoreError::Closed) => return,
                    Err(error) => tracing::error!(%error, "nothing can be made ready for the next days"),
                    Ok(()) => {}
                }
            }
            let sleep = match self.step(store, store.now()).await {
                Ok(true) => (began.elapsed() * REST).max(SHORTEST_REST),
                Ok(false) => LOOK,
                Err(StoreError::Closed) => return,
                Err(error) => {
                    tracing::error!(%error, "old results can't be removed");
                    LOOK
                }
            };
            tokio::time::sleep(sleep).await;
        }
    }

    /// Removes a few of the results that are not to be kept, or a comparison. Whether there were any.
    pub async fn step(self, store: &dyn Store, now: Timestamp) -> Result<bool, StoreError> {
        if let Some(moment) = self.age.map(|age| now.before(age)) {
            // They are few. One may have megabytes, so each is a step.
            if let Some(id) = store.comparison_ended_before(moment).await? {
                store.remove_comparison(id).await?;
                return Ok(true);
            }
            if store.remove_results(Some(moment), STEP).await?.any {
                return Ok(true);
            }
        }
        let Some(count) = self.count else { return Ok(false) };
        Ok(store.remove_beyond(count, STEP).await?.any)
    }
}
