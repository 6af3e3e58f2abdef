//! Group commit: one task owns the only connection that writes.
//!
//! It takes all commands that have arrived, carries them out in one transaction, and answers each only after the commit. A claim
//! that finds nothing stays with the writer until there is something; a job that is accepted while such a claim waits is claimed
//! by the transaction that accepts it, without a way through the queue's index.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::{Connection as _, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use super::rows::{QUEUED, RUNNING};
use super::statements::{self, Claim, End, Insertion, Script};
use crate::clock::Timestamp;
use crate::job::{Bound, Ending, Failure, JobId, NewJob, Queue, State};
use crate::store::{Cancellation, Claimed, Depth, Lease, Requeue, Settled, Settlement, Sketches, StoreError, SummaryKey};

/// The most commands of one transaction.
const MOST_COMMANDS: usize = 1_024;
/// The most bytes of new workloads in one transaction, unless a single batch is larger.
const MOST_BYTES: usize = 32 << 20;
/// The most jobs of one claim.
const MOST_CLAIMED: usize = 512;
/// How long settlements that nobody waits for wait for company, and how many of them do.
const COMPANY: (Duration, usize) = (Duration::from_millis(2), 512);
/// How long to wait before a claim is tried again that failed.
const CLAIM_RETRY: Duration = Duration::from_millis(200);
/// The longest sleep until a job is due, so that a clock that was set is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the writer is asked to do.
pub(super) enum Command {
    Accept(Vec<NewJob>, Reply<Vec<NewJob>>),
    Claim(Queue, usize, Reply<Vec<Claimed>>),
    Settle(Lease, Arc<Settlement>, bool, Reply<Settled>),
    Cancel(JobId, Reply<Cancellation>),
    Requeue(JobId, Reply<Requeue>),
    Check(Reply<()>),
    Close(oneshot::Sender<()>),
}

/// What others see of the writer's state: as of the latest commit.
#[derive(Default)]
pub(super) struct Published {
    depths: Mutex<Depths>,
    rollups: Mutex<BTreeMap<SummaryKey, Sketches>>,
}

impl Published {
    pub(super) fn depth(&self, queue: Queue) -> Depth {
        self.depths.lock().unwrap_or_else(PoisonError::into_inner).of(queue)
    }

    pub(super) fn rollups(&self) -> MutexGuard<'_, BTreeMap<SummaryKey, Sketches>> {
        self.rollups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many jobs wait and run in each queue.
#[derive(Clone, Copy, Default)]
struct Depths([Depth; Queue::ALL.len()]);

impl Depths {
    const fn of(&self, queue: Queue) -> Depth {
        self.0[queue as usize]
    }

    const fn at(&mut self, queue: Queue) -> &mut Depth {
        &mut self.0[queue as usize]
    }
}

/// The task that writes.
pub(super) struct Writer {
    connection: SqliteConnection,
    published: Arc<Published>,
    depths: Depths,
    /// The leases that are valid. Only this task makes and ends any, so it knows without asking the database.
    held: HashMap<JobId, Held>,
    claims: [VecDeque<Waiting>; Queue::ALL.len()],
    next_due: Option<Timestamp>,
    next_token: i64,
    /// The names of workloads, each kept once.
    kinds: HashSet<Arc<str>>,
    /// A transaction failed, so claims that wait are tried again soon.
    claims_blocked: bool,
}

/// What is known of a running job.
struct Held {
    token: i64,
    queue: Queue,
    bound: Bound,
    kind: Arc<str>,
    stopping: bool,
}

/// Settlements that nobody waits for. Jobs come first: who submits one waits for the commit, and many results are written more cheaply
/// together.
#[derive(Default)]
struct Patient {
    settles: Vec<(Lease, Arc<Settlement>, Reply<Settled>)>,
    /// When the first of them has waited long enough.
    due: Option<Instant>,
}

impl Patient {
    fn push(&mut self, settle: (Lease, Arc<Settlement>, Reply<Settled>)) {
        self.due.get_or_insert_with(|| Instant::now() + COMPANY.0);
        self.settles.push(settle);
    }

    fn is_due(&self) -> bool {
        self.settles.len() >= COMPANY.1 || self.due.is_some_and(|due| due <= Instant::now())
    }

    fn take(&mut self) -> Vec<(Lease, Arc<Settlement>, Reply<Settled>)> {
        self.due = None;
        std::mem::take(&mut self.settles)
    }
}

/// A claim that waits for jobs.
struct Waiting {
    most: usize,
    reply: Reply<Vec<Claimed>>,
}

/// The commands of one transaction, by kind.
#[derive(Default)]
struct Batch {
    accepts: Vec<(Vec<NewJob>, Reply<Vec<NewJob>>)>,
    settles: Vec<(Lease, Arc<Settlement>, Reply<Settled>)>,
    cancels: Vec<(JobId, Reply<Cancellation>)>,
    requeues: Vec<(JobId, Reply<Requeue>)>,
    checks: Vec<Reply<()>>,
}

/// What a transaction does: to be published and answered after its commit.
struct Done {
    depths: Depths,
    settled: Vec<Settled>,
    cancelled: Vec<Cancellation>,
    requeued: Vec<Requeue>,
    claimed: [VecDeque<Claimed>; Queue::ALL.len()],
    /// Jobs whose lease has ended.
    ended: HashSet<JobId>,
    stopping: Vec<JobId>,
    rollups: BTreeMap<SummaryKey, Sketches>,
    next_due: Option<Timestamp>,
}

/// Settlements that do not end a job as they stand; they are rare.
struct Odd<'a> {
    lease: Lease,
    settlement: &'a Settlement,
    queue: Queue,
    stopping: bool,
}

impl Writer {
    /// Makes ready to write: what ran when an earlier server went down waits again, or has ended as lost.
    pub(super) async fn start(mut connection: SqliteConnection, max_losses: u32) -> Result<(Self, Arc<Published>), StoreError> {
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        let boot = statements::next_boot(&mut transaction).await?;
        let mut rollups = statements::rollups(&mut transaction).await?;
        let mut script = Script::default();
        let now = Timestamp::now();
        for job in statements::running(&mut transaction).await? {
            if let Some((ending, failure)) = statements::fate(&job, max_losses) {
                let key = statements::end(&mut transaction, job.id, ending, &failure, now).await?;
                let sketches = rollups.entry(key.clone()).or_default();
                sketches.add(None);
                script.rollups.push((key, sketches.clone()));
            } else {
                statements::again(&mut transaction, job.id, now, true).await?;
            }
        }
        script.run(&mut transaction).await?;
        statements::promote(&mut transaction, now).await?;
        let next_due = statements::next_due(&mut transaction).await?;
        let mut depths = Depths::default();
        for (queue, state, count) in statements::count_waiting(&mut transaction).await? {
            let depth = depths.at(queue);
            *(if state == QUEUED { &mut depth.queued } else { &mut depth.scheduled }) = count;
        }
        transaction.commit().await?;
        let published = Arc::new(Published { depths: Mutex::new(depths), rollups: Mutex::new(rollups) });
        let writer = Self {
            connection,
            published: Arc::clone(&published),
            depths,
            held: HashMap::new(),
            claims: [const { VecDeque::new() }; Queue::ALL.len()],
            next_due,
            // A million million claims a boot, and eight million boots, before a token could come back.
            next_token: boot << 40,
            kinds: HashSet::new(),
            claims_blocked: false,
        };
        Ok((writer, published))
    }

    /// Writes, on a thread of its own, until it is told to close or nobody is left who could tell it anything.
    ///
    /// Everything waits for this task, so it must not stand in a queue behind requests.
    pub(super) fn spawn(self, commands: mpsc::Receiver<Command>) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        std::thread::Builder::new().name("trine-writer".into()).spawn(move || runtime.block_on(self.run(commands)))?;
        Ok(())
    }

    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut arrived = Vec::with_capacity(MOST_COMMANDS);
        let mut patient = Patient::default();
        let mut closing = None;
        while closing.is_none() {
            let sleep = patient.due.map_or_else(|| self.sleep(), |due| due.saturating_duration_since(Instant::now()));
            let open = tokio::select! {
                biased;
                // What did not fit the batch before comes first.
                () = std::future::ready(()), if !arrived.is_empty() => true,
                count = commands.recv_many(&mut arrived, MOST_COMMANDS) => count > 0,
                () = tokio::time::sleep(sleep) => true,
            };
            let mut batch = Batch::default();
            let fitting = fitting(&arrived);
            for command in arrived.drain(..fitting) {
                match command {
                    Command::Accept(jobs, reply) => batch.accepts.push((jobs, reply)),
                    Command::Claim(queue, most, reply) => self.claims[queue as usize].push_back(Waiting { most, reply }),
                    Command::Settle(lease, settlement, true, reply) => batch.settles.push((lease, settlement, reply)),
                    Command::Settle(lease, settlement, false, reply) => patient.push((lease, settlement, reply)),
                    Command::Cancel(id, reply) => batch.cancels.push((id, reply)),
                    Command::Requeue(id, reply) => batch.requeues.push((id, reply)),
                    Command::Check(reply) => batch.checks.push(reply),
                    Command::Close(reply) => closing = Some(reply),
                }
            }
            if !open || closing.is_some() || patient.is_due() {
                batch.settles.append(&mut patient.take());
            }
            self.write(batch).await;
            if !open {
                break;
            }
        }
        commands.close();
        while let Ok(command) = commands.try_recv() {
            // Whoever waits for an answer sees the channel closed.
            drop(command);
        }
        self.claims = [const { VecDeque::new() }; Queue::ALL.len()];
        if closing.is_some() {
            // Claimed, but nobody runs it any more: claims that were answered as their receiver went away, and attempts that were left.
            let left: Vec<Lease> = self.held.iter().map(|(id, held)| Lease { id: *id, token: held.token }).collect();
            self.release(left).await;
        }
        if let Err(error) = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut self.connection).await {
            tracing::warn!(%error, "the last checkpoint failed; the next start makes up for it");
        }
        if let Err(error) = self.connection.close().await {
            tracing::warn!(%error, "closing the database failed");
        }
        if let Some(reply) = closing {
            // Nobody may be waiting any more.
            let _ = reply.send(());
        }
    }

    fn sleep(&self) -> Duration {
        if self.claims_blocked {
            return CLAIM_RETRY;
        }
        if self.has_work() {
            return Duration::ZERO;
        }
        self.next_due.map_or(LONGEST_SLEEP, |due| due.since(Timestamp::now()).min(LONGEST_SLEEP))
    }

    /// Carries out a batch. If that fails for a reason that may lie in one command, each is tried alone.
    async fn write(&mut self, mut batch: Batch) {
        for waiting in &mut self.claims {
            waiting.retain(|claim| !claim.reply.is_closed());
        }
        if batch.len() == 0 && !self.has_work() {
            return;
        }
        match self.transaction(&batch).await {
            Ok(done) => self.answer(batch, done).await,
            Err(error) if batch.len() > 1 && !is_of_the_machine(&error) => {
                tracing::warn!(%error, commands = batch.len(), "a transaction failed; its commands are tried one by one");
                for single in batch.split() {
                    Box::pin(self.write(single)).await;
                }
            }
            Err(error) => {
                tracing::error!(%error, "a transaction failed");
                self.claims_blocked = true;
                batch.fail(&error);
            }
        }
    }

    /// Whether there is something to do that nobody asks for just now: jobs that are due, or claims that can be served.
    fn has_work(&self) -> bool {
        self.next_due.is_some_and(|due| due <= Timestamp::now())
            || Queue::ALL.into_iter().any(|queue| !self.claims[queue as usize].is_empty() && self.depths.of(queue).queued > 0)
    }

    async fn transaction(&mut self, batch: &Batch) -> Result<Done, StoreError> {
        let result = self.carry_out(batch).await;
        if result.is_err() {
            // After some errors SQLite has rolled back by itself, and this fails; either way nothing is left open.
            let _ = sqlx::query("ROLLBACK").execute(&mut self.connection).await;
        }
        result
    }

    async fn carry_out(&mut self, batch: &Batch) -> Result<Done, StoreError> {
        let now = Timestamp::now();
        let mut done = Done {
            depths: self.depths,
            settled: Vec::with_capacity(batch.settles.len()),
            cancelled: Vec::new(),
            requeued: Vec::new(),
            claimed: [const { VecDeque::new() }; Queue::ALL.len()],
            ended: HashSet::with_capacity(batch.settles.len()),
            stopping: Vec::new(),
            rollups: BTreeMap::new(),
            next_due: self.next_due,
        };
        let mut script = Script::default();
        let odd = self.settle(batch, &mut script, &mut done);
        self.accept(batch, now, &mut script, &mut done);
        let due = done.next_due.is_some_and(|due| due <= now);
        let queued = Queue::ALL.into_iter().any(|queue| self.wanted(queue, &done) > 0 && done.depths.of(queue).queued > 0);
        let edits = batch.cancels.len() + batch.requeues.len() + batch.checks.len();
        if odd.is_empty() && edits == 0 && !due && !queued {
            script.rollups = done.rollups.iter().map(|(key, sketches)| (key.clone(), sketches.clone())).collect();
            script.run_and_commit(&mut self.connection).await?;
            return Ok(done);
        }
        sqlx::query("BEGIN IMMEDIATE").execute(&mut self.connection).await?;
        script.run(&mut self.connection).await?;
        for odd in odd {
            self.settle_odd(odd, now, &mut done).await?;
        }
        if !batch.checks.is_empty() {
            statements::touch(&mut self.connection).await?;
        }
        for (id, _) in &batch.cancels {
            let cancellation = self.cancel(*id, now, &mut done).await?;
            done.cancelled.push(cancellation);
        }
        for (id, _) in &batch.requeues {
            let requeue = self.requeue(*id, now, &mut done).await?;
            done.requeued.push(requeue);
        }
        if done.next_due.is_some_and(|due| due <= now) {
            for queue in statements::promote(&mut self.connection, now).await? {
                let depth = done.depths.at(queue);
                depth.scheduled = depth.scheduled.saturating_sub(1);
                depth.queued += 1;
            }
            done.next_due = statements::next_due(&mut self.connection).await?;
        }
        self.claim(now, &mut done).await?;
        let rollups = done.rollups.iter().map(|(key, sketches)| (key.clone(), sketches.clone())).collect();
        Script { rollups, ..Script::default() }.run(&mut self.connection).await?;
        sqlx::query("COMMIT").execute(&mut self.connection).await?;
        Ok(done)
    }

    /// Ends what is to be ended; what is not that simple is returned.
    fn settle<'b>(&self, batch: &'b Batch, script: &mut Script<'b>, done: &mut Done) -> Vec<Odd<'b>> {
        let mut odd = Vec::new();
        for (lease, settlement, _) in &batch.settles {
            let held = self.held.get(&lease.id).filter(|held| held.token == lease.token);
            // A second settlement of the same lease comes too late, though both came together.
            let Some(held) = held.filter(|_| done.ended.insert(lease.id)) else {
                done.settled.push(Settled::Stale);
                continue;
            };
            done.settled.push(Settled::Recorded);
            let depth = done.depths.at(held.queue);
            depth.running = depth.running.saturating_sub(1);
            match &**settlement {
                Settlement::Finish(finished) => {
                    let key = SummaryKey {
                        workload: Arc::clone(&held.kind),
                        bound: held.bound,
                        executor: held.queue.executor(),
                        ending: finished.ending,
                    };
                    self.sketches(key, done).add(finished.timing.as_ref());
                    script.ends.push(End { lease: *lease, finished });
                }
                settlement => odd.push(Odd { lease: *lease, settlement, queue: held.queue, stopping: held.stopping }),
            }
        }
        odd
    }

    async fn settle_odd(&mut self, odd: Odd<'_>, now: Timestamp, done: &mut Done) -> Result<(), StoreError> {
        let Odd { lease, settlement, queue, stopping } = odd;
        match settlement {
            _ if stopping => {
                let failure = Failure::cancelled();
                let key = statements::end(&mut self.connection, lease.id, Ending::Cancelled, &failure, now).await?;
                self.sketches(key, done).add(None);
            }
            Settlement::Again { due_at, lost } => {
                statements::again(&mut self.connection, lease.id, *due_at, *lost).await?;
                done.depths.at(queue).scheduled += 1;
                done.next_due = Some(done.next_due.map_or(*due_at, |due| due.min(*due_at)));
            }
            Settlement::Release => {
                statements::release(&mut self.connection, lease.id).await?;
                done.depths.at(queue).queued += 1;
            }
            // Not odd: `settle` has put it into the script.
            Settlement::Finish(_) => {}
        }
        Ok(())
    }

    async fn cancel(&mut self, id: JobId, now: Timestamp, done: &mut Done) -> Result<Cancellation, StoreError> {
        let Some((queue, state)) = statements::place(&mut self.connection, id).await? else {
            let result = statements::result(&mut self.connection, id).await?;
            return Ok(match result.map(|job| job.state) {
                Some(State::Finished(finished)) => Cancellation::Finished(finished.ending),
                _ => Cancellation::Unknown,
            });
        };
        if state == RUNNING {
            statements::mark_stopping(&mut self.connection, id).await?;
            done.stopping.push(id);
            return Ok(self
                .held
                .get(&id)
                .map_or(Cancellation::Unknown, |held| Cancellation::Stopping(Lease { id, token: held.token })));
        }
        let key = statements::end(&mut self.connection, id, Ending::Cancelled, &Failure::cancelled(), now).await?;
        let depth = done.depths.at(queue);
        let waiting = if state == QUEUED { &mut depth.queued } else { &mut depth.scheduled };
        *waiting = waiting.saturating_sub(1);
        self.sketches(key, done).add(None);
        Ok(Cancellation::Cancelled)
    }

    async fn requeue(&mut self, id: JobId, now: Timestamp, done: &mut Done) -> Result<Requeue, StoreError> {
        let Some(job) = statements::result(&mut self.connection, id).await? else {
            let unfinished = statements::place(&mut self.connection, id).await?.is_some();
            return Ok(if unfinished { Requeue::Unfinished } else { Requeue::Unknown });
        };
        statements::requeue(&mut self.connection, id, now).await?;
        done.depths.at(job.route.queue).queued += 1;
        if let State::Finished(finished) = job.state {
            let key = SummaryKey {
                workload: job.submission.workload.kind.into(),
                bound: job.submission.bound,
                executor: job.route.executor,
                ending: finished.ending,
            };
            self.sketches(key, done).remove(finished.timing.as_ref());
        }
        Ok(Requeue::Queued)
    }

    /// Inserts what is new. Where nothing waits and a claim does, the first of the new jobs are claimed at once.
    fn accept<'b>(&mut self, batch: &'b Batch, now: Timestamp, script: &mut Script<'b>, done: &mut Done) {
        if batch.accepts.is_empty() {
            return;
        }
        let claim = Claim { token: self.token(), at: now };
        let jobs: Vec<&NewJob> = batch.accepts.iter().flat_map(|(jobs, _)| jobs).collect();
        let mut at_once = HashSet::new();
        for queue in Queue::ALL {
            let wanted = self.wanted(queue, done);
            if wanted == 0 || done.depths.of(queue).queued > 0 {
                continue;
            }
            let mut here: Vec<&NewJob> = jobs.iter().copied().filter(|job| job.route.queue == queue).collect();
            here.sort_by_key(|job| (-job.submission.priority, job.id));
            for job in here.into_iter().take(wanted) {
                at_once.insert(job.id);
                done.claimed[queue as usize].push_back(claimed(job, claim));
            }
        }
        script.jobs.extend(jobs.into_iter().map(|job| Insertion { job, claim: at_once.contains(&job.id).then_some(claim) }));
        for Insertion { job, claim } in &script.jobs {
            let depth = done.depths.at(job.route.queue);
            *(if claim.is_some() { &mut depth.running } else { &mut depth.queued }) += 1;
        }
    }

    /// Serves the claims that wait from the jobs that wait.
    async fn claim(&mut self, now: Timestamp, done: &mut Done) -> Result<(), StoreError> {
        for queue in Queue::ALL {
            let wanted = self.wanted(queue, done).min(MOST_CLAIMED);
            if wanted == 0 || done.depths.of(queue).queued == 0 {
                continue;
            }
            let claim = Claim { token: self.token(), at: now };
            let claimed = statements::claim(&mut self.connection, queue, wanted, claim).await?;
            let depth = done.depths.at(queue);
            depth.queued = depth.queued.saturating_sub(claimed.len() as u64);
            depth.running += claimed.len() as u64;
            done.claimed[queue as usize].extend(claimed);
        }
        Ok(())
    }

    /// How many more jobs of a queue the waiting claims could take.
    fn wanted(&self, queue: Queue, done: &Done) -> usize {
        let most: usize = self.claims[queue as usize].iter().map(|claim| claim.most).sum();
        most.saturating_sub(done.claimed[queue as usize].len())
    }

    /// The sketches of a kind of results, as this transaction changes them.
    fn sketches<'d>(&self, key: SummaryKey, done: &'d mut Done) -> &'d mut Sketches {
        let published = &self.published;
        done.rollups.entry(key).or_insert_with_key(|key| published.rollups().get(key).cloned().unwrap_or_default())
    }

    const fn token(&mut self) -> i64 {
        self.next_token += 1;
        self.next_token
    }

    /// Publishes what was committed, then answers those who wait for it.
    async fn answer(&mut self, batch: Batch, mut done: Done) {
        self.claims_blocked = false;
        self.next_due = done.next_due;
        self.depths = done.depths;
        *self.published.depths.lock().unwrap_or_else(PoisonError::into_inner) = self.depths;
        self.published.rollups().append(&mut done.rollups);
        for id in done.ended {
            self.held.remove(&id);
        }
        for id in done.stopping {
            if let Some(held) = self.held.get_mut(&id) {
                held.stopping = true;
            }
        }
        for queue in Queue::ALL {
            for claimed in &done.claimed[queue as usize] {
                let kind = self.kind(&claimed.workload.kind);
                let held = Held { token: claimed.lease.token, queue, bound: claimed.bound, kind, stopping: false };
                self.held.insert(claimed.lease.id, held);
            }
        }
        // Nobody may be waiting for an answer any more; that changes nothing about what was done.
        for (jobs, reply) in batch.accepts {
            let _ = reply.send(Ok(jobs));
        }
        for ((_, _, reply), settled) in batch.settles.into_iter().zip(done.settled) {
            let _ = reply.send(Ok(settled));
        }
        for ((_, reply), cancellation) in batch.cancels.into_iter().zip(done.cancelled) {
            let _ = reply.send(Ok(cancellation));
        }
        for ((_, reply), requeue) in batch.requeues.into_iter().zip(done.requeued) {
            let _ = reply.send(Ok(requeue));
        }
        for reply in batch.checks {
            let _ = reply.send(Ok(()));
        }
        let unwanted = self.hand_out(done.claimed);
        if !unwanted.is_empty() {
            // Whoever claimed them went away in the meantime.
            Box::pin(self.release(unwanted.into_iter().map(|claimed| claimed.lease).collect())).await;
        }
    }

    /// Makes claimed jobs wait again as if they had not been claimed.
    async fn release(&mut self, leases: Vec<Lease>) {
        let release = |lease| (lease, Arc::new(Settlement::Release), oneshot::channel().0);
        self.write(Batch { settles: leases.into_iter().map(release).collect(), ..Batch::default() }).await;
    }

    /// Answers the claims that wait; what nobody takes is returned.
    fn hand_out(&mut self, claimed: [VecDeque<Claimed>; Queue::ALL.len()]) -> Vec<Claimed> {
        let mut unwanted = Vec::new();
        for (waiting, mut claimed) in self.claims.iter_mut().zip(claimed) {
            while !claimed.is_empty() {
                let Some(Waiting { most, reply }) = waiting.pop_front() else { break };
                let share = claimed.drain(..most.min(claimed.len())).collect();
                if let Err(Ok(share)) = reply.send(Ok(share)) {
                    unwanted.extend(share);
                }
            }
            unwanted.extend(claimed);
        }
        unwanted
    }

    fn kind(&mut self, name: &str) -> Arc<str> {
        if let Some(kind) = self.kinds.get(name) {
            return Arc::clone(kind);
        }
        let kind: Arc<str> = name.into();
        self.kinds.insert(Arc::clone(&kind));
        kind
    }
}

impl Batch {
    const fn len(&self) -> usize {
        self.accepts.len() + self.settles.len() + self.cancels.len() + self.requeues.len() + self.checks.len()
    }

    /// A batch for each command.
    fn split(&mut self) -> Vec<Self> {
        let batch = std::mem::take(self);
        let mut singles = Vec::with_capacity(batch.len());
        singles.extend(batch.settles.into_iter().map(|settle| Self { settles: vec![settle], ..Self::default() }));
        singles.extend(batch.cancels.into_iter().map(|cancel| Self { cancels: vec![cancel], ..Self::default() }));
        singles.extend(batch.requeues.into_iter().map(|requeue| Self { requeues: vec![requeue], ..Self::default() }));
        singles.extend(batch.accepts.into_iter().map(|accept| Self { accepts: vec![accept], ..Self::default() }));
        singles.extend(batch.checks.into_iter().map(|check| Self { checks: vec![check], ..Self::default() }));
        singles
    }

    /// Tells everyone that it failed.
    fn fail(self, error: &StoreError) {
        let told = || {
            if is_of_the_machine(error) {
                StoreError::Unavailable(error.to_string())
            } else {
                StoreError::Refused(error.to_string())
            }
        };
        // Nobody may be waiting for an answer any more.
        self.accepts.into_iter().for_each(|(_, reply)| drop(reply.send(Err(told()))));
        self.settles.into_iter().for_each(|(_, _, reply)| drop(reply.send(Err(told()))));
        self.cancels.into_iter().for_each(|(_, reply)| drop(reply.send(Err(told()))));
        self.requeues.into_iter().for_each(|(_, reply)| drop(reply.send(Err(told()))));
        self.checks.into_iter().for_each(|reply| drop(reply.send(Err(told()))));
    }
}

/// How many of these commands one transaction takes: at least one, but no more than [`MOST_BYTES`] of new jobs.
fn fitting(commands: &[Command]) -> usize {
    let mut bytes = 0;
    let fits = |command: &&Command| {
        if let Command::Accept(jobs, _) = command {
            bytes += jobs.iter().map(|job| job.submission.workload.json.get().len()).sum::<usize>();
        }
        bytes <= MOST_BYTES
    };
    commands.iter().take_while(fits).count().max(usize::from(!commands.is_empty()))
}

/// A new job as its claim hands it over.
fn claimed(job: &NewJob, claim: Claim) -> Claimed {
    Claimed {
        lease: Lease { id: job.id, token: claim.token },
        bound: job.submission.bound,
        workload: job.submission.workload.clone(),
        deadline: job.submission.deadline,
        retry: job.submission.retry.clone(),
        attempt: 1,
        losses: 0,
        queued_for: claim.at.since(job.accepted_at),
    }
}

/// Whether the error comes from the disk or the database as a whole rather than from one command.
fn is_of_the_machine(error: &StoreError) -> bool {
    // SQLITE_BUSY, NOMEM, READONLY, IOERR, CORRUPT, FULL, CANTOPEN; extended codes keep the primary one in the low byte.
    const CODES: [u32; 7] = [5, 7, 8, 10, 11, 13, 14];
    let StoreError::Database(sqlx::Error::Database(error)) = error else { return true };
    error.code().and_then(|code| code.parse::<u32>().ok()).is_none_or(|code| CODES.contains(&(code & 0xff)))
}
