//! After a commit: what was done is published, then those who wait for it are answered.

use std::sync::atomic::Ordering;
use std::time::Duration;

use uuid::Uuid;

use super::super::connect::in_time;
use super::super::node;
use super::batch::{self, Batch};
use super::transaction::Done;
use super::{Acceptance, Writer};
use crate::clock::Timestamp;
use crate::job::{JobId, Queue};
use crate::store::kept::number;
use crate::store::{Revocation, Settled, StoreError};

/// How many jobs that have ended on other nodes are read at once.
const PAGE: usize = 10_000;
/// Nobody waits for those that have ended longer ago.
const LONG_AGO: Duration = Duration::from_mins(10);

impl Writer {
    /// Publishes what was committed, then answers those who wait for it.
    pub(super) async fn answer(&mut self, batch: Batch, done: Done) {
        self.is_blocked = false;
        if !batch.accepts.is_empty() {
            self.full.is_over();
        }
        if let Some(id) = done.registered {
            self.node.set_id(id);
        }
        if let Some((nodes, attempts)) = done.gone {
            tracing::warn!(nodes, attempts, "nodes are gone: what ran there runs again, or has ended as lost");
        }
        // What other nodes did comes before what was done here.
        let (latest, stops) = done.before;
        let heard_of = (self.shared.latest, self.shared.stops);
        let heard = in_time(self.hear_of_others(latest, stops)).await;
        self.may_have_claimed = done.may_have_claimed || self.may_have_claimed && heard.is_err();
        if let Err(error) = &heard {
            tracing::warn!(%error, "what other nodes have done can't be read now");
            self.is_broken |= batch::is_of_the_machine(error);
            self.is_blocked = true;
        }
        // What was claimed here is not among what waits any more: more than before is for others, too.
        if Queue::ALL.into_iter().any(|queue| done.shared.waiting(queue) > self.shared.waiting(queue)) {
            self.told.notify_one();
        }
        if done.shared.stops != stops {
            self.told.notify_one();
        }
        // Perhaps this one may not run them.
        if done.lanes.entered.values().any(|lane| !lane.place.is_empty()) {
            self.told.notify_one();
        }
        self.shared = done.shared;
        if !batch.allows.is_empty() {
            self.allowed = Some(done.allowed);
        }
        self.published.publish(&self.shared);
        self.published.synced.reach(self.shared.latest);
        if heard.is_err() {
            // So that it is looked for again.
            (self.shared.latest, self.shared.stops) = heard_of;
        }
        let news = done.news.map(|mut news| {
            news.sort_by_key(|news| news.event.at);
            news
        });
        self.published.hub.publish(news);
        self.published.unasked.add(done.unasked);
        self.said.extend(done.said);
        for lease in done.ended {
            self.node.drop_lease(lease);
            self.said.remove(&lease);
            self.unsure.remove(&lease);
        }
        // Nobody may be waiting for an answer any more; that changes nothing about what was done.
        for Acceptance { jobs, reply, .. } in batch.accepts {
            let _ = reply.send(Ok(jobs));
        }
        for (_, reply) in batch.withs {
            let _ = reply.send(Ok(()));
        }
        for ((lease, _, reply), settled) in batch.settles.into_iter().zip(done.settled) {
            if settled == Settled::Stale {
                self.node.count_stale();
            }
            self.node.drop_lease(lease);
            self.said.remove(&lease);
            self.unsure.remove(&lease);
            let _ = reply.send(Ok(settled));
        }
        for ((_, _, reply), cancelled) in batch.cancels.into_iter().zip(done.cancelled) {
            let _ = reply.send(Ok(cancelled));
        }
        for ((_, _, reply), requeued) in batch.requeues.into_iter().zip(done.requeued) {
            let _ = reply.send(Ok(requeued));
        }
        for ((.., reply), removed) in batch.removals.into_iter().zip(done.removed) {
            let _ = reply.send(Ok(removed));
        }
        for (_, reply) in batch.allows {
            let _ = reply.send(Ok(()));
        }
        for reply in batch.checks {
            let _ = reply.send(self.full.check());
        }
        // Whoever claimed them went away in the meantime.
        let unwanted = self.hand_out(done.claimed);
        self.release(unwanted).await;
    }

    /// Other nodes have recorded what this one has not heard of: attempts that run here are to stop; listeners are told that there is something
    /// to read, and those who wait for jobs, which of them have ended.
    pub(super) async fn hear_of_others(&mut self, latest: i64, stops: u64) -> Result<(), StoreError> {
        // Whoever follows events reads them by itself.
        if latest > self.shared.latest {
            self.published.hub.publish(None);
        }
        if stops != self.shared.stops {
            let id = self.node.id();
            let stopping = self.connection.ask(async |connection| node::stopping(connection, id).await).await?;
            self.node.revoke(stopping, Revocation::Cancelled);
        }
        if latest <= self.shared.latest || !self.published.unasked.somebody_waits.load(Ordering::SeqCst) {
            return Ok(());
        }
        // What this node did itself it has told already, unless it never heard that it was committed.
        let text = "SELECT id, finished_at FROM results WHERE finished_at > $1 AND finished_at <= $2 AND (node IS DISTINCT FROM $3 OR $5) \
                    ORDER BY finished_at LIMIT $4";
        let mut after = self.shared.latest.max(Timestamp::from_micros(latest).before(LONG_AGO).as_micros());
        loop {
            let query = sqlx::query_as(text).bind(after).bind(latest).bind(self.node.id()).bind(number(PAGE));
            let query = query.bind(self.may_have_claimed);
            let page: Vec<(Uuid, i64)> = self.connection.ask(async |connection| Ok(query.fetch_all(connection).await?)).await?;
            self.published.unasked.add(page.iter().map(|(id, _)| JobId::from_bytes(id.into_bytes())).collect());
            match page.last() {
                Some((_, last)) if page.len() == PAGE => after = *last,
                _ => return Ok(()),
            }
        }
    }
}
