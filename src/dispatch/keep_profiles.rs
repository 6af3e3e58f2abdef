//! Writes what was learned, every so often and at the end.

use std::sync::Arc;
use std::time::Duration;

use super::Shared;
use crate::clock::Timestamp;
use crate::measure::machine::Ticks;

/// How often. A crash may cost so much of the statistics; no job depends on them.
const EVERY: Duration = Duration::from_secs(1);
/// From this part of the machine's time on that somebody outside takes, figures say little of the work.
const UNSTEADY: f64 = 0.05;

/// Keeps the profiles until the dispatcher drains.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut before = Ticks::now();
    loop {
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = shared.draining.cancelled() => return,
        }
        let now = Ticks::now();
        shared.profiles.set_unsteady(before.zip(now).is_some_and(|(before, now)| now.stolen_since(before) > UNSTEADY));
        before = now;
        keep(&shared).await;
    }
}

/// Writes what has changed.
pub(super) async fn keep(shared: &Shared) {
    let now = Timestamp::now();
    let Some(changes) = shared.profiles.changes(now) else { return };
    let changed: Vec<_> = changes.profiles.iter().map(|profile| profile.key.clone()).collect();
    let gone = changes.gone.clone();
    match shared.store.keep_profiles(changes).await {
        Ok(()) => shared.profiles.kept(&changed, now),
        Err(error) => {
            tracing::warn!(%error, "the profiles can't be written; it is tried again");
            shared.profiles.not_kept(&changed, gone);
        }
    }
}
