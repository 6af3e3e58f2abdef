//! Says it in the log when a database is not cleaned up as it should be.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::store::{Store, StoreError};

/// How often to look.
const LOOK: Duration = Duration::from_secs(60);

/// Looks now and then, until `end`. Each alarm is said when it begins, not over and over.
pub async fn watch_bloat(store: Arc<dyn Store>, end: impl Future<Output = ()>) {
    let mut end = std::pin::pin!(end);
    let mut said = BTreeSet::new();
    loop {
        match store.bloat().await {
            Ok(None) => {}
            Ok(Some(bloat)) => {
                let alarms = bloat.alarms();
                // Their figures change all the time.
                let about = |alarm: &str| alarm.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
                alarms.iter().filter(|alarm| !said.contains(&about(alarm))).for_each(|alarm| tracing::warn!("{alarm}"));
                said = alarms.iter().map(|alarm| about(alarm)).collect();
            }
            Err(StoreError::Closed) => return,
            Err(error) => tracing::debug!(%error, "the database does not say what it has to clean up"),
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = &mut end => return,
        }
    }
}
