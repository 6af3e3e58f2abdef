//! What the writer knows of the jobs that run.

use super::super::lanes::Counted;
use crate::clock::Timestamp;
use crate::job::Queue;
use crate::store::Subject;
use crate::store::said::Said;

/// What is known of a running job.
pub(super) struct Held {
    pub(super) token: i64,
    pub(super) queue: Queue,
    pub(super) subject: Subject,
    pub(super) attempt: u32,
    pub(super) claimed_at: Timestamp,
    pub(super) stopping: bool,
    /// Whether other jobs may wait for its end.
    pub(super) children: bool,
    /// What it counts for.
    pub(super) counted: Vec<Counted>,
    /// What the job has said so far; unknown until this attempt says something.
    pub(super) said: Option<Said>,
}
