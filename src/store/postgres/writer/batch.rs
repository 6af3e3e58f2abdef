//! The commands of one transaction.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::retention::Why;
use super::aside::Step;
use super::{Acceptance, Command, Reply, With};
use crate::clock::Timestamp;
use crate::job::{JobId, NewJob, Owner};
use crate::store::intake::Noted;
use crate::store::{Cancelled, Lease, Settled, Settlement, StateFilter, StoreError, Weight as _};

/// The most bytes of new workloads, outputs and errors in one transaction, unless a single command has more. PostgreSQL takes a message of a
/// gibibyte at the most, and ends a transaction that it hears nothing of for long: while it is sent as well.
const MOST_BYTES: usize = 32 << 20;

/// Jobs that are to run again, only those that had ended by a moment if there is one; and who is told which.
type Requeueing = (Vec<JobId>, Option<Timestamp>, Reply<Vec<JobId>>);

/// The commands of one transaction, by kind.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) notes: Vec<Noted>,
    pub(super) accepts: Vec<Acceptance>,
    pub(super) withs: Vec<(With, Reply<()>)>,
    pub(super) settles: Vec<(Lease, Arc<Settlement>, Reply<Settled>)>,
    pub(super) cancels: Vec<(Vec<JobId>, Vec<StateFilter>, Reply<Cancelled>)>,
    pub(super) requeues: Vec<Requeueing>,
    pub(super) removals: Vec<(Vec<JobId>, Why, Reply<u64>)>,
    pub(super) allows: Vec<(HashMap<Owner, u32>, Reply<()>)>,
    pub(super) checks: Vec<Reply<()>>,
    pub(super) reap: bool,
    /// What arrives until it is its turn is taken in as well.
    pub(super) is_open: bool,
    /// What is being done that nobody asked for.
    pub(super) step: Option<Step>,
    /// Its commit is on its way: if no answer comes, it may have been carried out all the same.
    pub(super) is_committing: bool,
}

impl Batch {
    pub(super) const fn len(&self) -> usize {
        self.notes.len()
            + self.accepts.len()
            + self.withs.len()
            + self.settles.len()
            + self.cancels.len()
            + self.requeues.len()
            + self.removals.len()
            + self.allows.len()
            + self.checks.len()
            + self.reap as usize
    }

    /// How many of these commands it has room for: if it is empty, for one at least, but no more than [`MOST_BYTES`] in all.
    pub(super) fn fitting(&self, commands: &[Command]) -> usize {
        let mut bytes: usize = self.accepts.iter().map(bytes_of).sum();
        bytes += self.settles.iter().map(|(_, settlement, _)| settlement.weight()).sum::<usize>();
        let fits = |command: &&Command| {
            bytes += match command {
                Command::Accept(accept) => bytes_of(accept),
                Command::Settle(_, settlement, _) => settlement.weight(),
                _ => 0,
            };
            bytes <= MOST_BYTES
        };
        commands.iter().take_while(fits).count().max(usize::from(self.len() == 0 && !commands.is_empty()))
    }

    /// Whether all that it has to do is to keep new jobs that wait for nothing but a slot, and to look up jobs by their ids.
    pub(super) fn is_plain(&self) -> bool {
        let others = self.withs.len() + self.cancels.len() + self.requeues.len() + self.removals.len() + self.allows.len();
        let is_plain = |job: &NewJob| job.after.is_empty() && !job.submission.is_limited();
        others == 0 && !self.reap && self.accepts.iter().all(|accept| accept.with.is_none()) && self.new_jobs().all(is_plain)
    }

    /// The jobs that are to be accepted.
    pub(super) fn new_jobs(&self) -> impl Iterator<Item = &NewJob> {
        self.accepts.iter().flat_map(|accept| &accept.jobs)
    }

    /// Whether any of them comes after another job.
    pub(super) fn has_edges(&self) -> bool {
        self.new_jobs().any(|job| !job.after.is_empty())
    }

    /// A batch for each command.
    pub(super) fn split(self) -> Vec<Self> {
        let mut singles = Vec::with_capacity(self.len());
        if !self.notes.is_empty() {
            singles.push(Self { notes: self.notes, ..Self::default() });
        }
        singles.extend(self.settles.into_iter().map(|settle| Self { settles: vec![settle], ..Self::default() }));
        singles.extend(self.cancels.into_iter().map(|cancel| Self { cancels: vec![cancel], ..Self::default() }));
        singles.extend(self.requeues.into_iter().map(|requeue| Self { requeues: vec![requeue], ..Self::default() }));
        singles.extend(self.removals.into_iter().map(|removal| Self { removals: vec![removal], ..Self::default() }));
        singles.extend(self.allows.into_iter().map(|allow| Self { allows: vec![allow], ..Self::default() }));
        singles.extend(self.accepts.into_iter().map(|accept| Self { accepts: vec![accept], ..Self::default() }));
        singles.extend(self.withs.into_iter().map(|with| Self { withs: vec![with], ..Self::default() }));
        singles.extend(self.checks.into_iter().map(|check| Self { checks: vec![check], ..Self::default() }));
        if self.reap {
            singles.push(Self { reap: true, ..Self::default() });
        }
        singles
    }

    /// Tells everyone that it failed.
    pub(super) fn fail(self, error: &StoreError) {
        let told = || {
            // What this version can't read, another node can.
            if is_of_the_machine(error) || matches!(error, StoreError::Corrupt(_)) {
                StoreError::Unavailable(error.cause())
            } else {
                StoreError::Refused(error.to_string())
            }
        };
        if !self.notes.is_empty() {
            tracing::warn!(notes = self.notes.len(), "what attempts said could not be written and is lost");
        }
        // Nobody may be waiting for an answer any more.
        self.accepts.into_iter().for_each(|accept| drop(accept.reply.send(Err(told()))));
        self.withs.into_iter().for_each(|(_, reply)| drop(reply.send(Err(told()))));
        self.settles.into_iter().for_each(|(_, _, reply)| drop(reply.send(Err(told()))));
        self.cancels.into_iter().for_each(|(_, _, reply)| drop(reply.send(Err(told()))));
        self.requeues.into_iter().for_each(|(_, _, reply)| drop(reply.send(Err(told()))));
        self.removals.into_iter().for_each(|(.., reply)| drop(reply.send(Err(told()))));
        self.allows.into_iter().for_each(|(_, reply)| drop(reply.send(Err(told()))));
        self.checks.into_iter().for_each(|reply| drop(reply.send(Err(told()))));
    }
}

fn bytes_of(accept: &Acceptance) -> usize {
    accept.jobs.iter().map(|job| job.submission.workload.json.get().len()).sum()
}

/// The class of the error, if the database says that it is one: the first two characters of its SQLSTATE.
fn class(error: &StoreError) -> Option<String> {
    code(error).map(|code| code.chars().take(2).collect())
}

fn code(error: &StoreError) -> Option<String> {
    let StoreError::Database(sqlx::Error::Database(error)) = error else { return None };
    error.code().map(Into::into)
}

/// Whether the error comes from the database or the way there as a whole rather than from one command.
pub(super) fn is_of_the_machine(error: &StoreError) -> bool {
    // One row can't be read.
    if matches!(error, StoreError::Corrupt(_)) {
        return false;
    }
    // What the database says of data (22), of what must be unique (23), or of what is too large (54), is about one command.
    class(error).is_none_or(|class| !["22", "23", "54"].contains(&class.as_str()))
}

/// Whether the disk has no room for it.
pub(super) fn is_of_room(error: &StoreError) -> bool {
    code(error).as_deref() == Some("53100")
}

/// Whether the same may go well if it is tried again at once: others were in the way.
pub(super) fn is_of_the_moment(error: &StoreError) -> bool {
    class(error).is_some_and(|class| class == "40")
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;
    use tokio::sync::oneshot;

    use super::*;
    use crate::job::{Conclusion, Ending, Outcome};

    #[test]
    fn long_outputs_are_written_by_several_transactions() {
        let settle = |bytes: usize| {
            let output = RawValue::from_string(format!("\"{}\"", "x".repeat(bytes))).unwrap();
            let conclusion = Conclusion { ending: Ending::Succeeded, outcome: Outcome::Output(output), timing: None };
            let lease = Lease { id: JobId::new(), token: 1 };
            Command::Settle(lease, Arc::new(Settlement::Finish(conclusion)), oneshot::channel().0)
        };
        let commands = [settle(MOST_BYTES), settle(1), settle(1)];
        assert_eq!(Batch::default().fitting(&commands), 1);
        assert_eq!(Batch::default().fitting(&commands[1..]), 2);
    }
}
