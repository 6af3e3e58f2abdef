//! What all nodes go by: one row, whose lock is held by whoever changes what waits or runs.
//!
//! Under that lock moments are given in the order of the commits, limits are exact, and counts are never off by what another node does
//! just now. It is held for the few statements of a transaction that carries out all that has come to a node meanwhile; so the more comes,
//! the more goes into each, and what nodes share is the rate of commits, not of jobs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use super::node::Node;
use super::rows::{BLOCKED, LIMITED, RUNNING, SCHEDULED};
use crate::clock::Timestamp;
use crate::job::Queue;
use crate::store::{Depth, StoreError};

/// The row, the time by the database's clock, what is not in the row, and whether a node is to claim nothing more: NULL of one that has no
/// place.
macro_rules! columns {
    () => {
        "SELECT state, (extract(epoch FROM clock_timestamp()) * 1000000)::BIGINT, \
         (SELECT array_agg(version ORDER BY kind) FROM versions), (SELECT draining FROM nodes WHERE id = $1) FROM shared"
    };
}

/// So many different requirements may wait in lanes: each stands in the row.
const MOST_PLACES: usize = 64;

/// What is in the row.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Shared {
    /// The latest moment that was given: each is the id of an event.
    pub(super) latest: i64,
    /// The latest token that was given.
    pub(super) token: i64,
    /// The nodes whose leases are valid.
    pub(super) nodes: Vec<i64>,
    /// How many jobs of each queue are in each state.
    counts: Vec<[u64; 5]>,
    /// When the next scheduled job is due.
    pub(super) next_due: Option<i64>,
    /// When the time of a job that waits is over, at the earliest.
    pub(super) next_expiry: Option<i64>,
    /// When the next lane opens that is shut for a time.
    pub(super) next_open: Option<i64>,
    /// Whether a queue may have open lanes whose jobs any node may run.
    open: Vec<bool>,
    /// The queues that may have open lanes whose jobs require labels of a node, by what they require.
    places: BTreeMap<String, BTreeSet<u8>>,
    /// When those without a limit had their last turn among the lanes of a queue.
    turns: Vec<i64>,
    /// How many jobs have ended of which not all children have heard.
    pub(super) releases: u64,
    /// How often a job was to be stopped that ran on another node than the one that was asked.
    pub(super) stops: u64,
    /// How often was changed what nodes have copies of, by kind; in rows of their own (`copied.rs`), since that needs no lock.
    #[serde(skip)]
    pub(super) versions: Vec<i64>,
}

impl Shared {
    /// Takes the lock, and reads the row; with the time by the database's clock, and what this node is to do.
    pub(super) async fn lock(connection: &mut PgConnection, node: &Node) -> Result<(Self, Timestamp), StoreError> {
        Self::read_by(connection, concat!(columns!(), " FOR UPDATE"), node).await
    }

    /// Reads it as it was committed last.
    pub(super) async fn look(connection: &mut PgConnection, node: &Node) -> Result<(Self, Timestamp), StoreError> {
        Self::read_by(connection, columns!(), node).await
    }

    async fn read_by(connection: &mut PgConnection, text: &'static str, node: &Node) -> Result<(Self, Timestamp), StoreError> {
        let (state, now, versions, draining): (String, i64, Vec<i64>, Option<bool>) =
            sqlx::query_as(text).bind(node.id()).fetch_one(connection).await?;
        if let Some(draining) = draining {
            node.gatekeeper.shut(draining);
        }
        let mut shared: Self = serde_json::from_str(&state).map_err(|error| StoreError::Corrupt(error.to_string()))?;
        shared.versions = versions;
        // A version with fewer queues may have written it.
        shared.counts.resize(Queue::ALL.len(), [0; 5]);
        shared.open.resize(Queue::ALL.len(), false);
        shared.turns.resize(Queue::ALL.len(), 0);
        Ok((shared, Timestamp::from_micros(now)))
    }

    /// Writes it, in the transaction that has the lock.
    pub(super) async fn keep(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        sqlx::query("UPDATE shared SET state = $1").bind(super::rows::json(self)).execute(connection).await?;
        Ok(())
    }

    /// A moment later than every one before, whatever the clock does.
    pub(super) fn moment(&mut self, now: Timestamp) -> Timestamp {
        self.latest = now.as_micros().max(self.latest + 1);
        Timestamp::from_micros(self.latest)
    }

    /// As many as that, from the one behind the returned one on.
    pub(super) fn skip(&mut self, now: Timestamp, count: usize) -> Timestamp {
        let before = self.moment(now);
        self.latest = before.after(Duration::from_micros(count as u64)).as_micros();
        before
    }

    /// A token for a claim.
    pub(super) const fn next_token(&mut self) -> i64 {
        self.token += 1;
        self.token
    }

    /// How many jobs of a queue are where; the limited ones apart from those that are queued.
    pub(super) fn depth(&self, queue: Queue) -> Depth {
        let count = |state: i16| usize::try_from(state).ok().and_then(|at| self.counts[queue as usize].get(at).copied());
        let count = |state: i16| count(state).unwrap_or_default();
        Depth {
            queued: count(super::rows::QUEUED),
            limited: count(LIMITED),
            scheduled: count(SCHEDULED),
            blocked: count(BLOCKED),
            running: count(RUNNING),
        }
    }

    /// So many more jobs of a queue are there.
    pub(super) fn enter(&mut self, queue: Queue, state: i16, count: u64) {
        if let Some(there) = self.count(queue, state) {
            *there += count;
        }
    }

    /// So many fewer.
    pub(super) fn leave(&mut self, queue: Queue, state: i16, count: u64) {
        if let Some(there) = self.count(queue, state) {
            *there = there.saturating_sub(count);
        }
    }

    fn count(&mut self, queue: Queue, state: i16) -> Option<&mut u64> {
        let at = usize::try_from(state).ok()?;
        self.counts.get_mut(queue as usize)?.get_mut(at)
    }

    /// Forgets all counts, to count anew.
    pub(super) fn clear_counts(&mut self) {
        self.counts.fill([0; 5]);
    }

    /// A queue may have open lanes with jobs that require this, or has none.
    pub(super) fn set_open(&mut self, queue: Queue, place: &str, open: bool) {
        if place.is_empty() {
            self.open[queue as usize] = open;
        } else if open {
            self.places.entry(place.to_owned()).or_default().insert(queue as u8);
        } else if let Some(queues) = self.places.get_mut(place) {
            queues.remove(&(queue as u8));
            if queues.is_empty() {
                self.places.remove(place);
            }
        }
    }

    /// What the jobs require that may be in open lanes of a queue, as far as this node has it.
    pub(super) fn open_places<'a>(&'a self, queue: Queue, node: &'a Node) -> impl Iterator<Item = &'a str> {
        let any = self.open[queue as usize].then_some("");
        let of_queue = self.places.iter().filter(move |(_, queues)| queues.contains(&(queue as u8)));
        any.into_iter().chain(of_queue.map(|(place, _)| place.as_str()).filter(|place| node.may_run(place)))
    }

    /// Forgets what is required in open lanes, to look anew.
    pub(super) fn clear_places(&mut self) {
        self.places.clear();
    }

    /// Whether there is room for jobs that require this.
    pub(super) fn knows_or_takes(&self, place: &str) -> bool {
        place.is_empty() || self.places.contains_key(place) || self.places.len() < MOST_PLACES
    }

    pub(super) fn turn(&self, queue: Queue) -> i64 {
        self.turns[queue as usize]
    }

    pub(super) fn set_turn(&mut self, queue: Queue, turn: i64) {
        self.turns[queue as usize] = turn;
    }

    /// Whether a claim by this node may find a job.
    pub(super) fn has_any(&self, queue: Queue, node: &Node) -> bool {
        self.depth(queue).queued > 0 || self.has_open_lanes(queue, node)
    }

    /// Whether a queue may have lanes that a claim by this node can be served from.
    pub(super) fn has_open_lanes(&self, queue: Queue, node: &Node) -> bool {
        self.depth(queue).limited > 0 && self.open_places(queue, node).next().is_some()
    }

    /// When something happens by itself.
    pub(super) fn next(&self) -> Option<i64> {
        [self.next_due, self.next_expiry, self.next_open].into_iter().flatten().min()
    }

    /// A job waits that may start at this moment.
    pub(super) fn due(&mut self, at: Timestamp) {
        self.next_due = self.next_due.into_iter().chain([at.as_micros()]).min();
    }

    /// A job waits whose time is over at this moment, if it ever is.
    pub(super) fn expires(&mut self, at: Option<i64>) {
        self.next_expiry = self.next_expiry.into_iter().chain(at).min();
    }

    /// A lane is shut until this moment.
    pub(super) fn opens(&mut self, at: i64) {
        self.next_open = self.next_open.into_iter().chain([at]).min();
    }
}
