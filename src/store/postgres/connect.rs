//! How the database is reached, and its schema.

use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, Row as _};

use super::hosts::{Hosts, at};
use super::pool::Pool;
use crate::job::JobId;
use crate::store::{StoreError, migrations};

/// The migration that made what is looked at before any other is applied.
const FIRST: i64 = 1;
/// Programs that know the migrations up to this one can work beside this program. It goes up, to the number of the latest migration, when
/// something changes that they can't follow; CONTRIBUTING.md says what they can.
const OLDEST: i64 = 4;

/// How long a transaction may stand still between two statements. A node that is stopped or cut off in the middle of one holds up the others
/// no longer than that.
const LONGEST_PAUSE: &str = "5000";
/// What a node that stands still has not taken of an answer is waited for no longer either: until all is sent, its transaction is no pause to the
/// database. Where the way there is a socket of the machine, nothing can be said of that.
const LONGEST_UNREAD: &str = "SET tcp_user_timeout = '5s'";
/// How long a statement or a transaction may take, or a look at what others did, before its connection is given up.
const LONGEST: Duration = Duration::from_secs(15);
/// How long a statement of the pool may take by the database's clock, so that what nobody waits for any more does not go on there.
const LONGEST_THERE: &str = "12000";
/// How long a connection of the pool may take to end what was asked on it, if nobody waits for that any more.
const END: Duration = Duration::from_secs(5);
/// How long to wait for a connection, whichever of the hosts it is to.
pub(super) const CONNECT: Duration = Duration::from_secs(10);
/// The longest name that a schema may have.
const LONGEST_NAME: usize = 63;
/// For how long a session of the pool waits at least that nobody waits for any more: longer than [`LONGEST`] and [`END`] together.
const GIVEN_UP: Duration = Duration::from_secs(21);
/// How old a connection is at least that is closed because nothing can be written on it.
const WORTH_CLOSING: Duration = Duration::from_secs(1);
/// How often it is looked whether sessions are kept.
const LOOKS: usize = 4;

/// The settings of a session that looks up by keys, as far as the database has them: plans are made for tables as they are now (but see
/// `writer/transaction.rs`), there are no other ways than by index, and what counts is how many rows are looked at.
const BY_KEY: &str = "SELECT set_config(name, value, false) FROM (VALUES ('plan_cache_mode', 'force_custom_plan'), \
     ('enable_seqscan', 'off'), ('enable_bitmapscan', 'off'), ('enable_hashjoin', 'off'), ('enable_mergejoin', 'off'), \
     ('seq_page_cost', '0.01'), ('random_page_cost', '0.01'), ('jit', 'off')) AS wanted (name, value) JOIN pg_settings USING (name)";

/// The settings of a session that reads single jobs and pages. It compiles nothing: that takes longer than what is asked, and is begun where the
/// planner takes tables for larger than they are. And where tables are in partitions, it takes looking up ids for as dear as if each were asked of
/// all partitions, and would rather read all of them.
const BY_INDEX: &str = "SELECT set_config(name, value, false) FROM (VALUES ('enable_seqscan', 'off'), ('enable_hashjoin', 'off'), \
     ('enable_mergejoin', 'off'), ('max_parallel_workers_per_gather', '0'), ('jit', 'off')) AS wanted (name, value) JOIN pg_settings USING (name) \
     WHERE wanted.name = 'jit' OR EXISTS (SELECT 1 FROM pg_class WHERE oid = to_regclass('results') AND relkind = 'p')";

/// Has the database look whether anybody is still there for whom it carries something out, and keep a session that has nothing to do for a
/// while, whatever it does with those of others. Not every one knows these, or can do them.
const IF_IT_CAN: [&str; 2] = ["SET client_connection_check_interval = '5s'", "SET idle_session_timeout = 0"];

/// Ends the sessions of this one's name that have been waiting for so many seconds: for a lock, or for a standby, which the database does for
/// ever, whether or not anybody is still there. Of those that nobody waits for there would be more and more, until there are no connections left.
const END_GIVEN_UP: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = current_setting('application_name') \
     AND pid <> pg_backend_pid() AND state = 'active' AND (wait_event = 'SyncRep' OR wait_event_type = 'Lock') \
     AND query_start <= clock_timestamp() - $1 * INTERVAL '1 second'";

/// How connections are opened.
#[derive(Clone)]
pub(super) struct Connect {
    hosts: Arc<Hosts>,
    schema: String,
    /// What its sessions are called in the database: unlike those of any other node, or start.
    name: String,
    /// The statements with which a session begins.
    session: Arc<str>,
}

impl Connect {
    /// To a database that is at one of these URLs.
    pub(super) fn new(urls: &[String], schema: &str) -> Result<Self, StoreError> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if schema.is_empty() || schema.len() > LONGEST_NAME || !schema.chars().all(plain) {
            return Err(StoreError::Unusable(format!("a schema can't have the name {schema:?}: only a-z, 0-9 and _ are taken")));
        }
        let name = format!("trine {}", JobId::new());
        let host = |url: &String| {
            let options: PgConnectOptions = url.parse().map_err(|error: sqlx::Error| match error {
                sqlx::Error::Configuration(why) => wrong(&why.to_string()),
                other => wrong(&other.to_string()),
            })?;
            // Poolers know nothing of this one; and floats are not read as text.
            Ok(options.application_name(&name).extra_float_digits(None).disable_statement_logging())
        };
        let hosts = urls.iter().map(host).collect::<Result<Vec<_>, StoreError>>()?;
        if hosts.is_empty() {
            return Err(wrong("there is none"));
        }
        // Not among the options of the start, which poolers refuse or, worse, leave out. That a table is there already is no news.
        let session = format!(
            "SET search_path = \"{schema}\"; SET client_min_messages = warning; \
             SET idle_in_transaction_session_timeout = {LONGEST_PAUSE}; SET default_transaction_isolation = 'read committed'; \
             SET standard_conforming_strings = on"
        );
        Ok(Self { hosts: Arc::new(Hosts::new(hosts)), schema: schema.to_owned(), name, session: session.into() })
    }

    /// A connection of its own.
    pub(super) async fn open(&self) -> Result<PgConnection, StoreError> {
        self.open_with(None, CONNECT).await
    }

    /// One for the path of jobs, where all is found by keys and in the order of indexes; the only one for what it is called by, so that an earlier
    /// one was given up. Each of the hosts has its part of the time that whoever asks has.
    ///
    /// The planner would go by what it takes tables to be: a `work` that was empty when a plan was made, or when it was vacuumed, would be
    /// read as a whole, as often as jobs are looked for, when it is full of jobs or of what is left of them.
    pub(super) async fn open_by_key(&self, only: &str, time: Duration) -> Result<PgConnection, StoreError> {
        let settings = format!("SET application_name = '{} {only}'; {BY_KEY}", self.name);
        self.open_with(Some(settings), time).await
    }

    async fn open_with(&self, settings: Option<String>, time: Duration) -> Result<PgConnection, StoreError> {
        let mut refusals = Vec::new();
        let patience = time / u32::try_from(self.hosts.count()).unwrap_or(u32::MAX);
        for (number, host) in self.hosts.in_turn() {
            let why = match tokio::time::timeout(patience, self.open_at(host, settings.as_deref())).await {
                Ok(Ok(Some(connection))) => {
                    self.hosts.go_to(number);
                    return Ok(connection);
                }
                Ok(Ok(None)) => "nothing can be written there".to_owned(),
                Ok(Err(sqlx::Error::Database(said))) => said.message().to_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it does not answer".to_owned(),
            };
            refusals.push(format!("the PostgreSQL at {}: {why}", at(host)));
        }
        Err(StoreError::Unavailable(format!("can't connect to {}", refusals.join(", nor to "))))
    }

    /// A session; `None` if there are other hosts, and nothing can be written on this one.
    async fn open_at(&self, host: &PgConnectOptions, settings: Option<&str>) -> Result<Option<PgConnection>, sqlx::Error> {
        let mut connection = host.connect().await?;
        begin_session(&mut connection, &self.session).await?;
        if let Some(settings) = settings {
            sqlx::raw_sql(AssertSqlSafe(settings)).execute(&mut connection).await?;
            if_it_can(sqlx::raw_sql(LONGEST_UNREAD).execute(&mut connection).await)?;
            end_given_up(&mut connection, Duration::ZERO).await?;
        }
        let is_good = self.hosts.count() == 1 || may_write(&mut connection).await?;
        Ok(is_good.then_some(connection))
    }

    /// Connections for what is short and does not change what waits or runs.
    pub(super) fn pool(&self, most: u32) -> Pool {
        let session: Arc<str> = format!("{}; SET statement_timeout = {LONGEST_THERE}", self.session).into();
        let options = PgPoolOptions::new()
            .max_connections(most)
            .acquire_timeout(CONNECT)
            .after_connect(move |connection, _| {
                let session = Arc::clone(&session);
                Box::pin(async move {
                    begin_session(connection, &session).await?;
                    sqlx::raw_sql(BY_INDEX).execute(&mut *connection).await?;
                    end_given_up(connection, GIVEN_UP).await
                })
            })
            .test_before_acquire(false)
            .before_acquire(|connection, meta| Box::pin(may_be_used(connection, meta.age)))
            .after_release(|connection, _| Box::pin(has_ended(connection)));
        let pool = options.connect_lazy_with(self.hosts.latest().clone());
        self.hosts.lead(&pool);
        Pool(pool)
    }

    /// Finds out, before anything is written, what would only show in the middle of the work.
    async fn inspect(&self) -> Result<PgConnection, StoreError> {
        let (mut connection, mut second) = (self.open().await?, self.open().await?);
        let refused = |why: &str| {
            let at = at(self.hosts.latest());
            Err(StoreError::Unusable(format!("the PostgreSQL at {at} can't be used: {why}")))
        };
        // As simple queries, which need no prepared statement.
        let text = "SELECT pg_backend_pid()::TEXT, pg_is_in_recovery()::TEXT, current_setting('transaction_read_only'), \
                    current_setting('server_encoding')";
        let row = sqlx::raw_sql(text).fetch_one(&mut connection).await?;
        let mine: &str = row.try_get(0)?;
        for _ in 0..LOOKS {
            // In a transaction, even a pooler that keeps no sessions keeps this one; the other has to be where it was meanwhile.
            let text = "BEGIN; SELECT pg_backend_pid()::TEXT";
            let theirs: String = sqlx::raw_sql(text).fetch_one(&mut second).await?.try_get(0)?;
            let now: String = sqlx::raw_sql("SELECT pg_backend_pid()::TEXT").fetch_one(&mut connection).await?.try_get(0)?;
            sqlx::raw_sql("ROLLBACK").execute(&mut second).await?;
            if mine == theirs || mine != now {
                return refused(
                    "what is in between does not keep sessions, as a pooler in transaction mode: have it keep them (`pool_mode = session`)",
                );
            }
        }
        second.close().await?;
        if row.try_get::<&str, _>(1)? == "true" {
            return refused("it is a standby, in which nothing can be written");
        }
        if row.try_get::<&str, _>(2)? == "on" {
            return refused("it is read-only (`default_transaction_read_only` is on for this database or user)");
        }
        match row.try_get::<&str, _>(3)? {
            "UTF8" => Ok(connection),
            other => refused(&format!("its encoding is {other}, which can't take all texts: make a database with UTF8")),
        }
    }

    /// Brings the schema up to date, one node after the other; or leaves it as it is, if a newer version has changed it and says that this one
    /// can go on. The connection on which that was done.
    pub(super) async fn migrate(&self) -> Result<PgConnection, StoreError> {
        let mut connection = self.inspect().await?;
        let there = "SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = $1)";
        let is_there: bool = sqlx::query_scalar(there).bind(&self.schema).fetch_one(&mut connection).await?;
        // The name has been looked at.
        let make = format!("CREATE SCHEMA IF NOT EXISTS \"{}\"", self.schema);
        if !is_there && let Err(error) = sqlx::query(AssertSqlSafe(make)).execute(&mut connection).await {
            // Another node may have made it in between.
            let is_there: bool = sqlx::query_scalar(there).bind(&self.schema).fetch_one(&mut connection).await?;
            if !is_there {
                return Err(self.unusable(&error, "can't be made").unwrap_or_else(|| error.into()));
            }
        }
        let mine = "SELECT has_schema_privilege($1, 'USAGE') AND has_schema_privilege($1, 'CREATE')";
        if !sqlx::query_scalar::<_, bool>(mine).bind(&self.schema).fetch_one(&mut connection).await? {
            let (user, schema) = (self.hosts.latest().get_username(), &self.schema);
            return Err(StoreError::Unusable(format!(
                "the user {user} needs the rights USAGE and CREATE on the schema {schema}"
            )));
        }
        let mut migrator = Migrator::with_migrations(migrations::POSTGRES.iter().cloned().collect());
        migrator.set_ignore_missing(true);
        migrator.run_direct(Some(FIRST), &mut connection, false).await.map_err(|error| self.failed(error))?;
        self.agree(&mut connection).await?;
        migrator.run_direct(None, &mut connection, false).await.map_err(|error| self.failed(error))?;
        Ok(connection)
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

    /// The channel of hints of this schema.
    pub(super) fn channel(&self) -> String {
        format!("trine_{}", self.schema)
    }
}

async fn begin_session(connection: &mut PgConnection, session: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(session)).execute(&mut *connection).await?;
    for setting in IF_IT_CAN {
        if_it_can(sqlx::raw_sql(setting).execute(&mut *connection).await)?;
    }
    Ok(())
}

async fn end_given_up(connection: &mut PgConnection, after: Duration) -> Result<(), sqlx::Error> {
    if_it_can(sqlx::query(END_GIVEN_UP).bind(after.as_secs_f64()).execute(connection).await)
}

/// What the database may not know, or not allow, it goes on without.
fn if_it_can<T>(done: Result<T, sqlx::Error>) -> Result<(), sqlx::Error> {
    match done {
        Err(sqlx::Error::Database(error)) => {
            tracing::debug!(%error, "the database can't do something that is good to have");
            Ok(())
        }
        done => done.map(drop),
    }
}

/// Whether a connection that was kept can still be used: it answers, and was not opened while nothing could be written. What replaces it may be no
/// better, so that is not done all the time.
async fn may_be_used(connection: &mut PgConnection, age: Duration) -> Result<bool, sqlx::Error> {
    Ok(may_write(connection).await? || age < WORTH_CLOSING)
}

/// Whether something can be written: not on a standby, and not where an operator has forbidden it.
async fn may_write(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT current_setting('transaction_read_only') = 'off'").fetch_one(connection).await
}

/// Whether what was asked on a connection has ended, or does so soon: else it would stay with somebody who is not there any more.
async fn has_ended(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    Ok(tokio::time::timeout(END, connection.flush()).await.is_ok_and(|ended| ended.is_ok()))
}

/// What the database says, or that it says nothing: one that is cut off does so for as long as one waits.
pub(super) async fn in_time<T, E: From<sqlx::Error>>(asked: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    within(LONGEST, asked).await
}

/// The same of what may take so long.
pub(super) async fn within<T, E: From<sqlx::Error>>(
    longest: Duration,
    asked: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let silent = || sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "the database does not answer"));
    tokio::time::timeout(longest, asked).await.unwrap_or_else(|_| Err(silent().into()))
}

fn wrong(why: &str) -> StoreError {
    StoreError::Unusable(format!("`database` is no URL of a PostgreSQL ({why}): write postgres://USER:PASSWORD@HOST/DATABASE"))
}

/// The latest migration that this program knows.
pub(super) fn known() -> i64 {
    migrations::POSTGRES.iter().map(|migration| migration.version).max().unwrap_or_default()
}

/// Whether this program may work with a schema that says this.
pub(super) fn may_go_by(oldest: i64) -> Result<(), StoreError> {
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
