//! How far the log is known to be on the disk, and on the standby that has to have it.
//!
//! Where there are several nodes, each gives the lock of all back as it commits, and only then waits for the log (`Shared::commit`). So a turn is as
//! long as its statements, and one sync serves many turns. Until then others see what a crash could still take back, but nobody is told: the log is
//! synced in the order of the commits, so a node that answers a turn has all before it, and a reader who has seen something later waits.

use std::sync::atomic::{AtomicI64, Ordering};

use sqlx::PgConnection;

use super::pool::Pool;
use crate::clock::Timestamp;
use crate::job::{Job, State};
use crate::store::StoreError;

/// Waits for the log up to here: a transaction that writes nothing but a message to nobody.
///
/// <https://www.postgresql.org/docs/15/functions-admin.html#FUNCTIONS-REPLICATION>
macro_rules! sync {
    () => {
        "SELECT pg_logical_emit_message(true, '', '')"
    };
}
/// Gives the lock back, then waits.
pub(super) const COMMIT_FIRST: &str = concat!("SET LOCAL synchronous_commit = off; COMMIT; ", sync!());

/// How far it is.
pub(super) struct Synced {
    /// Whether this database can wait for its log apart from a commit.
    is_apart: bool,
    /// All that has a moment up to this one is safe.
    until: AtomicI64,
}

impl Synced {
    /// Asks what the database can do.
    pub(super) async fn ask(connection: &mut PgConnection) -> Result<Self, StoreError> {
        let text = "SELECT coalesce(bool_and(has_function_privilege(oid, 'EXECUTE')), false) FROM pg_proc \
                    WHERE proname = 'pg_logical_emit_message'";
        Ok(Self { is_apart: sqlx::query_scalar(text).fetch_one(connection).await?, until: AtomicI64::new(i64::MIN) })
    }

    /// Whether a turn may give its lock back before the log is synced.
    pub(super) const fn is_apart(&self) -> bool {
        self.is_apart
    }

    /// A turn was carried out, and the log synced after it.
    pub(super) fn reach(&self, latest: i64) {
        self.until.fetch_max(latest, Ordering::SeqCst);
    }

    /// Waits until all up to a moment is safe.
    pub(super) async fn up_to(&self, pool: &Pool, moment: Option<Timestamp>) -> Result<(), StoreError> {
        let Some(moment) = moment.filter(|moment| moment.as_micros() > self.until.load(Ordering::SeqCst)) else {
            return Ok(());
        };
        self.all(pool).await?;
        self.reach(moment.as_micros());
        Ok(())
    }

    /// Waits until all is safe that has been seen.
    pub(super) async fn all(&self, pool: &Pool) -> Result<(), StoreError> {
        if self.is_apart {
            sqlx::query(sync!()).fetch_optional(pool).await?;
        }
        Ok(())
    }
}

/// The moment of the latest change to a job that can be told from it.
pub(super) fn latest_of(job: &Job) -> Timestamp {
    match &job.state {
        State::Running { claimed_at, .. } => *claimed_at,
        State::Finished(finished) => finished.finished_at,
        _ => job.accepted_at,
    }
}
