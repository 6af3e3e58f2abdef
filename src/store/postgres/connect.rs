//! How the database is reached.

mod inspect;
mod migrate;

pub(super) use self::inspect::count_room;
pub(super) use self::migrate::{known, may_go_by};

use std::sync::Arc;
use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, Row as _};

use super::hosts::{Hosts, at};
use super::pool::Pool;
use super::session::{self, Local, Session};
use crate::job::JobId;
use crate::store::StoreError;

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
/// What the database says, as a SQLSTATE, where it, or its user, may have no more connections.
const NO_MORE: &str = "53300";
/// For how long, and how often, an idle connection of a reader is looked for in place of such a one.
const LOOK_FOR_READER: Duration = Duration::from_secs(1);
const NEXT_LOOK: Duration = Duration::from_millis(5);
/// How old a connection is at least that is closed because nothing can be written on it.
const WORTH_CLOSING: Duration = Duration::from_secs(1);

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

/// Ends the sessions of this name, or of what a pooler makes of it, that have been waiting for so many seconds: for a lock, or for a standby, which
/// the database does for ever, whether or not anybody is still there. Of those that nobody waits for there would be more and more, until there are no
/// connections left.
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
            let why = format!("a schema can't have the name {schema:?}: it has 1 to {LONGEST_NAME} of a-z, 0-9 and _");
            return Err(StoreError::Unusable(why));
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
    /// What the user's sessions have as limits was meant for others: a turn is waited for longer than any program waits for a lock, and there are
    /// limits of our own.
    fn settings(&self) -> [(&'static str, String); 6] {
        [
            ("search_path", format!("\"{}\"", self.schema)),
            ("client_min_messages", "warning".into()),
            ("idle_in_transaction_session_timeout", LONGEST_PAUSE.into()),
            ("standard_conforming_strings", "on".into()),
            ("lock_timeout", "0".into()),
            ("statement_timeout", "0".into()),
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
        let mut connection = match host.clone().application_name(&name).connect().await {
            Err(sqlx::Error::Database(said)) if said.code().as_deref() == Some(NO_MORE) => self.take_over(&name, said).await?,
            connected => connected?,
        };
        if self.keeps_sessions() {
            begin_session(&mut connection, &self.settings()).await?;
            sqlx::raw_sql(AssertSqlSafe(by_key())).execute(&mut connection).await?;
            set_if_it_can(&mut connection, LONGEST_UNREAD).await?;
        }
        end_given_up(&mut connection, &name, Duration::ZERO).await?;
        self.if_good(connection, &self.local.by_key).await
    }

    /// A connection of the pool in place of one that the database refuses: readers may have taken all there are after a restart of the database, and
    /// would keep them for ever, as they keep what they have. Who is without one waits or is refused, but the node goes on.
    async fn take_over(&self, name: &str, refusal: Box<dyn DatabaseError>) -> Result<PgConnection, sqlx::Error> {
        // Of several hosts, it may have some of the one before; and where sessions are not kept, they are the pooler's.
        let pool = self.hosts.pool().filter(|_| self.keeps_sessions() && self.hosts.count() == 1);
        let begin = format!("RESET ALL; SET application_name = '{name}'");
        let taken = async {
            let pool = pool?;
            loop {
                // Whoever waits for one as readers do has the pool try to open another.
                while let Some(mut connection) = pool.try_acquire().map(PoolConnection::detach) {
                    if may_be_used(&mut connection, Duration::ZERO).await.is_ok_and(|may| may)
                        && sqlx::raw_sql(AssertSqlSafe(begin.as_str())).execute(&mut connection).await.is_ok()
                    {
                        return Some(connection);
                    }
                }
                tokio::time::sleep(NEXT_LOOK).await;
            }
        };
        let Ok(Some(connection)) = tokio::time::timeout(LOOK_FOR_READER, taken).await else {
            return Err(sqlx::Error::Database(refusal));
        };
        tracing::warn!(error = refusal.message(), "the connection of a reader is used for what must not wait");
        Ok(connection)
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

    /// The channel of hints of this schema.
    pub(super) fn channel(&self) -> String {
        format!("trine_{}", self.schema)
    }
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
