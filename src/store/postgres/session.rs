//! A connection to the database, whether its session is kept from one transaction to the next or not.
//!
//! A pooler in transaction mode gives a client another session for each transaction, which other clients have in between. So there, each transaction
//! begins with the settings that a session would have had once, and nothing is asked outside of one.

use std::ops::{AsyncFnOnce, Deref, DerefMut};
use std::sync::Arc;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Postgres, Transaction};

use crate::store::StoreError;

/// Of all transactions but those that only read, and several times.
pub(super) const USUAL: &str = "READ COMMITTED";

/// A connection that one asks after the other.
pub(super) struct Session {
    connection: PgConnection,
    local: Local,
}

/// What a transaction begins with: nothing where a session keeps its settings, else statements that set them, each with its semicolon.
#[derive(Clone, Debug, Default)]
pub(super) struct Local(Option<Arc<str>>);

impl Local {
    pub(super) fn new(settings: &[(&str, &str)]) -> Self {
        Self(Some(set("SET LOCAL", settings.iter().copied()).into()))
    }

    /// Whether settings are kept by sessions.
    pub(super) const fn is_kept(&self) -> bool {
        self.0.is_none()
    }

    /// The beginning of a transaction of this level, for a simple query: with a semicolon and a space behind it. Its level is there before any setting
    /// could say another one.
    pub(super) fn begin(&self, level: &str) -> String {
        format!("BEGIN ISOLATION LEVEL {level}; {}", self.0.as_deref().unwrap_or_default())
    }
}

/// Statements that set these, each with a semicolon and a space behind it.
pub(super) fn set<'a>(how: &str, settings: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    settings.flat_map(|(name, value)| [how, " ", name, " = ", value, "; "]).collect()
}

impl Session {
    pub(super) const fn new(connection: PgConnection, local: Local) -> Self {
        Self { connection, local }
    }

    pub(super) const fn local(&self) -> &Local {
        &self.local
    }

    pub(super) async fn begin(&mut self) -> Result<Transaction<'_, Postgres>, sqlx::Error> {
        // The settings have no text of others in them.
        self.connection.begin_with(AssertSqlSafe(self.local.begin(USUAL))).await
    }

    /// Asks something outside of a turn: in a transaction of its own, where sessions are not kept.
    pub(super) async fn ask<T>(
        &mut self,
        asked: impl AsyncFnOnce(&mut PgConnection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if self.local.is_kept() {
            return asked(&mut self.connection).await;
        }
        let mut transaction = self.begin().await?;
        let answer = asked(&mut transaction).await?;
        transaction.commit().await?;
        Ok(answer)
    }

    pub(super) async fn close(self) -> Result<(), sqlx::Error> {
        self.connection.close().await
    }
}

impl Deref for Session {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}
