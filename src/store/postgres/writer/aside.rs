//! What a transaction does by itself and the database won't take: it is put aside for a while, so that no command pays for what nobody asked for.

use std::time::Instant;

use super::Writer;
use super::batch::{self, Batch};
use crate::job::Queue;
use crate::store::StoreError;
use crate::store::kept::LEFT;

/// A step that nobody asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Claims that this node never heard of are given back.
    GiveBack,
    /// Nodes that are gone.
    Reap,
    /// Jobs that are due: one by one then, so that those that can't be queued hold up no others.
    Promote,
    /// The ends of those that can't be queued.
    GiveUp,
    /// Jobs whose time is over.
    Expire,
    /// What comes after jobs that have ended.
    Unblock,
    /// The lanes that jobs have entered and left.
    Lanes,
    Claim(Queue),
    /// Messages about jobs that have ended: one by one then, without those that can't be kept.
    Messages,
}

/// The steps that are put aside, each until a moment.
#[derive(Default)]
pub(super) struct Aside(Vec<(Step, Instant)>);

impl Aside {
    pub(super) fn has(&self, step: Step) -> bool {
        self.0.iter().any(|(there, _)| *there == step)
    }

    /// Those whose time is over are tried again. Not while a batch is carried out, or it could be tried for ever.
    pub(super) fn take_up(&mut self) {
        let now = Instant::now();
        self.0.retain(|(_, until)| now < *until);
    }

    /// Whether that is news.
    fn put(&mut self, step: Step) -> bool {
        let is_new = !self.has(step);
        if is_new {
            self.0.push((step, Instant::now() + LEFT));
        }
        is_new
    }
}

impl Writer {
    /// A transaction has failed. If it did in a step that nobody asked for, that is put aside, so that the rest can be tried without it: whether
    /// this is so.
    pub(super) fn put_aside(&mut self, error: &StoreError, batch: &Batch) -> bool {
        let Some(step) = batch.step.filter(|step| !batch::is_of_the_machine(error) && self.aside.put(*step)) else {
            return false;
        };
        if step == Step::Lanes {
            // Whose lane it is can't be told: perhaps of a job that one of these brought.
            for step in [Step::GiveBack, Step::Promote, Step::Unblock] {
                self.aside.put(step);
            }
        }
        tracing::error!(%error, ?step, "what nobody has asked for can't be done; it is left for a while, and tried again");
        true
    }
}
