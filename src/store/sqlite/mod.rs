//! The store in a SQLite file: one connection that writes, a few that read, WAL, and every commit synced to disk.

mod company;
mod comparisons;
mod edges;
mod edit;
mod events;
mod front;
mod functions;
mod keys;
mod lanes;
mod limits;
mod many;
mod marks;
mod moves;
mod nodes;
mod oldest;
mod once;
mod owners;
mod profiles;
mod read;
mod retention;
mod rollups;
mod rows;
mod schedules;
mod script;
mod statements;
mod webhooks;
mod writer;

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};
use sqlx::migrate::MigrateError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection, SqlitePool};
use tokio::sync::{Semaphore, mpsc, oneshot};

use self::company::Company;
use self::edit::{OneStep, Step};
use self::front::Fronts;
use self::nodes::Node;
use self::owners::Paces;
use self::read::Table;
use self::writer::{Acceptance, Command, Published, Reply, Writer};
use super::codes;
use super::error::{SQLITE_BUSY, SQLITE_CANTOPEN, SQLITE_FULL, SQLITE_NOTADB};
use super::intake::{self, Intake};
use super::kept::Unread;
use super::migrations;
use super::node::Gatekeeper;
use super::page::Ids;
use super::said::NoteLimits;
use super::{
    Cancelled, Claimed, CopyStore, Depth, EventFilter, EventPage, Filter, Graph, GraphStore, Lease, Order, Page, Portion,
    Revocation, Settled, Settlement, Sketches, StateFilter, Store, StoreError, Subscription, SummaryKey, Urgency,
};
use crate::auth::Key;
use crate::clock::{Clock, Timestamp};
use crate::job::{Dependency, Job, JobId, Labels, NewJob, Note, Owner, Queue};
use crate::own;

/// Commands that may wait for the writer; who comes then waits to be let in.
const COMMANDS: usize = 8_192;
/// Statements that the writer keeps prepared.
const STATEMENTS: usize = 256;
/// Connections that read.
const READERS: u32 = 4;
/// How many of them may look for events at once.
const LOOKING_FOR_EVENTS: usize = 2;
/// In pages: the writer itself folds a longer journal into the database, because what does that beside it can't keep up.
const LONGEST_JOURNAL: &str = "40000";
/// How many jobs are cancelled, or made to run again, by one transaction.
const PAGE: usize = 1_000;
/// How long to wait for another program that holds the database.
const BUSY: Duration = Duration::from_secs(5);

/// How to open the store.
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    /// The database file; made if it is missing, with its folder.
    pub path: PathBuf,
    /// What this server is called.
    pub node: String,
    /// What is said of it.
    pub labels: Labels,
    /// Tells what time it is.
    pub clock: Arc<dyn Clock>,
    /// A job that was running this often when a server went down ends as lost.
    pub max_losses: u32,
    /// The most lines of log, and of progress, that are kept of one job.
    pub job_log_lines: u64,
    /// The most bytes of them.
    pub job_log_bytes: u64,
}

/// Jobs in a SQLite file.
pub struct SqliteStore {
    commands: mpsc::Sender<Command>,
    readers: SqlitePool,
    published: Arc<Published>,
    intake: Intake<Command>,
    fronts: Arc<Fronts>,
    company: Arc<Company>,
    node: Node,
    clock: Arc<dyn Clock>,
    paces: Paces,
    /// Looking for events can take long after a restart, and must leave connections for others.
    looking_for_events: Semaphore,
    unread: Unread,
    /// Held as long as the store is open: two servers on one file would each take the other's jobs for its own.
    _lock: File,
}

impl SqliteStore {
    /// Opens the database, brings its schema up to date, and takes up what an earlier server left behind.
    pub async fn open(options: SqliteOptions) -> Result<Self, StoreError> {
        let path = options.path.clone();
        Self::open_as(options).await.map_err(|error| unopened(&path, error))
    }

    async fn open_as(options: SqliteOptions) -> Result<Self, StoreError> {
        let path = &options.path;
        let (lock, connect) = reserve(path)?;
        // 4 MiB of cache: rows come and go at the ends of tables and indexes, and SQLite goes through all of its cache at each commit that
        // has split a page. And room for statements in all their sizes.
        let writing = connect
            .clone()
            .pragma("wal_autocheckpoint", LONGEST_JOURNAL)
            .pragma("cache_size", "-4096")
            .statement_cache_capacity(STATEMENTS);
        let connection = migrated(path, writing).await?;
        let beside = connect.connect().await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .min_connections(1)
            .connect_with(connect.create_if_missing(false).read_only(true))
            .await?;
        let limits = NoteLimits { rows: options.job_log_lines, bytes: options.job_log_bytes };
        let fronts = Arc::new(Fronts::default());
        let company = Arc::new(Company::new());
        let gatekeeper = Arc::new(Gatekeeper::new());
        let clock = options.clock;
        let node = Node {
            name: options.node,
            labels: options.labels,
            started_at: clock.now(),
            gatekeeper: Arc::clone(&gatekeeper),
            left_behind: Mutex::default(),
        };
        let (writer, published) = Writer::start(
            connection,
            Arc::clone(&clock),
            options.max_losses,
            limits,
            Arc::clone(&fronts),
            Arc::clone(&company),
            Arc::clone(&gatekeeper),
        )
        .await?;
        let (commands, receiver) = mpsc::channel(COMMANDS);
        writer.spawn(receiver, beside).map_err(|error| StoreError::Unavailable(format!("can't start the writer: {error}")))?;
        let looking_for_events = Semaphore::new(LOOKING_FOR_EVENTS);
        let intake = Intake::new(commands.clone());
        Ok(Self {
            commands,
            readers,
            published,
            intake,
            fronts,
            company,
            node,
            clock,
            paces: Paces::default(),
            looking_for_events,
            unread: Unread::default(),
            _lock: lock,
        })
    }

    /// Has the writer take a step in one of its transactions; what the step gave, after the commit.
    async fn edit<V, T>(&self, given: V, step: Step<V, T>) -> Result<T, StoreError>
    where
        V: Send + Sync + 'static,
        T: Send + 'static,
    {
        self.ask(|reply| Command::Edit(Box::new(OneStep::new(given, step, reply)))).await
    }

    /// Waits until what was claimed from a front is written, so that whoever looks sees that it runs.
    async fn catch_up(&self) {
        if self.fronts.has_unwritten() {
            self.wait_a_turn().await;
        }
    }

    /// Waits until the writer has published what it has committed so far: readers may have seen that before.
    async fn wait_a_turn(&self) {
        // What can't be written now can be looked at all the same.
        let _ = self.ask(Command::CatchUp).await;
    }

    /// Sends a command and waits for its answer.
    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

/// Keeps a new key in the database of a server that does not run.
pub async fn keep_key(path: &Path, key: &Key) -> Result<(), StoreError> {
    let (_lock, connect) = reserve(path)?;
    let mut connection = migrated(path, connect).await.map_err(|error| unopened(path, error))?;
    keys::add(&mut connection, key, None).await?;
    Ok(connection.close().await?)
}

/// The database for this process alone, and how connections to it are opened; its folder is made if it is missing.
fn reserve(path: &Path) -> Result<(File, SqliteConnectOptions), StoreError> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        own::folder(folder).map_err(|error| unavailable(folder, &error))?;
    }
    let lock = lock(path)?;
    check_rights(path)?;
    check_journal(path)?;
    let connect = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY)
        .pragma("temp_store", "memory")
        .pragma("journal_size_limit", "67108864")
        .disable_statement_logging();
    Ok((lock, connect))
}

/// A connection to a database with the latest schema.
async fn migrated(path: &Path, connect: SqliteConnectOptions) -> Result<SqliteConnection, StoreError> {
    let mut connection = connect.connect().await?;
    migrations::SQLITE.run_direct(None, &mut connection, false).await.map_err(|error| migration(path, error))?;
    Ok(connection)
}

/// Why a database can't be opened: SQLite does not say which one.
fn unopened(path: &Path, error: StoreError) -> StoreError {
    let code = error.sqlite_code();
    let StoreError::Database(error) = error else { return error };
    let (path, waited) = (path.display(), BUSY.as_secs());
    match code {
        Some(SQLITE_BUSY) => {
            StoreError::Unavailable(format!("another program holds {path}, and has not let it go for {waited} seconds"))
        }
        Some(SQLITE_NOTADB) => StoreError::Unusable(format!(
            "{path} is no SQLite database, and jobs are kept in one: name another file, which is made if it is not there"
        )),
        Some(SQLITE_FULL) => {
            StoreError::Unavailable(format!("there is no room where {path} is, and a start takes some: {error}"))
        }
        Some(SQLITE_CANTOPEN) => StoreError::Unusable(format!(
            "the database {path} can't be used: {error}: its folder has to be writable, and `ulimit -n` has to leave room for more files"
        )),
        _ => StoreError::Unusable(format!("the database {path} can't be used: {error}")),
    }
}

/// Refuses files that can't be written: SQLite opens them to read them, and leaves others beside them that can't be written either.
fn check_rights(path: &Path) -> Result<(), StoreError> {
    for suffix in ["", "-wal", "-shm"] {
        let file = with_suffix(path, suffix);
        match access(&file, AccessFlags::R_OK | AccessFlags::W_OK) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(error) => {
                return Err(StoreError::Unusable(format!("{} can't be read and written: {}", file.display(), error.desc())));
            }
        }
    }
    Ok(())
}

/// Refuses a journal whose database is gone: SQLite takes it for what was left of another one, deletes it, and begins with nothing.
fn check_journal(path: &Path) -> Result<(), StoreError> {
    let journal = with_suffix(path, "-wal");
    let is_empty = |file: &Path| match file.metadata() {
        Ok(found) => Ok(found.len() == 0),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) => Err(unavailable(file, &error)),
    };
    if !is_empty(path)? || is_empty(&journal)? {
        return Ok(());
    }
    Err(StoreError::Unusable(format!(
        "the database {} is missing or empty, but its journal {} is there, and may be all that is left of it: put the database back beside \
         it, or both from a backup; to begin without any jobs, move the journal away",
        path.display(),
        journal.display()
    )))
}

/// The database's file, or one beside it.
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn lock(path: &Path) -> Result<File, StoreError> {
    let name = with_suffix(path, ".lock");
    own::lock(&name).map_err(|error| match error {
        TryLockError::WouldBlock => StoreError::Unavailable(format!("another server has {} open", path.display())),
        TryLockError::Error(error) => unavailable(&name, &error),
    })
}

fn unavailable(path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Unavailable(format!("{}: {error}", path.display()))
}

fn migration(path: &Path, error: MigrateError) -> StoreError {
    match error {
        MigrateError::VersionMissing(found) | MigrateError::VersionTooNew(found, _) => StoreError::TooNew {
            path: path.display().to_string(),
            found,
            known: migrations::SQLITE.iter().map(|migration| migration.version).max().unwrap_or_default(),
        },
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => StoreError::Database(error),
        other => StoreError::Corrupt(other.to_string()),
    }
}

#[async_trait]
impl GraphStore for SqliteStore {
    async fn dependencies(&self, id: JobId) -> Result<Vec<Dependency>, StoreError> {
        edges::dependencies(&self.readers, id).await
    }

    async fn states(&self, jobs: &[JobId]) -> Result<HashMap<JobId, StateFilter>, StoreError> {
        edges::states(&self.readers, jobs).await
    }

    async fn graph(&self, id: JobId, owner: Option<Owner>, most: usize) -> Result<Graph, StoreError> {
        edges::graph(&self.readers, id, owner, most).await
    }
}

// One server has a file to itself.
impl CopyStore for SqliteStore {}

#[async_trait]
impl Store for SqliteStore {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn accept(&self, jobs: Vec<NewJob>) -> Result<Vec<NewJob>, StoreError> {
        self.ask(|reply| Command::Accept(Acceptance { jobs, with: None, reply })).await
    }

    async fn claim(&self, queue: Queue, most: usize) -> Result<Vec<Claimed>, StoreError> {
        loop {
            self.node.gatekeeper.open().await;
            if let Some((claimed, first)) = self.fronts.claim(queue, most) {
                if first {
                    // If there is no room for this, the writer has something else to write, and this goes along.
                    let _ = self.commands.try_send(Command::Begun(queue));
                }
                return Ok(claimed);
            }
            let claimed = self.ask(|reply| Command::Claim(queue, most, reply)).await?;
            // Nothing comes back where claims are turned away.
            if !claimed.is_empty() {
                return Ok(claimed);
            }
        }
    }

    async fn settle(&self, lease: Lease, settlement: Arc<Settlement>, urgency: Urgency) -> Result<Settled, StoreError> {
        self.intake.end(lease).await;
        let queue = match urgency {
            // It must not overtake what the attempt has said.
            Urgency::Patient(queue) if self.intake.is_empty() => queue,
            _ => return self.ask(|reply| Command::Settle((lease, settlement, reply), urgency)).await,
        };
        let (reply, answer) = oneshot::channel();
        if self.company.join((lease, settlement, reply), queue) {
            // If there is no room for this, the writer has something else to write, and sees them.
            let _ = self.commands.try_send(Command::Ended);
        }
        answer.await.map_err(|_| StoreError::Closed)?
    }

    async fn note(&self, lease: Lease, note: Note) {
        self.intake.note(lease, note).await;
    }

    fn offer(&self, lease: Lease, note: Note) {
        self.intake.offer(lease, note);
    }

    async fn revoked(&self) -> Vec<(Lease, Revocation)> {
        // There is no other node, and its leases last as long as it does.
        std::future::pending().await
    }

    fn may_run_here(&self, _: Lease) -> bool {
        true
    }

    async fn cancel_these(&self, ids: Vec<JobId>, only: &[StateFilter]) -> Result<Cancelled, StoreError> {
        self.ask(|reply| Command::Cancel(ids, only.to_vec(), reply)).await
    }

    async fn cancel_page(&self, filter: &Filter, after: Option<JobId>) -> Result<Portion<Cancelled>, StoreError> {
        let page = Page { order: Order::OldestFirst, after, limit: PAGE };
        self.catch_up().await;
        let Ids { all: ids, last, .. } = read::ids(&self.readers, Table::Jobs, filter, page).await?;
        let done = if ids.is_empty() { Cancelled::default() } else { self.cancel_these(ids, &filter.states).await? };
        Ok(Portion { done, last })
    }

    async fn requeue_these(&self, ids: Vec<JobId>, by: Option<Timestamp>) -> Result<Vec<JobId>, StoreError> {
        self.ask(|reply| Command::Requeue(ids, by, reply)).await
    }

    async fn requeue_page(
        &self,
        filter: &Filter,
        by: Option<Timestamp>,
        after: Option<JobId>,
        most: usize,
    ) -> Result<Portion<Vec<JobId>>, StoreError> {
        let page = Page { order: Order::OldestFirst, after, limit: PAGE.min(most) };
        let Ids { all: ids, last, .. } = read::ids(&self.readers, Table::Results, filter, page).await?;
        let done = if ids.is_empty() { Vec::new() } else { self.requeue_these(ids, by).await? };
        Ok(Portion { done, last })
    }

    async fn ended_unasked(&self) -> Vec<JobId> {
        self.published.unasked.wait().await
    }

    fn somebody_waits(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.published.unasked.somebody_waits)
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        self.catch_up().await;
        read::job(&self.readers, id).await
    }

    async fn outlines(&self, ids: &[JobId]) -> Result<HashMap<JobId, Job>, StoreError> {
        self.catch_up().await;
        read::outlines(&self.readers, ids).await
    }

    async fn jobs(&self, filter: &Filter, page: Page) -> Result<Vec<Job>, StoreError> {
        self.catch_up().await;
        read::jobs(&self.readers, filter, page).await
    }

    async fn results(&self, filter: &Filter, page: Page) -> Result<Vec<Job>, StoreError> {
        read::results(&self.readers, filter, page).await
    }

    async fn events(&self, filter: &EventFilter, after: Timestamp) -> Result<EventPage, StoreError> {
        if filter.job.is_some() {
            return events::read(&self.readers, filter, after, None).await;
        }
        let _turn = self.looking_for_events.acquire().await;
        loop {
            let oldest = self.published.marks().oldest_after(after);
            let page = events::read(&self.readers, filter, after, oldest).await?;
            // Otherwise an older job may have come back before the page was read.
            if self.published.marks().oldest_after(after) >= oldest {
                return Ok(page);
            }
        }
    }

    fn subscribe(&self) -> Subscription {
        self.published.hub.subscribe()
    }

    fn latest_event(&self) -> Timestamp {
        self.published.latest_event()
    }

    async fn summary(&self) -> Result<BTreeMap<SummaryKey, Sketches>, StoreError> {
        self.wait_a_turn().await;
        Ok(self.published.rollups().clone())
    }

    fn depth(&self, queue: Queue) -> Depth {
        self.published.depth(queue)
    }

    async fn identity(&self) -> Result<String, StoreError> {
        Ok(sqlx::query_scalar("SELECT id FROM identity").fetch_one(&self.readers).await?)
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.ask(Command::Check).await
    }

    async fn close(&self) {
        self.readers.close().await;
        let (reply, answer) = oneshot::channel();
        let left_behind = std::mem::take(&mut *self.node.left_behind.lock().unwrap_or_else(PoisonError::into_inner));
        if self.commands.send(Command::Close(left_behind, reply)).await.is_ok() {
            // If the writer went away without an answer, it is shut as well.
            let _ = answer.await;
        }
    }
}
