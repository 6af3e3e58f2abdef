//! Jobs that share a limit: they wait in lanes that take turns, and those without a limit are one more lane.
//!
//! How many jobs run with a key is known here, for only this task claims any. Which lanes there are is kept in a table, so a million
//! keys take disk, not memory.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::super::lanes::{self, Counted, Lane, Starts};
use super::super::statements::{self, Claim, Queued, Released};
use super::Writer;
use super::transaction::Done;
use crate::clock::Timestamp;
use crate::job::Queue;
use crate::store::StoreError;
use crate::store::counted::{counts_at, rate_key_of};
use crate::store::kept::lane::{Head, OPEN, OVER_QUOTA, Standing, rate_keys};
use crate::store::kept::state::LIMITED;
use crate::store::reopens::Reopens;
use crate::store::turns::{self, LOOKED_AT, Served};

/// What the writer knows of lanes. Where it is not sure it takes them for open: to look costs little.
#[derive(Default)]
pub(super) struct Lanes {
    /// Whether a queue may have open lanes.
    pub(super) open: [bool; Queue::ALL.len()],
    /// When those without a limit had their last turn.
    turn: [i64; Queue::ALL.len()],
    /// What lanes are shut for until a job ends that counts for it, and perhaps more.
    full: HashMap<Counted, Full>,
    /// When the next lane opens that is shut for a time.
    pub(super) next_open: Option<Timestamp>,
    /// The time when the writer looked last, and whether it was later before: lanes are shut until a time by a clock that was set back.
    seen: Option<Timestamp>,
    set_back: bool,
    /// Lanes to be opened, since owners may have more jobs run.
    reopens: Reopens,
}

/// What is known of something that lanes are shut for.
struct Full {
    /// The highest limit that a job had which was looked at meanwhile.
    highest: u32,
    /// When a place became free last. Lanes that had their turn since have been offered it.
    freed_at: Timestamp,
}

/// What a transaction does to lanes.
#[derive(Default)]
pub(super) struct LaneChanges {
    /// Lanes that jobs have entered or left, and the highest gate that opens for that.
    entered: BTreeMap<(Queue, String), i64>,
    /// How many more jobs run that count for it, or fewer; and the limit that the latest of them had.
    pub(super) running: BTreeMap<Counted, (i64, Option<u32>)>,
    /// How many jobs have ended that count for what lanes may be shut for.
    freed: HashMap<Counted, usize>,
    /// What no lane is shut for any more.
    pub(super) empty: HashSet<Counted>,
    /// Queues that have no open lane any more.
    pub(super) shut: [bool; Queue::ALL.len()],
    /// Lanes to be opened, since owners may have more jobs run.
    pub(super) reopens: Reopens,
}

impl Lanes {
    /// What a transaction begins with.
    pub(super) fn changes(&self) -> LaneChanges {
        LaneChanges { reopens: self.reopens.clone(), ..LaneChanges::default() }
    }

    /// Those of these queues are open. The latest moment that was given may have been by a clock that was set back since.
    pub(super) fn new(open: &[Queue], next_open: Option<Timestamp>, latest: Timestamp) -> Self {
        let mut lanes = Self { next_open, seen: Some(latest), ..Self::default() };
        for queue in open {
            lanes.open[*queue as usize] = true;
        }
        lanes
    }

    /// What was believed may not be so: a transaction was not committed.
    pub(super) fn doubt(&mut self) {
        self.open = [true; Queue::ALL.len()];
        self.next_open = Some(Timestamp::from_micros(0));
        self.set_back = true;
    }

    /// Whether lanes may open now.
    pub(super) fn may_open(&self, now: Timestamp) -> bool {
        !self.reopens.is_empty() || self.next_open.is_some_and(|at| at <= now || self.seen > Some(now))
    }

    /// It is so late by the clock.
    pub(super) fn see(&mut self, now: Timestamp) {
        if self.seen.replace(now) > Some(now) {
            (self.set_back, self.next_open) = (true, Some(now));
        }
    }

    /// A transaction was committed.
    pub(super) fn apply(&mut self, changes: &LaneChanges) {
        for counted in &changes.empty {
            self.full.remove(counted);
        }
        for (open, shut) in self.open.iter_mut().zip(changes.shut) {
            *open &= !shut;
        }
        self.reopens.clone_from(&changes.reopens);
    }
}

impl LaneChanges {
    /// A job waits in this lane. If what it counts for has room, perhaps by its own limit, it may start though the lane was shut. One that is
    /// shut for a rate stays so: mostly others come first, and each of very many lanes would be looked at for every job.
    pub(super) fn enter(&mut self, queue: Queue, lane: String, has_room: bool) {
        self.touch(queue, lane, if has_room { OVER_QUOTA } else { OPEN });
    }

    /// A job waits in this lane no more, so that whoever is first now may have a higher limit, or another rate; or one that was claimed there was no
    /// start.
    pub(super) fn may_go_on(&mut self, queue: Queue, lane: String) {
        self.touch(queue, lane, i64::MAX);
    }

    fn touch(&mut self, queue: Queue, lane: String, opens: i64) {
        let highest = self.entered.entry((queue, lane)).or_insert(OPEN);
        *highest = opens.max(*highest);
    }

    /// Whether there is something to do for lanes.
    pub(super) fn any(&self) -> bool {
        !self.entered.is_empty() || !self.freed.is_empty() || !self.reopens.is_empty()
    }
}

/// A lane while a claim looks at it.
type Visited = turns::Visited<Lane, Found>;

/// What is found out of a lane as one looks whether its first job may start.
#[derive(Default)]
struct Found {
    /// What the job would count for, and that has room: if the lane does not take the place, another one may.
    room: Vec<Counted>,
    /// The key that has room for others, with higher limits.
    lower: Option<Arc<str>>,
}

impl Writer {
    /// An attempt has ended that counted for this.
    pub(super) fn vacate(&self, counted: &[Counted], done: &mut Done) {
        for counted in counted {
            done.lanes.running.entry(counted.clone()).or_default().0 -= 1;
            if self.lanes.full.contains_key(counted) {
                *done.lanes.freed.entry(counted.clone()).or_default() += 1;
            }
        }
    }

    /// A job that was claimed and has not begun was no start of its rate, for which its lane may be shut.
    pub(super) async fn take_back_start(&mut self, released: &Released, done: &mut Done) -> Result<(), StoreError> {
        let Released { claimed_at, queued: Queued { queue, lane: Some(lane) }, .. } = released else { return Ok(()) };
        let Some(key) = rate_key_of(lane) else { return Ok(()) };
        let mut starts = lanes::starts(&mut self.connection, &[&key]).await?;
        for starts in &mut starts {
            starts.window.take_back(*claimed_at);
        }
        lanes::keep_starts(&mut self.connection, starts.iter(), done.now).await?;
        done.lanes.may_go_on(*queue, lane.clone());
        Ok(())
    }

    /// Opens the lanes that may go on.
    pub(super) async fn open_lanes(&mut self, done: &mut Done) -> Result<(), StoreError> {
        if !done.lanes.entered.is_empty() {
            let turn = self.moments.next();
            for opens in [OPEN, OVER_QUOTA, i64::MAX] {
                let entered = done.lanes.entered.iter().filter(|(_, highest)| **highest == opens);
                let entered: Vec<_> = entered.map(|(lane, _)| lane).collect();
                if !entered.is_empty() {
                    lanes::enter(&mut self.connection, &entered, turn, opens).await?;
                }
            }
            for (queue, _) in done.lanes.entered.keys() {
                self.lanes.open[*queue as usize] = true;
            }
        }
        for counted in done.lanes.freed.keys() {
            if let Some(full) = self.lanes.full.get_mut(counted) {
                full.freed_at = self.moments.latest;
            }
        }
        let reopened = done.lanes.reopens.take();
        if let Some((owner, lanes)) = reopened {
            *done.lanes.freed.entry(Counted::Owner(owner)).or_default() += lanes;
        }
        self.vacate_lanes(done).await?;
        if let Some((owner, _)) = reopened.filter(|(owner, _)| done.lanes.empty.contains(&Counted::Owner(*owner))) {
            done.lanes.reopens.are_over(owner);
        }
        if self.lanes.may_open(done.now) {
            let (until, most) = if self.lanes.set_back { (Timestamp::MAX, usize::MAX) } else { (done.now, LOOKED_AT.1) };
            for queue in lanes::open(&mut self.connection, until, most).await? {
                self.lanes.open[queue as usize] = true;
            }
            self.lanes.next_open = lanes::next_open(&mut self.connection).await?;
            self.lanes.set_back = false;
        }
        Ok(())
    }

    /// Opens a lane of each queue for each place that has become free: which queues have slots is not known here. Also where nobody waits any
    /// more: else the lane there would still be shut when somebody does.
    async fn vacate_lanes(&mut self, done: &mut Done) -> Result<(), StoreError> {
        for (counted, places) in std::mem::take(&mut done.lanes.freed) {
            let mut is_empty = true;
            for queue in Queue::ALL {
                let opened = lanes::vacate(&mut self.connection, &counted, queue, places).await?;
                is_empty &= opened < places as u64;
                if opened > 0 {
                    self.lanes.open[queue as usize] = true;
                    done.lanes.shut[queue as usize] = false;
                    self.fronts.clear(queue);
                }
            }
            if is_empty {
                done.lanes.empty.insert(counted);
            }
        }
        Ok(())
    }

    /// Whether a queue may have lanes that a claim can be served from.
    pub(super) fn has_open_lanes(&self, queue: Queue, limited: u64) -> bool {
        self.lanes.open[queue as usize] && limited > 0
    }

    /// Serves claims from the lanes in turn, those without a limit being one of them.
    pub(super) async fn claim_in_turn(&mut self, queue: Queue, wanted: usize, done: &mut Done) -> Result<(), StoreError> {
        let looked_at = wanted.clamp(LOOKED_AT.0, LOOKED_AT.1);
        let found = lanes::next(&mut self.connection, queue, looked_at).await?;
        let all = found.len() < looked_at;
        let unlimited = usize::try_from(done.depths.of(queue).queued).unwrap_or(usize::MAX).min(wanted);
        let each = wanted.div_ceil((found.len() + usize::from(unlimited > 0)).max(1));
        let (token, before) = (self.token(), self.moments.skip(wanted));
        let (begun, now) = (counts_at(before, done.now), self.clock.now());
        let heads = lanes::heads(&mut self.connection, queue, &found, each, now).await?;
        let mut starts = self.starts_of(&heads).await?;
        let mut visited: Vec<Visited> = turns::visit(found.into_iter().map(|lane| (lane.turn, lane)), heads, each);
        let own = self.lanes.turn[queue as usize];
        let start = |head: &Head, at| {
            let (gate, found) = self.gate(head, at, &starts, done);
            if gate == OPEN {
                begin(head, at, &mut starts, done);
            }
            (gate, found)
        };
        let Served { plain, plain_turn, jobs } = turns::serve(&mut visited, own, (wanted, unlimited), (before, begun), start);
        if let Some(turn) = plain_turn {
            self.lanes.turn[queue as usize] = turn;
        }

        let claimed = lanes::claim(&mut self.connection, &jobs, token).await?;
        let limited = done.depths.of_state(queue, LIMITED);
        *limited = limited.saturating_sub(claimed.len() as u64);
        self.hold(queue, claimed, done);
        if plain > 0 {
            let at = before.after(Duration::from_micros(jobs.len() as u64));
            let claimed = statements::claim(&mut self.connection, queue, plain, Claim { token, at }, now).await?;
            let queued = &mut done.depths.at(queue).queued;
            *queued = queued.saturating_sub(claimed.len() as u64);
            self.hold(queue, claimed, done);
        }
        let started = starts.values().filter(|starts| starts.window.last() > Some(begun));
        lanes::keep_starts(&mut self.connection, started, begun).await?;
        self.leave_lanes(queue, visited, all, done).await
    }

    /// The starts of the keys of these jobs.
    async fn starts_of(&mut self, heads: &[Head]) -> Result<HashMap<String, Starts>, StoreError> {
        let keys = rate_keys(heads);
        if keys.is_empty() {
            return Ok(HashMap::new());
        }
        let starts = lanes::starts(&mut self.connection, &keys).await?;
        Ok(starts.into_iter().map(|starts| (starts.key.clone(), starts)).collect())
    }

    /// How many jobs run that count for this.
    fn running(&self, counted: &Counted, done: &Done) -> i64 {
        let before = self.published.running().get(counted).map_or(0, |running| i64::from(running.count));
        before + done.lanes.running.get(counted).map_or(0, |(more, _)| *more)
    }

    /// Whether one more may run that counts for this, by the limit that it says itself.
    pub(super) fn has_room(&self, counted: &Counted, limit: Option<u32>, done: &Done) -> bool {
        let limit = match counted {
            Counted::Key(_) => limit,
            Counted::Owner(owner) => done.allowed.get(owner).copied(),
        };
        limit.is_none_or(|limit| self.running(counted, done) < i64::from(limit))
    }

    /// Whether a job may start at this moment: what the gate of its lane has to be.
    fn gate(&mut self, head: &Head, at: Timestamp, starts: &HashMap<String, Starts>, done: &mut Done) -> (i64, Found) {
        let (mut gate, mut room, mut lower) = (OPEN, Vec::new(), None);
        for (counted, limit) in head.counted() {
            let own = limit.unwrap_or_default();
            if let Some(full) = self.lanes.full.get_mut(&counted) {
                full.highest = full.highest.max(own);
            }
            if self.has_room(&counted, limit, done) {
                room.push(counted);
            } else if gate == OPEN {
                gate = counted.gate();
                // Places that became free may have been taken in this very transaction.
                done.lanes.empty.remove(&counted);
                let running = self.running(&counted, done);
                let highest = self.published.running().get(&counted).map_or(own, |running| running.limit.max(own));
                let new = Full { highest, freed_at: Timestamp::from_micros(0) };
                let full = self.lanes.full.entry(counted.clone()).or_insert(new);
                if let Counted::Key(key) = counted {
                    lower = (running < i64::from(full.highest)).then_some(key);
                }
            }
        }
        if gate != OPEN {
            return (gate, Found { room, lower });
        }
        let opens = head.rate.as_ref().and_then(|rate| Some(starts.get(&rate.key)?.window.opens(rate, at)));
        match opens {
            Some(opens) if opens > at => {
                self.lanes.next_open = Some(self.lanes.next_open.map_or(opens, |next| next.min(opens)));
                (opens.as_micros(), Found { room, lower })
            }
            _ => (OPEN, Found { room, lower }),
        }
    }

    /// Opens lanes whose jobs may have a higher limit than those that were looked at, which did not take the place: each of them once, for
    /// those that are shut again have had their turn since.
    async fn pass_on(&mut self, queue: Queue, keys: HashSet<Arc<str>>, done: &mut Done) -> Result<(), StoreError> {
        for key in keys {
            let Some(full) = self.lanes.full.get(&Counted::Key(Arc::clone(&key))) else { continue };
            if lanes::pass_on(&mut self.connection, &key, queue, full.freed_at, LOOKED_AT.0).await? > 0 {
                self.lanes.open[queue as usize] = true;
                done.lanes.shut[queue as usize] = false;
                self.fronts.clear(queue);
            }
        }
        Ok(())
    }

    /// Puts the lanes that were visited where they are to stand.
    async fn leave_lanes(&mut self, queue: Queue, visited: Vec<Visited>, all: bool, done: &mut Done) -> Result<(), StoreError> {
        let (mut standing, mut empty) = (Vec::new(), Vec::new());
        let mut open = !all;
        let mut lower = HashSet::new();
        for visited in visited {
            let Visited { lane: Lane { lane, .. }, turn, heads, more, served, gate, found: Found { room, lower: key } } = visited;
            let left = !heads.is_empty() || more;
            lower.extend(key);
            // A place that this lane was opened for is another one's, if it did not take it.
            let passed_on = match (served, left, gate) {
                (true, ..) | (_, true, OPEN) => Vec::new(),
                (_, true, _) => room,
                (_, false, _) => lanes::counted_of(&lane),
            };
            for counted in passed_on.into_iter().filter(|counted| self.lanes.full.contains_key(counted)) {
                *done.lanes.freed.entry(counted).or_default() += 1;
            }
            if left {
                open |= gate == OPEN;
                if served || gate != OPEN {
                    standing.push(Standing { lane, turn, gate });
                }
            } else {
                empty.push(lane);
            }
        }
        lanes::stand(&mut self.connection, queue, &standing, &empty).await?;
        done.lanes.shut[queue as usize] = !open;
        self.pass_on(queue, lower, done).await?;
        self.vacate_lanes(done).await
    }
}

/// A job starts.
fn begin(head: &Head, at: Timestamp, starts: &mut HashMap<String, Starts>, done: &mut Done) {
    for (counted, limit) in head.counted() {
        let (more, latest) = done.lanes.running.entry(counted).or_default();
        *more += 1;
        *latest = limit;
    }
    if let Some(rate) = &head.rate {
        Starts::begin(starts, rate, at);
    }
}
