//! Settlements: how attempts end.

use std::collections::{HashMap, HashSet};

use super::super::events;
use super::super::moves::{self, End, Finished, Held, Released};
use super::super::rows::Run;
use super::super::webhooks::NewDelivery;
use super::Writer;
use super::batch::Batch;
use super::transaction::Done;
use crate::clock::Timestamp;
use crate::job::{Ending, Failure, FindingKinds, JobId, Queue, What};
use crate::store::counted::{Counted, counted_of};
use crate::store::kept::edge::Doom;
use crate::store::kept::event::EventRow;
use crate::store::kept::state::{RUNNING, SCHEDULED};
use crate::store::tally::Count;
use crate::store::{Lease, Settled, Settlement, StoreError, Subject};

impl Writer {
    /// Ends attempts whose leases are valid, and keeps new jobs: by one statement, however many they are, but for ends without a result. What these
    /// make wait again comes before what is new.
    pub(super) async fn settle_and_accept(&mut self, batch: &Batch, done: &mut Done) -> Result<(), StoreError> {
        let runs = self.node.runs(batch.settles.iter().map(|(lease, ..)| *lease));
        let ends: Vec<Option<End<'_>>> = batch
            .settles
            .iter()
            .zip(&runs)
            .map(|((lease, settlement, _), run)| end(*lease, settlement, run.as_ref()?, done))
            .collect();
        // Before anything is recorded here.
        let recorded = self.recorded(batch).await?;
        let node = self.me(done);
        let is_plain = batch.settles.iter().all(|(_, settlement, _)| settlement.is_end());
        let mut new = if is_plain { self.insertions(batch, done) } else { Vec::new() };
        let (these, connection) = (ends.iter().flatten().collect(), &mut self.connection);
        let mut finished = moves::finish_and_accept(connection, these, &new, node).await?;
        let others = batch.settles.iter().filter(|(_, settlement, _)| !settlement.is_end()).map(|(lease, ..)| *lease);
        let held = moves::held(&mut self.connection, &others.collect::<Vec<_>>()).await?;
        let mut held: HashMap<JobId, Held> = held.into_iter().map(|held| (held.id, held)).collect();
        let (mut begun_ones, mut unbegun, mut odd) = (Vec::new(), Vec::new(), Vec::new());
        let mut again = HashSet::new();
        // A second settlement of the same lease comes too late, though both came together; one with a result goes first.
        let mut late = |lease: &Lease| {
            let ended = recorded.get(lease).filter(|_| again.insert(*lease)).copied();
            ended.unwrap_or(Settled::Stale)
        };
        for (((lease, settlement, _), end), run) in batch.settles.iter().zip(ends).zip(&runs) {
            if let Settlement::Finish(conclusion) = &**settlement {
                let finished = take_if(&mut finished, lease.id, |finished| finished.token == lease.token);
                let (Some(Finished { attempt, started_at, children, .. }), Some(end), Some(run)) = (finished, end, run) else {
                    done.settled.push(late(lease));
                    continue;
                };
                let (known, finished_at) = (&run.known, end.finished_at);
                done.ended.push(*lease);
                done.shared.leave(known.queue, RUNNING, 1);
                done.lanes.vacate(&known.counted);
                done.settled.push(Settled::Ended { started_at, finished_at });
                done.counts.push(Count::new(known.subject.key(conclusion.ending), conclusion.timing.as_ref()));
                if children {
                    done.unblocking.push_back(lease.id);
                }
                done.announce((lease.id, known.subject.owner), conclusion.ending, finished_at, known.webhook.clone());
                let finished = || Box::new(conclusion.clone().at(Some(started_at), finished_at));
                let what = || What::Finished { attempt, finished: finished() };
                done.tell(finished_at, lease.id, || known.subject.clone(), what);
                continue;
            }
            let Some(held) = take_if(&mut held, lease.id, |held| held.token == lease.token) else {
                done.settled.push(late(lease));
                continue;
            };
            done.ended.push(*lease);
            done.shared.leave(held.known.queue, RUNNING, 1);
            done.lanes.vacate(&held.known.counted);
            done.settled.push(Settled::Recorded);
            match &**settlement {
                Settlement::Release { begun } if !held.stopping => {
                    let released = if *begun { &mut begun_ones } else { &mut unbegun };
                    released.push(held.id);
                }
                settlement => odd.push((held, settlement)),
            }
        }
        self.give_back(&begun_ones, None, true, done).await?;
        self.give_back(&unbegun, None, false, done).await?;
        for (held, settlement) in odd {
            self.settle_odd(held, settlement, done).await?;
        }
        if !is_plain {
            new = self.insertions(batch, done);
            moves::finish_and_accept(&mut self.connection, Vec::new(), &new, node).await?;
        }
        moves::tag(&mut self.connection, &new).await
    }

    /// Makes running jobs wait again as if they had not been claimed, or until a moment. Those whose work had not `begun` were no starts of their
    /// rates, for which their lanes may be shut. Of each, its queue and what it counted for.
    pub(super) async fn give_back(
        &mut self,
        ids: &[JobId],
        until: Option<Timestamp>,
        begun: bool,
        done: &mut Done,
    ) -> Result<Vec<(Queue, Vec<Counted>)>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        events::keep_attempts(&mut self.connection, ids).await?;
        let (mut given, mut rates) = (Vec::with_capacity(ids.len()), Vec::new());
        for Released { claimed_at, expires_at, queued } in moves::release(&mut self.connection, ids, until).await? {
            given.push((queued.queue, queued.lane.as_ref().map(|lane| counted_of(&lane.name)).unwrap_or_default()));
            done.shared.expires(expires_at);
            if let Some((lane, key)) = queued.lane.as_ref().filter(|_| !begun).and_then(|lane| Some((lane, lane.rkey.as_ref()?)))
            {
                rates.push((key.clone(), claimed_at));
                done.lanes.may_go_on(queued.queue, lane.name.clone());
            }
            match until {
                None => done.queue(queued),
                Some(due_at) => {
                    done.shared.enter(queued.queue, SCHEDULED, 1);
                    done.shared.due(due_at);
                }
            }
        }
        self.take_back_starts(&rates, done).await?;
        Ok(given)
    }

    /// What was recorded under leases whose settlement may have been committed though nobody heard of it.
    async fn recorded(&mut self, batch: &Batch) -> Result<HashMap<Lease, Settled>, StoreError> {
        let leases = batch.settles.iter().map(|(lease, ..)| *lease);
        let unsure: Vec<Lease> = leases.filter(|lease| self.unsure.contains(lease)).collect();
        if unsure.is_empty() {
            return Ok(HashMap::new());
        }
        let recorded = moves::recorded(&mut self.connection, &unsure).await?.into_iter();
        Ok(recorded.map(|(lease, started_at, finished_at)| (lease, Settled::Ended { started_at, finished_at })).collect())
    }

    /// Settlements that do not end a job as they stand; they are rare.
    async fn settle_odd(&mut self, held: Held, settlement: &Settlement, done: &mut Done) -> Result<(), StoreError> {
        let Held { id, attempt, stopping, known, .. } = held;
        match settlement {
            _ if stopping => {
                let ended =
                    self.end(vec![Doom { id, ending: Ending::Cancelled, failure: Failure::cancelled() }], None, done).await?;
                // Who settles it hears only that this is recorded.
                done.unasked.extend(ended);
            }
            Settlement::Again { due_at, lost, error, timing } => {
                let at = done.moment();
                let row = EventRow::retrying(at, id, attempt, error, timing.as_ref(), *due_at);
                events::keep_attempts(&mut self.connection, &[id]).await?;
                self.keep_events(&[row]).await?;
                let expires_at = moves::again(&mut self.connection, &[id], *due_at, *lost).await?;
                done.shared.expires(expires_at);
                let what = || What::Retrying { attempt, error: error.clone(), timing: timing.map(Box::new), due_at: *due_at };
                done.tell(at, id, || known.subject, what);
                done.shared.enter(known.queue, SCHEDULED, 1);
                done.shared.due(*due_at);
            }
            Settlement::Later { due_at } => {
                self.give_back(&[id], Some(*due_at), false, done).await?;
            }
            // Not odd: they have been dealt with all together.
            Settlement::Finish(_) | Settlement::Release { .. } => {}
        }
        Ok(())
    }
}

/// The end of an attempt that runs here, if the settlement is one.
fn end<'b>(lease: Lease, settlement: &'b Settlement, run: &Run, done: &mut Done) -> Option<End<'b>> {
    let Settlement::Finish(conclusion) = settlement else { return None };
    let Subject { bound, executor, .. } = run.known.subject;
    let findings = conclusion.timing.as_ref().map(|timing| FindingKinds::of(bound, executor, timing)).unwrap_or_default();
    Some(End { lease, conclusion, findings, finished_at: done.moment() })
}

/// What is there of a job, if it is good.
fn take_if<T>(there: &mut HashMap<JobId, T>, id: JobId, good: impl FnOnce(&T) -> bool) -> Option<T> {
    there.get(&id).is_some_and(good).then(|| there.remove(&id)).flatten()
}

impl Done {
    /// A job has ended: if somebody is to be told of that, a message is kept.
    pub(super) fn announce(
        &mut self,
        (job, owner): (JobId, Option<crate::job::Owner>),
        ending: Ending,
        finished_at: crate::clock::Timestamp,
        webhook: Option<crate::job::Webhook>,
    ) {
        let wanted = |webhook: &crate::job::Webhook| webhook.events.is_empty() || webhook.events.contains(&ending);
        if let Some(webhook) = webhook.filter(wanted) {
            self.deliveries.push(NewDelivery { job, owner, ending, finished_at, webhook });
        }
    }
}
