//! Writes what was learned, every so often and at the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Shared;
use crate::clock::Timestamp;
use crate::measure::machine::Ticks;
use crate::store::StoreError;

/// How often. A crash may cost so much of the statistics; no job depends on them.
const EVERY: Duration = Duration::from_secs(1);
/// The same where several servers write to the same profiles: each reads what the others have learned, and adds to it.
const EVERY_SHARED: Duration = Duration::from_secs(10);
/// It is done sooner if so many runs are to be added.
const MANY: usize = 1_000;
/// How often it is tried to add to what others add to at the same time.
const TRIES: u32 = 5;
/// From this part of the machine's time on that somebody outside takes, figures say little of the work.
const UNSTEADY: f64 = 0.05;

/// Keeps the profiles until the dispatcher drains.
pub(super) async fn run(shared: Arc<Shared>) {
    let (mut before, mut kept_at) = (Ticks::now(), Instant::now());
    loop {
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = shared.draining.cancelled() => return,
        }
        let now = Ticks::now();
        shared.profiles.set_unsteady(before.zip(now).is_some_and(|(before, now)| now.stolen_since(before) > UNSTEADY));
        before = now;
        if !shared.store.is_shared() || kept_at.elapsed() >= EVERY_SHARED || shared.profiles.recent() >= MANY {
            keep(&shared).await;
            kept_at = Instant::now();
        }
    }
}

/// Reads what others have changed, and writes what has changed here.
pub(super) async fn keep(shared: &Shared) {
    for _ in 0..TRIES {
        match try_to_keep(shared).await {
            Ok(true) => return,
            // Others were faster.
            Ok(false) => {}
            Err(error) => {
                if let Some(more) = shared.unkept_profiles.tell() {
                    tracing::warn!(%error, more, "the profiles can't be written; it is tried again");
                }
                return;
            }
        }
    }
}

/// Whether nothing is left to be written.
async fn try_to_keep(shared: &Shared) -> Result<bool, StoreError> {
    let (profiles, now) = (&shared.profiles, Timestamp::now());
    if shared.store.is_shared() {
        profiles.take_over(shared.store.newer_profiles(profiles.versions()).await?);
    }
    let Some(changes) = profiles.changes(now) else { return Ok(true) };
    let written: Vec<_> = changes.profiles.iter().map(|row| (row.key.clone(), row.next_version())).collect();
    let (days, gone) = (changes.days.clone(), changes.gone.clone());
    match shared.store.keep_profiles(changes).await {
        Ok(refused) => {
            profiles.kept(&written, &refused);
            Ok(refused.is_empty())
        }
        Err(error) => {
            profiles.not_kept(&written, &days, gone);
            Err(error)
        }
    }
}
