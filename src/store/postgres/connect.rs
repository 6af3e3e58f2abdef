//! How the database is reached, and its schema.

use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, PgPool};

use crate::store::StoreError;

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// The migration that made what is looked at before any other is applied.
const FIRST: i64 = 1;
/// Programs that know the migrations up to this one can work beside this program. It goes up, to the number of the latest migration, when
/// something changes that they can't follow; CONTRIBUTING.md says what they can.
const OLDEST: i64 = 1;

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
        let options: PgConnectOptions = url.parse().map_err(|error: sqlx::Error| {
            let why = match error {
                sqlx::Error::Configuration(why) => why.to_string(),
                other => other.to_string(),
            };
            StoreError::Refused(format!(
                "`database` is no URL of a PostgreSQL ({why}): write postgres://USER:PASSWORD@HOST/DATABASE"
            ))
        })?;
        let options = options
            .application_name("trine")
            .options([
                ("search_path", schema),
                // That a table is there already is no news.
                ("client_min_messages", "warning"),
                ("idle_in_transaction_session_timeout", LONGEST_PAUSE),
                ("default_transaction_isolation", "read committed"),
            ])
            .disable_statement_logging();
        Ok(Self { options, schema: schema.to_owned() })
    }

    /// A connection of its own.
    pub(super) async fn open(&self) -> Result<PgConnection, StoreError> {
        match tokio::time::timeout(CONNECT, self.options.connect()).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(self.unreachable(&match &error {
                sqlx::Error::Database(said) => said.message().to_owned(),
                error => error.to_string(),
            })),
            Err(_) => Err(self.unreachable("it does not answer")),
        }
    }

    fn unreachable(&self, why: &str) -> StoreError {
        let (host, port) = (self.options.get_host(), self.options.get_port());
        StoreError::Unavailable(format!("can't connect to the PostgreSQL at {host}:{port}: {why}"))
    }

    /// Connections for what is short and does not change what waits or runs.
    pub(super) fn pool(&self, most: u32) -> PgPool {
        PgPoolOptions::new().max_connections(most).acquire_timeout(CONNECT).connect_lazy_with(self.options.clone())
    }

    /// Brings the schema up to date, one node after the other; or leaves it as it is, if a newer version has changed it and says that this one
    /// can go on.
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
        let mut migrator = Migrator::with_migrations(MIGRATIONS.iter().cloned().collect());
        migrator.set_ignore_missing(true);
        migrator.run_direct(Some(FIRST), &mut connection, false).await.map_err(failed)?;
        self.agree(&mut connection).await?;
        migrator.run_direct(None, &mut connection, false).await.map_err(failed)?;
        Ok(connection.close().await?)
    }

    /// Whether this program can work with the schema as it is, and all that run with the schema as it will be.
    async fn agree(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        let mut transaction = connection.begin().await?;
        // Nodes take their places under this lock, and look at what is written here whenever they have it.
        let oldest: i64 = sqlx::query_scalar("SELECT oldest FROM shared FOR UPDATE").fetch_one(&mut *transaction).await?;
        may_go_by(oldest)?;
        if oldest < OLDEST {
            let text =
                "SELECT name || ' (' || version || ')' FROM nodes WHERE knows < $1 AND expires_at > clock_timestamp() ORDER BY 1";
            let nodes: Vec<String> = sqlx::query_scalar(text).bind(OLDEST).fetch_all(&mut *transaction).await?;
            if !nodes.is_empty() {
                return Err(StoreError::OldNodes { oldest: OLDEST, nodes: nodes.join(", ") });
            }
            sqlx::query("UPDATE shared SET oldest = $1").bind(OLDEST).execute(&mut *transaction).await?;
        }
        let found: Option<i64> =
            sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations").fetch_one(&mut *transaction).await?;
        if let Some(found) = found.filter(|found| *found > known()) {
            tracing::warn!(
                schema = self.schema,
                found,
                known = known(),
                oldest,
                "a newer version has changed the schema; this one can work with it"
            );
        }
        Ok(transaction.commit().await?)
    }

    /// The channel of hints of this schema.
    pub(super) fn channel(&self) -> String {
        format!("trine_{}", self.schema)
    }
}

/// The latest migration that this program knows.
pub(super) fn known() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default()
}

/// Whether this program may work with a schema that says this.
pub(super) fn may_go_by(oldest: i64) -> Result<(), StoreError> {
    if oldest > known() { Err(StoreError::Outdated { oldest, known: known() }) } else { Ok(()) }
}

fn failed(error: MigrateError) -> StoreError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => StoreError::Database(error),
        other => StoreError::Corrupt(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_needs_of_others_it_knows_itself() {
        assert!(MIGRATIONS.iter().any(|migration| migration.version == OLDEST));
        assert_eq!(MIGRATIONS.iter().next().map(|migration| migration.version), Some(FIRST));
        assert!(may_go_by(OLDEST).is_ok() && may_go_by(known() + 1).is_err());
    }
}
