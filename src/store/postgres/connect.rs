//! How the database is reached, and its schema.

use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, Row as _};

use super::hosts::{Hosts, at};
use super::pool::Pool;
use super::session::{self, Local, Session};
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
const LONGEST_UNREAD: (&str, &str) = ("tcp_user_timeout", "'5s'");
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
/// How often it is looked whether sessions are kept, and prepared statements: a pooler that others use as well may give back the same session by
/// chance.
const LOOKS: usize = 12;

/// The settings of a session that looks up by keys, as far as the database has them: plans are made for tables as they are now (but see
/// `writer/transaction.rs`), there are no other ways than by index, and what counts is how many rows are looked at.
const BY_KEY: [(&str, &str); 8] = [
    ("plan_cache_mode", "'force_custom_plan'"),
    ("enable_seqscan", "'off'"),
    ("enable_bitmapscan", "'off'"),
    ("enable_hashjoin", "'off'"),
    ("enable_mergejoin", "'off'"),
    ("seq_page_cost", "'0.01'"),
    ("random_page_cost", "'0.01'"),
    ("jit", "'off'"),
];

/// What others may have set in a session that they have had, by which an answer could be given too soon, or a statement end: as the database has it.
const OF_OTHERS: [(&str, &str); 3] =
    [("synchronous_commit", "DEFAULT"), ("lock_timeout", "DEFAULT"), ("statement_timeout", "DEFAULT")];

/// The settings of a session that reads single jobs and pages. It compiles nothing: that takes longer than what is asked, and is begun where the
/// planner takes tables for larger than they are. And where tables are in partitions, it takes looking up ids for as dear as if each were asked of
/// all partitions, and would rather read all of them.
const BY_INDEX: &str = "SELECT set_config(name, value, false) FROM (VALUES ('enable_seqscan', 'off'), ('enable_hashjoin', 'off'), \
     ('enable_mergejoin', 'off'), ('max_parallel_workers_per_gather', '0'), ('jit', 'off')) AS wanted (name, value) JOIN pg_settings USING (name) \
     WHERE wanted.name = 'jit' OR EXISTS (SELECT 1 FROM pg_class WHERE oid = to_regclass('results') AND relkind = 'p')";

/// Has the database look whether anybody is still there for whom it carries something out, and keep a session that has nothing to do for a
/// while, whatever it does with those of others. Not every one knows these, or can do them.
const LOOK_FOR_CLIENT: (&str, &str) = ("client_connection_check_interval", "'5s'");
const NEVER_IDLE: (&str, &str) = ("idle_session_timeout", "0");
/// Of single statements; transactions say it themselves.
const ISOLATION: (&str, &str) = ("default_transaction_isolation", "'read committed'");

/// Ends the sessions of this name, or of what a pooler makes of it, that have been waiting for so many seconds: for a lock, or for a standby, which the database does for
/// ever, whether or not anybody is still there. Of those that nobody waits for there would be more and more, until there are no connections left.
const END_GIVEN_UP: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE (application_name = $2 OR application_name LIKE $2 || ' - %') \
     AND pid <> pg_backend_pid() AND state = 'active' AND (wait_event = 'SyncRep' OR wait_event_type = 'Lock') \
     AND query_start <= clock_timestamp() - $1 * INTERVAL '1 second'";

/// How connections are opened.
#[derive(Clone)]
pub(super) struct Connect {
    hosts: Arc<Hosts>,
    schema: String,
    /// What its sessions are called in the database: unlike those of any other node, or start.
    name: String,
    /// What transactions begin with where sessions are not kept.
    local: Locals,
}

/// What a transaction begins with, by what it is for.
#[derive(Clone, Default)]
struct Locals {
    usual: Local,
    by_key: Local,
    by_index: Local,
}

/// What a connection is for.
#[derive(Clone, Copy)]
enum Use<'a> {
    /// To look how it is.
    Look,
    Usual,
    /// The path of jobs, by what is called this.
    ByKey(&'a str),
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
        Ok(Self { hosts: Arc::new(Hosts::new(hosts)), schema: schema.to_owned(), name, local: Locals::default() })
    }

    /// What all goes by. Not among the options of the start, which poolers refuse or, worse, leave out. That a table is there already is no news.
    fn settings(&self) -> [(&'static str, String); 4] {
        [
            ("search_path", format!("\"{}\"", self.schema)),
            ("client_min_messages", "warning".into()),
            ("idle_in_transaction_session_timeout", LONGEST_PAUSE.into()),
            ("standard_conforming_strings", "on".into()),
        ]
    }

    /// Whether a session is this one's from one transaction to the next.
    pub(super) const fn keeps_sessions(&self) -> bool {
        self.local.usual.is_kept()
    }

    /// A connection of its own.
    async fn open(&self) -> Result<Session, StoreError> {
        self.open_with(Use::Usual, CONNECT).await
    }

    /// One for the path of jobs, where all is found by keys and in the order of indexes; the only one for what it is called by, so that an earlier
    /// one was given up. Each of the hosts has its part of the time that whoever asks has.
    ///
    /// The planner would go by what it takes tables to be: a `work` that was empty when a plan was made, or when it was vacuumed, would be
    /// read as a whole, as often as jobs are looked for, when it is full of jobs or of what is left of them.
    pub(super) async fn open_by_key(&self, only: &str, time: Duration) -> Result<Session, StoreError> {
        self.open_with(Use::ByKey(only), time).await
    }

    async fn open_with(&self, usage: Use<'_>, time: Duration) -> Result<Session, StoreError> {
        let mut refusals = Vec::new();
        let patience = time / u32::try_from(self.hosts.count()).unwrap_or(u32::MAX);
        for (number, host) in self.hosts.in_turn() {
            let why = match tokio::time::timeout(patience, self.open_at(host, usage)).await {
                Ok(Ok(Some(session))) => {
                    self.hosts.go_to(number);
                    return Ok(session);
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
    async fn open_at(&self, host: &PgConnectOptions, usage: Use<'_>) -> Result<Option<Session>, sqlx::Error> {
        let Use::ByKey(only) = usage else {
            let mut connection = host.connect().await?;
            if self.keeps_sessions() && !matches!(usage, Use::Look) {
                begin_session(&mut connection, &self.settings()).await?;
            }
            return self.if_good(connection, &self.local.usual).await;
        };
        let name = format!("{} {only}", self.name);
        let mut connection = host.clone().application_name(&name).connect().await?;
        if self.keeps_sessions() {
            begin_session(&mut connection, &self.settings()).await?;
            sqlx::raw_sql(AssertSqlSafe(by_key())).execute(&mut connection).await?;
            set_if_it_can(&mut connection, LONGEST_UNREAD).await?;
        }
        end_given_up(&mut connection, &name, Duration::ZERO).await?;
        self.if_good(connection, &self.local.by_key).await
    }

    async fn if_good(&self, mut connection: PgConnection, local: &Local) -> Result<Option<Session>, sqlx::Error> {
        let is_good = self.hosts.count() == 1 || may_write(&mut connection).await?;
        Ok(is_good.then(|| Session::new(connection, local.clone())))
    }

    /// Connections for what is short and does not change what waits or runs.
    pub(super) fn pool(&self, most: u32) -> Pool {
        let settings: Arc<[_]> = self.settings().into_iter().chain([("statement_timeout", LONGEST_THERE.into())]).collect();
        let (keeps_sessions, name): (_, Arc<str>) = (self.keeps_sessions(), self.name.as_str().into());
        let options = PgPoolOptions::new()
            .max_connections(most)
            .acquire_timeout(CONNECT)
            .after_connect(move |connection, _| {
                let (settings, name) = (Arc::clone(&settings), Arc::clone(&name));
                Box::pin(async move {
                    if keeps_sessions {
                        begin_session(connection, &settings).await?;
                        sqlx::raw_sql(BY_INDEX).execute(&mut *connection).await?;
                    }
                    end_given_up(connection, &name, GIVEN_UP).await
                })
            })
            .test_before_acquire(false)
            .before_acquire(|connection, meta| Box::pin(may_be_used(connection, meta.age)))
            .after_release(|connection, _| Box::pin(has_ended(connection)));
        let pool = options.connect_lazy_with(self.hosts.latest().clone());
        self.hosts.lead(&pool);
        Pool::new(pool, self.local.by_index.clone())
    }

    /// Finds out, before anything is written, what would only show in the middle of the work; and whether sessions are kept.
    pub(super) async fn inspect(&mut self) -> Result<(), StoreError> {
        let mut connection = self.open_with(Use::Look, CONNECT).await?;
        let place = at(self.hosts.latest());
        let refused = |why: &str| Err(StoreError::Unusable(format!("the PostgreSQL at {place} can't be used: {why}")));
        // As simple queries, which need no prepared statement.
        let text = "SELECT pg_backend_pid()::TEXT, pg_is_in_recovery()::TEXT, current_setting('transaction_read_only'), \
                    current_setting('server_encoding')";
        let row = sqlx::raw_sql(text).fetch_one(&mut *connection).await?;
        let another = self.shared_with(&mut connection, row.try_get(0)?).await?;
        if row.try_get::<&str, _>(1)? == "true" {
            return refused("it is a standby, in which nothing can be written");
        }
        if row.try_get::<&str, _>(2)? == "on" {
            return refused("it is read-only (`default_transaction_read_only` is on for this database or user)");
        }
        match row.try_get::<&str, _>(3)? {
            "UTF8" => {}
            other => return refused(&format!("its encoding is {other}, which can't take all texts: make a database with UTF8")),
        }
        if let Some(mut another) = another {
            if !in_time(keep_statements(&mut connection, &mut another)).await? {
                return refused(
                    "what is in between keeps neither sessions nor prepared statements, as a pooler in transaction mode may: have it keep \
                     one of both (`pool_mode = session`, or PgBouncer 1.21 or newer with `max_prepared_statements = 200`)",
                );
            }
            self.local = in_time(self.locals(&mut connection)).await?;
            tracing::info!(
                "what is between this node and its database does not keep sessions: hints of other nodes are not heard"
            );
            another.close().await?;
        }
        Ok(connection.close().await?)
    }

    /// A connection that is given sessions which this one has had - it had this one -, if sessions are not kept.
    async fn shared_with(&self, connection: &mut PgConnection, mine: &str) -> Result<Option<Session>, StoreError> {
        // All open at once: there may be several poolers, of which each connection gets another one.
        let mut others = Vec::with_capacity(LOOKS);
        for _ in 0..LOOKS {
            let mut another = self.open_with(Use::Look, CONNECT).await?;
            let is_kept = in_time(async {
                // In a transaction, even a pooler that keeps no sessions keeps this one; the other has to be where it was meanwhile, and after
                // that, as that one's may be the first to be given away again.
                let text = "BEGIN; SELECT pg_backend_pid()::TEXT";
                let theirs: String = sqlx::raw_sql(text).fetch_one(&mut *another).await?.try_get(0)?;
                let is_kept = mine != theirs && mine == backend(connection).await?;
                sqlx::raw_sql("ROLLBACK").execute(&mut *another).await?;
                Ok::<_, sqlx::Error>(is_kept && mine == backend(connection).await?)
            });
            if !is_kept.await? {
                return Ok(Some(another));
            }
            others.push(another);
        }
        for another in others {
            another.close().await?;
        }
        Ok(None)
    }

    /// What transactions begin with, as far as the database has it.
    async fn locals(&self, connection: &mut PgConnection) -> Result<Locals, StoreError> {
        let settings = self.settings();
        let mut usual: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        usual.extend(as_it_can(connection, &[&[LOOK_FOR_CLIENT], &OF_OTHERS[..]].concat()).await?);
        let with = |more: &[(&'static str, &'static str)]| Local::new(&[&usual, more].concat());
        let by_key = as_it_can(connection, &[&BY_KEY[..], &[LONGEST_UNREAD]].concat()).await?;
        let by_index = as_it_can(connection, &[("statement_timeout", LONGEST_THERE), ("jit", "'off'")]).await?;
        Ok(Locals { usual: with(&[]), by_key: with(&by_key), by_index: with(&by_index) })
    }

    /// Brings the schema up to date, one node after the other; or leaves it as it is, if a newer version has changed it and says that this one
    /// can go on. The connection on which that was done.
    pub(super) async fn migrate(&self) -> Result<Session, StoreError> {
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

    /// The channel of hints of this schema.
    pub(super) fn channel(&self) -> String {
        format!("trine_{}", self.schema)
    }
}

/// Whose session this one is just now, as a simple query.
async fn backend(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    sqlx::raw_sql("SELECT pg_backend_pid()::TEXT").fetch_one(connection).await?.try_get(0)
}

async fn begin_session(connection: &mut PgConnection, settings: &[(&str, String)]) -> Result<(), sqlx::Error> {
    let settings = settings.iter().map(|(name, value)| (*name, value.as_str())).chain([ISOLATION]);
    let settings = session::set("SET", settings);
    sqlx::raw_sql(AssertSqlSafe(settings)).execute(&mut *connection).await?;
    for setting in [LOOK_FOR_CLIENT, NEVER_IDLE] {
        set_if_it_can(connection, setting).await?;
    }
    Ok(())
}

async fn set_if_it_can(connection: &mut PgConnection, (name, value): (&str, &str)) -> Result<(), sqlx::Error> {
    if_it_can(sqlx::raw_sql(AssertSqlSafe(format!("SET {name} = {value}"))).execute(connection).await)
}

/// Sets all of [`BY_KEY`] that the database has.
fn by_key() -> String {
    let values: Vec<String> = BY_KEY.iter().map(|(name, value)| format!("('{name}', {value})")).collect();
    format!(
        "SELECT set_config(name, value, false) FROM (VALUES {}) AS wanted (name, value) JOIN pg_settings USING (name)",
        values.join(", ")
    )
}

/// Those of these settings that a transaction can have.
async fn as_it_can<'a>(
    connection: &mut PgConnection,
    settings: &[(&'a str, &'a str)],
) -> Result<Vec<(&'a str, &'a str)>, sqlx::Error> {
    let mut can = Vec::new();
    for &(name, value) in settings {
        let set = sqlx::raw_sql(AssertSqlSafe(format!("BEGIN; SET LOCAL {name} = {value}"))).execute(&mut *connection).await;
        if set.is_ok() {
            can.push((name, value));
        }
        if_it_can(set)?;
        sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await?;
    }
    Ok(can)
}

/// Whether a statement that was prepared can be used whichever session a pooler takes for it, and is not mistaken for another client's.
async fn keep_statements(connection: &mut PgConnection, second: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let ask =
        async |connection: &mut PgConnection, text: &'static str| match sqlx::query(text).bind(1_i64).execute(connection).await {
            Err(sqlx::Error::Database(_)) => Ok(false),
            asked => asked.map(|_| true),
        };
    for _ in 0..LOOKS {
        let mut is_known = ask(connection, "SELECT $1::BIGINT").await?;
        // That one may have had this session before, which it can't have now.
        sqlx::raw_sql("BEGIN; SELECT 1").execute(&mut *second).await?;
        is_known = is_known && ask(connection, "SELECT $1::BIGINT").await? && ask(second, "SELECT $1::BIGINT + 1").await?;
        sqlx::raw_sql("ROLLBACK").execute(&mut *second).await?;
        if !is_known {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn end_given_up(connection: &mut PgConnection, name: &str, after: Duration) -> Result<(), sqlx::Error> {
    if_it_can(sqlx::query(END_GIVEN_UP).bind(after.as_secs_f64()).bind(name).execute(connection).await)
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

/// Whether a connection that was kept can still be used: it answers, no transaction is open on it - sqlx leaves one that nobody waits for any more as
/// it is begun (<https://github.com/launchbadge/sqlx/issues/4385>) -, and it was not opened while nothing could be written. What replaces it may be
/// no better as to that, so it is not done all the time.
async fn may_be_used(connection: &mut PgConnection, age: Duration) -> Result<bool, sqlx::Error> {
    // A transaction that is open was begun by an earlier message than this one.
    let text = "SELECT current_setting('transaction_read_only'), (transaction_timestamp() = statement_timestamp())::TEXT";
    let said = sqlx::raw_sql(text).fetch_one(connection).await?;
    let (read_only, is_alone): (&str, &str) = (said.try_get(0)?, said.try_get(1)?);
    Ok(is_alone == "true" && (read_only == "off" || age < WORTH_CLOSING))
}

/// Whether something can be written: not on a standby, and not where an operator has forbidden it.
async fn may_write(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    // As a simple query, which needs no prepared statement.
    let said = sqlx::raw_sql("SELECT current_setting('transaction_read_only')").fetch_one(connection).await?;
    Ok(said.try_get::<&str, _>(0)? == "off")
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
