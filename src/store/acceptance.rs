//! New jobs on their way to the writer.

use tokio::sync::oneshot;

use super::StoreError;
use crate::job::NewJob;

/// Who is told what became of it.
pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// New jobs, that are kept together or not at all.
pub(super) struct Acceptance<W> {
    pub(super) jobs: Vec<NewJob>,
    /// What is to change in the same transaction, or not at all.
    pub(super) with: Option<W>,
    pub(super) reply: Reply<Vec<NewJob>>,
}
