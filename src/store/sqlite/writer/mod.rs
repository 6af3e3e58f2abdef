//! Group commit: one task owns the only connection that writes.
//!
//! It takes all commands that have arrived, carries them out in one transaction, and answers each only after the commit. A claim
//! that finds nothing stays with the writer until there is something; a job that is accepted while such a claim waits is claimed
//! by the transaction that accepts it, without a way through the queue's index.
//!
//! `run.rs` is the loop, `batch.rs` the commands of one transaction by kind, `transaction.rs` its steps in their order; each kind of
//! command has its step in a file of its own, and `answer.rs` publishes what was done. A new kind is a [`Command`], its place in a
//! `Batch`, its step and its answer.

mod accept;
mod allow;
mod answer;
mod batch;
mod begin;
mod cancel;
mod claim;
mod end;
mod fold;
mod held;
mod lanes;
mod moments;
mod note;
mod patient;
mod promote;
mod published;
mod requeue;
mod roll_up;
mod run;
mod settle;
mod start;
mod transaction;
mod unblock;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use sqlx::SqliteConnection;
use tokio::sync::{mpsc, oneshot};

pub(super) use self::published::Published;

use self::held::Held;
use self::lanes::Lanes;
use self::moments::Moments;
use self::published::Depths;
use super::company::{Company, Settling};
use super::edit::Edit;
use super::front::{Begun, Fronts};
use super::intake::Noted;
use crate::clock::{Clock, Timestamp};
use crate::job::{JobId, Owner, Queue, Submission};
use crate::store::acceptance;
pub(super) use crate::store::acceptance::Reply;
use crate::store::claims::Claims;
use crate::store::full::Full;
use crate::store::node::Gatekeeper;
use crate::store::said::NoteLimits;
use crate::store::{Cancelled, Claimed, Lease, StateFilter, Subject, SummaryKey, Urgency};
use crate::telemetry::Sparing;

/// What the writer is asked to do.
pub(super) enum Command {
    Note(Noted),
    Accept(Acceptance),
    Claim(Queue, usize, Reply<Vec<Claimed>>),
    /// An attempt has ended.
    Settle(Settling, Urgency),
    Cancel(Vec<JobId>, Vec<StateFilter>, Reply<Cancelled>),
    /// Only those that had ended by then, if it says when.
    Requeue(Vec<JobId>, Option<Timestamp>, Reply<Vec<JobId>>),
    Edit(Box<dyn Edit>),
    Allow(HashMap<Owner, u32>, Reply<()>),
    Check(Reply<()>),
    /// Jobs were claimed from the front of this queue.
    Begun(Queue),
    /// There are settlements in company.
    Ended,
    /// Somebody wants to see what there is once that is written which has happened.
    CatchUp(Reply<()>),
    /// These attempts go on to the end of the process.
    Close(Vec<Lease>, oneshot::Sender<()>),
}

impl From<Noted> for Command {
    fn from(noted: Noted) -> Self {
        Self::Note(noted)
    }
}

/// New jobs.
pub(super) type Acceptance = acceptance::Acceptance<Box<dyn Edit>>;

/// The task that writes.
pub(super) struct Writer {
    connection: SqliteConnection,
    clock: Arc<dyn Clock>,
    moments: Moments,
    limits: NoteLimits,
    published: Arc<Published>,
    depths: Depths,
    /// The leases that are valid. Only this task makes and ends any, so it knows without asking the database.
    held: foldhash::HashMap<JobId, Held>,
    claims: Claims,
    fronts: Arc<Fronts>,
    company: Arc<Company>,
    gatekeeper: Arc<Gatekeeper>,
    /// Claimed from the fronts, but not committed.
    begun: Vec<Begun>,
    /// The queues whose jobs were claimed since their fronts were filled up.
    claimed_from: [bool; Queue::ALL.len()],
    max_losses: u32,
    next_due: Option<Timestamp>,
    /// When the time of a job that waits is over, at the earliest.
    next_expiry: Option<Timestamp>,
    /// Jobs that have ended, of which not all children have heard.
    unblocking: VecDeque<JobId>,
    lanes: Lanes,
    /// How many jobs of an owner may run at once, where there is a quota.
    allowed: Arc<HashMap<Owner, u32>>,
    next_token: i64,
    /// The last place of a text that is too long for its row.
    latest_payload: i64,
    /// The names of workloads, each kept once.
    kinds: foldhash::HashSet<Arc<str>>,
    /// Whose rollups have changed since they were written, and when that was.
    counted: BTreeSet<SummaryKey>,
    rolled_up_at: Instant,
    /// A transaction failed, so claims that wait are tried again soon.
    claims_blocked: bool,
    full: Full,
    failures: Sparing,
    unwritten_rollups: Sparing,
}

impl Writer {
    /// Writes, on a thread of its own, until it is told to close or nobody is left who could tell it anything.
    ///
    /// Everything waits for this task, so it must not stand in a queue behind requests. `beside` is another connection to the same file, by
    /// which the journal is folded meanwhile.
    pub(super) fn spawn(self, commands: mpsc::Receiver<Command>, beside: SqliteConnection) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        std::thread::Builder::new().name("trine-writer".into()).spawn(move || runtime.block_on(self.run(commands, beside)))?;
        Ok(())
    }

    fn subject(&self, submission: &Submission, queue: Queue) -> Subject {
        let kind = submission.workload.kind.as_str();
        Subject {
            bound: submission.bound,
            executor: queue.executor(),
            workload: self.kinds.get(kind).map_or_else(|| kind.into(), Arc::clone),
            tags: (!submission.tags.is_empty()).then(|| Arc::new(submission.tags.clone())),
            owner: submission.owner,
        }
    }

    fn kind(&mut self, name: &str) -> Arc<str> {
        if let Some(kind) = self.kinds.get(name) {
            return Arc::clone(kind);
        }
        let kind: Arc<str> = name.into();
        self.kinds.insert(Arc::clone(&kind));
        kind
    }

    const fn token(&mut self) -> i64 {
        self.next_token += 1;
        self.next_token
    }
}
