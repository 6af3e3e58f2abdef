//! The writer's loop: what has arrived becomes a batch, and a batch a transaction.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use super::super::connect::in_time;
use super::super::shared::Shared;
use super::aside::Step;
use super::batch::{self, Batch};
use super::commit_delay::Turn;
use super::{Command, Writer};
use crate::clock::Timestamp;
use crate::job::Queue;
use crate::store::claims::Claims;
use crate::store::{Lease, Settlement, StoreError};

/// The most commands of one transaction.
const MOST_COMMANDS: usize = 1_024;
/// How long to wait before something is tried again that failed.
const RETRY: Duration = Duration::from_millis(200);
/// How often to look what other nodes have done: that is the truth, and a hint only comes sooner.
const LOOK: Duration = Duration::from_millis(200);
/// The rollups are written at most so often.
const ROLL_UP: Duration = Duration::from_secs(1);
/// How often a transaction is tried that others are in the way of.
const TRIES: u32 = 5;

impl Writer {
    pub(super) async fn run(mut self, hint: Arc<Notify>) {
        let mut looked_at = Instant::now();
        let mut look_after = LOOK;
        while self.closing.is_none() {
            self.aside.take_up();
            let until_look = look_after.saturating_sub(looked_at.elapsed());
            let sleep = self.sleep().min(until_look);
            let mut hinted = false;
            let open = tokio::select! {
                biased;
                // What did not fit the batch before comes first.
                () = std::future::ready(()), if !self.arrived.is_empty() => true,
                count = self.commands.recv_many(&mut self.arrived, MOST_COMMANDS) => count > 0,
                () = hint.notified() => {
                    hinted = true;
                    true
                }
                () = tokio::time::sleep(sleep) => true,
            };
            if !open {
                // The store was dropped, not closed. As in a crash, nothing is lost that was answered.
                return;
            }
            if let Some(wait) = self.latest_turn.wait(self.arrived.len()).filter(|_| !self.arrived.is_empty()) {
                // Nothing else runs on this thread, and timers of the runtime are too coarse.
                std::thread::sleep(wait);
            }
            let mut batch = Batch { is_open: true, ..Batch::default() };
            self.take_in(&mut batch);
            if batch.len() > 0 || (self.has_work() && !self.is_blocked) {
                self.write(batch).await;
            } else if hinted || self.is_blocked || looked_at.elapsed() >= look_after {
                self.look().await;
                // Nodes don't look in step.
                (looked_at, look_after) = (Instant::now(), LOOK.mul_f64(jitter()));
            }
            // However much there is to do: what was counted since has to be read for every summary.
            if self.rolled_up_at.elapsed() >= ROLL_UP && !self.is_blocked {
                let rolled_up = in_time(self.roll_up()).await;
                if !matches!(rolled_up, Ok(true)) {
                    self.rolled_up_at = Instant::now();
                }
                // A transaction may be open, which ends with the connection.
                self.is_broken |= rolled_up.is_err();
                self.heed(rolled_up.err());
            }
        }
        self.commands.close();
        self.arrived.clear();
        while let Ok(command) = self.commands.try_recv() {
            // Whoever waits for an answer sees the channel closed.
            drop(command);
        }
        self.claims = Claims::default();
        if self.may_have_claimed {
            // That finds out what was.
            self.write(Batch::default()).await;
        }
        // Claimed, but nobody runs it any more: claims that were answered as their receiver went away.
        self.release(self.node.idle()).await;
        // Other nodes look for what is left of it as long as it stands in the list, so it stays there if something is.
        if !self.node.leases().is_empty() || self.may_have_claimed {
            tracing::warn!(
                "not all that this node has claimed could be given back; the rest is taken for lost when its lease ends"
            );
        } else if let Err(error) = in_time(self.leave()).await {
            self.is_broken = true;
            tracing::warn!(%error, "this node could not be taken from the list of those that are there; its lease ends by itself");
        }
        if !self.is_broken
            && let Err(error) = in_time(self.connection.close()).await
        {
            tracing::warn!(%error, "closing the connection failed");
        }
        if let Some(reply) = self.closing {
            // Nobody may be waiting any more.
            let _ = reply.send(());
        }
    }

    /// Takes what has arrived into a batch, as far as it fits.
    pub(super) fn take_in(&mut self, batch: &mut Batch) {
        while self.arrived.len() + batch.len() < MOST_COMMANDS
            && let Ok(command) = self.commands.try_recv()
        {
            self.arrived.push(command);
        }
        let fitting = batch.fitting(&self.arrived);
        for command in self.arrived.drain(..fitting) {
            match command {
                Command::Accept(accept) => batch.accepts.push(accept),
                Command::With(with, reply) => batch.withs.push((with, reply)),
                Command::Claim(queue, most, reply) => self.claims.push(queue, most, reply),
                Command::Note(note) => batch.notes.push(note),
                Command::Settle(lease, settlement, reply) => batch.settles.push((lease, settlement, reply)),
                Command::Cancel(ids, only, reply) => batch.cancels.push((ids, only, reply)),
                Command::Requeue(ids, by, reply) => batch.requeues.push((ids, by, reply)),
                Command::Remove(ids, why, reply) => batch.removals.push((ids, why, reply)),
                Command::Allow(running, reply) => batch.allows.push((running, reply)),
                Command::Check(reply) => batch.checks.push(reply),
                Command::Reap => batch.reap = true,
                Command::Close(reply) => self.closing = Some(reply),
            }
        }
        self.claims.forget_closed();
    }

    fn sleep(&self) -> Duration {
        if self.is_blocked {
            return RETRY;
        }
        if self.has_work() {
            return Duration::ZERO;
        }
        self.next().map_or(LOOK, |at| Timestamp::from_micros(at).since(self.now()).min(LOOK))
    }

    /// When something happens by itself that is not put aside.
    fn next(&self) -> Option<i64> {
        let Shared { next_due, next_expiry, next_open, .. } = self.shared;
        let steps = [(Step::Promote, next_due), (Step::Expire, next_expiry), (Step::Lanes, next_open)];
        steps.into_iter().filter(|(step, _)| !self.aside.has(*step)).filter_map(|(_, at)| at).min()
    }

    /// Carries out a batch. If that fails for a reason that may lie in one command, each is tried alone.
    pub(super) async fn write(&mut self, mut batch: Batch) {
        let mut tries = 0;
        loop {
            tries += 1;
            let was_whole = !self.is_broken;
            match self.transaction(&mut batch).await {
                Ok(done) => {
                    let (begun, commands) = (done.begun, batch.len());
                    self.answer(batch, done).await;
                    self.latest_turn = Turn::new(begun, commands);
                    return;
                }
                Err(error) if batch::is_of_the_moment(&error) && tries < TRIES => {
                    tracing::debug!(%error, "others were in the way of a transaction; it is tried again");
                }
                Err(error) if self.is_broken && was_whole && !self.may_have_claimed && tries == 1 => {
                    if let Some(more) = self.retries.tell() {
                        tracing::warn!(%error, more, "a transaction was not carried out; it is tried again on another connection");
                    }
                }
                Err(error) if self.put_aside(&error, &batch) => {}
                Err(error) if batch.len() > 1 && !batch::is_of_the_machine(&error) => {
                    tracing::warn!(%error, commands = batch.len(), "a transaction failed; its commands are tried one by one");
                    for single in batch.split() {
                        Box::pin(self.write(single)).await;
                    }
                    return;
                }
                Err(error) => {
                    if let Some(more) = self.failures.tell() {
                        tracing::error!(%error, more, "a transaction failed");
                    }
                    if batch::is_of_room(&error) {
                        self.full.found(&error);
                    }
                    self.is_blocked = true;
                    return batch.fail(&error);
                }
            }
        }
    }

    /// Makes claimed jobs wait again as if they had not been claimed.
    pub(super) async fn release(&mut self, leases: Vec<Lease>) {
        if leases.is_empty() {
            return;
        }
        let release = |lease| (lease, Arc::new(Settlement::Release { begun: false }), oneshot::channel().0);
        Box::pin(self.write(Batch { settles: leases.into_iter().map(release).collect(), ..Batch::default() })).await;
    }

    /// Looks what other nodes have done.
    async fn look(&mut self) {
        let looked = in_time(self.try_look()).await;
        self.is_blocked &= looked.is_err();
        self.heed(looked.err());
    }

    /// If something has failed that nobody asked for, it is tried again later.
    fn heed(&mut self, error: Option<StoreError>) {
        let Some(error) = error else { return };
        if !self.is_blocked {
            tracing::error!(%error, "the database can't be read");
        }
        self.is_broken |= batch::is_of_the_machine(&error);
        self.is_blocked = true;
    }

    async fn try_look(&mut self) -> Result<(), StoreError> {
        self.mend().await?;
        let (shared, now) = Shared::look(&mut self.connection, &self.node).await?;
        self.published.set_time(now);
        self.turn_away();
        self.hear_of_others(shared.latest, shared.stops).await?;
        self.shared = shared;
        self.published.publish(&self.shared);
        Ok(())
    }

    /// Opens a connection in the place of one that can't be used any more.
    pub(super) async fn mend(&mut self) -> Result<(), StoreError> {
        if self.is_broken {
            self.connection = Box::pin(in_time(Shared::session(&self.connect))).await?;
            self.is_broken = false;
        }
        Ok(())
    }

    /// Whether there is something to do that nobody asks for just now: jobs that are due or whose time is over, or claims that can be
    /// served.
    fn has_work(&self) -> bool {
        let now = self.now();
        // By a clock that was set back, lanes may be shut for too long.
        let is_set_back = self.shared.next_open.is_some() && now < self.seen;
        let may_claim = |queue| !self.claims.is_empty(queue) && self.shared.has_any(queue, &self.node);
        // Perhaps there are claims that this node never heard of.
        self.may_have_claimed && !self.aside.has(Step::GiveBack)
            || self.more_lost() && !self.aside.has(Step::Reap)
            || (is_set_back || !self.shared.reopens.is_empty()) && !self.aside.has(Step::Lanes)
            || self.next().is_some_and(|at| at <= now.as_micros())
            || self.shared.releases > 0 && !self.aside.has(Step::Unblock)
            || Queue::ALL.into_iter().any(|queue| may_claim(queue) && !self.aside.has(Step::Claim(queue)))
    }
}

/// A factor around 1, as random as the time.
fn jitter() -> f64 {
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
    0.75 + f64::from(nanos % 1_000) / 2_000.0
}
