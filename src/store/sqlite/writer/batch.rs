//! The commands of one transaction.

use std::collections::HashMap;

use super::super::company::Settling;
use super::super::edit::Edit;
use super::super::intake::Noted;
use super::{Acceptance, Command, Reply};
use crate::clock::Timestamp;
use crate::job::{JobId, NewJob, Owner};
use crate::store::error::{
    SQLITE_BUSY, SQLITE_CANTOPEN, SQLITE_CORRUPT, SQLITE_FULL, SQLITE_IOERR, SQLITE_NOMEM, SQLITE_READONLY,
};
use crate::store::{Cancelled, Settlement, StateFilter, StoreError};

/// The most bytes of new workloads in one transaction, unless a single batch is larger.
const MOST_BYTES: usize = 32 << 20;

/// Jobs that are to run again, only those that had ended by a moment if there is one; and who is told which.
type Requeueing = (Vec<JobId>, Option<Timestamp>, Reply<Vec<JobId>>);

/// The commands of one transaction, by kind.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) notes: Vec<Noted>,
    pub(super) accepts: Vec<Acceptance>,
    pub(super) settles: Vec<Settling>,
    pub(super) cancels: Vec<(Vec<JobId>, Vec<StateFilter>, Reply<Cancelled>)>,
    pub(super) requeues: Vec<Requeueing>,
    pub(super) edits: Vec<Box<dyn Edit>>,
    pub(super) allows: Vec<(HashMap<Owner, u32>, Reply<()>)>,
    pub(super) checks: Vec<Reply<()>>,
    pub(super) looks: Vec<Reply<()>>,
}

impl Batch {
    pub(super) const fn len(&self) -> usize {
        self.notes.len() + self.accepts.len() + self.settles.len() + self.looks.len() + self.further()
    }

    /// About how many rows it writes.
    pub(super) fn rows(&self) -> usize {
        self.new_jobs().count() + self.len() - self.accepts.len()
    }

    /// Whether there is something that the usual script can't carry out.
    pub(super) fn has_further(&self) -> bool {
        self.further() > 0 || self.accepts.iter().any(|accept| accept.with.is_some())
    }

    /// The jobs that are to be accepted.
    pub(super) fn new_jobs(&self) -> impl Iterator<Item = &NewJob> {
        self.accepts.iter().flat_map(|accept| &accept.jobs)
    }

    /// Whether any of them comes after another job.
    pub(super) fn has_edges(&self) -> bool {
        self.new_jobs().any(|job| !job.after.is_empty())
    }

    const fn further(&self) -> usize {
        self.cancels.len() + self.requeues.len() + self.edits.len() + self.allows.len() + self.checks.len()
    }

    /// Whether other jobs may be next in a queue after it, besides new ones.
    pub(super) fn changes_what_waits(&self) -> bool {
        let again = |settlement: &Settlement| !matches!(settlement, Settlement::Finish(_));
        !(self.cancels.is_empty() && self.requeues.is_empty() && self.allows.is_empty())
            // What stands at a front does not know that others come after it now.
            || self.has_edges()
            || self.settles.iter().any(|(_, settlement, _)| again(settlement))
    }

    /// A batch for each command.
    pub(super) fn split(&mut self) -> Vec<Self> {
        let batch = std::mem::take(self);
        let mut singles = Vec::with_capacity(batch.len());
        singles.push(Self { notes: batch.notes, ..Self::default() });
        singles.extend(batch.settles.into_iter().map(|settle| Self { settles: vec![settle], ..Self::default() }));
        singles.extend(batch.cancels.into_iter().map(|cancel| Self { cancels: vec![cancel], ..Self::default() }));
        singles.extend(batch.requeues.into_iter().map(|requeue| Self { requeues: vec![requeue], ..Self::default() }));
        singles.extend(batch.edits.into_iter().map(|edit| Self { edits: vec![edit], ..Self::default() }));
        singles.extend(batch.allows.into_iter().map(|allow| Self { allows: vec![allow], ..Self::default() }));
        singles.extend(batch.accepts.into_iter().map(|accept| Self { accepts: vec![accept], ..Self::default() }));
        singles.extend(batch.checks.into_iter().map(|check| Self { checks: vec![check], ..Self::default() }));
        singles.extend(batch.looks.into_iter().map(|look| Self { looks: vec![look], ..Self::default() }));
        singles
    }

    /// Tells everyone that it failed.
    pub(super) fn fail(self, error: &StoreError) {
        let told = || {
            if is_of_the_machine(error) { StoreError::Unavailable(error.cause()) } else { StoreError::Refused(error.to_string()) }
        };
        if !self.notes.is_empty() {
            tracing::warn!(notes = self.notes.len(), "what attempts said could not be written and is lost");
        }
        // Nobody may be waiting for an answer any more.
        self.accepts.into_iter().for_each(|accept| drop(accept.reply.send(Err(told()))));
        self.settles.into_iter().for_each(|(_, _, reply)| drop(reply.send(Err(told()))));
        self.cancels.into_iter().for_each(|(_, _, reply)| drop(reply.send(Err(told()))));
        self.requeues.into_iter().for_each(|(_, _, reply)| drop(reply.send(Err(told()))));
        self.edits.into_iter().for_each(|edit| edit.answer(Err(told())));
        self.allows.into_iter().for_each(|(_, reply)| drop(reply.send(Err(told()))));
        self.checks.into_iter().chain(self.looks).for_each(|reply| drop(reply.send(Err(told()))));
    }
}

/// How many of these commands one transaction takes: at least one, but no more than [`MOST_BYTES`] of new jobs.
pub(super) fn fitting(commands: &[Command]) -> usize {
    let mut bytes = 0;
    let fits = |command: &&Command| {
        if let Command::Accept(accept) = command {
            bytes += accept.jobs.iter().map(|job| job.submission.workload.json.get().len()).sum::<usize>();
        }
        bytes <= MOST_BYTES
    };
    commands.iter().take_while(fits).count().max(usize::from(!commands.is_empty()))
}

/// Whether the error comes from the disk or the database as a whole rather than from one command.
pub(super) fn is_of_the_machine(error: &StoreError) -> bool {
    const CODES: [u32; 7] =
        [SQLITE_BUSY, SQLITE_NOMEM, SQLITE_READONLY, SQLITE_IOERR, SQLITE_CORRUPT, SQLITE_FULL, SQLITE_CANTOPEN];
    error.sqlite_code().is_none_or(|code| CODES.contains(&code))
}

/// Whether the disk has no room for it.
pub(super) fn is_of_room(error: &StoreError) -> bool {
    error.sqlite_code() == Some(SQLITE_FULL)
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::super::super::edit::OneStep;
    use super::*;

    /// Else whoever claims from the fronts would have nothing while a long batch with a key is written.
    #[test]
    fn what_stands_at_the_fronts_stays_whatever_is_kept_besides_jobs() {
        let edit = || Box::new(OneStep::new((), |(), _| Box::pin(async { Ok(()) }), oneshot::channel().0)) as Box<dyn Edit>;
        let keyed = Acceptance { jobs: Vec::new(), with: Some(edit()), reply: oneshot::channel().0 };
        let kept = Batch { accepts: vec![keyed], edits: vec![edit()], ..Batch::default() };
        assert!(kept.has_further() && !kept.changes_what_waits());
        let cancel = (Vec::new(), Vec::new(), oneshot::channel().0);
        assert!(Batch { cancels: vec![cancel], ..Batch::default() }.changes_what_waits());
    }
}
