//! Group commit: one task writes for all of this node.
//!
//! It takes all commands that have arrived, carries them out in one transaction, and answers each only after the commit. A claim that
//! finds nothing stays with the writer until there is something; a job that is accepted while such a claim waits is claimed by the
//! transaction that accepts it.
//!
//! Each transaction begins with the lock of the row that all nodes go by (`shared.rs`), so it finds everything as the one before left it,
//! whoever that was. What happens by itself - jobs that are due, or too late; the ends of lanes; the jobs of a node that is gone - is done
//! by whichever node comes first.
//!
//! `run.rs` is the loop, `commit_delay.rs` when it waits for more, `aside.rs` what it does without, `batch.rs` the commands of one
//! transaction by kind, `transaction.rs` its steps in their order; each kind of command has its step in a file of its own, and `answer.rs`
//! publishes what was done.

mod accept;
mod answer;
mod aside;
mod batch;
mod cancel;
mod claim;
mod commit_delay;
mod end;
mod lanes;
mod lost;
mod note;
mod published;
mod recount;
mod run;
mod settle;
mod transaction;
mod unblock;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{Notify, mpsc, oneshot};

use self::aside::Aside;
use self::commit_delay::Turn;
pub(super) use self::published::Published;

use super::connect::Connect;
use super::node::Node;
use super::partitions::Ends;
use super::retention::Why;
use super::session::Session;
use super::shared::Shared;
use super::synced::Synced;
use crate::clock::{Clock, Timestamp};
use crate::job::{JobId, Owner, Queue};
use crate::store::acceptance;
pub(super) use crate::store::acceptance::Reply;
use crate::store::claims::Claims;
use crate::store::full::Full;
use crate::store::intake::Noted;
use crate::store::said::{NoteLimits, Said};
use crate::store::{Cancelled, Claimed, Firing, Lease, Once, Settled, Settlement, StateFilter, StoreError};
use crate::telemetry::Sparing;

/// What the writer is asked to do.
pub(super) enum Command {
    Note(Noted),
    Accept(Acceptance),
    With(With, Reply<()>),
    Claim(Queue, usize, Reply<Vec<Claimed>>),
    Settle(Lease, Arc<Settlement>, Reply<Settled>),
    Cancel(Vec<JobId>, Vec<StateFilter>, Reply<Cancelled>),
    /// Only those that had ended by then, if it says when.
    Requeue(Vec<JobId>, Option<Timestamp>, Reply<Vec<JobId>>),
    Remove(Vec<JobId>, Why, Reply<u64>),
    Allow(HashMap<Owner, u32>, Reply<()>),
    Check(Reply<()>),
    /// Nodes have not been heard of in time.
    Reap,
    Close(oneshot::Sender<()>),
}

impl From<Noted> for Command {
    fn from(noted: Noted) -> Self {
        Self::Note(noted)
    }
}

/// New jobs.
pub(super) type Acceptance = acceptance::Acceptance<With>;

/// What goes along with new jobs, or without any.
pub(super) enum With {
    Once(Once),
    Firing(Firing),
}

/// What the writer is started with.
pub(super) struct Start {
    pub(super) connect: Connect,
    pub(super) node: Arc<Node>,
    /// The database's if there is none.
    pub(super) clock: Option<Arc<dyn Clock>>,
    pub(super) max_losses: u32,
    pub(super) limits: NoteLimits,
    pub(super) ends: Arc<Ends>,
    /// Told when there may be something for other nodes.
    pub(super) told: Arc<Notify>,
}

/// The task that writes.
pub(super) struct Writer {
    connect: Connect,
    connection: Session,
    /// It can't be used any more.
    is_broken: bool,
    node: Arc<Node>,
    limits: NoteLimits,
    /// Of the partitions that there are.
    ends: Arc<Ends>,
    published: Arc<Published>,
    /// As it was when this node looked last.
    shared: Shared,
    commands: mpsc::Receiver<Command>,
    /// By the database's clock, when the latest transaction began.
    seen: Timestamp,
    /// How many jobs of nodes that are gone were dealt with when that was looked for last.
    latest_lost: usize,
    /// What has arrived and is in no batch yet.
    arrived: Vec<Command>,
    /// It is to end, and to tell so.
    closing: Option<oneshot::Sender<()>>,
    claims: Claims,
    max_losses: u32,
    /// How many jobs of an owner may run at once, where there is a quota. Until it is said, none is known.
    allowed: Option<Arc<HashMap<Owner, u32>>>,
    said: HashMap<Lease, Said>,
    /// Leases whose settlement may have been committed, though the answer was lost.
    unsure: HashSet<Lease>,
    /// A transaction, and with it a claim, may have been committed, though the answer was lost.
    may_have_claimed: bool,
    /// The number of the place that it took last, until the next turn: whether that was committed is known by then, also if the answer was lost.
    registered: Option<i64>,
    rolled_up_at: Instant,
    latest_turn: Turn,
    /// A transaction failed, so what is to be done is tried again soon.
    is_blocked: bool,
    full: Full,
    /// Transactions that had to be tried again, and those that failed.
    retries: Sparing,
    failures: Sparing,
    /// What happens by itself and can't be done just now.
    aside: Aside,
    told: Arc<Notify>,
}

impl Writer {
    /// Writes, on a thread of its own, until it is told to close or nobody is left who could tell it anything. Returns what it publishes once
    /// it is ready.
    ///
    /// Everything waits for this task, so it must not stand in a queue behind requests.
    pub(super) async fn spawn(
        start: Start,
        commands: mpsc::Receiver<Command>,
        hint: Arc<Notify>,
    ) -> Result<Arc<Published>, StoreError> {
        let unavailable = |error: std::io::Error| StoreError::Unavailable(format!("can't start the writer: {error}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(unavailable)?;
        let (ready, is_ready) = oneshot::channel();
        let write = move || runtime.block_on(Self::write_on(start, commands, hint, ready));
        std::thread::Builder::new().name("trine-writer".into()).spawn(write).map_err(unavailable)?;
        is_ready.await.map_err(|_| StoreError::Closed)?
    }

    async fn write_on(
        start: Start,
        commands: mpsc::Receiver<Command>,
        hint: Arc<Notify>,
        ready: oneshot::Sender<Result<Arc<Published>, StoreError>>,
    ) {
        match Self::start(start, commands).await {
            Ok((writer, published)) => {
                // Whoever opens the store may have gone away; then there is nobody who could tell it anything.
                let _ = ready.send(Ok(published));
                writer.run(hint).await;
            }
            Err(error) => drop(ready.send(Err(error))),
        }
    }

    /// Makes ready to write: takes a place among the nodes, and takes up what an earlier start of this node left behind.
    async fn start(start: Start, commands: mpsc::Receiver<Command>) -> Result<(Self, Arc<Published>), StoreError> {
        let Start { connect, node, clock, max_losses, limits, ends, told } = start;
        let mut connection = Shared::session(&connect).await?;
        let (shared, now) = Shared::look(&mut connection, &node).await?;
        let synced = connection.ask(Synced::ask).await?;
        let published = Arc::new(Published::new(&shared, clock, synced));
        published.set_time(now);
        let mut writer = Self {
            connect,
            connection,
            is_broken: false,
            node,
            limits,
            ends,
            published: Arc::clone(&published),
            // The latest moment that was given may have been by a clock that was set back since.
            seen: Timestamp::from_micros(shared.latest).max(now),
            shared,
            commands,
            latest_lost: 0,
            arrived: Vec::new(),
            closing: None,
            claims: Claims::default(),
            max_losses,
            allowed: None,
            said: HashMap::new(),
            unsure: HashSet::new(),
            may_have_claimed: false,
            registered: None,
            rolled_up_at: Instant::now(),
            latest_turn: Turn::default(),
            is_blocked: false,
            full: Full::default(),
            retries: Sparing::default(),
            failures: Sparing::default(),
            aside: Aside::default(),
            told,
        };
        writer.begin().await?;
        Ok((writer, published))
    }

    /// The time by which the store goes: the database's, so that nodes agree on it.
    fn now(&self) -> Timestamp {
        self.published.now()
    }
}
