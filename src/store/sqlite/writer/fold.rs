//! The journal is folded into the database beside the writer, so that nobody waits for it but for its last pages.
//!
//! SQLite would do this within the commit that finds the journal long, for as long as it takes to write thousands of pages and sync them.
//! Another connection does it here while the writer goes on; what the writer has added by then it folds itself, between two transactions,
//! since the journal begins anew only once all of it is folded.

use std::sync::Arc;

use sqlx::{Connection as _, SqliteConnection};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::telemetry::Sparing;

/// From about so many pages on, the journal is folded.
const MANY_PAGES: usize = 8_000;
/// About how many pages a transaction writes, and how many rows share a further one.
const PAGES: (usize, usize) = (8, 8);
const FOLD: &str = "PRAGMA wal_checkpoint(PASSIVE)";

/// Folds the journal whenever that is long enough.
pub(super) struct Folding {
    ask: mpsc::Sender<()>,
    folded: mpsc::Receiver<()>,
    task: JoinHandle<()>,
    failures: Arc<Sparing>,
    /// About as many were written since the journal was last to be folded.
    pages: usize,
}

impl Folding {
    /// Folds by this connection, in a task of its own.
    pub(super) fn start(mut beside: SqliteConnection) -> Self {
        let ((ask, mut asked), (tell, folded)) = (mpsc::channel(1), mpsc::channel(1));
        let failures = Arc::new(Sparing::default());
        let failures_beside = Arc::clone(&failures);
        let task = tokio::spawn(async move {
            while asked.recv().await.is_some() {
                fold(&mut beside, &failures_beside).await;
                if tell.send(()).await.is_err() {
                    break;
                }
            }
            if let Err(error) = beside.close().await {
                tracing::warn!(%error, "closing the connection that folds the journal failed");
            }
        });
        Self { ask, folded, task, failures, pages: 0 }
    }

    /// A transaction has written so many rows.
    pub(super) fn wrote(&mut self, rows: usize) {
        self.pages += PAGES.0 + rows / PAGES.1;
        // If it is being folded just now, it is folded once more when that is done.
        if self.pages >= MANY_PAGES && self.ask.try_send(()).is_ok() {
            self.pages = 0;
        }
    }

    /// Folds what the writer has added since the rest was folded, if that has just been done.
    pub(super) async fn finish(&mut self, writing: &mut SqliteConnection) {
        if self.folded.try_recv().is_ok() {
            fold(writing, &self.failures).await;
        }
    }

    /// Returns when nothing is folded any more.
    pub(super) async fn end(mut self) {
        drop(self.ask);
        self.folded.close();
        // It does not panic; if it did, the journal is still folded at the end.
        let _ = self.task.await;
    }
}

async fn fold(connection: &mut SqliteConnection, failures: &Sparing) {
    if let Err(error) = sqlx::query(FOLD).execute(connection).await
        && let Some(more) = failures.tell()
    {
        tracing::warn!(%error, more, "the journal can't be folded into the database now; it grows until it can");
    }
}
