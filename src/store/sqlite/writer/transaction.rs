//! One transaction: its steps in their order.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use foldhash::{HashSet, HashSetExt as _};

use super::super::events;
use super::super::rollups::{self, Count};
use super::super::rows::Fresh;
use super::super::script::Script;
use super::super::statements::{self, Queued};
use super::Writer;
use super::batch::Batch;
use super::lanes::LaneChanges;
use super::published::Depths;
use crate::clock::Timestamp;
use crate::job::{JobId, Owner, Queue, What};
use crate::store::said::Said;
use crate::store::{Cancelled, News, Settled, StoreError, Subject};

/// What a transaction does: to be published and answered after its commit.
pub(super) struct Done {
    /// When it began, by the clock.
    pub(super) now: Timestamp,
    pub(super) depths: Depths,
    pub(super) settled: Vec<Settled>,
    pub(super) cancelled: Vec<Cancelled>,
    pub(super) requeued: Vec<Vec<JobId>>,
    pub(super) claimed: [VecDeque<Fresh>; Queue::ALL.len()],
    /// What is to be told of; `None` if nobody listened when it began.
    pub(super) news: Option<Vec<News>>,
    /// Jobs whose lease has ended.
    pub(super) ended: HashSet<JobId>,
    pub(super) stopping: Vec<JobId>,
    /// Jobs that have ended without anybody asking for it.
    pub(super) unasked: Vec<JobId>,
    /// Results to be counted.
    pub(super) counts: Vec<Count>,
    pub(super) next_due: Option<Timestamp>,
    pub(super) next_expiry: Option<Timestamp>,
    /// Jobs that others come after now.
    pub(super) parents: HashSet<JobId>,
    /// Jobs that have ended, of which not all children have heard; and of how many of the first of them all have.
    pub(super) unblocking: VecDeque<JobId>,
    pub(super) heard: usize,
    pub(super) lanes: LaneChanges,
    /// How many jobs of an owner may run at once.
    pub(super) allowed: Arc<HashMap<Owner, u32>>,
    /// What jobs have said by now.
    pub(super) said: HashMap<JobId, Said>,
}

impl Done {
    /// A job waits for a slot.
    pub(super) fn queue(&mut self, Queued { queue, lane }: Queued) {
        let depth = self.depths.at(queue);
        match lane {
            Some(lane) => {
                depth.limited += 1;
                self.lanes.enter(queue, lane, true);
            }
            None => depth.queued += 1,
        }
    }

    /// Whether jobs are due or too late, or lanes open.
    fn is_due(&self, next_open: Option<Timestamp>) -> bool {
        [self.next_due, self.next_expiry, next_open].into_iter().flatten().any(|at| at <= self.now)
    }

    /// A job waits that may start at this moment.
    pub(super) fn due(&mut self, at: Timestamp) {
        self.next_due = Some(self.next_due.map_or(at, |due| due.min(at)));
    }

    /// A job waits whose time is over at this moment, if it ever is.
    pub(super) fn expires(&mut self, at: Option<Timestamp>) {
        self.next_expiry = self.next_expiry.into_iter().chain(at).min();
    }

    /// Takes note of an event, if anybody listens.
    pub(super) fn tell(&mut self, at: Timestamp, job: JobId, subject: impl FnOnce() -> Subject, what: impl FnOnce() -> What) {
        if let Some(news) = &mut self.news {
            news.push(News::new(at, job, subject(), what()));
        }
    }
}

impl Writer {
    pub(super) async fn transaction(&mut self, batch: &Batch) -> Result<Done, StoreError> {
        let result = self.carry_out(batch).await;
        if result.is_err() {
            // After some errors SQLite has rolled back by itself, and this fails; either way nothing is left open.
            let _ = sqlx::query("ROLLBACK").execute(&mut self.connection).await;
            self.lanes.doubt();
        }
        result
    }

    async fn carry_out(&mut self, batch: &Batch) -> Result<Done, StoreError> {
        let now = self.clock.now();
        self.lanes.see(now);
        let mut done = Done {
            now,
            depths: self.depths,
            settled: Vec::with_capacity(batch.settles.len()),
            cancelled: Vec::new(),
            requeued: Vec::new(),
            claimed: [const { VecDeque::new() }; Queue::ALL.len()],
            ended: HashSet::with_capacity(batch.settles.len()),
            stopping: Vec::new(),
            unasked: Vec::new(),
            counts: Vec::new(),
            next_due: self.next_due,
            next_expiry: self.next_expiry,
            parents: HashSet::default(),
            unblocking: self.unblocking.clone(),
            heard: 0,
            lanes: self.lanes.changes(),
            allowed: Arc::clone(&self.allowed),
            said: HashMap::new(),
            news: self.published.hub.is_heard().then(Vec::new),
        };
        let due = done.is_due(self.lanes.next_open);
        // In the order of the moments that were given: a listener takes what comes before what it knows for told.
        self.tell_of_accepted(batch, &mut done);
        self.begin(batch, due, &mut done);
        let rows = self.note(batch, &mut done).await?;
        let mut script = Script::default();
        let odd = self.settle(batch, &mut script, &mut done);
        self.write_begun(&mut script);
        self.accept(batch, now, &mut script, &mut done);
        let due = done.is_due(self.lanes.next_open);
        let queued = Queue::ALL.into_iter().any(|queue| self.wanted(queue, &done) > 0 && self.has_any(queue, &done.depths));
        let edges = batch.has_edges() || !done.unblocking.is_empty() || done.lanes.any();
        if odd.is_empty() && rows.is_empty() && !batch.has_further() && !due && !queued && !edges {
            script.run(&mut self.connection, true).await?;
            done.counts.extend(script.ends.into_iter().map(|end| end.count));
            return Ok(done);
        }
        sqlx::query("BEGIN IMMEDIATE").execute(&mut self.connection).await?;
        script.run(&mut self.connection, false).await?;
        events::insert(&mut self.connection, &rows).await?;
        for odd in odd {
            self.settle_odd(odd, &mut done).await?;
        }
        self.link(batch, &mut done).await?;
        self.further(batch, &mut done).await?;
        self.promote(&mut done).await?;
        self.expire(&mut done).await?;
        self.unblock(&mut done).await?;
        self.open_lanes(&mut done).await?;
        self.claim(&mut done).await?;
        rollups::log(&mut self.connection, &done.counts).await?;
        sqlx::query("COMMIT").execute(&mut self.connection).await?;
        done.counts.extend(script.ends.into_iter().map(|end| end.count));
        Ok(done)
    }

    /// The steps of what is asked for one by one: a step for each kind of command.
    async fn further(&mut self, batch: &Batch, done: &mut Done) -> Result<(), StoreError> {
        if !batch.checks.is_empty() {
            statements::touch(&mut self.connection).await?;
        }
        for (ids, only, _) in &batch.cancels {
            let cancelled = self.cancel(ids, only, done).await?;
            done.cancelled.push(cancelled);
        }
        for (ids, by, _) in &batch.requeues {
            let requeued = self.requeue(ids, *by, done).await?;
            done.requeued.push(requeued);
        }
        let with = batch.accepts.iter().filter_map(|accept| accept.with.as_ref());
        for edit in with.chain(&batch.edits) {
            edit.carry_out(&mut self.connection).await?;
        }
        for (running, _) in &batch.allows {
            Self::allow(running, done);
        }
        Ok(())
    }
}
