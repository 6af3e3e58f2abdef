//! Jobs that share a limit: they wait in lanes that take turns, and those without a limit are one more lane.
//!
//! How many jobs run with a key is counted under the lock of all nodes, so a limit is exact whichever node claims. Which lanes there are is
//! kept in a table, so a million keys take disk, not memory.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::super::lanes::{self, OpenLane};
use super::super::node;
use super::super::rows;
use super::super::shared::Shared;
use super::aside::Step;
use super::batch::Batch;
use super::transaction::Done;
use super::{Acceptance, Writer};
use crate::clock::Timestamp;
use crate::job::{Labels, Owner, Queue};
use crate::store::StoreError;
use crate::store::counted::{Counted, Starts, counted_of, counts_at};
use crate::store::kept::json;
use crate::store::kept::lane::{FULL, Head, OPEN, OVER_QUOTA, Standing, rate_keys};
use crate::store::kept::state::{LIMITED, QUEUED};
use crate::store::turns::{self, LOOKED_AT, Served};

/// What a transaction does to lanes.
#[derive(Default)]
pub(super) struct LaneChanges {
    /// Lanes that jobs have entered.
    pub(super) entered: HashMap<(Queue, String), rows::Lane>,
    /// Lanes that jobs have entered or left, and for what they open if they are shut.
    touched: HashMap<(Queue, String), Opens>,
    /// How many jobs have ended that counted for it.
    freed: HashMap<Counted, usize>,
}

/// The highest gate that opens, and if fewer jobs than that run with the key.
type Opens = (i64, u32);

impl LaneChanges {
    /// A job waits in this lane. If it is new, and its key has room by the limit that it says itself, it may start though the lane was shut. One that is
    /// shut for a rate stays so: mostly others come first, and each of very many lanes would be looked at for every job. So does one that a job comes
    /// back to: it would have its turn for each of them, and stand behind all others then.
    pub(super) fn enter(&mut self, queue: Queue, lane: rows::Lane, limit: Option<u32>) {
        if let Some(limit) = limit {
            self.touch(queue, lane.name.clone(), (FULL, limit));
        }
        self.entered.insert((queue, lane.name.clone()), lane);
    }

    /// A job waits in this lane no more, so that whoever is first now may have a higher limit, or another rate; or one that was claimed there was no
    /// start.
    pub(super) fn may_go_on(&mut self, queue: Queue, lane: String) {
        self.touch(queue, lane, (i64::MAX, u32::MAX));
    }

    fn touch(&mut self, queue: Queue, lane: String, opens: Opens) {
        let highest = self.touched.entry((queue, lane)).or_insert(opens);
        *highest = opens.max(*highest);
    }

    /// An attempt has ended that counted for this.
    pub(super) fn vacate(&mut self, counted: &[Counted]) {
        for counted in counted {
            *self.freed.entry(counted.clone()).or_default() += 1;
        }
    }
}

/// A lane while a claim looks at it, and what its first job would count for that has room: if the lane does not take the place, another one may.
type Visited = turns::Visited<OpenLane, Vec<Counted>>;

/// What limits go by while a claim looks at lanes.
struct Limits {
    running: HashMap<Counted, i64>,
    starts: HashMap<String, Starts>,
    /// How many jobs of an owner may run at once.
    allowed: Arc<HashMap<Owner, u32>>,
}

impl Limits {
    /// Whether a job may start at this moment: what the gate of its lane has to be, and what it would count for that has room.
    fn gate(&self, head: &Head, at: Timestamp) -> (i64, Vec<Counted>) {
        let (mut gate, mut room) = (OPEN, Vec::new());
        for (counted, limit) in head.counted() {
            let limit = match counted {
                Counted::Key(_) => limit,
                Counted::Owner(owner) => self.allowed.get(&owner).copied(),
            };
            let running = self.running.get(&counted).copied().unwrap_or_default();
            if limit.is_none_or(|limit| running < i64::from(limit)) {
                room.push(counted);
            } else if gate == OPEN {
                gate = counted.gate();
            }
        }
        if gate == OPEN {
            let opens = head.rate.as_ref().and_then(|rate| Some(self.starts.get(&rate.key)?.window.opens(rate, at)));
            gate = opens.filter(|opens| *opens > at).map_or(OPEN, Timestamp::as_micros);
        }
        (gate, room)
    }

    /// A job starts.
    fn begin(&mut self, head: &Head, at: Timestamp) {
        for (counted, _) in head.counted() {
            *self.running.entry(counted).or_default() += 1;
        }
        if let Some(rate) = &head.rate {
            Starts::begin(&mut self.starts, rate, at);
        }
    }
}

impl Writer {
    /// Refuses jobs that require of a node what too many others that wait do not.
    pub(super) async fn refuse_places(&mut self, batch: &mut Batch, done: &mut Done) -> Result<(), StoreError> {
        // All of one turn count together: each alone would find the same room.
        let takes = |accept: &Acceptance, shared: &Shared, nodes: &[Labels], taken: &mut HashSet<String>| {
            let places = accept.jobs.iter().filter_map(|job| job.submission.requires.as_deref()).map(json);
            let fresh: HashSet<String> = places.filter(|place| !shared.knows(place) && !taken.contains(place)).collect();
            let all = &*taken | &fresh;
            let takes = fresh.is_empty() || shared.takes_places(&all, nodes);
            if takes {
                *taken = all;
            }
            takes
        };
        let mut taken = HashSet::new();
        if batch.accepts.iter().all(|accept| takes(accept, &done.shared, self.node.at_work(), &mut taken)) {
            return Ok(());
        }
        let nodes = node::labels(&mut self.connection).await?;
        taken.clear();
        if batch.accepts.iter().all(|accept| takes(accept, &done.shared, &nodes, &mut taken)) {
            return Ok(());
        }
        // Of some there may be no job any more.
        lanes::tidy(&mut self.connection).await?;
        done.shared.clear_places();
        for (queue, place) in lanes::open_places(&mut self.connection).await? {
            done.shared.set_open(queue, &place, true);
        }
        taken.clear();
        for accept in std::mem::take(&mut batch.accepts) {
            if takes(&accept, &done.shared, &nodes, &mut taken) {
                batch.accepts.push(accept);
            } else {
                // Nobody may be waiting for an answer any more.
                drop(accept.reply.send(Err(StoreError::TooManyPlaces)));
            }
        }
        Ok(())
    }

    /// Opens the lanes that may go on.
    pub(super) async fn open_lanes(&mut self, done: &mut Done) -> Result<(), StoreError> {
        if !done.lanes.entered.is_empty() {
            let turn = done.moment();
            lanes::enter(&mut self.connection, &done.lanes.entered, turn).await?;
            for ((queue, _), lane) in &done.lanes.entered {
                done.shared.set_open(*queue as u8, &lane.place, true);
            }
        }
        if !done.lanes.touched.is_empty() {
            for (queue, place) in lanes::open_touched(&mut self.connection, &done.lanes.touched).await? {
                done.shared.set_open(queue, &place, true);
            }
        }
        self.vacate_lanes(done).await?;
        if self.aside.has(Step::Lanes) {
            return Ok(());
        }
        if let Some((owner, most)) = done.shared.reopens.take() {
            let queues = done.shared.queues();
            let opened = lanes::vacate(&mut self.connection, &Counted::Owner(owner), &queues, most).await?;
            if opened.is_empty() {
                done.shared.reopens.are_over(owner);
            }
            for (queue, place) in opened {
                done.shared.set_open(queue, &place, true);
            }
        }
        // By a clock that was set back, lanes are shut until a time that is far away.
        let is_set_back = done.now < self.seen;
        if is_set_back || done.shared.next_open.is_some_and(|at| at <= done.now.as_micros()) {
            let (until, most) = if is_set_back { (Timestamp::MAX, usize::MAX) } else { (done.now, LOOKED_AT.1) };
            for (queue, place) in lanes::open(&mut self.connection, until, most).await? {
                done.shared.set_open(queue, &place, true);
            }
            done.shared.next_open = lanes::next_open(&mut self.connection).await?;
        }
        Ok(())
    }

    /// Opens a lane of each queue for each place that has become free. Also where nobody waits any more: else the lane there would still be shut
    /// when somebody does.
    async fn vacate_lanes(&mut self, done: &mut Done) -> Result<(), StoreError> {
        let freed = std::mem::take(&mut done.lanes.freed);
        if freed.is_empty() {
            return Ok(());
        }
        let all: Vec<&Counted> = freed.keys().collect();
        let queues = done.shared.queues();
        for counted in lanes::shut_for(&mut self.connection, &all).await? {
            let places = freed.get(&counted).copied().unwrap_or_default();
            for (queue, place) in lanes::vacate(&mut self.connection, &counted, &queues, places).await? {
                done.shared.set_open(queue, &place, true);
            }
        }
        Ok(())
    }

    /// Serves claims from the lanes in turn, those without a limit being one of them.
    pub(super) async fn claim_in_turn(&mut self, queue: Queue, wanted: usize, done: &mut Done) -> Result<(), StoreError> {
        let looked_at = wanted.clamp(LOOKED_AT.0, LOOKED_AT.1);
        let places: Vec<String> = done.shared.open_places(queue, &self.node).map(str::to_owned).collect();
        let found = lanes::next(&mut self.connection, queue, &places, looked_at).await?;
        let all = found.len() < looked_at;
        let unlimited = usize::try_from(done.shared.depth(queue).queued).unwrap_or(usize::MAX).min(wanted);
        let each = wanted.div_ceil((found.len() + usize::from(unlimited > 0)).max(1));
        let (token, before) = (done.shared.next_token(), done.skip(wanted));
        let begun = counts_at(before, done.now);
        let heads = lanes::heads(&mut self.connection, queue, &found, each, done.now).await?;
        let mut limits = self.limits_of(&heads, done).await?;
        let mut visited: Vec<Visited> = turns::visit(found.into_iter().map(|lane| (lane.turn, lane)), heads, each);
        let own = done.shared.turn(queue);
        let start = |head: &Head, at| {
            let (gate, room) = limits.gate(head, at);
            if gate == OPEN {
                limits.begin(head, at);
            } else if gate > OVER_QUOTA {
                done.shared.opens(gate);
            }
            (gate, room)
        };
        let Served { plain, plain_turn, jobs } = turns::serve(&mut visited, own, (wanted, unlimited), (before, begun), start);
        if let Some(turn) = plain_turn {
            done.shared.set_turn(queue, turn);
        }

        let node = self.me(done);
        let claimed = lanes::claim(&mut self.connection, queue, &jobs, token, node).await?;
        self.take(queue, LIMITED, claimed, done).await?;
        if plain > 0 {
            let at = before.after(Duration::from_micros(jobs.len() as u64));
            let claimed = lanes::claim_next(&mut self.connection, queue, plain, (token, node, at), done.now).await?;
            self.take(queue, QUEUED, claimed, done).await?;
        }
        let started = limits.starts.values().filter(|starts| starts.window.last() > Some(begun));
        lanes::keep_starts(&mut self.connection, started, begun).await?;
        self.leave_lanes(queue, visited, &if all { places } else { Vec::new() }, done).await
    }

    /// What was taken for starts of these keys at these moments were none.
    pub(super) async fn take_back_starts(&mut self, taken: &[(String, Timestamp)], done: &Done) -> Result<(), StoreError> {
        if taken.is_empty() {
            return Ok(());
        }
        let of: HashSet<&str> = taken.iter().map(|(key, _)| key.as_str()).collect();
        let mut starts = lanes::starts(&mut self.connection, &of.into_iter().collect::<Vec<_>>()).await?;
        for starts in &mut starts {
            for (_, at) in taken.iter().filter(|(key, _)| *key == starts.key) {
                starts.window.take_back(*at);
            }
        }
        lanes::keep_starts(&mut self.connection, starts.iter(), done.now).await
    }

    /// How many jobs run with the keys of these, and when such jobs have started.
    async fn limits_of(&mut self, heads: &[Head], done: &Done) -> Result<Limits, StoreError> {
        let running =
            lanes::running(&mut self.connection, heads.iter().flat_map(Head::counted).map(|(counted, _)| counted)).await?;
        let keys = rate_keys(heads);
        let starts = if keys.is_empty() { Vec::new() } else { lanes::starts(&mut self.connection, &keys).await? };
        let starts = starts.into_iter().map(|starts| (starts.key.clone(), starts)).collect();
        Ok(Limits { running, starts, allowed: Arc::clone(&done.allowed) })
    }

    /// Puts the lanes that were visited where they are to stand. All the open ones were whose jobs require any of `places`.
    async fn leave_lanes(
        &mut self,
        queue: Queue,
        visited: Vec<Visited>,
        places: &[String],
        done: &mut Done,
    ) -> Result<(), StoreError> {
        let (mut standing, mut empty) = (Vec::new(), Vec::new());
        let mut open = HashSet::new();
        for Visited { lane: OpenLane { lane, place, .. }, turn, heads, more, served, gate, found: room } in visited {
            let left = !heads.is_empty() || more;
            // A place that this lane was opened for is another one's, if it did not take it.
            if !served && !left {
                done.lanes.vacate(&counted_of(&lane));
            } else if !served && gate != OPEN {
                done.lanes.vacate(&room);
            }
            if left {
                if gate == OPEN {
                    open.insert(place);
                }
                if served || gate != OPEN {
                    standing.push(Standing { lane, turn, gate });
                }
            } else {
                empty.push(lane);
            }
        }
        lanes::stand(&mut self.connection, queue, &standing, &empty).await?;
        for place in places.iter().filter(|place| !open.contains(*place)) {
            done.shared.set_open(queue as u8, place, false);
        }
        self.vacate_lanes(done).await
    }
}
