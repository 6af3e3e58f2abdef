use std::collections::HashMap;

use async_trait::async_trait;

use super::{StateFilter, StoreError};
use crate::job::{Dependency, JobId, OnFailure, Owner};

/// A job among those that it comes after and those that come after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Graph {
    /// How many it comes after.
    pub parent_count: u64,
    /// How many of them it waits for.
    pub open: u64,
    /// The first of them: those that it waits for before the others.
    pub parents: Vec<ParentEdge>,
    /// How many come after it.
    pub child_count: u64,
    /// The first of them.
    pub children: Vec<Child>,
}

/// A job that another one comes after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentEdge {
    /// Which.
    pub id: JobId,
    /// What their batch called it.
    pub name: Option<String>,
    /// What becomes of the other one if this one does not succeed.
    pub on_failure: OnFailure,
    /// Where it is; `None` if it is not kept any more.
    pub state: Option<StateFilter>,
}

/// A job that comes after another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Child {
    /// Which.
    pub id: JobId,
    /// Where it is; `None` if it is not kept any more.
    pub state: Option<StateFilter>,
}

/// What comes after what.
#[async_trait]
pub trait GraphStore {
    /// All jobs that a job comes after.
    async fn dependencies(&self, id: JobId) -> Result<Vec<Dependency>, StoreError>;

    /// Where these jobs are, of which those that are not kept any more are left out.
    async fn states(&self, jobs: &[JobId]) -> Result<HashMap<JobId, StateFilter>, StoreError>;

    /// All jobs that a job comes after with where they are, and the jobs that come after it: at most so many of each, and of the latter only
    /// those of the owner, if there is one.
    async fn graph(&self, id: JobId, owner: Option<Owner>, most: usize) -> Result<Graph, StoreError>;
}
