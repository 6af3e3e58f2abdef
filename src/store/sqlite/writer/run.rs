//! The writer's loop: what has arrived becomes a batch, and a batch a transaction.

use std::time::{Duration, Instant};

use sqlx::{Connection as _, SqliteConnection};
use tokio::sync::mpsc;

use super::super::{company, statements};
use super::batch::{self, Batch};
use super::fold::Folding;
use super::patient::{self, Patient};
use super::published::Depths;
use super::{Command, Writer};
use crate::job::Queue;
use crate::store::claims::Claims;
use crate::store::{Lease, Urgency};

/// The most commands of one transaction.
const MOST_COMMANDS: usize = 1_024;
/// How long to wait before a claim is tried again that failed.
const CLAIM_RETRY: Duration = Duration::from_millis(200);
/// The longest sleep until a job is due, so that a clock that was set is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

impl Writer {
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>, beside: SqliteConnection) {
        let mut arrived = Vec::with_capacity(MOST_COMMANDS);
        let mut patient = Patient::default();
        let mut folding = Folding::start(beside);
        let mut closing = None;
        while closing.is_none() {
            self.mark().await;
            self.roll_up().await;
            folding.finish(&mut self.connection).await;
            let sleep = patient.due.map_or_else(|| self.sleep(), |due| due.saturating_duration_since(Instant::now()));
            let open = tokio::select! {
                biased;
                // What did not fit the batch before comes first.
                () = std::future::ready(()), if !arrived.is_empty() => true,
                count = commands.recv_many(&mut arrived, MOST_COMMANDS) => count > 0,
                () = tokio::time::sleep(sleep) => true,
            };
            if !open {
                // The store was dropped, not closed: the file may be another's by now, who has read what there is to do. As in a crash,
                // nothing is lost that was answered.
                return;
            }
            let mut batch = Batch::default();
            let fitting = batch::fitting(&arrived);
            for command in arrived.drain(..fitting) {
                match command {
                    Command::Accept(accept) => batch.accepts.push(accept),
                    Command::Claim(queue, most, reply) => self.claims.push(queue, most, reply),
                    Command::Note(note) => patient.push_note(note),
                    Command::Settle(settling, Urgency::Awaited) => batch.settles.push(settling),
                    Command::Settle(settling, Urgency::Patient(queue)) => drop(self.company.join(settling, queue)),
                    Command::Begun(queue) => patient.begun(self.behind(queue)),
                    Command::Ended => {}
                    Command::Cancel(ids, only, reply) => batch.cancels.push((ids, only, reply)),
                    Command::Requeue(ids, by, reply) => batch.requeues.push((ids, by, reply)),
                    Command::Edit(edit) => batch.edits.push(edit),
                    Command::Allow(running, reply) => batch.allows.push((running, reply)),
                    Command::Check(reply) => batch.checks.push(reply),
                    Command::CatchUp(reply) => batch.looks.push(reply),
                    Command::Close(left_behind, reply) => closing = Some((left_behind, reply)),
                }
            }
            self.turn_away();
            let unwanted = self.serve_from_fronts();
            let (company, queues) = self.company.present();
            let mut is_behind = false;
            for behind in queues.clone().map(|queue| self.behind(queue)) {
                is_behind |= behind > 0;
                patient.begun(behind);
            }
            // Where jobs are claimed from a backlog, there is a transaction anyway.
            let claiming = batch.accepts.is_empty() && self.has_work();
            let enough = company + patient.notes.len() >= company::MOST;
            let is_stream = || {
                !is_behind
                    && company >= patient::SEVERAL
                    && self.more_run(queues.clone(), company)
                    && !self.company.any(|lease| self.holds_up(lease))
            };
            let due = closing.is_some() || claiming || enough || patient.is_due(is_stream);
            if due {
                patient.over();
                batch.settles.append(&mut self.company.take());
            }
            if closing.is_some() || patient.due.is_none() || batch.len() > 0 {
                batch.notes.append(&mut patient.notes);
            }
            if batch.len() > 0 || self.has_work() || (due && self.fronts.has_unwritten()) {
                folding.wrote(batch.rows());
                self.write(batch).await;
            }
            self.release(unwanted).await;
            if let Err(error) = self.fill_fronts().await {
                tracing::warn!(%error, "the jobs that are next can't be read; they are claimed one by one");
            }
        }
        self.company.close();
        commands.close();
        while let Ok(command) = commands.try_recv() {
            // Whoever waits for an answer sees the channel closed.
            drop(command);
        }
        self.claims = Claims::default();
        // What was claimed from a front and is not written still is queued.
        for begun in self.begun.drain(..).chain(self.fronts.begin(true)) {
            self.held.remove(&begun.lease.id);
        }
        let (left_behind, reply) = closing.unzip();
        let left_behind = left_behind.unwrap_or_default();
        // Claimed, but nobody runs it any more: claims that were answered as their receiver went away. What runs on is the next start's.
        let held = self.held.iter().map(|(id, held)| Lease { id: *id, token: held.token });
        self.release(held.filter(|lease| !left_behind.contains(lease)).collect()).await;
        self.roll_up_now().await;
        folding.end().await;
        if let Err(error) = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut self.connection).await {
            tracing::warn!(%error, "the last checkpoint failed; the next start makes up for it");
        }
        if let Err(error) = self.connection.close().await {
            tracing::warn!(%error, "closing the database failed");
        }
        if let Some(reply) = reply {
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
        let next = [self.next_due, self.next_expiry, self.lanes.next_open].into_iter().flatten().min();
        next.map_or(LONGEST_SLEEP, |at| at.since(self.clock.now()).min(LONGEST_SLEEP))
    }

    /// Carries out a batch. If that fails for a reason that may lie in one command, each is tried alone.
    pub(super) async fn write(&mut self, mut batch: Batch) {
        if let Err(error) = self.refuse_orphans(&mut batch).await {
            tracing::error!(%error, "can't look for the jobs that others come after");
            return batch.fail(&error);
        }
        {
            let now = self.clock.now();
            let mut marks = self.published.marks();
            for job in batch.accepts.iter_mut().flat_map(|accept| &mut accept.jobs) {
                marks.touch(job.id);
                job.accept(self.moments.next(), now);
            }
        }
        match self.transaction(&batch).await {
            Ok(done) => self.answer(batch, done).await,
            Err(error) if batch.len() > 1 && !batch::is_of_the_machine(&error) => {
                tracing::warn!(%error, commands = batch.len(), "a transaction failed; its commands are tried one by one");
                for single in batch.split() {
                    Box::pin(self.write(single)).await;
                }
            }
            Err(error) => {
                if let Some(more) = self.failures.tell() {
                    tracing::error!(%error, more, "a transaction failed");
                }
                if batch::is_of_room(&error) {
                    self.full.found(&error);
                }
                self.claims_blocked = true;
                batch.fail(&error);
            }
        }
    }

    /// Whether there is something to do that nobody asks for just now: jobs that are due or whose time is over, or claims that can be
    /// served.
    fn has_work(&self) -> bool {
        let now = self.clock.now();
        self.next_due.into_iter().chain(self.next_expiry).any(|at| at <= now)
            || self.lanes.may_open(now)
            || !self.unblocking.is_empty()
            || Queue::ALL.into_iter().any(|queue| !self.claims.is_empty(queue) && self.has_any(queue, &self.depths))
    }

    /// Whether a claim may find a job.
    pub(super) fn has_any(&self, queue: Queue, depths: &Depths) -> bool {
        let depth = depths.of(queue);
        depth.queued > 0 || self.has_open_lanes(queue, depth.limited)
    }

    /// How many of its jobs wait for cores or other processes: then it matters how many end, not how soon one of them is told. Where others may wait for
    /// an end, no more than a few.
    fn behind(&self, queue: Queue) -> u64 {
        let waits_for_end = |queue| self.depths.of(queue).blocked + self.depths.of(queue).limited > 0;
        match self.depths.of(queue).queued {
            _ if !queue.is_apart() && queue != Queue::ThreadsCpu => 0,
            queued if Queue::ALL.into_iter().any(waits_for_end) => queued.min(1),
            queued => queued,
        }
    }

    /// Whether more jobs of these queues run than so many that have ended.
    fn more_run(&self, queues: impl Iterator<Item = Queue>, ended: usize) -> bool {
        let running: u64 = queues.map(|queue| self.depths.of(queue).running).sum();
        running > ended as u64
    }

    /// Whether other jobs may wait for the end of this one.
    fn holds_up(&self, lease: &Lease) -> bool {
        self.held.get(&lease.id).is_some_and(|held| held.children || !held.counted.is_empty())
    }

    /// Notes how far back one has to look for what happens from here on, if it is time for that.
    async fn mark(&mut self) {
        if !self.published.marks().is_due(self.moments.latest) {
            return;
        }
        match statements::oldest(&mut self.connection).await {
            Ok(oldest) => self.published.marks().push(self.moments.latest, oldest),
            // Whoever looks back looks further.
            Err(error) => tracing::warn!(%error, "the oldest unfinished job is not known"),
        }
    }
}
