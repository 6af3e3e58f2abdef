//! Removes artifacts of jobs that are gone.

use std::sync::Arc;
use std::time::Duration;

use crate::artifact::{ArtifactError, Artifacts};
use crate::store::{Store, StoreError};

/// How often they are looked for.
const EVERY: Duration = Duration::from_hours(1);
/// How often on all days. Retention removes the oldest jobs first, so the other times end with the first day that lacks none.
const ALL_DAYS: usize = 24;
/// How many jobs are looked up at once.
const AT_ONCE: usize = 500;

#[derive(Debug, thiserror::Error)]
enum SweepError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Artifacts(#[from] ArtifactError),
    /// It does not even say what there is.
    #[error(transparent)]
    Storage(ArtifactError),
}

/// Does so now and then, until `end`: what retention removes the jobs of, what a crash broke off, what comparisons leave.
pub async fn sweep_artifacts(artifacts: Artifacts, store: Arc<dyn Store>, end: impl Future<Output = ()>) {
    let sweeping = async {
        let mut until_all = 0;
        loop {
            match sweep(&artifacts, &*store, until_all == 0).await {
                Ok(jobs) => {
                    if jobs > 0 {
                        tracing::info!(jobs, "the artifacts of jobs that are gone were removed");
                    }
                    until_all = if until_all == 0 { ALL_DAYS } else { until_all } - 1;
                }
                Err(SweepError::Storage(error)) => {
                    tracing::warn!(%error, "the storage of artifacts can't be used: jobs that leave files fail while it is so");
                }
                Err(error) => tracing::warn!(%error, "artifacts of jobs that are gone can't be removed; it is tried again"),
            }
            tokio::time::sleep(EVERY).await;
        }
    };
    tokio::select! {
        () = sweeping => {}
        () = end => {}
    }
}

/// Removes them. How many jobs there were.
async fn sweep(artifacts: &Artifacts, store: &dyn Store, all_days: bool) -> Result<usize, SweepError> {
    let mut removed = 0;
    for day in artifacts.days().await.map_err(SweepError::Storage)? {
        let (jobs, mut gone) = (artifacts.jobs(day).await?, 0);
        for some in jobs.chunks(AT_ONCE) {
            for job in store.gone(some).await? {
                gone += 1;
                match artifacts.remove(job).await {
                    Ok(()) => removed += 1,
                    Err(error) => tracing::warn!(%job, %error, "the artifacts of a job that is gone can't be removed"),
                }
            }
        }
        if gone == 0 && !jobs.is_empty() && !all_days {
            break;
        }
    }
    Ok(removed)
}
