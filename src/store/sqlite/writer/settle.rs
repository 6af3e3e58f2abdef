//! Settlements: how attempts end.

use std::borrow::Cow;

use super::super::events;
use super::super::rollups::Count;
use super::super::rows::payload_of;
use super::super::script::{End, Script};
use super::super::statements;
use super::Writer;
use super::batch::Batch;
use super::transaction::Done;
use crate::clock::Timestamp;
use crate::job::{Ending, Failure, FindingKinds, JobId, Outcome, Queue, What};
use crate::store::kept::edge::Doom;
use crate::store::kept::event::EventRow;
use crate::store::kept::json;
use crate::store::{Lease, Settled, Settlement, StoreError, Subject};
use sqlx::SqliteConnection;

/// Settlements that do not end a job as they stand; they are rare.
pub(super) struct Odd<'a> {
    lease: Lease,
    settlement: &'a Settlement,
    queue: Queue,
    stopping: bool,
    attempt: u32,
    subject: Subject,
}

impl Writer {
    /// Ends what is to be ended; what is not that simple is returned.
    pub(super) fn settle<'b>(&mut self, batch: &'b Batch, script: &mut Script<'b>, done: &mut Done) -> Vec<Odd<'b>> {
        let mut odd = Vec::new();
        for (lease, settlement, _) in &batch.settles {
            let held = self.held.get(&lease.id).filter(|held| held.token == lease.token);
            // A second settlement of the same lease comes too late, though both came together.
            let Some(held) = held.filter(|_| done.ended.insert(lease.id)) else {
                done.settled.push(Settled::Stale);
                continue;
            };
            let depth = done.depths.at(held.queue);
            depth.running = depth.running.saturating_sub(1);
            self.vacate(&held.counted, done);
            match &**settlement {
                Settlement::Finish(conclusion) => {
                    let (started_at, finished_at) = (held.claimed_at, self.moments.next());
                    done.settled.push(Settled::Ended { started_at, finished_at });
                    let Subject { bound, executor, .. } = held.subject;
                    let findings = conclusion.timing.as_ref().map(|timing| FindingKinds::of(bound, executor, timing));
                    let findings = findings.unwrap_or_default();
                    let count = Count::new(held.subject.key(conclusion.ending), conclusion.timing.as_ref());
                    if held.children {
                        done.unblocking.push_back(lease.id);
                    }
                    let outcome = match &conclusion.outcome {
                        Outcome::Output(output) => output.get().into(),
                        Outcome::Error(failure) => Cow::from(json(failure)),
                    };
                    let payload = payload_of(&outcome, &mut self.latest_payload);
                    let id = lease.id;
                    script.ends.push(End { id, conclusion, outcome, payload, started_at, finished_at, count, findings });
                    let finished = || Box::new(conclusion.clone().at(Some(started_at), finished_at));
                    let what = || What::Finished { attempt: held.attempt, finished: finished() };
                    done.tell(finished_at, lease.id, || held.subject.clone(), what);
                }
                settlement => {
                    done.settled.push(Settled::Recorded);
                    odd.push(Odd {
                        lease: *lease,
                        settlement,
                        queue: held.queue,
                        stopping: held.stopping,
                        attempt: held.attempt,
                        subject: held.subject.clone(),
                    });
                }
            }
        }
        odd
    }

    pub(super) async fn settle_odd(&mut self, odd: Odd<'_>, done: &mut Done) -> Result<(), StoreError> {
        let Odd { lease, settlement, queue, stopping, attempt, subject } = odd;
        match settlement {
            _ if stopping => {
                let doom = Doom { id: lease.id, ending: Ending::Cancelled, failure: Failure::cancelled() };
                let ended = self.end(vec![doom], None, done).await?;
                // Who settles it hears only that this is recorded.
                done.unasked.extend(ended);
            }
            Settlement::Again { due_at, lost, error, timing } => {
                let at = self.moments.next();
                let row = EventRow::retrying(at, lease.id, attempt, error, timing.as_ref(), *due_at);
                done.expires(again(&mut self.connection, lease.id, row, *due_at, *lost).await?);
                let what = || What::Retrying { attempt, error: error.clone(), timing: timing.map(Box::new), due_at: *due_at };
                done.tell(at, lease.id, || subject, what);
                done.depths.at(queue).scheduled += 1;
                done.due(*due_at);
            }
            Settlement::Release { begun } => self.give_back(lease.id, None, *begun, done).await?,
            Settlement::Later { due_at } => self.give_back(lease.id, Some(*due_at), false, done).await?,
            // Not odd: `settle` has put it into the script.
            Settlement::Finish(_) => {}
        }
        Ok(())
    }

    /// Makes a running job wait again as if it had not been claimed, or until a moment. One whose work had not `begun` was no start of its rate.
    async fn give_back(&mut self, id: JobId, until: Option<Timestamp>, begun: bool, done: &mut Done) -> Result<(), StoreError> {
        events::keep_attempt(&mut self.connection, id).await?;
        let released = statements::release(&mut self.connection, id, until).await?;
        done.expires(released.expires_at);
        if !begun {
            self.take_back_start(&released, done).await?;
        }
        match until {
            None => done.queue(released.queued),
            Some(due_at) => {
                done.depths.at(released.queued.queue).scheduled += 1;
                done.due(due_at);
            }
        }
        Ok(())
    }
}

/// Makes a running job wait again, and keeps that its attempt ran and how it ended; when its time is over, if ever.
pub(super) async fn again(
    connection: &mut SqliteConnection,
    id: JobId,
    row: EventRow,
    due_at: Timestamp,
    lost: bool,
) -> Result<Option<Timestamp>, StoreError> {
    events::keep_attempt(connection, id).await?;
    events::insert(connection, &[row]).await?;
    statements::again(connection, id, due_at, lost).await
}
