//! Jobs that come after other jobs.

use serde::{Deserialize, Serialize};

use super::JobId;

/// What becomes of a job when one that it comes after has not succeeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// It ends as cancelled, without having run.
    #[default]
    Cancel,
    /// It ends as failed, without having run.
    Fail,
    /// It runs all the same.
    Run,
}

impl OnFailure {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Cancel, Self::Fail, Self::Run];

    /// What two rules come to for one job: it does not run if one of them says so, and fails if one says that.
    pub(crate) const fn stricter(self, other: Self) -> Self {
        match (self, other) {
            (Self::Fail, _) | (_, Self::Fail) => Self::Fail,
            (Self::Cancel, _) | (_, Self::Cancel) => Self::Cancel,
            (Self::Run, Self::Run) => Self::Run,
        }
    }
}

/// That a submission comes after another job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct After {
    /// The other job.
    pub parent: Parent,
    /// What to do if that does not succeed.
    pub on_failure: OnFailure,
}

/// A job that another one comes after, as a client names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parent {
    /// By its id.
    Job(JobId),
    /// By its name in the same batch.
    Sibling {
        /// Its place in the batch, from 0.
        index: usize,
        /// The name.
        name: String,
    },
}

impl Parent {
    /// What an output of this parent is asked for by.
    pub fn called(&self) -> String {
        match self {
            Self::Job(id) => id.to_string(),
            Self::Sibling { name, .. } => name.clone(),
        }
    }

    /// Its place in the same batch, if it is of it.
    pub const fn sibling(&self) -> Option<usize> {
        match self {
            Self::Sibling { index, .. } => Some(*index),
            Self::Job(_) => None,
        }
    }
}

/// That a job comes after another one: an edge of the graph, seen from the child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// The job that has to end first.
    pub parent: JobId,
    /// What the batch called it.
    pub name: Option<String>,
    /// What to do if it does not succeed.
    pub on_failure: OnFailure,
}

/// The nodes of a graph, each behind those that it comes after, and otherwise in their order.
///
/// `parents` are, for each node, those that it comes after.
///
/// # Errors
/// A way round: each comes after the next one, and the last is the first again.
pub fn parents_first(parents: &[Vec<usize>]) -> Result<Vec<usize>, Vec<usize>> {
    /// Where a node is in the search.
    #[derive(Clone, Copy, PartialEq)]
    enum Seen {
        Not,
        OnPath,
        Done,
    }

    let mut seen = vec![Seen::Not; parents.len()];
    // Without recursion: a chain may be as long as a batch.
    let mut path: Vec<(usize, usize)> = Vec::new();
    let mut sorted = Vec::with_capacity(parents.len());
    for start in 0..parents.len() {
        if seen[start] == Seen::Not {
            seen[start] = Seen::OnPath;
            path.push((start, 0));
        }
        while let Some((node, next)) = path.last_mut() {
            let Some(&parent) = parents[*node].get(*next) else {
                seen[*node] = Seen::Done;
                sorted.push(*node);
                path.pop();
                continue;
            };
            *next += 1;
            match seen[parent] {
                Seen::Done => {}
                Seen::Not => {
                    seen[parent] = Seen::OnPath;
                    path.push((parent, 0));
                }
                Seen::OnPath => {
                    let nodes = path.iter().map(|(node, _)| *node).skip_while(|node| *node != parent);
                    return Err(nodes.chain([parent]).collect());
                }
            }
        }
    }
    Ok(sorted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(vec![], Ok(vec![]))]
    #[case(vec![vec![], vec![0], vec![0, 1], vec![2, 0]], Ok(vec![0, 1, 2, 3]))]
    #[case(vec![vec![], vec![3], vec![], vec![4, 0], vec![]], Ok(vec![0, 4, 3, 1, 2]))]
    #[case(vec![vec![0]], Err(vec![0, 0]))]
    #[case(vec![vec![], vec![2, 0], vec![3], vec![0, 1]], Err(vec![1, 2, 3, 1]))]
    #[case(vec![vec![1], vec![2], vec![1]], Err(vec![1, 2, 1]))]
    fn parents_come_first_unless_there_is_a_way_round(
        #[case] parents: Vec<Vec<usize>>,
        #[case] expected: Result<Vec<usize>, Vec<usize>>,
    ) {
        assert_eq!(parents_first(&parents), expected);
    }

    #[test]
    fn a_long_chain_takes_no_stack() {
        let mut chain: Vec<Vec<usize>> = (0..100_000).map(|n: usize| n.checked_sub(1).into_iter().collect()).collect();
        assert_eq!(parents_first(&chain).unwrap().len(), 100_000);
        chain[0] = vec![99_999];
        assert_eq!(parents_first(&chain).unwrap_err().len(), 100_001);
    }
}
