//! What a store could not do, and what it says of that.

use sqlx::postgres::PgDatabaseError;
use sqlx::sqlite::SqliteError;

use crate::job::JobId;

// Codes of SQLite's errors.
pub(super) const SQLITE_BUSY: u32 = 5;
pub(super) const SQLITE_NOMEM: u32 = 7;
pub(super) const SQLITE_READONLY: u32 = 8;
pub(super) const SQLITE_IOERR: u32 = 10;
pub(super) const SQLITE_CORRUPT: u32 = 11;
pub(super) const SQLITE_FULL: u32 = 13;
pub(super) const SQLITE_CANTOPEN: u32 = 14;
pub(super) const SQLITE_NOTADB: u32 = 26;

/// What the store could not do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It can't write now, for example because the disk is full. Nothing was changed; it may work later.
    #[error("the store is not available now: {0}")]
    Unavailable(String),
    /// What this node claimed now would be taken from it: why, in words for anybody. It may work later.
    #[error("{0}")]
    Silent(&'static str),
    /// It can't write this, however often it is tried, for example because it is too large. Nothing was changed.
    #[error("the store can't take this: {0}")]
    Refused(String),
    /// There can't be a store where it is said to be: why. Nothing was changed.
    #[error("{0}")]
    Unusable(String),
    /// A job comes after one that there is not. Nothing was changed.
    #[error("the job {job} comes after {parent}, and there is no such job")]
    UnknownParent {
        /// The job that was not accepted.
        job: JobId,
        /// The one that there is not.
        parent: JobId,
    },
    /// The same was accepted by another node in the meantime: it is there to be looked at. Nothing was changed.
    #[error("another server has just accepted the same")]
    Taken,
    /// Jobs wait that require too many different things of a node. Nothing was changed.
    #[error("jobs that wait require too many different labels of a node already: this one would be one more")]
    TooManyPlaces,
    /// It is shut.
    #[error("the store is shut")]
    Closed,
    /// The database was written by a newer version.
    #[error("the database at {path} has schema version {found}, this program knows versions up to {known}: use a newer trine")]
    TooNew {
        /// Where it is.
        path: String,
        /// Its schema.
        found: i64,
        /// The newest schema that this program knows.
        known: i64,
    },
    /// A newer version has changed the database so that this one can't go on with it.
    #[error(
        "a newer version of trine has changed the database: it is for programs that know its schema version {oldest}, this one knows \
         versions up to {known}: use a newer trine"
    )]
    Outdated {
        /// The schema that a program has to know.
        oldest: i64,
        /// The newest schema that this program knows.
        known: i64,
    },
    /// Servers of an older version are there that can't go on with the schema of this one. Nothing was changed.
    #[error(
        "programs that don't know schema version {oldest} can't work with the one that this program needs, and such servers are there: \
         {nodes}; stop them, wait until their leases are over, and start this one again"
    )]
    OldNodes {
        /// The schema that they would have to know.
        oldest: i64,
        /// Their names and versions.
        nodes: String,
    },
    /// What is stored can't be understood.
    #[error("the database holds what this program can't read: {0}")]
    Corrupt(String),
    /// Anything else that the database says.
    #[error("{}", said(.0))]
    Database(#[from] sqlx::Error),
}

/// What the database says. Why no connection could be had is not known here.
fn said(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::PoolTimedOut => {
            "no connection to the database came free in time: all are in use (`database_connections`), or it is \
                                      away or takes no more"
                .to_owned()
        }
        // It adds a line, of the database's own source.
        sqlx::Error::Database(said) if said.try_downcast_ref::<PgDatabaseError>().is_some() => {
            format!("error returned from database: {}", said.message())
        }
        error => error.to_string(),
    }
}

impl StoreError {
    /// What it says, without that the store is not available.
    pub(super) fn cause(&self) -> String {
        match self {
            Self::Unavailable(reason) => reason.clone(),
            error => error.to_string(),
        }
    }

    /// The code of SQLite's error, without what extended ones have above the low byte.
    pub(super) fn sqlite_code(&self) -> Option<u32> {
        let Self::Database(sqlx::Error::Database(error)) = self else { return None };
        error.try_downcast_ref::<SqliteError>()?;
        Some(error.code()?.parse::<u32>().ok()? & 0xff)
    }

    /// Whether a file could not be read or written, says the disk. It may be a part of it that never can be again.
    pub fn is_of_disk(&self) -> bool {
        self.sqlite_code() == Some(SQLITE_IOERR)
    }

    /// Whether the same may work later, without anybody changing it.
    pub fn may_pass(&self) -> bool {
        if let Some(code) = self.sqlite_code() {
            return [SQLITE_BUSY, SQLITE_NOMEM, SQLITE_IOERR, SQLITE_FULL, SQLITE_CANTOPEN].contains(&code);
        }
        match self {
            Self::Unavailable(_)
            | Self::Silent(_)
            | Self::Taken
            | Self::Closed
            | Self::Database(sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Io(_)) => true,
            // SQLSTATEs: the connection (08), resources (53), the operator, time limits (57); nothing can be written (25006).
            Self::Database(sqlx::Error::Database(error)) => error.code().is_some_and(|code| {
                code.len() == 5 && (["08", "53", "57"].iter().any(|class| code.starts_with(class)) || code == "25006")
            }),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection as _, Executor as _, SqliteConnection};

    use super::*;

    #[tokio::test]
    async fn what_sqlite_can_not_do_just_now_may_pass() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}?mode=rwc", folder.path().join("a.db").display());
        let error = |error: sqlx::Error| StoreError::from(error);
        let mut one = SqliteConnection::connect(&url).await.unwrap();
        let mut other = SqliteConnection::connect(&url).await.unwrap();
        let broken = error(other.execute("SELECT nothing").await.unwrap_err());
        assert_eq!((broken.sqlite_code(), broken.may_pass()), (Some(1), false));
        one.execute("BEGIN EXCLUSIVE").await.unwrap();
        other.execute("PRAGMA busy_timeout = 0").await.unwrap();
        let busy = error(other.execute("BEGIN EXCLUSIVE").await.unwrap_err());
        assert_eq!((busy.sqlite_code(), busy.may_pass()), (Some(5), true));
        let nowhere = format!("sqlite:{}", folder.path().join("none/a.db").display());
        let not_opened = error(SqliteConnection::connect(&nowhere).await.unwrap_err());
        assert_eq!((not_opened.sqlite_code(), not_opened.may_pass()), (Some(14), true));
    }
}
