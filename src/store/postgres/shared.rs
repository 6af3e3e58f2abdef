//! What all nodes go by: one row, whose lock is held by whoever changes what waits or runs.
//!
//! Under that lock moments are given in the order of the commits, limits are exact, and counts are never off by what another node does
//! just now. It is held for the few statements of a transaction that carries out all that has come to a node meanwhile; so the more comes,
//! the more goes into each, and what nodes share is the rate of commits, not of jobs.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, FromRow, PgConnection};

use super::connect::{self, CONNECT, Connect};
use super::node::Node;
use super::session::{Session, USUAL};
use super::synced::COMMIT_FIRST;
use crate::clock::Timestamp;
use crate::job::{Labels, Queue, meets};
use crate::store::kept::state::{BLOCKED, LIMITED, QUEUED, RUNNING, SCHEDULED};
use crate::store::reopens::Reopens;
use crate::store::tally::{self, Count};
use crate::store::{Depth, StoreError};

/// The row, the time by the database's clock, what is not in the row, whether a node is to claim nothing more - NULL of one that has no
/// place -, and which programs may go by the row.
macro_rules! columns {
    () => {
        "SELECT state, (extract(epoch FROM clock_timestamp()) * 1000000)::BIGINT, \
         (SELECT array_agg(version ORDER BY kind) FROM versions), (SELECT draining FROM nodes WHERE id = $1), oldest FROM shared"
    };
}

/// What each turn runs within the messages that begin and end it, by name. These have to be simple queries, so what they are given is written as
/// a literal. Where the writer's session is kept, it has them ready, and they need not be read and planned again.
const LOCK: (&str, &str) = ("lock", concat!(columns!(), " FOR UPDATE"));
const LOG: (&str, &str) = ("log", "INSERT INTO counted (results) VALUES ($1)");
const KEEP: (&str, &str) = ("keep", "UPDATE shared SET state = $1");

/// So many different requirements may wait in lanes: each stands in the row. And so many of those that no node meets, which wait for one to come.
const MOST_PLACES: usize = 256;
const MOST_UNMET: usize = 64;

/// What is in the row. Nodes of other versions read and write it as well, so nothing here changes its meaning, and queues are numbers: those of
/// a newer version are counted like others.
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
    /// Lanes to be opened, since owners may have more jobs run.
    pub(super) reopens: Reopens,
    /// How many jobs have ended of which not all children have heard.
    pub(super) releases: u64,
    /// How often a job was to be stopped that ran on another node than the one that was asked.
    pub(super) stops: u64,
    /// How often was changed what nodes have copies of, by kind; in rows of their own (`copied.rs`), since that needs no lock.
    #[serde(skip)]
    pub(super) versions: Vec<i64>,
    /// What a newer version has added, as it was read.
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

impl Shared {
    /// A connection whose session can take turns.
    pub(super) async fn session(connect: &Connect) -> Result<Session, StoreError> {
        let mut session = connect.open_by_key("writer", CONNECT).await?;
        if session.local().is_kept() {
            let prepare = format!("PREPARE lock (BIGINT) AS {}; PREPARE log AS {}; PREPARE keep AS {}", LOCK.1, LOG.1, KEEP.1);
            sqlx::raw_sql(AssertSqlSafe(prepare)).execute(&mut *session).await?;
        }
        Ok(session)
    }

    /// Begins a transaction, with these settings, takes the lock, and reads the row: in one message. With the time by the database's clock,
    /// and what this node is to do.
    pub(super) async fn lock(
        session: &mut Session,
        settings: &'static str,
        node: &Node,
    ) -> Result<(Self, Timestamp), StoreError> {
        let (begin, lock) = (session.local().begin(USUAL), given(session, LOCK, &node.id().to_string()));
        let text = format!("{begin}{settings}{lock}");
        Self::of(&sqlx::raw_sql(AssertSqlSafe(text)).fetch_one(&mut **session).await?, node)
    }

    /// Reads it as it was committed last.
    pub(super) async fn look(session: &mut Session, node: &Node) -> Result<(Self, Timestamp), StoreError> {
        let look =
            async |connection: &mut PgConnection| Ok(sqlx::query(columns!()).bind(node.id()).fetch_one(connection).await?);
        Self::of(&session.ask(look).await?, node)
    }

    fn of(row: &PgRow, node: &Node) -> Result<(Self, Timestamp), StoreError> {
        let (state, now, versions, draining, oldest): (String, i64, Vec<i64>, Option<bool>, i64) = FromRow::from_row(row)?;
        connect::may_go_by(oldest)?;
        if let Some(draining) = draining {
            node.gatekeeper.shut(draining);
        }
        // Nothing goes on without it, so no command is at fault.
        let mut shared: Self = serde_json::from_str(&state)
            .map_err(|error| StoreError::Unavailable(format!("what all nodes go by can't be read: {error}")))?;
        shared.versions = versions;
        // A version with fewer queues may have written it; what one with more has written stays.
        at_least(&mut shared.counts, Queue::ALL.len());
        at_least(&mut shared.open, Queue::ALL.len());
        at_least(&mut shared.turns, Queue::ALL.len());
        Ok((shared, Timestamp::from_micros(now)))
    }

    /// Writes it, in the transaction that has the lock, logs what was counted in that, and commits: in one message, since others wait. Where
    /// the log can be synced `apart`, other nodes need not wait for that; but behind a commit, a session that is not kept is anybody's.
    pub(super) async fn commit(&self, session: &mut Session, counts: &[Count], apart: bool) -> Result<(), StoreError> {
        let apart = apart && self.nodes.len() > 1 && session.local().is_kept();
        let commit = if apart { COMMIT_FIRST } else { "COMMIT" };
        let mut text = String::new();
        if !counts.is_empty() {
            text = given(session, LOG, &literal(&tally::logged(counts))) + "; ";
        }
        text += &given(session, KEEP, &literal(&crate::store::kept::json(self)));
        text.extend(["; ", commit]);
        sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut **session).await?;
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
            queued: count(QUEUED),
            limited: count(LIMITED),
            scheduled: count(SCHEDULED),
            blocked: count(BLOCKED),
            running: count(RUNNING),
        }
    }

    /// How many jobs of a queue wait for a slot.
    pub(super) fn waiting(&self, queue: Queue) -> u64 {
        let Depth { queued, limited, .. } = self.depth(queue);
        queued + limited
    }

    /// The numbers of all queues, also of those that only a newer version knows.
    pub(super) fn queues(&self) -> Vec<i16> {
        (0..).zip(&self.counts).map(|(queue, _)| queue).collect()
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

    /// Counts anew, from how many jobs of which queue are in which state.
    pub(super) fn recount(&mut self, counts: impl IntoIterator<Item = (u8, i16, u64)>) {
        self.counts.fill([0; 5]);
        for (queue, state, count) in counts {
            let queue = usize::from(queue);
            at_least(&mut self.counts, queue + 1);
            if let Some(there) = usize::try_from(state).ok().and_then(|state| self.counts[queue].get_mut(state)) {
                *there = count;
            }
        }
    }

    /// The queue of this number may have open lanes with jobs that require this, or has none.
    pub(super) fn set_open(&mut self, queue: u8, place: &str, open: bool) {
        if place.is_empty() {
            at_least(&mut self.open, usize::from(queue) + 1);
            self.open[usize::from(queue)] = open;
        } else if open {
            self.places.entry(place.to_owned()).or_default().insert(queue);
        } else if let Some(queues) = self.places.get_mut(place) {
            queues.remove(&queue);
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

    /// Whether there may be open lanes with jobs that require this.
    pub(super) fn knows(&self, place: &str) -> bool {
        self.places.contains_key(place)
    }

    /// Whether there is room for what else jobs require, where nodes have these labels: those of one client must not keep out what can be run.
    pub(super) fn takes_places(&self, more: &HashSet<String>, nodes: &[Labels]) -> bool {
        let required = |place: &str| serde_json::from_str(place).unwrap_or_default();
        let is_unmet = |place: &&String| {
            let required: Labels = required(place);
            !nodes.iter().any(|labels| meets(labels, &required))
        };
        self.places.len() + more.len() <= MOST_PLACES && self.places.keys().chain(more).filter(is_unmet).count() <= MOST_UNMET
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

    /// Whether nothing waits but for a later time.
    pub(super) fn is_at_rest(&self, now: Timestamp) -> bool {
        let waits = |state: i16| !matches!(state, SCHEDULED | RUNNING);
        let of_queue = |counts: &[u64; 5]| (0..).zip(counts).any(|(state, count)| waits(state) && *count > 0);
        self.releases == 0 && self.next().is_none_or(|at| at > now.as_micros()) && !self.counts.iter().any(of_queue)
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

/// One of these statements with what it is given, for a simple query.
fn given(session: &Session, (name, text): (&str, &str), value: &str) -> String {
    if session.local().is_kept() { format!("EXECUTE {name}({value})") } else { text.replace("$1", value) }
}

/// JSON as a literal of SQL: an apostrophe is in a string of it, if anywhere, and a backslash means nothing to the sessions of `connect.rs`.
fn literal(json: &str) -> String {
    format!("'{}'", json.replace('\'', "\\u0027"))
}

fn at_least<T: Clone + Default>(all: &mut Vec<T>, length: usize) {
    if all.len() < length {
        all.resize(length, T::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::codes::Code;

    #[test]
    fn what_a_newer_version_has_added_is_written_back() {
        let newer = r#"{"latest":7,"counts":[[1,0,0,0,0],[0,0,0,0,0],[0,0,0,0,0],[0,0,0,0,0],[0,0,0,0,0],[0,0,0,0,0],[0,0,0,0,0],[0,0,0,0,0],[9,0,0,0,0]],
            "places":{"{\"gpu\":\"a\"}":[8]},"added":{"a":[1,null,"x"]},"another":18446744073709551615}"#;
        let mut shared: Shared = serde_json::from_str(newer).unwrap();
        shared.next_token();
        shared.enter(Queue::Async, 0, 1);
        shared.set_open(9, "", true);
        let written = serde_json::to_value(&shared).unwrap();
        assert_eq!((&written["counts"][0][0], &written["counts"][8][0]), (&2.into(), &9.into()));
        assert_eq!((&written["added"]["a"][2], &written["another"]), (&"x".into(), &u64::MAX.into()));
        assert_eq!((&written["places"][r#"{"gpu":"a"}"#][0], &written["open"][9]), (&8.into(), &true.into()));
        shared.recount([(0, 1, 5), (10, 2, 3)]);
        assert_eq!((shared.depth(Queue::Async).queued, shared.counts[8][0], shared.counts[10][2]), (5, 0, 3));
    }

    #[test]
    fn json_stays_within_its_literal() {
        let text = r"a'b\'; DROP TABLE shared; --";
        let written = literal(&serde_json::to_string(text).unwrap());
        let within = written.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')).unwrap();
        assert!(!within.contains('\''), "{within}");
        assert_eq!(serde_json::from_str::<String>(within).unwrap(), text);
    }

    #[test]
    fn a_queue_has_its_place_by_its_number() {
        assert!(Queue::ALL.iter().all(|queue| queue.code() == i64::from(*queue as u8)));
    }
}
