//! The schema: brought up to date by whichever program knows the latest version.

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::super::session::Session;
use super::Connect;
use crate::store::{StoreError, migrations};

/// The migration that made what is looked at before any other is applied.
const FIRST: i64 = 1;
/// Programs that know the migrations up to this one can work beside this program. It goes up, to the number of the latest migration, when
/// something changes that they can't follow; CONTRIBUTING.md says what they can.
const OLDEST: i64 = 4;

impl Connect {
    /// Brings the schema up to date, one node after the other; or leaves it as it is, if a newer version has changed it and says that this one
    /// can go on. The connection on which that was done.
    pub(in crate::store::postgres) async fn migrate(&self) -> Result<Session, StoreError> {
        let mut session = self.open().await?;
        if session.local().is_kept() {
            self.bring_up_to_date(&mut session, true).await?;
        } else {
            // All at once, so that the settings and the lock are there for all of it.
            let mut transaction = session.begin().await?;
            let lock = "SELECT pg_advisory_xact_lock(hashtext($1))";
            sqlx::query(lock).bind(&self.schema).execute(&mut *transaction).await?;
            self.bring_up_to_date(&mut transaction, false).await?;
            transaction.commit().await?;
        }
        Ok(session)
    }

    /// The same; it `locks` others out unless that is done.
    async fn bring_up_to_date(&self, connection: &mut PgConnection, locks: bool) -> Result<(), StoreError> {
        let there = "SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = $1)";
        let is_there: bool = sqlx::query_scalar(there).bind(&self.schema).fetch_one(&mut *connection).await?;
        if !is_there && let Err(error) = self.make_schema(connection).await {
            // Another node may have made it in between.
            let is_there: bool = sqlx::query_scalar(there).bind(&self.schema).fetch_one(&mut *connection).await?;
            if !is_there {
                return Err(self.unusable(&error, "can't be made").unwrap_or_else(|| error.into()));
            }
        }
        let mine = "SELECT has_schema_privilege($1, 'USAGE') AND has_schema_privilege($1, 'CREATE')";
        if !sqlx::query_scalar::<_, bool>(mine).bind(&self.schema).fetch_one(&mut *connection).await? {
            let (user, schema) = (self.hosts.latest().get_username(), &self.schema);
            return Err(StoreError::Unusable(format!(
                "the user {user} needs the rights USAGE and CREATE on the schema {schema}"
            )));
        }
        let mut migrator = Migrator::with_migrations(migrations::POSTGRES.iter().cloned().collect());
        migrator.set_ignore_missing(true).set_locking(locks);
        migrator.run_direct(Some(FIRST), connection, false).await.map_err(|error| self.failed(error))?;
        self.agree(connection).await?;
        migrator.run_direct(None, connection, false).await.map_err(|error| self.failed(error))
    }

    async fn make_schema(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let mut transaction = connection.begin().await?;
        // The name has been looked at.
        let make = format!("CREATE SCHEMA IF NOT EXISTS \"{}\"", self.schema);
        sqlx::query(AssertSqlSafe(make)).execute(&mut *transaction).await?;
        transaction.commit().await
    }

    fn failed(&self, error: MigrateError) -> StoreError {
        match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
                self.unusable(&error, "can't be brought up to date").unwrap_or_else(|| error.into())
            }
            other => StoreError::Corrupt(other.to_string()),
        }
    }

    /// What the database refuses to do with the schema until somebody changes a right, or what is in there.
    fn unusable(&self, error: &sqlx::Error, what: &str) -> Option<StoreError> {
        let said = error.as_database_error()?;
        // SQLSTATEs: what may not be done, or contradicts what is there (42).
        said.code().filter(|code| code.starts_with("42"))?;
        let (schema, user) = (&self.schema, self.hosts.latest().get_username());
        Some(StoreError::Unusable(format!("the schema {schema} {what} by the user {user}: {}", said.message())))
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
}

/// The latest migration that this program knows.
pub(in crate::store::postgres) fn known() -> i64 {
    migrations::POSTGRES.iter().map(|migration| migration.version).max().unwrap_or_default()
}

/// Whether this program may work with a schema that says this.
pub(in crate::store::postgres) fn may_go_by(oldest: i64) -> Result<(), StoreError> {
    if oldest > known() { Err(StoreError::Outdated { oldest, known: known() }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_needs_of_others_it_knows_itself() {
        assert!(migrations::POSTGRES.iter().any(|migration| migration.version == OLDEST));
        assert_eq!(migrations::POSTGRES.iter().next().map(|migration| migration.version), Some(FIRST));
        assert!(may_go_by(OLDEST).is_ok() && may_go_by(known() + 1).is_err());
    }
}
