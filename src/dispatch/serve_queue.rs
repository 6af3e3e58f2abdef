//! The loops that serve a queue: a place first, then a claim, then the work.
//!
//! Because a slot is there before a job is claimed, or soon will be where jobs are short, no job is `running` for long while it waits;
//! and because each queue has loops of its own, one that is full holds up no other.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tower::{Service, ServiceExt};
use tracing::{Instrument as _, debug_span};

use super::patience::STORE_RETRY;
use super::settle::{jittered, settlement};
use super::waiters::End;
use super::{Shared, outputs};
use crate::clock::{Monotonic, Timestamp};
use crate::executor::{Attempt, Measured, Place, Slot, Stack};
use crate::job::{Bound, Conclusion, Ending, Failure, LogStream, Note, Outcome, Queue, meets};
use crate::outbound::Room;
use crate::profile::Sample;
use crate::store::{Claimed, Lease, Settled, Settlement, StoreError, Urgency};
use crate::workload::{Reporter, Sink, Stop, StopReason};

/// Loops a queue: while one hands out what it claimed, the claims of the others are with the store, so that a job that comes in
/// meanwhile is claimed as it is accepted.
pub(super) const LOOPS: usize = 4;
/// The most jobs that a loop asks for at once: up to so many where there are slots for as many in each of the loops, but no fewer than this.
/// Those that are accepted while more are asked for need not be written twice.
const MOST_CLAIMED: (usize, usize) = (512, 2_048);
/// How long a job waits that was claimed where it can't run, at first and at the most.
const ELSEWHERE: (Duration, Duration) = (Duration::from_mins(1), Duration::from_mins(10));
/// The same of one for which no process can be started.
const NO_PROCESS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(5));

/// The same of one that asks for the output of a job that is being run again.
const RUN_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// Serves a queue until the dispatcher drains.
pub(super) async fn serve_queue(shared: Arc<Shared>, queue: Queue) {
    let (stack, home, slots) =
        (shared.executors.stack(queue), shared.executors.home(queue).clone(), &shared.slots[queue as usize]);
    let most = (slots.count() / LOOPS).clamp(MOST_CLAIMED.0, MOST_CLAIMED.1);
    loop {
        let mut vacancies = tokio::select! {
            biased;
            () = shared.draining.cancelled() => return,
            vacancies = slots.vacancies(most) => vacancies,
        };
        let claimed = tokio::select! {
            // What is claimed already is run, though the server drains: it would stand as running, and nobody would run it.
            biased;
            claimed = shared.store.claim(queue, vacancies.left()) => claimed,
            () = shared.draining.cancelled() => return,
        };
        match claimed {
            Ok(claimed) => {
                shared.room.drained(queue, claimed.len());
                let is_in_line = slots.has_line() && claimed.len() > 1;
                for claimed in claimed {
                    let stop = shared.running.begin(claimed.lease);
                    let span = debug_span!("job", id = %claimed.lease.id, attempt = claimed.attempt);
                    // The store claims no more than it was asked for.
                    let slot = Slot { place: vacancies.place(claimed.workload.json.get().len()), permit: None };
                    let attempt = run(Arc::clone(&shared), stack.clone(), queue, claimed, stop, slot).instrument(span);
                    shared.attempts.spawn_on(attempt, &home);
                }
                if is_in_line {
                    // What a thread of tokio's spawns last it runs first, and the rest in turn: that would be the least urgent one.
                    home.spawn(std::future::ready(()));
                }
            }
            Err(StoreError::Closed) => return,
            Err(error) => {
                tracing::error!(%error, %queue, "can't claim jobs");
                tokio::time::sleep(STORE_RETRY.1).await;
            }
        }
    }
}

/// Where an attempt's reports go: to the store, under its lease.
struct Reports {
    shared: Arc<Shared>,
    lease: Lease,
    /// What its output takes up.
    room: OnceLock<Room>,
}

impl Sink for Reports {
    fn offer(&self, note: Note) {
        self.shared.store.offer(self.lease, note);
    }

    fn note(&self, note: Note) -> BoxFuture<'_, ()> {
        Box::pin(self.shared.store.note(self.lease, note))
    }

    fn keep(&self, room: Room) {
        // An attempt has one output.
        let _ = self.room.set(room);
    }
}

/// Runs one attempt and records what became of it.
///
/// A waiting attempt is kept small, since there may be thousands of them: this is a block, not an `async fn`, whose arguments are there
/// twice while it waits; and what is not needed after the wait is gone before it.
fn run(
    shared: Arc<Shared>,
    mut stack: Stack,
    queue: Queue,
    mut claimed: Claimed,
    stop: Stop,
    slot: Slot,
) -> impl Future<Output = ()> + Send {
    let began = Monotonic::now();
    let in_line = slot.place.as_ref().is_some_and(Place::is_ahead);
    async move {
        // Only the executor needs it from here on.
        let (id, workload) = (claimed.lease.id, std::mem::take(&mut claimed.workload));
        // What this server does not know it does not run, and it may be called anything.
        let kind = shared.registry.get(&workload.kind).map_or("unknown", |workload| workload.name);
        let workload = match Box::pin(outputs::put_in(&shared, id, workload, claimed.deadline, &stop)).await {
            Ok(Some(workload)) => workload,
            Ok(None) => {
                drop((stack, slot));
                let why = "it waits: a job whose output it asks for is being run again";
                return Box::pin(postpone(shared, queue, claimed, why, RUN_AGAIN)).await;
            }
            Err(failure) => {
                drop((stack, slot));
                let measured = Measured::unbegun(failure, stop.reason(), claimed.deadline);
                let settlement = settlement(&claimed, measured, shared.max_losses, shared.store.now());
                return Box::pin(settle(&shared, queue, kind, &claimed, settlement.into())).await;
            }
        };
        if claimed.profile.is_none() {
            // It comes from a backlog, or other jobs' outputs have just made it what it is.
            claimed.profile = shared.registry.likeness(&workload).map(|likeness| likeness.key());
        }
        // Of several nodes, only one that has them claims it. The only one may have been started with others since.
        if claimed.requires.as_ref().is_some_and(|required| !meets(shared.store.labels(), required)) {
            drop((stack, slot));
            let why = "it waits: this server does not have the labels that it requires";
            return Box::pin(postpone(shared, queue, claimed, why, ELSEWHERE)).await;
        }
        if let Some(wait) = shared.quarantine.keeps_out(claimed.owner, claimed.profile.as_ref()).filter(|_| !stop.is_stopped()) {
            drop((stack, slot));
            let why = "it waits: whatever runs work like this has died under it, again and again";
            return Box::pin(postpone(shared, queue, claimed, why, (wait, wait))).await;
        }
        let Ok(executor) = stack.ready().await;
        let reports = Arc::new(Reports { shared: Arc::clone(&shared), lease: claimed.lease, room: OnceLock::new() });
        let running = executor.call(Attempt {
            job: claimed.lease.id,
            number: claimed.attempt,
            workload,
            deadline: claimed.deadline,
            queued_for: claimed.queued_for,
            claimed: began,
            keeps_files: true,
            stop,
            reporter: Reporter::new(Arc::clone(&reports) as Arc<dyn Sink>),
            slot,
        });
        drop(stack);
        let Ok(measured) = running.await;
        // Whatever has become of it: it may have been the one that was let in to see.
        shared.quarantine.ended(claimed.owner, claimed.profile.as_ref(), &measured);
        if measured.has_no_process() {
            let why = "it waits: no process of its interpreter can be started";
            return Box::pin(postpone(shared, queue, claimed, why, NO_PROCESS)).await;
        }
        learn(&shared, queue, in_line, &claimed, &measured);
        let settlement = settlement(&claimed, measured, shared.max_losses, shared.store.now()).into();
        Box::pin(settle(&shared, queue, kind, &claimed, settlement)).await;
        drop(reports);
    }
}

/// Makes a job wait that can't run now, as if it had not been claimed.
async fn postpone(shared: Arc<Shared>, queue: Queue, claimed: Claimed, why: &'static str, waits: (Duration, Duration)) {
    let id = claimed.lease.id;
    let (wait, is_new) = shared.postponed.again(id, why, waits);
    if is_new {
        shared.store.note(claimed.lease, Note::log(LogStream::Stderr, why)).await;
    }
    let settlement = Settlement::Later { due_at: shared.store.now().after(wait) };
    if let Err(error) = record(&shared, queue, claimed.lease, settlement.into()).await {
        tracing::error!(%id, %error, "that it waits could not be recorded; it will be tried again");
    }
    shared.running.end(claimed.lease);
}

/// Adds what was measured of an attempt to what is known of its queue and its workload. What a shut-down stopped says nothing of them.
fn learn(shared: &Shared, queue: Queue, in_line: bool, claimed: &Claimed, measured: &Measured) {
    let Some(timing) = measured.timing.filter(|_| measured.stopped != Some(StopReason::HandBack)) else { return };
    shared.slots[queue as usize].took(Duration::from_micros(timing.wall_us));
    let failure = measured.outcome.failure().map(|failure| failure.kind);
    let ran_as = match queue {
        Queue::ThreadsIo => Bound::Io,
        Queue::ThreadsCpu => Bound::Cpu,
        _ => claimed.bound,
    };
    let (bound, executor) = (claimed.bound, queue.executor());
    let sample = Sample { bound, ran_as, executor, failure, timing, in_line, at: Timestamp::now() };
    shared.profiles.record(claimed.profile.as_ref(), &sample);
}

/// Records what became of an attempt, and tells those who wait for it.
async fn settle(shared: &Shared, queue: Queue, kind: &'static str, claimed: &Claimed, settlement: Arc<Settlement>) {
    let id = claimed.lease.id;
    // One that is handed back may not have begun, and waits on.
    if !matches!(*settlement, Settlement::Release { .. }) {
        shared.postponed.ended(id);
    }
    let finished = settlement.is_end();
    let mut end = None;
    match record(shared, queue, claimed.lease, settlement).await {
        Ok((Settled::Ended { started_at, finished_at }, settlement)) => {
            let Claimed { attempt, losses, bound, .. } = *claimed;
            if let Settlement::Finish(conclusion) = &*settlement {
                shared.ended.count(kind, bound, queue.executor(), conclusion);
                if let Some(timing) = &conclusion.timing {
                    shared.profiles.count(bound, queue.executor(), timing);
                }
            }
            end = Some(End { attempt, losses, settlement, started_at, finished_at });
        }
        Ok((Settled::Recorded, settlement)) => {
            if matches!(*settlement, Settlement::Again { .. }) {
                shared.ended.count_retried(queue.executor());
            }
        }
        Ok((Settled::Stale, _)) => tracing::warn!(%id, "the lease was no longer valid; what this attempt did is discarded"),
        Err(error) => {
            // What runs when the server goes is lost, whatever it did.
            let survives = claimed.retry().survives_loss(claimed.losses + 1, shared.max_losses);
            let then = if survives { "it will run again" } else { "it ends as lost" };
            tracing::error!(%id, %error, "what this attempt did could not be recorded; {then}");
        }
    }
    shared.running.end(claimed.lease);
    // One whose next attempt could not be recorded has ended as well.
    if finished || end.is_some() {
        shared.waiters.ended(id, end);
    }
}

/// Records a settlement, however long the store can't write; and the settlement that was recorded. A result is given up only when the
/// program has to end.
async fn record(
    shared: &Shared,
    queue: Queue,
    lease: Lease,
    mut settlement: Arc<Settlement>,
) -> Result<(Settled, Arc<Settlement>), StoreError> {
    let mut is_refused = false;
    let (mut wait, mut tries) = (STORE_RETRY.0, 0);
    loop {
        let urgency = if shared.waiters.any(lease.id) { Urgency::Awaited } else { Urgency::Patient(queue) };
        let error = match shared.store.settle(lease, Arc::clone(&settlement), urgency).await {
            Ok(settled) => return Ok((settled, settlement)),
            Err(StoreError::Closed) => return Err(StoreError::Closed),
            Err(error) => error,
        };
        if let StoreError::Refused(reason) = &error
            && !std::mem::replace(&mut is_refused, true)
        {
            // What is to be recorded is itself at fault. The job ends all the same, and says so.
            let what = if is_success(&settlement) { "its output" } else { "what became of this attempt" };
            settlement = Arc::new(Settlement::Finish(Conclusion {
                ending: Ending::Failed,
                outcome: Outcome::Error(Failure::error(format!("{what} can't be stored: {reason}"))),
                timing: None,
            }));
            continue;
        }
        if let Some(more) = shared.unrecorded.tell() {
            tracing::warn!(id = %lease.id, %error, more, "the store can't write; results are kept until it can");
        }
        tries += 1;
        tokio::select! {
            // Those that wait don't come back together. A timer is large, and few need one.
            () = Box::pin(tokio::time::sleep(jittered(wait, lease.id, tries))) => wait = (wait * 2).min(STORE_RETRY.1),
            () = shared.giving_up.cancelled() => return Err(error),
        }
    }
}

fn is_success(settlement: &Settlement) -> bool {
    matches!(settlement, Settlement::Finish(conclusion) if conclusion.outcome.is_success())
}
