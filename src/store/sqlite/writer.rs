//! Group commit: one task owns the only connection that writes.
//!
//! It takes all commands that have arrived, carries them out in one transaction, and answers each only after the commit. A claim
//! that finds nothing stays with the writer until there is something; a job that is accepted while such a claim waits is claimed
//! by the transaction that accepts it, without a way through the queue's index.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::{Connection as _, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use super::edit::Edit;
use super::events::{self, EventRow};
use super::intake::Noted;
use super::marks::Marks;
use super::rows::{Fresh, QUEUED, RUNNING};
use super::statements::{self, Claim, End, Insertion, Script};
use crate::clock::Timestamp;
use crate::job::{
    Conclusion, Ending, Failure, FailureKind, JobId, LogStream, NewJob, Note, Outcome, Queue, State, Submission, What,
};
use crate::store::{
    Cancellation, Claimed, Depth, Hub, Lease, News, Requeue, Settled, Settlement, Sketches, StoreError, Subject, SummaryKey,
};

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
    Note(Noted),
    Accept(Vec<NewJob>, Reply<Vec<NewJob>>),
    Claim(Queue, usize, Reply<Vec<Claimed>>),
    Settle(Lease, Arc<Settlement>, bool, Reply<Settled>),
    Cancel(JobId, Reply<Cancellation>),
    Requeue(JobId, Reply<Requeue>),
    Edit(Box<dyn Edit>),
    Check(Reply<()>),
    Close(oneshot::Sender<()>),
}

/// What others see of the writer's state: as of the latest commit.
pub(super) struct Published {
    depths: Mutex<Depths>,
    rollups: Mutex<BTreeMap<SummaryKey, Sketches>>,
    latest_event: AtomicI64,
    marks: Mutex<Marks>,
    pub(super) hub: Arc<Hub>,
}

impl Published {
    pub(super) fn depth(&self, queue: Queue) -> Depth {
        self.depths.lock().unwrap_or_else(PoisonError::into_inner).of(queue)
    }

    pub(super) fn latest_event(&self) -> Timestamp {
        Timestamp::from_micros(self.latest_event.load(Ordering::SeqCst))
    }

    pub(super) fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Gives each event its moment, which is its id: later than every one before, whatever the clock does.
struct Moments(Timestamp);

impl Moments {
    fn next(&mut self) -> Timestamp {
        self.0 = Timestamp::now().max(self.0.after(Duration::from_micros(1)));
        self.0
    }

    /// As many as that, from the one behind the returned one on.
    fn skip(&mut self, count: usize) -> Timestamp {
        let before = self.next();
        self.0 = before.after(Duration::from_micros(count as u64));
        before
    }
}

/// How much of what a job says is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoteLimits {
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

/// The task that writes.
pub(super) struct Writer {
    connection: SqliteConnection,
    moments: Moments,
    limits: NoteLimits,
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
    subject: Subject,
    attempt: u32,
    claimed_at: Timestamp,
    stopping: bool,
    /// What the job has said so far; unknown until this attempt says something.
    said: Option<Said>,
}

/// How much a job has said.
#[derive(Clone, Copy)]
struct Said {
    rows: u64,
    bytes: u64,
}

/// What nobody waits for. Jobs come first: who submits one waits for the commit, and many results are written more cheaply together.
#[derive(Default)]
struct Patient {
    /// These go along with whatever is written next, so that no settlement overtakes them.
    notes: Vec<Noted>,
    settles: Vec<(Lease, Arc<Settlement>, Reply<Settled>)>,
    /// When the first of them has waited long enough.
    due: Option<Instant>,
}

impl Patient {
    fn push(&mut self, settle: (Lease, Arc<Settlement>, Reply<Settled>)) {
        self.due.get_or_insert_with(|| Instant::now() + COMPANY.0);
        self.settles.push(settle);
    }

    fn push_note(&mut self, note: Noted) {
        self.due.get_or_insert_with(|| Instant::now() + COMPANY.0);
        self.notes.push(note);
    }

    fn is_due(&self) -> bool {
        self.settles.len() + self.notes.len() >= COMPANY.1 || self.due.is_some_and(|due| due <= Instant::now())
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
    notes: Vec<Noted>,
    accepts: Vec<(Vec<NewJob>, Reply<Vec<NewJob>>)>,
    settles: Vec<(Lease, Arc<Settlement>, Reply<Settled>)>,
    cancels: Vec<(JobId, Reply<Cancellation>)>,
    requeues: Vec<(JobId, Reply<Requeue>)>,
    edits: Vec<Box<dyn Edit>>,
    checks: Vec<Reply<()>>,
}

/// What a transaction does: to be published and answered after its commit.
struct Done {
    depths: Depths,
    settled: Vec<Settled>,
    cancelled: Vec<Cancellation>,
    requeued: Vec<Requeue>,
    claimed: [VecDeque<Fresh>; Queue::ALL.len()],
    /// What is to be told of; `None` if nobody listened when it began.
    news: Option<Vec<News>>,
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
    attempt: u32,
    subject: Subject,
}

impl Done {
    /// Takes note of an event, if anybody listens.
    fn tell(&mut self, at: Timestamp, job: JobId, subject: impl FnOnce() -> Subject, what: impl FnOnce() -> What) {
        if let Some(news) = &mut self.news {
            news.push(News::new(at, job, subject(), what()));
        }
    }
}

impl Writer {
    /// Makes ready to write: what ran when an earlier server went down waits again, or has ended as lost.
    pub(super) async fn start(
        mut connection: SqliteConnection,
        max_losses: u32,
        limits: NoteLimits,
    ) -> Result<(Self, Arc<Published>), StoreError> {
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        let boot = statements::next_boot(&mut transaction).await?;
        let mut rollups = statements::rollups(&mut transaction).await?;
        let mut script = Script::default();
        let mut moments = Moments(events::latest(&mut transaction).await?.unwrap_or(Timestamp::from_micros(0)));
        let now = moments.next();
        for job in statements::running(&mut transaction).await? {
            if let Some((ending, failure)) = statements::fate(&job, max_losses) {
                let ended = statements::end(&mut transaction, job.id, ending, &failure, moments.next()).await?;
                let key = ended.subject.key(ending);
                let sketches = rollups.entry(key.clone()).or_default();
                sketches.add(None);
                script.rollups.push((key, sketches.clone()));
            } else {
                let error = Failure::new(FailureKind::Lost, "the server went down while this attempt ran");
                let row = EventRow::retrying(moments.next(), job.id, job.attempt, &error, now);
                again(&mut transaction, job.id, row, now, true).await?;
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
        let published = Arc::new(Published {
            depths: Mutex::new(depths),
            rollups: Mutex::new(rollups),
            latest_event: AtomicI64::new(moments.0.as_micros()),
            marks: Mutex::default(),
            hub: Hub::new(),
        });
        let writer = Self {
            connection,
            moments,
            limits,
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
            self.mark().await;
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
                    Command::Note(note) => patient.push_note(note),
                    Command::Settle(lease, settlement, true, reply) => batch.settles.push((lease, settlement, reply)),
                    Command::Settle(lease, settlement, false, reply) => patient.push((lease, settlement, reply)),
                    Command::Cancel(id, reply) => batch.cancels.push((id, reply)),
                    Command::Requeue(id, reply) => batch.requeues.push((id, reply)),
                    Command::Edit(edit) => batch.edits.push(edit),
                    Command::Check(reply) => batch.checks.push(reply),
                    Command::Close(reply) => closing = Some(reply),
                }
            }
            // Where jobs are claimed from a backlog, there is a transaction anyway.
            let claiming = batch.accepts.is_empty() && self.has_work();
            if !open || closing.is_some() || claiming || patient.is_due() {
                batch.settles.append(&mut patient.take());
            }
            if !open || closing.is_some() || patient.due.is_none() || batch.len() > 0 {
                batch.notes.append(&mut patient.notes);
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
        {
            let mut marks = self.published.marks();
            for job in batch.accepts.iter_mut().flat_map(|(jobs, _)| jobs) {
                marks.touch(job.id);
                job.accepted_at = self.moments.next();
            }
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
            news: self.published.hub.is_heard().then(Vec::new),
        };
        self.tell_of_accepted(batch, &mut done);
        let rows = self.note(batch, &mut done).await?;
        let mut script = Script::default();
        let odd = self.settle(batch, &mut script, &mut done);
        self.accept(batch, &mut script, &mut done);
        let due = done.next_due.is_some_and(|due| due <= now);
        let queued = Queue::ALL.into_iter().any(|queue| self.wanted(queue, &done) > 0 && done.depths.of(queue).queued > 0);
        let further = batch.cancels.len() + batch.requeues.len() + batch.edits.len() + batch.checks.len();
        if odd.is_empty() && rows.is_empty() && further == 0 && !due && !queued {
            script.rollups = done.rollups.iter().map(|(key, sketches)| (key.clone(), sketches.clone())).collect();
            script.run_and_commit(&mut self.connection).await?;
            return Ok(done);
        }
        sqlx::query("BEGIN IMMEDIATE").execute(&mut self.connection).await?;
        script.run(&mut self.connection).await?;
        events::insert(&mut self.connection, &rows).await?;
        for odd in odd {
            self.settle_odd(odd, &mut done).await?;
        }
        if !batch.checks.is_empty() {
            statements::touch(&mut self.connection).await?;
        }
        for (id, _) in &batch.cancels {
            let cancellation = self.cancel(*id, &mut done).await?;
            done.cancelled.push(cancellation);
        }
        for (id, _) in &batch.requeues {
            let requeue = self.requeue(*id, &mut done).await?;
            done.requeued.push(requeue);
        }
        for edit in &batch.edits {
            edit.carry_out(&mut self.connection).await?;
        }
        if done.next_due.is_some_and(|due| due <= now) {
            for queue in statements::promote(&mut self.connection, now).await? {
                let depth = done.depths.at(queue);
                depth.scheduled = depth.scheduled.saturating_sub(1);
                depth.queued += 1;
            }
            done.next_due = statements::next_due(&mut self.connection).await?;
        }
        self.claim(&mut done).await?;
        let rollups = done.rollups.iter().map(|(key, sketches)| (key.clone(), sketches.clone())).collect();
        Script { rollups, ..Script::default() }.run(&mut self.connection).await?;
        sqlx::query("COMMIT").execute(&mut self.connection).await?;
        Ok(done)
    }

    /// Ends what is to be ended; what is not that simple is returned.
    fn settle<'b>(&mut self, batch: &'b Batch, script: &mut Script<'b>, done: &mut Done) -> Vec<Odd<'b>> {
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
                Settlement::Finish(conclusion) => {
                    let (started_at, finished_at) = (held.claimed_at, self.moments.next());
                    self.sketches(held.subject.key(conclusion.ending), done).add(conclusion.timing.as_ref());
                    script.ends.push(End { lease: *lease, conclusion, started_at, finished_at });
                    let finished = || Box::new(conclusion.clone().at(Some(started_at), finished_at));
                    let what = || What::Finished { attempt: held.attempt, finished: finished() };
                    done.tell(finished_at, lease.id, || held.subject.clone(), what);
                }
                settlement => odd.push(Odd {
                    lease: *lease,
                    settlement,
                    queue: held.queue,
                    stopping: held.stopping,
                    attempt: held.attempt,
                    subject: held.subject.clone(),
                }),
            }
        }
        odd
    }

    async fn settle_odd(&mut self, odd: Odd<'_>, done: &mut Done) -> Result<(), StoreError> {
        let Odd { lease, settlement, queue, stopping, attempt, subject } = odd;
        match settlement {
            _ if stopping => self.end_cancelled(lease.id, done).await?,
            Settlement::Again { due_at, lost, error } => {
                let at = self.moments.next();
                let row = EventRow::retrying(at, lease.id, attempt, error, *due_at);
                again(&mut self.connection, lease.id, row, *due_at, *lost).await?;
                let what = || What::Retrying { attempt, error: error.clone(), due_at: *due_at };
                done.tell(at, lease.id, || subject, what);
                done.depths.at(queue).scheduled += 1;
                done.next_due = Some(done.next_due.map_or(*due_at, |due| due.min(*due_at)));
            }
            Settlement::Release => {
                events::keep_attempt(&mut self.connection, lease.id).await?;
                statements::release(&mut self.connection, lease.id).await?;
                done.depths.at(queue).queued += 1;
            }
            // Not odd: `settle` has put it into the script.
            Settlement::Finish(_) => {}
        }
        Ok(())
    }

    /// Ends a job as cancelled that is not ended by an attempt of its own.
    async fn end_cancelled(&mut self, id: JobId, done: &mut Done) -> Result<(), StoreError> {
        let (ending, failure, at) = (Ending::Cancelled, Failure::cancelled(), self.moments.next());
        let ended = statements::end(&mut self.connection, id, ending, &failure, at).await?;
        self.sketches(ended.subject.key(ending), done).add(None);
        let conclusion = Conclusion { ending, outcome: Outcome::Error(failure), timing: None };
        let finished = || Box::new(conclusion.at(ended.started_at, at));
        done.tell(at, id, || ended.subject, || What::Finished { attempt: ended.attempt, finished: finished() });
        Ok(())
    }

    async fn cancel(&mut self, id: JobId, done: &mut Done) -> Result<Cancellation, StoreError> {
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
        self.end_cancelled(id, done).await?;
        let depth = done.depths.at(queue);
        let waiting = if state == QUEUED { &mut depth.queued } else { &mut depth.scheduled };
        *waiting = waiting.saturating_sub(1);
        Ok(Cancellation::Cancelled)
    }

    async fn requeue(&mut self, id: JobId, done: &mut Done) -> Result<Requeue, StoreError> {
        let Some(job) = statements::result(&mut self.connection, id).await? else {
            let unfinished = statements::place(&mut self.connection, id).await?.is_some();
            return Ok(if unfinished { Requeue::Unfinished } else { Requeue::Unknown });
        };
        self.published.marks().touch(id);
        let at = self.moments.next();
        events::keep_result(&mut self.connection, id).await?;
        events::insert(&mut self.connection, &[EventRow::requeued(at, id, job.attempt)]).await?;
        statements::requeue(&mut self.connection, id, at).await?;
        done.depths.at(job.route.queue).queued += 1;
        let subject = self.subject(&job.submission, job.route.queue);
        if let State::Finished(finished) = job.state {
            self.sketches(subject.key(finished.ending), done).remove(finished.timing.as_ref());
        }
        done.tell(at, id, || subject, || What::Requeued);
        Ok(Requeue::Queued)
    }

    /// Inserts what is new. Where nothing waits and a claim does, the first of the new jobs are claimed at once.
    fn accept<'b>(&mut self, batch: &'b Batch, script: &mut Script<'b>, done: &mut Done) {
        if batch.accepts.is_empty() {
            return;
        }
        let token = self.token();
        let jobs: Vec<&NewJob> = batch.accepts.iter().flat_map(|(jobs, _)| jobs).collect();
        let mut at_once = HashMap::new();
        for queue in Queue::ALL {
            let wanted = self.wanted(queue, done);
            if wanted == 0 || done.depths.of(queue).queued > 0 {
                continue;
            }
            let mut here: Vec<&NewJob> = jobs.iter().copied().filter(|job| job.route.queue == queue).collect();
            here.sort_by_key(|job| (-job.submission.priority, job.id));
            for job in here.into_iter().take(wanted) {
                let claim = Claim { token, at: self.moments.next() };
                at_once.insert(job.id, claim);
                done.tell(claim.at, job.id, || self.subject(&job.submission, queue), || What::Running { attempt: 1 });
                done.claimed[queue as usize].push_back(fresh(job, claim));
            }
        }
        script.jobs.extend(jobs.into_iter().map(|job| Insertion { job, claim: at_once.get(&job.id).copied() }));
        for Insertion { job, claim } in &script.jobs {
            let depth = done.depths.at(job.route.queue);
            *(if claim.is_some() { &mut depth.running } else { &mut depth.queued }) += 1;
        }
    }

    /// Serves the claims that wait from the jobs that wait.
    async fn claim(&mut self, done: &mut Done) -> Result<(), StoreError> {
        for queue in Queue::ALL {
            let wanted = self.wanted(queue, done).min(MOST_CLAIMED);
            if wanted == 0 || done.depths.of(queue).queued == 0 {
                continue;
            }
            let claim = Claim { token: self.token(), at: self.moments.skip(wanted) };
            let claimed = statements::claim(&mut self.connection, queue, wanted, claim).await?;
            let depth = done.depths.at(queue);
            depth.queued = depth.queued.saturating_sub(claimed.len() as u64);
            depth.running += claimed.len() as u64;
            for Fresh { claimed, claimed_at, tags } in &claimed {
                let subject = || Subject {
                    bound: claimed.bound,
                    executor: queue.executor(),
                    workload: claimed.workload.kind.as_str().into(),
                    tags: tags.clone(),
                };
                done.tell(*claimed_at, claimed.lease.id, subject, || What::Running { attempt: claimed.attempt });
            }
            done.claimed[queue as usize].extend(claimed);
        }
        Ok(())
    }

    /// What new jobs are told of as.
    fn tell_of_accepted(&self, batch: &Batch, done: &mut Done) {
        for job in batch.accepts.iter().flat_map(|(jobs, _)| jobs) {
            done.tell(job.accepted_at, job.id, || self.subject(&job.submission, job.route.queue), || What::Accepted);
        }
    }

    /// What attempts said, as rows: of each job only as much as is kept of it.
    async fn note(&mut self, batch: &Batch, done: &mut Done) -> Result<Vec<EventRow>, StoreError> {
        let mut rows = Vec::with_capacity(batch.notes.len());
        let notes = batch.notes.iter().flat_map(|noted| noted.notes().map(|note| (noted.lease, note)));
        for (lease, note) in notes {
            let Some(held) = self.held.get_mut(&lease.id).filter(|held| held.token == lease.token) else { continue };
            let said = match &mut held.said {
                Some(said) => said,
                // The first attempt has nothing before it.
                unknown if held.attempt == 1 => unknown.insert(Said { rows: 0, bytes: 0 }),
                unknown => {
                    let (rows, bytes) = events::noted(&mut self.connection, lease.id).await?;
                    unknown.insert(Said { rows, bytes })
                }
            };
            let NoteLimits { rows: most_rows, bytes: most_bytes } = self.limits;
            if said.rows >= most_rows {
                continue;
            }
            let bytes = said.bytes + note.bytes() as u64;
            let last = said.rows + 1 == most_rows || bytes > most_bytes;
            let note = if last {
                let end = format!("the rest is dropped: of each job {most_rows} lines or {most_bytes} bytes are kept");
                Note::log(LogStream::Stderr, end)
            } else {
                note.into_owned()
            };
            *said = if last { Said { rows: u64::MAX, bytes } } else { Said { rows: said.rows + 1, bytes } };
            let at = self.moments.next();
            rows.push(EventRow::note(at, lease.id, held.attempt, &note));
            done.tell(at, lease.id, || held.subject.clone(), || What::noted(held.attempt, note));
        }
        Ok(rows)
    }

    fn subject(&self, submission: &Submission, queue: Queue) -> Subject {
        let kind = submission.workload.kind.as_str();
        Subject {
            bound: submission.bound,
            executor: queue.executor(),
            workload: self.kinds.get(kind).map_or_else(|| kind.into(), Arc::clone),
            tags: (!submission.tags.is_empty()).then(|| Arc::new(submission.tags.clone())),
        }
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

    /// Notes how far back one has to look for what happens from here on, if it is time for that.
    async fn mark(&mut self) {
        if !self.published.marks().is_due(self.moments.0) {
            return;
        }
        match statements::oldest(&mut self.connection).await {
            Ok(oldest) => self.published.marks().push(self.moments.0, oldest),
            // Whoever looks back looks further.
            Err(error) => tracing::warn!(%error, "the oldest unfinished job is not known"),
        }
    }

    /// Publishes what was committed, then answers those who wait for it.
    async fn answer(&mut self, batch: Batch, mut done: Done) {
        self.claims_blocked = false;
        self.next_due = done.next_due;
        self.depths = done.depths;
        *self.published.depths.lock().unwrap_or_else(PoisonError::into_inner) = self.depths;
        self.published.rollups().append(&mut done.rollups);
        self.published.latest_event.store(self.moments.0.as_micros(), Ordering::SeqCst);
        self.published.hub.publish(done.news);
        for id in done.ended {
            self.held.remove(&id);
        }
        for id in done.stopping {
            if let Some(held) = self.held.get_mut(&id) {
                held.stopping = true;
            }
        }
        for queue in Queue::ALL {
            for Fresh { claimed, claimed_at, tags } in &done.claimed[queue as usize] {
                let workload = self.kind(&claimed.workload.kind);
                let subject = Subject { bound: claimed.bound, executor: queue.executor(), workload, tags: tags.clone() };
                let held = Held {
                    token: claimed.lease.token,
                    queue,
                    subject,
                    attempt: claimed.attempt,
                    claimed_at: *claimed_at,
                    stopping: false,
                    said: None,
                };
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
        batch.edits.into_iter().for_each(|edit| edit.answer(Ok(())));
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
    fn hand_out(&mut self, claimed: [VecDeque<Fresh>; Queue::ALL.len()]) -> Vec<Claimed> {
        let mut unwanted = Vec::new();
        for (waiting, claimed) in self.claims.iter_mut().zip(claimed) {
            let mut claimed: VecDeque<Claimed> = claimed.into_iter().map(|fresh| fresh.claimed).collect();
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
        let further = self.cancels.len() + self.requeues.len() + self.edits.len() + self.checks.len();
        self.notes.len() + self.accepts.len() + self.settles.len() + further
    }

    /// A batch for each command.
    fn split(&mut self) -> Vec<Self> {
        let batch = std::mem::take(self);
        let mut singles = Vec::with_capacity(batch.len());
        singles.push(Self { notes: batch.notes, ..Self::default() });
        singles.extend(batch.settles.into_iter().map(|settle| Self { settles: vec![settle], ..Self::default() }));
        singles.extend(batch.cancels.into_iter().map(|cancel| Self { cancels: vec![cancel], ..Self::default() }));
        singles.extend(batch.requeues.into_iter().map(|requeue| Self { requeues: vec![requeue], ..Self::default() }));
        singles.extend(batch.edits.into_iter().map(|edit| Self { edits: vec![edit], ..Self::default() }));
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
        if !self.notes.is_empty() {
            tracing::warn!(notes = self.notes.len(), "what attempts said could not be written and is lost");
        }
        // Nobody may be waiting for an answer any more.
        self.accepts.into_iter().for_each(|(_, reply)| drop(reply.send(Err(told()))));
        self.settles.into_iter().for_each(|(_, _, reply)| drop(reply.send(Err(told()))));
        self.cancels.into_iter().for_each(|(_, reply)| drop(reply.send(Err(told()))));
        self.requeues.into_iter().for_each(|(_, reply)| drop(reply.send(Err(told()))));
        self.edits.into_iter().for_each(|edit| edit.answer(Err(told())));
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

/// Makes a running job wait again, and keeps that its attempt ran and how it ended.
async fn again(
    connection: &mut SqliteConnection,
    id: JobId,
    row: EventRow,
    due_at: Timestamp,
    lost: bool,
) -> Result<(), StoreError> {
    events::keep_attempt(connection, id).await?;
    events::insert(connection, &[row]).await?;
    statements::again(connection, id, due_at, lost).await
}

/// A new job as its claim hands it over.
fn fresh(job: &NewJob, claim: Claim) -> Fresh {
    let tags = &job.submission.tags;
    let claimed = Claimed {
        lease: Lease { id: job.id, token: claim.token },
        bound: job.submission.bound,
        workload: job.submission.workload.clone(),
        deadline: job.submission.deadline,
        retry: job.submission.retry.clone(),
        attempt: 1,
        losses: 0,
        queued_for: claim.at.since(job.accepted_at),
    };
    Fresh { claimed, claimed_at: claim.at, tags: (!tags.is_empty()).then(|| Arc::new(tags.clone())) }
}

/// Whether the error comes from the disk or the database as a whole rather than from one command.
fn is_of_the_machine(error: &StoreError) -> bool {
    // SQLITE_BUSY, NOMEM, READONLY, IOERR, CORRUPT, FULL, CANTOPEN; extended codes keep the primary one in the low byte.
    const CODES: [u32; 7] = [5, 7, 8, 10, 11, 13, 14];
    let StoreError::Database(sqlx::Error::Database(error)) = error else { return true };
    error.code().and_then(|code| code.parse::<u32>().ok()).is_none_or(|code| CODES.contains(&(code & 0xff)))
}
