//! How the database is reached, and its schema.

use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, PgPool};

use crate::store::StoreError;

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// How long a transaction may stand still between two statements. A node that is stopped or cut off in the middle of one holds up the others
/// no longer than that.
const LONGEST_PAUSE: &str = "5000";
/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// The longest name that a schema may have.
const LONGEST_NAME: usize = 63;

/// How connections are opened.
#[derive(Clone)]
pub(super) struct Connect {
    options: PgConnectOptions,
    schema: String,
}

impl Connect {
    pub(super) fn new(url: &str, schema: &str) -> Result<Self, StoreError> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if schema.is_empty() || schema.len() > LONGEST_NAME || !schema.chars().all(plain) {
            return Err(StoreError::Refused(format!("a schema can't have the name {schema:?}: only a-z, 0-9 and _ are taken")));
        }
        let options: PgConnectOptions = url.parse()?;
        let options = options
            .application_name("trine")
            .options([
                ("search_path", schema),
                ("idle_in_transaction_session_timeout", LONGEST_PAUSE),
                ("default_transaction_isolation", "read committed"),
            ])
            .disable_statement_logging();
        Ok(Self { options, schema: schema.to_owned() })
    }

    /// A connection of its own.
    pub(super) async fn open(&self) -> Result<PgConnection, StoreError> {
        match tokio::time::timeout(CONNECT, self.options.connect()).await {
            Ok(connection) => Ok(connection?),
            Err(_) => Err(StoreError::Unavailable("the database does not answer".into())),
        }
    }

    /// Connections for what is short and does not change what waits or runs.
    pub(super) fn pool(&self, most: u32) -> PgPool {
        PgPoolOptions::new().max_connections(most).acquire_timeout(CONNECT).connect_lazy_with(self.options.clone())
    }

    /// Brings the schema up to date; one node after the other.
    pub(super) async fn migrate(&self) -> Result<(), StoreError> {
        let mut connection = self.open().await?;
        // The name has been looked at. Two nodes that make it at once are not told apart from one that was there before.
        let make = format!("CREATE SCHEMA IF NOT EXISTS {}", self.schema);
        if let Err(error) = sqlx::query(AssertSqlSafe(make)).execute(&mut connection).await {
            let there = "SELECT EXISTS (SELECT 1 FROM information_schema.schemata WHERE schema_name = $1)";
            let there: bool = sqlx::query_scalar(there).bind(&self.schema).fetch_one(&mut connection).await?;
            if !there {
                return Err(error.into());
            }
        }
        MIGRATIONS.run_direct(None, &mut connection, false).await.map_err(|error| self.migration(error))?;
        Ok(connection.close().await?)
    }

    fn migration(&self, error: MigrateError) -> StoreError {
        match error {
            MigrateError::VersionMissing(found) | MigrateError::VersionTooNew(found, _) => StoreError::TooNew {
                path: format!("the schema {}", self.schema),
                found,
                known: MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default(),
            },
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => StoreError::Database(error),
            other => StoreError::Corrupt(other.to_string()),
        }
    }

    /// The channel of hints of this schema.
    pub(super) fn channel(&self) -> String {
        format!("trine_{}", self.schema)
    }
}
