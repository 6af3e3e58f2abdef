//! One transaction: its steps in their order.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::PgConnection;

use super::super::connect::{in_time, within};
use super::super::moves::{self, Queued};
use super::super::rows::Fresh;
use super::super::shared::Shared;
use super::super::webhooks::{self, NewDelivery};
use super::super::{events, node, once, retention, rollups, schedules};
use super::aside::Step;
use super::batch::{self, Batch};
use super::lanes::LaneChanges;
use super::{With, Writer};
use crate::clock::Timestamp;
use crate::job::{Ending, Failure, JobId, Owner, Queue, What};
use crate::store::kept::edge::Doom;
use crate::store::kept::event::EventRow;
use crate::store::kept::state::{BLOCKED, LIMITED, QUEUED, SCHEDULED};
use crate::store::said::Said;
use crate::store::tally::Count;
use crate::store::{Cancelled, Lease, News, Settled, StoreError, Subject};

/// How long that may take which counts all jobs and opens all lanes: of some millions each.
const LONGEST_COUNT: Duration = Duration::from_mins(10);

/// What a transaction does: to be published and answered after its commit.
pub(super) struct Done {
    /// What all nodes go by, as it will be.
    pub(super) shared: Shared,
    /// When it began.
    pub(super) now: Timestamp,
    pub(super) begun: Instant,
    /// The latest moment that was given before it, and how often attempts had been stopped.
    pub(super) before: (i64, u64),
    pub(super) settled: Vec<Settled>,
    pub(super) cancelled: Vec<Cancelled>,
    pub(super) requeued: Vec<Vec<JobId>>,
    pub(super) removed: Vec<u64>,
    pub(super) claimed: [VecDeque<Fresh>; Queue::ALL.len()],
    /// What is to be told of; `None` if nobody listened when it began.
    pub(super) news: Option<Vec<News>>,
    /// Leases that have ended.
    pub(super) ended: Vec<Lease>,
    /// Jobs that have ended without anybody asking for it.
    pub(super) unasked: Vec<JobId>,
    /// Results to be counted.
    pub(super) counts: Vec<Count>,
    pub(super) deliveries: Vec<NewDelivery>,
    /// Jobs that have ended, of which not all children have heard; of how many of the first of them all have; and how many of the first
    /// are in the database.
    pub(super) unblocking: VecDeque<JobId>,
    pub(super) heard: usize,
    pub(super) stored: Vec<JobId>,
    pub(super) lanes: LaneChanges,
    /// How many jobs of an owner may run at once.
    pub(super) allowed: Arc<HashMap<Owner, u32>>,
    /// What attempts have said by now.
    pub(super) said: HashMap<Lease, Said>,
    /// The number of this node's start, if it is a new one.
    pub(super) registered: Option<i64>,
    /// Nodes that were gone, and how many attempts they were running.
    pub(super) gone: Option<(String, usize)>,
    /// There may still be claims that this node never heard of.
    pub(super) may_have_claimed: bool,
}

impl Done {
    fn new(shared: Shared, now: Timestamp, is_heard: bool, allowed: Arc<HashMap<Owner, u32>>) -> Self {
        Self {
            before: (shared.latest, shared.stops),
            shared,
            now,
            begun: Instant::now(),
            settled: Vec::new(),
            cancelled: Vec::new(),
            requeued: Vec::new(),
            removed: Vec::new(),
            claimed: [const { VecDeque::new() }; Queue::ALL.len()],
            news: is_heard.then(Vec::new),
            ended: Vec::new(),
            unasked: Vec::new(),
            counts: Vec::new(),
            deliveries: Vec::new(),
            unblocking: VecDeque::new(),
            heard: 0,
            stored: Vec::new(),
            lanes: LaneChanges::default(),
            allowed,
            said: HashMap::new(),
            registered: None,
            gone: None,
            may_have_claimed: false,
        }
    }

    pub(super) fn moment(&mut self) -> Timestamp {
        self.shared.moment(self.now)
    }

    pub(super) fn skip(&mut self, count: usize) -> Timestamp {
        self.shared.skip(self.now, count)
    }

    /// A job waits for a slot.
    pub(super) fn queue(&mut self, Queued { queue, lane }: Queued) {
        match lane {
            Some(lane) => {
                self.shared.enter(queue, LIMITED, 1);
                self.lanes.enter(queue, lane, None);
            }
            None => self.shared.enter(queue, QUEUED, 1),
        }
    }

    /// Takes note of an event, if anybody listens.
    pub(super) fn tell(&mut self, at: Timestamp, job: JobId, subject: impl FnOnce() -> Subject, what: impl FnOnce() -> What) {
        if let Some(news) = &mut self.news {
            news.push(News::new(at, job, subject(), what()));
        }
    }
}

impl Writer {
    pub(super) async fn transaction(&mut self, batch: &mut Batch) -> Result<Done, StoreError> {
        self.mend().await?;
        let result = self.carry_out(batch).await;
        if let Ok(done) = &result {
            self.seen = done.now;
        }
        if result.is_err() && std::mem::take(&mut batch.is_committing) {
            // It may have been committed all the same.
            self.unsure.extend(batch.settles.iter().map(|(lease, ..)| *lease));
            self.may_have_claimed = true;
        }
        if let Err(error) = &result
            && (batch::is_of_the_machine(error) && !batch::is_of_the_moment(error) || self.roll_back().await.is_err())
        {
            // Whatever is open there ends with the connection.
            self.is_broken = true;
        }
        result
    }

    async fn roll_back(&mut self) -> Result<(), StoreError> {
        in_time(execute(&mut self.connection, "ROLLBACK")).await
    }

    /// Begins a transaction under the lock of all nodes, with plans that are kept, or made anew for each statement.
    async fn lock(&mut self, keeps_plans: bool) -> Result<Done, StoreError> {
        let settings = if keeps_plans { "SET LOCAL plan_cache_mode = auto; " } else { "" };
        let (shared, now) = Shared::lock(&mut self.connection, settings, &self.node).await?;
        self.published.set_time(now);
        Ok(Done::new(shared, self.now(), self.published.hub.is_heard(), self.allowed.clone().unwrap_or_default()))
    }

    /// Writes what all nodes go by, and commits.
    async fn commit(&mut self, Done { shared, counts, .. }: &Done) -> Result<(), StoreError> {
        shared.commit(&mut self.connection, counts, self.published.synced.is_apart()).await
    }

    async fn carry_out(&mut self, batch: &mut Batch) -> Result<Done, StoreError> {
        let mut done = in_time(self.take_turn(batch)).await?;
        let known = done.shared.nodes.contains(&self.node.id());
        if !known && done.shared.nodes.is_empty() {
            // It keeps nobody waiting.
            within(LONGEST_COUNT, self.recount(&mut done)).await?;
        }
        in_time(self.use_turn(known, batch, &mut done)).await?;
        Ok(done)
    }

    /// Waits for the lock, and takes in what has arrived.
    async fn take_turn(&mut self, batch: &mut Batch) -> Result<Done, StoreError> {
        batch.step = None;
        // Where nothing waits, ids are looked up that are known. Their plans can be kept, and to make them takes a sixth of the database's time.
        // What looks for jobs among others is planned anew for tables as they are; and where there are partitions, all is, since a plan that is
        // kept takes locks on every one of them.
        let keeps_plans = self.shared.is_at_rest(self.now()) && batch.is_plain() && !self.ends.are_any();
        let done = self.lock(keeps_plans).await?;
        // Others may have had their turns meanwhile. The more goes into this one, the fewer have to be waited for.
        if std::mem::take(&mut batch.is_open) {
            self.take_in(batch);
        }
        if keeps_plans && !(done.shared.is_at_rest(done.now) && batch.is_plain()) {
            execute(&mut self.connection, "SET LOCAL plan_cache_mode = force_custom_plan").await?;
        }
        if let Some(id) = self.registered.take().filter(|id| done.shared.nodes.contains(id)) {
            self.node.set_id(id);
        }
        Ok(done)
    }

    async fn use_turn(&mut self, known: bool, batch: &mut Batch, done: &mut Done) -> Result<(), StoreError> {
        if !known || self.may_have_claimed {
            self.take_place(known, batch, done).await?;
        }
        self.turn_away();
        self.refuse_taken(batch, done.now).await?;
        self.refuse_places(batch, done).await?;
        self.refuse_orphans(batch).await?;
        for job in batch.accepts.iter_mut().flat_map(|accept| &mut accept.jobs) {
            job.accept(done.shared.moment(done.now), done.now);
        }
        self.note(batch, done).await?;
        self.settle_and_accept(batch, done).await?;
        self.link(batch, done).await?;
        self.further(batch, done).await?;
        batch.step = Some(Step::Reap);
        if (batch.reap || self.more_lost()) && !self.aside.has(Step::Reap) {
            self.reap(done).await?;
        }
        batch.step = Some(Step::Promote);
        self.promote(batch, done).await?;
        batch.step = Some(Step::Expire);
        self.expire(done).await?;
        batch.step = Some(Step::Unblock);
        self.unblock(done).await?;
        batch.step = Some(Step::Lanes);
        self.open_lanes(done).await?;
        self.claim(batch, done).await?;
        batch.step = Some(Step::Messages);
        self.keep_messages(done).await?;
        batch.step = None;
        batch.is_committing = true;
        self.commit(done).await?;
        batch.is_committing = false;
        Ok(())
    }

    /// The steps of what is asked for one by one: a step for each kind of command.
    async fn further(&mut self, batch: &Batch, done: &mut Done) -> Result<(), StoreError> {
        for (ids, only, _) in &batch.cancels {
            let cancelled = self.cancel(ids, only, done).await?;
            done.cancelled.push(cancelled);
        }
        for (ids, by, _) in &batch.requeues {
            let requeued = self.requeue(ids, *by, done).await?;
            done.requeued.push(requeued);
        }
        let with = batch.accepts.iter().filter_map(|accept| accept.with.as_ref());
        for with in with.chain(batch.withs.iter().map(|(with, _)| with)) {
            match with {
                With::Once(once) => once::note(&mut self.connection, once).await?,
                With::Firing(firing) => schedules::note_fires(&mut self.connection, firing).await?,
            }
        }
        for (ids, why, _) in &batch.removals {
            done.removed.push(retention::remove(&mut self.connection, ids, *why).await?);
        }
        for (running, _) in &batch.allows {
            self.allow(running, done).await?;
        }
        Ok(())
    }

    /// Keeps the messages about jobs that have ended: each by itself where one can't be kept, which its job does not pay for.
    async fn keep_messages(&mut self, done: &Done) -> Result<(), StoreError> {
        if !self.aside.has(Step::Messages) {
            return webhooks::insert(&mut self.connection, &done.deliveries, done.now).await;
        }
        for message in &done.deliveries {
            execute(&mut self.connection, "SAVEPOINT message").await?;
            let kept = webhooks::insert(&mut self.connection, std::slice::from_ref(message), done.now).await;
            let Err(error) = kept else { continue };
            if batch::is_of_the_machine(&error) {
                return Err(error);
            }
            tracing::error!(%error, job = %message.job, "nobody is told of the end of this job: the message can't be kept");
            execute(&mut self.connection, "ROLLBACK TO message").await?;
        }
        Ok(())
    }

    /// Refuses what another node has accepted or fired meanwhile.
    async fn refuse_taken(&mut self, batch: &mut Batch, now: Timestamp) -> Result<(), StoreError> {
        // First it is found out of all of them: if that fails, the batch is as it was.
        let (mut taken, mut noted) = (Vec::new(), Vec::new());
        for with in batch.accepts.iter().map(|accept| accept.with.as_ref()) {
            taken.push(match with {
                Some(with) => self.is_taken(with, now).await?,
                None => false,
            });
        }
        for (with, _) in &batch.withs {
            noted.push(self.is_taken(with, now).await?);
        }
        // Nobody may be waiting for an answer any more.
        for accept in remove_where(&mut batch.accepts, taken) {
            let is_firing = matches!(accept.with, Some(With::Firing(_)));
            drop(accept.reply.send(if is_firing { Ok(Vec::new()) } else { Err(StoreError::Taken) }));
        }
        for (with, reply) in remove_where(&mut batch.withs, noted) {
            drop(reply.send(if matches!(with, With::Firing(_)) { Ok(()) } else { Err(StoreError::Taken) }));
        }
        Ok(())
    }

    async fn is_taken(&mut self, with: &With, now: Timestamp) -> Result<bool, StoreError> {
        match with {
            With::Once(once) => once::is_taken(&mut self.connection, once, now).await,
            With::Firing(firing) => schedules::is_fired(&mut self.connection, firing).await,
        }
    }

    /// The first transaction of a start.
    pub(super) async fn begin(&mut self) -> Result<(), StoreError> {
        // With this nothing is claimed, and nothing but the place of the node can be known by anybody.
        let mut batch = Batch { reap: true, ..Batch::default() };
        let done = loop {
            match self.transaction(&mut batch).await {
                Err(error) if self.put_aside(&error, &batch) => {}
                done => break done?,
            }
        };
        self.answer(Batch::default(), done).await;
        Ok(())
    }

    /// Takes this node from the list of those that are there.
    pub(super) async fn leave(&mut self) -> Result<(), StoreError> {
        self.mend().await?;
        let mut done = self.lock(false).await?;
        let me = self.node.id();
        done.shared.nodes.retain(|node| *node != me);
        node::forget(&mut self.connection, &[me]).await?;
        self.commit(&done).await
    }

    /// Takes what was counted into the rollups, in a turn of its own. Whether there may be more.
    pub(super) async fn roll_up(&mut self) -> Result<bool, StoreError> {
        self.mend().await?;
        let text = "SELECT EXISTS (SELECT 1 FROM counted)";
        if !self.connection.ask(async |connection| Ok(sqlx::query_scalar(text).fetch_one(connection).await?)).await? {
            return Ok(false);
        }
        let mut transaction = self.connection.begin().await?;
        // Others that have the lock are waited for: where nodes are busy, one has it nearly always.
        execute(&mut transaction, "SELECT 1 FROM shared FOR UPDATE").await?;
        let more = rollups::write(&mut transaction).await?;
        transaction.commit().await?;
        Ok(more)
    }

    /// Queues the jobs that are due: so many of them that others need not wait for long.
    async fn promote(&mut self, batch: &mut Batch, done: &mut Done) -> Result<(), StoreError> {
        /// The most jobs that one transaction queues because they are due.
        const MOST_PROMOTED: usize = 4_096;
        if self.aside.has(Step::Lanes) || done.shared.next_due.is_none_or(|due| due > done.now.as_micros()) {
            return Ok(());
        }
        if self.aside.has(Step::Promote) {
            return self.promote_one_by_one(batch, done).await;
        }
        for queued in moves::promote(&mut self.connection, done.now, MOST_PROMOTED).await? {
            done.shared.leave(queued.queue, SCHEDULED, 1);
            done.queue(queued);
        }
        done.shared.next_due = moves::next(&mut self.connection).await?.0;
        Ok(())
    }

    /// The same where one of them can't be queued: that one ends, and says so. What this version can't read is left as it is.
    async fn promote_one_by_one(&mut self, batch: &mut Batch, done: &mut Done) -> Result<(), StoreError> {
        /// So many that others need not wait for long.
        const MOST: usize = 256;
        let mut dooms = Vec::new();
        for id in moves::due(&mut self.connection, done.now, MOST).await? {
            execute(&mut self.connection, "SAVEPOINT job").await?;
            match moves::promote_one(&mut self.connection, id).await {
                Ok(queued) => {
                    done.shared.leave(queued.queue, SCHEDULED, 1);
                    done.queue(queued);
                    continue;
                }
                Err(error) if batch::is_of_the_machine(&error) => return Err(error),
                Err(StoreError::Corrupt(_)) => {}
                Err(error) => {
                    let failure = Failure::error(format!("it can't be queued: {error}"));
                    dooms.push(Doom { id, ending: Ending::Failed, failure });
                }
            }
            execute(&mut self.connection, "ROLLBACK TO job").await?;
        }
        done.shared.next_due = moves::next(&mut self.connection).await?.0;
        if !self.aside.has(Step::GiveUp) {
            batch.step = Some(Step::GiveUp);
            let ended = self.end(dooms, None, done).await?;
            done.unasked.extend(ended);
        }
        Ok(())
    }

    /// Makes those of these jobs wait again that have ended, `by` this moment if there is one; which they were.
    async fn requeue(&mut self, ids: &[JobId], by: Option<Timestamp>, done: &mut Done) -> Result<Vec<JobId>, StoreError> {
        let before = done.skip(ids.len());
        let back = moves::requeue(&mut self.connection, ids, by, before).await?;
        let requeued = back.iter().map(|back| back.id).collect();
        for back in back {
            let known = back.known;
            done.counts.push(Count::taken_out(known.subject.key(back.ending), back.timing.as_ref()));
            if back.blocked {
                done.shared.enter(known.queue, BLOCKED, 1);
            } else {
                done.queue(Queued { queue: known.queue, lane: back.lane });
            }
            // Those whose time is not over yet have it still.
            done.shared.expires(back.expires_at.filter(|at| *at > before).map(Timestamp::as_micros));
            done.tell(back.at, back.id, || known.subject, || What::Requeued);
        }
        Ok(requeued)
    }

    /// Keeps rows of events.
    pub(super) async fn keep_events(&mut self, rows: &[EventRow]) -> Result<(), StoreError> {
        events::insert(&mut self.connection, rows).await
    }
}

/// Takes out those of which that is said, each of which has its word.
fn remove_where<T>(all: &mut Vec<T>, said: Vec<bool>) -> Vec<T> {
    let mut said = said.into_iter();
    all.extract_if(.., |_| said.next().unwrap_or_default()).collect()
}

/// A statement without arguments that returns nothing.
async fn execute(connection: &mut PgConnection, text: &'static str) -> Result<(), StoreError> {
    sqlx::query(text).execute(connection).await?;
    Ok(())
}
