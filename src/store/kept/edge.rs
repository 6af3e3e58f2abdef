//! That jobs come after others, and what becomes of them when those have ended.

use std::collections::HashSet;

use super::state::stands;
use super::{Cells, Row};
use crate::job::{Dependency, Ending, Failure, FailureKind, JobId, OnFailure};
use crate::store::acceptance::Acceptance;
use crate::store::{Child, Graph, ParentEdge, StateFilter, StoreError};

/// The most edges that one transaction follows, and the most steps down the graph: the rest is left to the next ones, so that neither a
/// wide graph nor a deep one keeps others waiting.
pub(in crate::store) const MOST_EDGES: usize = 1_000;
pub(in crate::store) const MOST_STEPS: usize = 50;

/// An edge whose parent has ended.
pub(in crate::store) struct Ended {
    pub(in crate::store) parent: JobId,
    pub(in crate::store) child: JobId,
    pub(in crate::store) on_failure: OnFailure,
    pub(in crate::store) name: Option<String>,
    pub(in crate::store) ending: Ending,
}

/// A job that is to end, and how.
pub(in crate::store) struct Doom {
    pub(in crate::store) id: JobId,
    pub(in crate::store) ending: Ending,
    pub(in crate::store) failure: Failure,
}

impl Ended {
    /// How the child ends by that, if it does.
    pub(in crate::store) fn doom(self) -> Option<Doom> {
        let Self { parent, child, on_failure, name, ending } = self;
        let own = match on_failure {
            _ if ending == Ending::Succeeded => return None,
            OnFailure::Run => return None,
            OnFailure::Cancel => Ending::Cancelled,
            OnFailure::Fail => Ending::Failed,
        };
        let called = name.map_or_else(|| parent.to_string(), |name| format!("{name:?} ({parent})"));
        let failure = Failure::new(FailureKind::Dependency, format!("the job {called}, which it comes after, ended as {ending}"));
        Some(Doom { id: child, ending: own, failure })
    }
}

/// What new jobs come after that is not among them.
pub(in crate::store) fn parents_elsewhere<W>(accepts: &[Acceptance<W>]) -> Vec<JobId> {
    let jobs = || accepts.iter().flat_map(|accept| &accept.jobs);
    let own: HashSet<JobId> = jobs().map(|job| job.id).collect();
    let parents = jobs().flat_map(|job| &job.after).map(|after| after.parent);
    parents.filter(|parent| !own.contains(parent)).collect()
}

/// Refuses those that come after `unknown` jobs, or after others that are refused.
pub(in crate::store) fn refuse_orphans<W>(accepts: &mut Vec<Acceptance<W>>, mut unknown: HashSet<JobId>) {
    let mut go_on = !unknown.is_empty();
    while std::mem::take(&mut go_on) {
        for accept in std::mem::take(accepts) {
            let mut edges = accept.jobs.iter().flat_map(|job| job.after.iter().map(|after| (job.id, after.parent)));
            match edges.find(|(_, parent)| unknown.contains(parent)) {
                Some((job, parent)) => {
                    unknown.extend(accept.jobs.iter().map(|job| job.id));
                    go_on = true;
                    // Nobody may be waiting for an answer any more.
                    drop(accept.reply.send(Err(StoreError::UnknownParent { job, parent })));
                }
                None => accepts.push(accept),
            }
        }
    }
}

/// From `parent, child, rule, name` and the parent's ending.
pub(in crate::store) fn read_ended(row: &impl Row) -> Result<Ended, StoreError> {
    let mut cells = Cells::new(row);
    let (parent, child) = (cells.id()?, cells.id()?);
    Ok(Ended { parent, child, on_failure: cells.code()?, name: cells.take()?, ending: cells.code()? })
}

/// From `parent, name, rule`.
pub(in crate::store) fn read_dependency(row: &impl Row) -> Result<Dependency, StoreError> {
    let mut cells = Cells::new(row);
    Ok(Dependency { parent: cells.id()?, name: cells.take()?, on_failure: cells.code()? })
}

/// From how many parents a job has and how many children, and how many of the parents it waits for.
pub(in crate::store) fn read_counts(row: &impl Row) -> Result<Graph, StoreError> {
    let mut cells = Cells::new(row);
    Ok(Graph { parent_count: cells.number()?, child_count: cells.number()?, open: cells.number()?, ..Graph::default() })
}

/// From `parent, name, rule` and where the parent is.
pub(in crate::store) fn read_parent(row: &impl Row) -> Result<ParentEdge, StoreError> {
    let mut cells = Cells::new(row);
    let (id, name, on_failure) = (cells.id()?, cells.take()?, cells.code()?);
    Ok(ParentEdge { id, name, on_failure, state: read_place(&mut cells)? })
}

/// From `child` and where it is.
pub(in crate::store) fn read_child(row: &impl Row) -> Result<Child, StoreError> {
    let mut cells = Cells::new(row);
    Ok(Child { id: cells.id()?, state: read_place(&mut cells)? })
}

/// From a job's id and where it is; nothing of one that is not there any more.
pub(in crate::store) fn read_state(row: &impl Row) -> Option<Result<(JobId, StateFilter), StoreError>> {
    let mut cells = Cells::new(row);
    let read = cells.id().and_then(|id| Ok(read_place(&mut cells)?.map(|state| (id, state))));
    read.transpose()
}

/// From a state or an ending; `None` if the job is not there any more.
fn read_place(cells: &mut Cells<'_, impl Row>) -> Result<Option<StateFilter>, StoreError> {
    let (state, ending) = (cells.take::<Option<i16>>()?, cells.code_or_none()?);
    match state {
        Some(state) => stands(state).map(Some),
        None => Ok(ending.map(StateFilter::Ended)),
    }
}
