//! Rollups, written now and then.

use std::time::{Duration, Instant};

use super::super::rollups;
use super::Writer;

/// Rollups are written at most so often.
const APART: Duration = Duration::from_secs(1);

impl Writer {
    /// Writes the rollups that have changed, if it is time for that.
    pub(super) async fn roll_up(&mut self) {
        if !self.counted.is_empty() && self.rolled_up_at.elapsed() >= APART {
            self.roll_up_now().await;
        }
    }

    /// Writes the rollups that have changed.
    pub(super) async fn roll_up_now(&mut self) {
        let changed: Vec<_> = {
            let rollups = self.published.rollups();
            self.counted.iter().filter_map(|key| Some((key.clone(), rollups.get(key)?.to_bytes()))).collect()
        };
        self.rolled_up_at = Instant::now();
        match rollups::write(&mut self.connection, &changed).await {
            Ok(()) => self.counted.clear(),
            Err(error) => {
                if let Some(more) = self.unwritten_rollups.tell() {
                    tracing::warn!(%error, more, "the rollups can't be written now; what they would say is logged");
                }
                // After some errors SQLite has rolled back by itself, and this fails; either way nothing is left open.
                let _ = sqlx::query("ROLLBACK").execute(&mut self.connection).await;
            }
        }
    }
}
