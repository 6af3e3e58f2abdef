//! The store in a PostgreSQL that several nodes share.
//!
//! One task writes whatever changes what waits or runs, many commands in one transaction, under the lock of the one row that all nodes go by
//! (`shared.rs`); all else are short transactions of their own on a few connections. What a node has claimed is its own as long as it is
//! heard of (`node.rs`); then any other may take it, and what the first one still says of it is refused.

mod bloat;
mod comparisons;
mod connect;
mod copied;
mod edges;
mod events;
mod functions;
mod hints;
mod hosts;
mod keys;
mod lanes;
mod limits;
mod moves;
mod node;
mod nodes;
mod oldest;
mod once;
mod owners;
mod partitions;
mod pool;
mod profiles;
mod read;
mod retention;
mod rollups;
mod rows;
mod schedules;
mod session;
mod shared;
mod synced;
mod webhooks;
mod writer;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use sqlx::{PgConnection, PgExecutor};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::connect::{Connect, in_time};
use self::node::Node;
use self::partitions::Ends;
use self::pool::Pool;
use self::read::Among;
use self::synced::latest_of;
use self::writer::{Acceptance, Command, Published, Reply, Start, Writer};
use super::intake::Intake;
use super::kept::Unread;
use super::page::Ids;
use super::said::NoteLimits;
use super::{
    Cancelled, Claimed, Copied, Depth, EventFilter, EventPage, Filter, Graph, GraphStore, Lease, Order, Page, Portion,
    Revocation, Settled, Settlement, Sketches, StateFilter, Store, StoreError, Subscription, SummaryKey, Urgency,
};
use crate::auth::Key;
use crate::clock::{Clock, Timestamp};
use crate::job::{Dependency, Job, JobId, Labels, NewJob, Note, Owner, Queue, Role};

/// Commands that may wait for the writer; who comes then waits to be let in.
const COMMANDS: usize = 8_192;
/// How many jobs are cancelled, or made to run again, by one transaction.
const PAGE: usize = 1_000;
/// The fewest connections for those who ask: one listens, and one may be kept by what removes old results.
pub const LEAST_CONNECTIONS: u32 = 3;

const NO_PARTITIONS: &str =
    "partitions can't be looked after through a pooler that does not keep sessions: have it keep them (`pool_mode = session`)";

/// How to open the store.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// Where the database is: `postgres://…`. Of several, the first that can be written in is used, and another after a failover.
    pub urls: Vec<String>,
    /// The schema in which the tables are; made if it is missing.
    pub schema: String,
    /// Whether the tables of jobs and results are to be in partitions by day. If they are, they stay so.
    pub partitions: bool,
    /// What this node is called. One that comes with the name of another takes its place, and what ran there runs again at once.
    pub node: String,
    /// What this node does.
    pub role: Role,
    /// What is said of it.
    pub labels: Labels,
    /// What it runs is lost, and run elsewhere, when it has not been heard of for so long.
    pub lease: Duration,
    /// How many connections there may be, besides the two that write and that say that this node is there: at least [`LEAST_CONNECTIONS`].
    pub connections: u32,
    /// Tells what time it is, in the place of the database.
    pub clock: Option<Arc<dyn Clock>>,
    /// A job that was running this often when a server went down ends as lost.
    pub max_losses: u32,
    /// The most lines of log, and of progress, that are kept of one job.
    pub job_log_lines: u64,
    /// The most bytes of them.
    pub job_log_bytes: u64,
}

/// Jobs in a PostgreSQL.
pub struct PostgresStore {
    commands: mpsc::Sender<Command>,
    pool: Pool,
    ends: Arc<Ends>,
    published: Arc<Published>,
    intake: Intake<Command>,
    node: Arc<Node>,
    /// Told when there is something for other nodes, or for the writer of this one.
    told: Arc<Notify>,
    unread: Unread,
    /// Ends what goes on besides.
    _end: DropGuard,
}

/// What a step of a transaction does with what it is given.
type Step<V, T> = for<'a> fn(&'a V, &'a mut PgConnection) -> BoxFuture<'a, Result<T, StoreError>>;

impl PostgresStore {
    /// Brings the schema up to date, takes a place among the nodes, and takes up what an earlier start of this one left behind.
    pub async fn open(options: PostgresOptions) -> Result<Self, StoreError> {
        let mut connect = Connect::new(&options.urls, &options.schema)?;
        connect.inspect().await?;
        if options.partitions && !connect.keeps_sessions() {
            return Err(StoreError::Unusable(NO_PARTITIONS.into()));
        }
        let mut session = connect.migrate().await?;
        let now = match &options.clock {
            Some(clock) => clock.now(),
            None => time(&mut session).await?,
        };
        let ends = Arc::new(Ends::default());
        if connect.keeps_sessions() {
            connect::count_room(&mut session, options.connections.saturating_add(2)).await?;
            partitions::divide(&mut session, options.partitions, now).await?;
            partitions::look_ahead(&mut session, &ends, now).await?;
        } else if session.ask(partitions::list).await?.is_some() {
            return Err(StoreError::Unusable(NO_PARTITIONS.into()));
        }
        session.close().await?;
        let (pool, channel) = (connect.pool(options.connections), connect.channel());
        let node = Arc::new(Node::new(options.node, options.role, options.labels, options.lease));
        let (told, hint) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let start = Start {
            connect: connect.clone(),
            node: Arc::clone(&node),
            clock: options.clock,
            max_losses: options.max_losses,
            limits: NoteLimits { rows: options.job_log_lines, bytes: options.job_log_bytes },
            ends: Arc::clone(&ends),
            told: Arc::clone(&told),
        };
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let published = Writer::spawn(start, receiver, Arc::clone(&hint)).await?;
        let end = CancellationToken::new();
        tokio::spawn(hints::tell(pool.clone(), channel.clone(), Arc::clone(&told), end.clone()));
        if connect.keeps_sessions() {
            tokio::spawn(hints::listen(pool.clone(), channel, hint, end.clone()));
        }
        tokio::spawn({
            let (node, commands, end) = (Arc::clone(&node), commands.downgrade(), end.clone());
            async move { node.beat(&connect, &commands, &end).await }
        });
        let (intake, unread) = (Intake::new(commands.clone()), Unread::default());
        Ok(Self { intake, commands, pool, ends, published, node, told, unread, _end: end.drop_guard() })
    }

    /// Takes a step in a transaction of its own; what it gave, after the commit.
    async fn edit<V: Send + Sync, T: Send>(&self, given: V, step: Step<V, T>) -> Result<T, StoreError> {
        self.take_step(None, given, step).await
    }

    /// The same with what nodes have copies of: the others make new ones.
    async fn change<V: Send + Sync, T: Send>(&self, of: Copied, given: V, step: Step<V, T>) -> Result<T, StoreError> {
        self.take_step(Some(of), given, step).await
    }

    async fn take_step<V: Send + Sync, T: Send>(&self, of: Option<Copied>, given: V, step: Step<V, T>) -> Result<T, StoreError> {
        in_time(async {
            let mut transaction = self.pool.begin().await?;
            may_change(&mut *transaction).await?;
            if let Some(of) = of {
                copied::count(&mut transaction, of).await?;
            }
            let gave = step(&given, &mut transaction).await?;
            transaction.commit().await?;
            if of.is_some() {
                self.told.notify_one();
            }
            Ok(gave)
        })
        .await
    }

    /// A page of jobs.
    async fn page(&self, among: Among, filter: &Filter, page: Page) -> Result<Vec<Job>, StoreError> {
        let jobs = read::jobs(&self.pool, &self.ends, among, filter, page).await?;
        self.published.synced.up_to(&self.pool, jobs.iter().map(latest_of).max()).await?;
        Ok(jobs)
    }

    /// Sends a command and waits for its answer.
    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

/// Keeps a new key in a database. Servers that share it just now hear of it.
pub async fn keep_key(urls: &[String], schema: &str, key: &Key) -> Result<(), StoreError> {
    let mut connect = Connect::new(urls, schema)?;
    connect.inspect().await?;
    let mut session = connect.migrate().await?;
    let mut transaction = session.begin().await?;
    copied::count(&mut transaction, Copied::Keys).await?;
    keys::add(&mut transaction, key, None).await?;
    transaction.commit().await?;
    Ok(session.close().await?)
}

/// Whether anything may be changed: a newer version may have changed the database so that this one can't go on with it.
async fn may_change(database: impl PgExecutor<'_>) -> Result<(), StoreError> {
    let oldest = sqlx::query_scalar("SELECT oldest FROM shared").fetch_one(database).await?;
    connect::may_go_by(oldest).map_err(|error| StoreError::Unavailable(error.cause()))
}

/// What time it is, says the database.
async fn time(connection: &mut PgConnection) -> Result<Timestamp, StoreError> {
    let text = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::BIGINT";
    Ok(Timestamp::from_micros(sqlx::query_scalar(text).fetch_one(connection).await?))
}

#[async_trait]
impl GraphStore for PostgresStore {
    async fn dependencies(&self, id: JobId) -> Result<Vec<Dependency>, StoreError> {
        let dependencies = edges::dependencies(&self.pool, id).await?;
        self.published.synced.all(&self.pool).await?;
        Ok(dependencies)
    }

    async fn states(&self, jobs: &[JobId]) -> Result<HashMap<JobId, StateFilter>, StoreError> {
        let states = edges::states(&self.pool, jobs).await?;
        self.published.synced.all(&self.pool).await?;
        Ok(states)
    }

    async fn graph(&self, id: JobId, owner: Option<Owner>, most: usize) -> Result<Graph, StoreError> {
        let graph = in_time(edges::graph(&self.pool, id, owner, most)).await?;
        self.published.synced.all(&self.pool).await?;
        Ok(graph)
    }
}

#[async_trait]
impl Store for PostgresStore {
    fn now(&self) -> Timestamp {
        self.published.now()
    }

    async fn accept(&self, jobs: Vec<NewJob>) -> Result<Vec<NewJob>, StoreError> {
        self.ask(|reply| Command::Accept(Acceptance { jobs, with: None, reply })).await
    }

    async fn claim(&self, queue: Queue, most: usize) -> Result<Vec<Claimed>, StoreError> {
        loop {
            self.node.gatekeeper.open().await;
            self.node.heard().await;
            let claimed = self.ask(|reply| Command::Claim(queue, most, reply)).await?;
            // Nothing comes back where claims are turned away.
            if !claimed.is_empty() {
                return Ok(claimed);
            }
        }
    }

    // All that comes while one transaction is on its way goes into the next: what nobody waits for need not wait for more.
    async fn settle(&self, lease: Lease, settlement: Arc<Settlement>, _: Urgency) -> Result<Settled, StoreError> {
        self.intake.end(lease).await;
        self.ask(|reply| Command::Settle(lease, settlement, reply)).await
    }

    async fn note(&self, lease: Lease, note: Note) {
        self.intake.note(lease, note).await;
    }

    fn offer(&self, lease: Lease, note: Note) {
        self.intake.offer(lease, note);
    }

    async fn revoked(&self) -> Vec<(Lease, Revocation)> {
        self.node.revoked().await
    }

    fn may_run_here(&self, lease: Lease) -> bool {
        self.node.runs(std::iter::once(lease)).into_iter().flatten().next().is_some()
    }

    async fn cancel_these(&self, ids: Vec<JobId>, only: &[StateFilter]) -> Result<Cancelled, StoreError> {
        self.ask(|reply| Command::Cancel(ids, only.to_vec(), reply)).await
    }

    async fn cancel_page(&self, filter: &Filter, after: Option<JobId>) -> Result<Portion<Cancelled>, StoreError> {
        let page = Page { order: Order::OldestFirst, after, limit: PAGE };
        let Ids { all: ids, last, .. } = read::ids(&self.pool, &self.ends, Among::Unfinished, filter, page).await?;
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
        let Ids { all: ids, last, .. } = read::ids(&self.pool, &self.ends, Among::Results, filter, page).await?;
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
        let job = read::job(&self.pool, id).await?;
        self.published.synced.up_to(&self.pool, job.as_ref().map(latest_of)).await?;
        Ok(job)
    }

    async fn outlines(&self, ids: &[JobId]) -> Result<HashMap<JobId, Job>, StoreError> {
        let outlines = read::outlines(&self.pool, ids).await?;
        self.published.synced.up_to(&self.pool, outlines.values().map(latest_of).max()).await?;
        Ok(outlines)
    }

    async fn jobs(&self, filter: &Filter, page: Page) -> Result<Vec<Job>, StoreError> {
        self.page(Among::All, filter, page).await
    }

    async fn results(&self, filter: &Filter, page: Page) -> Result<Vec<Job>, StoreError> {
        self.page(Among::Results, filter, page).await
    }

    async fn events(&self, filter: &EventFilter, after: Timestamp) -> Result<EventPage, StoreError> {
        let page = events::read(&self.pool, filter, after).await?;
        self.published.synced.up_to(&self.pool, page.events.last().map(|event| event.at)).await?;
        Ok(page)
    }

    fn subscribe(&self) -> Subscription {
        self.published.hub.subscribe()
    }

    fn latest_event(&self) -> Timestamp {
        self.published.latest_event()
    }

    async fn summary(&self) -> Result<BTreeMap<SummaryKey, Sketches>, StoreError> {
        in_time(async {
            let mut snapshot = self.pool.snapshot().await?;
            let rollups = rollups::load(&mut snapshot).await?;
            snapshot.commit().await?;
            Ok(rollups)
        })
        .await
    }

    fn depth(&self, queue: Queue) -> Depth {
        self.published.depth(queue)
    }

    async fn identity(&self) -> Result<String, StoreError> {
        Ok(sqlx::query_scalar("SELECT replace(id::TEXT, '-', '') FROM identity").fetch_one(&self.pool).await?)
    }

    async fn check(&self) -> Result<(), StoreError> {
        if self.node.why_silent() == Some(node::UNHEARD) {
            return Err(StoreError::Silent(node::UNHEARD));
        }
        self.ask(Command::Check).await?;
        // That may have found, or found gone, another one of its name.
        self.node.why_silent().map_or(Ok(()), |why| Err(StoreError::Silent(why)))
    }

    async fn close(&self) {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::Close(reply)).await.is_ok() {
            // If the writer went away without an answer, it is shut as well.
            let _ = answer.await;
        }
        self.pool.close().await;
    }
}
