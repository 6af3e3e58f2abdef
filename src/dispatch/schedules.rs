//! Schedules: jobs that are submitted because it is time.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::sync::{Mutex, Notify};

use super::counts::Counts;
use super::{NoRoom, OverQuota, Quotas, Taken, Wanted};
use crate::auth::QuotaPart;
use crate::clock::Timestamp;
use crate::job::{JobId, NewJob};
use crate::schedule::{Decision, Fire, FireOutcome, Schedule, Skip, plan};
use crate::store::{Firing, Store, StoreError};
use crate::telemetry::Sparing;

/// The longest sleep until a schedule is due, so that a clock that was set is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// How often to look whether a job has ended for which a time waits.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How long to sleep while no schedule is ever due; whoever changes that wakes the loop, unless that may be another server.
const NOTHING_DUE: Duration = Duration::from_secs(3_600);
/// How many schedules are looked at together, and how many of them fire at once: one commit serves those.
const TOGETHER: (usize, usize) = (256, 32);
/// The most jobs that one transaction submits for a schedule.
const MOST_JOBS: usize = 100;

/// For how long a node that lacks what a job takes leaves a time to others: to one that has it and may be about to end, and to one that may be starting
/// anew. Later it might be taken for missed, and nobody would hear why.
const FOR_OTHERS: (Duration, Duration) = (Duration::from_secs(8), Duration::from_secs(5));

/// The most schedules of one owner: each of them costs a transaction whenever it is due, whatever comes of it.
const MOST_OF_OWNER: u64 = 1_000;
/// What a client is told to wait for until there may be room for another one.
const UNTIL_ROOM: Duration = Duration::from_mins(1);

/// Why a schedule's job can't be submitted.
#[derive(Debug, thiserror::Error)]
pub enum NotMade {
    /// It is not valid any more, for example because a function was removed.
    #[error("{0}")]
    Invalid(String),
    /// This node lacks what it takes.
    #[error("{reason}")]
    Lacking {
        /// What is missing.
        reason: String,
        /// Whether another node is there that has it.
        others: bool,
    },
    /// The server is going down; the next one will submit it.
    #[error("the server is shutting down")]
    Later,
    /// What it names can't be looked up.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes a job of a submission as a client wrote it.
pub type MakeJob = Arc<dyn Fn(&Schedule) -> BoxFuture<'_, Result<NewJob, NotMade>> + Send + Sync>;

/// Why a schedule was not run by hand.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is no such schedule.
    #[error("there is no such schedule")]
    Unknown,
    /// Its job can't be made.
    #[error(transparent)]
    NotMade(#[from] NotMade),
    /// Its owner has too much already, or what there is can't be counted.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The schedules of this server.
pub struct Schedules {
    store: Arc<dyn Store>,
    make: MakeJob,
    quotas: Arc<Quotas>,
    /// Held while schedules fire and while one is changed, so that none fires by what it was before.
    changing: Mutex<()>,
    /// Something may be due earlier than it was.
    changed: Notify,
    /// Why the jobs of schedules could not be submitted the last time, by their names.
    said: std::sync::Mutex<HashMap<String, &'static str>>,
    /// The times that are left to other nodes, and since when.
    left: std::sync::Mutex<HashMap<String, (Timestamp, Timestamp)>>,
    /// What came of times.
    times: Counts<5>,
}

impl fmt::Debug for Schedules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schedules").finish_non_exhaustive()
    }
}

impl Schedules {
    /// Those of a store, which other servers may change as well.
    pub fn new(store: Arc<dyn Store>, make: MakeJob, quotas: Arc<Quotas>) -> Self {
        let times = Counts::of(["submitted", "waiting", "skipped", "missed", "failed"]);
        let (changing, changed) = (Mutex::default(), Notify::new());
        Self {
            store,
            make,
            quotas,
            changing,
            changed,
            said: std::sync::Mutex::default(),
            left: std::sync::Mutex::default(),
            times,
        }
    }

    /// What came of the times that this server has decided upon since it was started. One that waits counts once more when its job is submitted.
    pub fn times(&self) -> [(&'static str, u64); 5] {
        self.times.all()
    }

    /// Fires what is due until `end`.
    pub async fn keep(&self, end: impl Future<Output = ()>) {
        let mut end = std::pin::pin!(end);
        // What an earlier server knew of the time may have been wrong.
        let (mut before, mut checked) = (self.store.now(), false);
        let failures = Sparing::default();
        loop {
            let now = self.store.now();
            checked &= now >= before;
            before = now;
            let round = async {
                if !checked {
                    self.correct(now).await?;
                    checked = true;
                }
                self.round(now).await
            };
            let sleep = match round.await {
                Ok(sleep) => sleep,
                Err(StoreError::Closed) => return,
                Err(error) => {
                    if let Some(more) = failures.tell() {
                        tracing::error!(%error, more, "schedules can't fire");
                    }
                    LONGEST_SLEEP
                }
            };
            tokio::select! {
                () = tokio::time::sleep(sleep) => {}
                () = self.changed.notified() => {}
                () = &mut end => return,
            }
        }
    }

    /// Fires what is due by `now`; how long there is nothing more to do.
    pub async fn round(&self, now: Timestamp) -> Result<Duration, StoreError> {
        let _changing = self.changing.lock().await;
        let (page, at_once) = TOGETHER;
        // What can't be recorded is due as before.
        let mut stuck = HashSet::new();
        loop {
            let mut due = self.store.due_schedules(now, page + stuck.len()).await?;
            due.retain(|schedule| !stuck.contains(&schedule.name));
            if due.is_empty() {
                break;
            }
            let fire = |schedule: Schedule| async move {
                let recorded = alone(&schedule.name, self.fire(&schedule, now).await)?;
                Ok::<_, StoreError>((!recorded).then_some(schedule.name))
            };
            let failed: Vec<_> = stream::iter(due).map(fire).buffer_unordered(at_once).try_collect().await?;
            stuck.extend(failed.into_iter().flatten());
        }
        let waiting = self.store.waiting_schedules().await?;
        for (name, _) in waiting.iter().filter(|(_, freed)| *freed) {
            if !alone(name, self.submit_waiting(name, now).await)? {
                stuck.insert(name.clone());
            }
        }
        let next = self.store.next_schedule_due(now).await?;
        let longest = if waiting.is_empty() || !stuck.is_empty() { LONGEST_SLEEP } else { LOOK_AGAIN };
        Ok(match next {
            Some(next) => next.since(now).min(longest),
            None if waiting.is_empty() && stuck.is_empty() && !self.store.is_shared() => NOTHING_DUE,
            None => longest,
        })
    }

    /// Sees to it that no schedule waits for a time that it took from a clock that was wrong.
    pub async fn correct(&self, now: Timestamp) -> Result<(), StoreError> {
        let _changing = self.changing.lock().await;
        let mut after: Option<String> = None;
        loop {
            let page = self.store.schedules(after.as_deref(), TOGETHER.0).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.name.clone());
            for schedule in page.iter().filter(|schedule| schedule.next_at.is_some_and(|next| next > now)) {
                alone(&schedule.name, self.fire(schedule, now).await)?;
            }
        }
    }

    /// Adds a schedule. Whether its name was free.
    ///
    /// # Errors
    /// Its owner has as many as there may be, or the store does not take it.
    pub async fn add(&self, schedule: Schedule) -> Result<bool, NoRoom> {
        let _changing = self.changing.lock().await;
        self.check_room(&schedule).await?;
        let added = self.store.add_schedule(schedule).await?;
        self.changed.notify_one();
        Ok(added)
    }

    /// Adds a schedule, or replaces the one of its name: that stays paused if it was, and is due when it was if its timetable is the
    /// same. Whether it is new.
    ///
    /// # Errors
    /// Its owner has as many as there may be, or the store does not take it.
    pub async fn put(&self, mut schedule: Schedule) -> Result<(bool, Schedule), NoRoom> {
        let _changing = self.changing.lock().await;
        let given = schedule.clone();
        loop {
            let before = self.store.schedule(&schedule.name).await?;
            let new = before.is_none();
            let done = if let Some(before) = before {
                schedule.created_at = before.created_at;
                schedule.paused = before.paused;
                if before.paused || before.timetable == schedule.timetable {
                    schedule.next_at = before.next_at;
                }
                self.store.replace_schedule(schedule.clone()).await?
            } else {
                self.check_room(&schedule).await?;
                self.store.add_schedule(schedule.clone()).await?
            };
            if done {
                self.changed.notify_one();
                return Ok((new, schedule));
            }
            // Another server has added, removed, paused or resumed it in between.
            schedule = given.clone();
        }
    }

    /// Refuses one more schedule of an owner who has as many as there may be.
    async fn check_room(&self, schedule: &Schedule) -> Result<(), NoRoom> {
        let Some(owner) = schedule.owner() else { return Ok(()) };
        if self.store.schedules_of(owner).await? < MOST_OF_OWNER {
            return Ok(());
        }
        let (part, retry_after) = (QuotaPart::Schedules, Some(UNTIL_ROOM));
        Err(OverQuota { part, most: MOST_OF_OWNER, retry_after }.into())
    }

    /// Pauses a schedule, or resumes it: what it was due for in between is no time that it missed. `None` if there is none.
    pub async fn pause(&self, name: &str, paused: bool) -> Result<Option<Schedule>, StoreError> {
        let _changing = self.changing.lock().await;
        loop {
            let Some(mut schedule) = self.store.schedule(name).await? else { return Ok(None) };
            if schedule.paused == paused {
                return Ok(Some(schedule));
            }
            schedule.paused = paused;
            schedule.next_at = if paused { None } else { schedule.timetable.from(self.store.now()).next() };
            if self.store.pause_schedule(schedule.clone()).await? {
                self.changed.notify_one();
                return Ok(Some(schedule));
            }
            // Another server has replaced or removed it in between.
        }
    }

    /// Forgets a schedule; its jobs go on. Whether there was one.
    pub async fn remove(&self, name: &str) -> Result<bool, StoreError> {
        let _changing = self.changing.lock().await;
        self.said.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        self.left.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        self.store.remove_schedule(name).await
    }

    /// Submits a schedule's job now, whatever its rules say.
    pub async fn run(&self, name: &str) -> Result<JobId, RunError> {
        let _changing = self.changing.lock().await;
        let schedule = self.store.schedule(name).await?.ok_or(RunError::Unknown)?;
        let job = (self.make)(&schedule).await?;
        let quota = self.quotas.take(job.submission.owner, Wanted::by(std::slice::from_ref(&job))).await?;
        let (id, now) = (job.id, self.store.now());
        let fires = vec![Fire { due_at: now, at: now, by_hand: true, outcome: FireOutcome::Submitted(id) }];
        let firing = Firing { schedule: schedule.name, fires, jobs: vec![job], ..Firing::default() };
        if let Err(error) = self.store.fire(firing.clone()).await {
            quota.failed(&error).await;
            return Err(error.into());
        }
        self.count(&firing.fires);
        Ok(id)
    }

    /// Whether it was done; if not, it is left to another node.
    async fn fire(&self, schedule: &Schedule, now: Timestamp) -> Result<bool, StoreError> {
        let seen = self.store.schedule_seen(&schedule.name).await?;
        let Some(plan) = plan(schedule, seen, now) else { return Ok(true) };
        if plan.times.is_empty() {
            let advance = Firing { next_at: Some(plan.next_at), ..of(schedule) };
            return self.store.fire(advance).await.map(|_| true);
        }
        let mut times = plan.times.chunks(MOST_JOBS).peekable();
        while let Some(some) = times.next() {
            // If the server goes down behind this step, the next one goes on from there.
            let next_at = times.peek().and_then(|rest| rest.first()).map_or(plan.next_at, |(at, _)| Some(*at));
            let mut firing = Firing { next_at: Some(next_at), ..of(schedule) };
            let mut taken = Vec::new();
            for (due_at, decision) in some {
                let outcome = match decision {
                    Decision::Submit => match self.submit(schedule, (*due_at, now), &mut firing, &mut taken).await {
                        Ok(Some(outcome)) => outcome,
                        other => {
                            give_back(&taken).await;
                            return other.map(|_| false);
                        }
                    },
                    Decision::Wait => FireOutcome::Waiting,
                    Decision::Skip(skip) => FireOutcome::Skipped(*skip),
                };
                firing.fires.push(Fire { due_at: *due_at, at: now, by_hand: false, outcome });
            }
            self.record(firing, &taken).await?;
        }
        Ok(true)
    }

    /// Submits the job of the first time that waits. Whether it was done; if not, it is left to another node.
    async fn submit_waiting(&self, name: &str, now: Timestamp) -> Result<bool, StoreError> {
        let schedule = match self.store.schedule(name).await {
            // It is left out here as in the lists of the store, which say so.
            Err(StoreError::Corrupt(_)) => return Ok(true),
            schedule => schedule?,
        };
        let Some((schedule, first)) = schedule.zip(self.store.first_waiting_fire(name).await?) else { return Ok(true) };
        let mut firing = Firing { waited: 1, ..of(&schedule) };
        let mut taken = Vec::new();
        let submitted = self.submit(&schedule, (first.due_at, now), &mut firing, &mut taken).await?;
        let Some(outcome) = submitted else { return Ok(false) };
        firing.fires.push(Fire { at: now, outcome, ..first });
        self.record(firing, &taken).await.map(|()| true)
    }

    /// Adds the schedule's job to those that are submitted, if its owner has room for it: in `taken`, until they are. `None` if that is
    /// left to another node.
    async fn submit(
        &self,
        schedule: &Schedule,
        (due_at, now): (Timestamp, Timestamp),
        firing: &mut Firing,
        taken: &mut Vec<Taken>,
    ) -> Result<Option<FireOutcome>, StoreError> {
        let (why, reason) = match (self.make)(schedule).await {
            Ok(job) => match self.quotas.take(job.submission.owner, Wanted::by(std::slice::from_ref(&job))).await {
                Ok(room) => {
                    let id = job.id;
                    firing.jobs.push(job);
                    taken.push(room);
                    self.said.lock().unwrap_or_else(PoisonError::into_inner).remove(&schedule.name);
                    return Ok(Some(FireOutcome::Submitted(id)));
                }
                Err(NoRoom::Over(over)) => ("the quota has no room", over.to_string()),
                Err(NoRoom::Store(error)) => return Err(error),
            },
            Err(NotMade::Lacking { others, .. }) if self.leaves(&schedule.name, (due_at, now), others) => return Ok(None),
            Err(NotMade::Invalid(reason) | NotMade::Lacking { reason, .. }) => ("it is not valid any more", reason),
            Err(NotMade::Later) => return Err(StoreError::Closed),
            Err(NotMade::Store(error)) => return Err(error),
        };
        // The reason may say what a client wrote: it is for those who may look at the schedule.
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner).insert(schedule.name.clone(), why);
        if said != Some(why) {
            tracing::warn!(
                schedule = schedule.name,
                why,
                "a schedule's job can't be submitted; it is said again when that changes"
            );
        }
        Ok(Some(FireOutcome::Failed(reason)))
    }

    /// Whether a time is left to other nodes, which this one sees or does not, a little longer.
    fn leaves(&self, schedule: &str, (due_at, now): (Timestamp, Timestamp), others: bool) -> bool {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let (of, since) = left.entry(schedule.to_owned()).or_insert((due_at, now));
        if *of != due_at {
            (*of, *since) = (due_at, now);
        }
        now.since(*since) < if others { FOR_OTHERS.0 } else { FOR_OTHERS.1 }
    }

    /// Has the store record it. If it can't take the jobs, however often it is tried, that is recorded. What was `taken` for jobs that don't
    /// come, for this or because another server has submitted them, is given back.
    async fn record(&self, firing: Firing, taken: &[Taken]) -> Result<(), StoreError> {
        match self.store.fire(firing.clone()).await {
            // Another server has submitted them, and counts them.
            Ok(jobs) if jobs.is_empty() && !firing.jobs.is_empty() => give_back(taken).await,
            Ok(_) => self.count(&firing.fires),
            Err(error) => {
                for room in taken {
                    room.failed(&error).await;
                }
                if firing.jobs.is_empty() || !is_of_the_jobs(&error) {
                    return Err(error);
                }
                let reason = if let StoreError::Refused(reason) = error { reason } else { error.to_string() };
                let mut firing = Firing { jobs: Vec::new(), ..firing };
                for fire in &mut firing.fires {
                    if matches!(fire.outcome, FireOutcome::Submitted(_)) {
                        fire.outcome = FireOutcome::Failed(reason.clone());
                    }
                }
                self.store.fire(firing.clone()).await?;
                self.count(&firing.fires);
            }
        }
        Ok(())
    }

    fn count(&self, fires: &[Fire]) {
        for fire in fires {
            self.times.count(match fire.outcome {
                FireOutcome::Submitted(_) => "submitted",
                FireOutcome::Waiting => "waiting",
                FireOutcome::Skipped(Skip::Overlap | Skip::Full) => "skipped",
                FireOutcome::Skipped(Skip::Missed) => "missed",
                FireOutcome::Failed(_) => "failed",
            });
        }
    }
}

async fn give_back(taken: &[Taken]) {
    for room in taken {
        room.came(0).await;
    }
}

/// Whether it is about what is submitted, not about the store.
const fn is_of_the_jobs(error: &StoreError) -> bool {
    matches!(error, StoreError::Refused(_) | StoreError::TooManyPlaces)
}

/// What a schedule does, without anything yet: as it was read.
fn of(schedule: &Schedule) -> Firing {
    Firing { schedule: schedule.name.clone(), made_of: Some(schedule.changed_at), ..Firing::default() }
}

/// Whether it was done. What is wrong with one schedule holds up no other; what is wrong with the store does.
fn alone(schedule: &str, done: Result<bool, StoreError>) -> Result<bool, StoreError> {
    match done {
        Err(error) if is_of_the_jobs(&error) || matches!(error, StoreError::Corrupt(_)) => {
            tracing::error!(%error, schedule, "a schedule can't fire; it is tried again");
            Ok(false)
        }
        done => done,
    }
}
