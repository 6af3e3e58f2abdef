//! What clients see of the jobs that come before and after one.

use serde::Serialize;
use utoipa::ToSchema;

use super::state::StateName;
use crate::job::{JobId, OnFailure};
use crate::store::{Child, Graph, ParentEdge};

/// The most parents, and the most children, that are shown.
pub(super) const MOST: usize = 100;

/// The jobs that a job comes after, and those that come after it.
#[derive(Serialize, ToSchema)]
#[schema(as = Graph)]
pub(super) struct GraphView {
    /// How many it comes after.
    parent_count: u64,
    /// How many of them have not ended: it waits for those.
    waits_for: u64,
    /// The first hundred of them: those that it waits for before the others.
    parents: Vec<ParentView>,
    /// How many come after it, of those that the caller may see.
    child_count: u64,
    /// The first hundred of them.
    children: Vec<ChildView>,
}

/// A job that another one comes after.
#[derive(Serialize, ToSchema)]
#[schema(as = Parent)]
struct ParentView {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    id: JobId,
    /// What it was called in its batch.
    #[schema(required)]
    name: Option<String>,
    /// What becomes of the other job if this one does not succeed.
    on_failure: OnFailure,
    /// Where it is or how it ended; null if it is not kept any more.
    #[schema(required)]
    state: Option<StateName>,
}

/// A job that comes after another one.
#[derive(Serialize, ToSchema)]
#[schema(as = Child)]
struct ChildView {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    id: JobId,
    /// Where it is or how it ended; null if it is not kept any more.
    #[schema(required)]
    state: Option<StateName>,
}

impl GraphView {
    /// `None` if the job comes after none, and none after it.
    pub(super) fn of(graph: Graph) -> Option<Self> {
        let Graph { parent_count, open, parents, child_count, children } = graph;
        let parent =
            |ParentEdge { id, name, on_failure, state }| ParentView { id, name, on_failure, state: state.map(Into::into) };
        let child = |Child { id, state }| ChildView { id, state: state.map(Into::into) };
        (parent_count + child_count > 0).then(|| Self {
            parent_count,
            waits_for: open,
            parents: parents.into_iter().map(parent).collect(),
            child_count,
            children: children.into_iter().map(child).collect(),
        })
    }
}
