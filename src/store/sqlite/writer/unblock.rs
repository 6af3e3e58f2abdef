//! Blocked jobs: what new jobs come after, and what becomes of them when that has ended.

use std::collections::HashMap;

use super::super::edges;
use super::super::statements::Queued;
use super::Writer;
use super::batch::Batch;
use super::transaction::Done;
use crate::job::{JobId, NewJob};
use crate::store::StoreError;
use crate::store::kept::edge::{Doom, Ended, MOST_EDGES, MOST_STEPS, parents_elsewhere, refuse_orphans};
use crate::store::kept::state::{BLOCKED, SCHEDULED};

impl Writer {
    /// Refuses what comes after a job that there is not.
    pub(super) async fn refuse_orphans(&mut self, batch: &mut Batch) -> Result<(), StoreError> {
        if !batch.has_edges() {
            return Ok(());
        }
        let others = parents_elsewhere(&batch.accepts);
        if !others.is_empty() {
            let unknown = edges::unknown(&mut self.connection, &others).await?;
            refuse_orphans(&mut batch.accepts, unknown.into_iter().collect());
        }
        Ok(())
    }

    /// Keeps what new jobs come after. Those that come after nothing that is still to end don't wait.
    pub(super) async fn link(&mut self, batch: &Batch, done: &mut Done) -> Result<(), StoreError> {
        if !batch.has_edges() {
            return Ok(());
        }
        let jobs: Vec<&NewJob> = batch.new_jobs().filter(|job| !job.after.is_empty()).collect();
        done.parents.extend(jobs.iter().flat_map(|job| &job.after).map(|after| after.parent));
        let children = edges::link(&mut self.connection, &jobs).await?;
        if !children.is_empty() {
            let past = edges::past(&mut self.connection, &children).await?;
            self.go_on(past, children, done).await?;
        }
        Ok(())
    }

    /// Lets the children of jobs that have ended know of it, and the children of those that end by that.
    pub(super) async fn unblock(&mut self, done: &mut Done) -> Result<(), StoreError> {
        let mut left = MOST_EDGES;
        for _ in 0..MOST_STEPS {
            let parents: Vec<JobId> = done.unblocking.iter().take(left).copied().collect();
            if parents.is_empty() {
                break;
            }
            let mut edges = edges::unheard(&mut self.connection, &parents, left + 1).await?;
            if edges.len() <= left {
                done.unblocking.drain(..parents.len());
                done.heard += parents.len();
            }
            edges.truncate(left);
            left -= edges.len();
            edges::close(&mut self.connection, &edges).await?;
            let children = edges.iter().map(|edge| edge.child).collect();
            self.go_on(edges, children, done).await?;
        }
        // What was left before stands first, and is in the database.
        let before = self.unblocking.len();
        let heard = done.heard.min(before);
        let added: Vec<JobId> = done.unblocking.iter().skip(before - heard).copied().collect();
        let gone: Vec<JobId> = self.unblocking.iter().take(heard).copied().collect();
        edges::keep_releases(&mut self.connection, &gone, &added).await
    }

    /// What becomes of children whose parents have ended.
    async fn go_on(&mut self, edges: Vec<Ended>, children: Vec<JobId>, done: &mut Done) -> Result<(), StoreError> {
        let mut doomed: HashMap<JobId, Doom> = HashMap::new();
        for edge in edges {
            if let Some(doom) = edge.doom() {
                doomed.entry(doom.id).or_insert(doom);
            }
        }
        let fallen = self.end(doomed.into_values().collect(), Some(BLOCKED), done).await?;
        done.unasked.extend(fallen);
        for job in edges::unblock(&mut self.connection, &children, self.moments.next()).await? {
            done.depths.leave(job.queue, BLOCKED);
            if job.state == SCHEDULED {
                done.depths.at(job.queue).scheduled += 1;
                done.due(job.due_at);
            } else {
                // It may be next, before those that stand at the front.
                self.fronts.clear(job.queue);
                done.queue(Queued { queue: job.queue, lane: job.lane });
            }
        }
        Ok(())
    }
}
