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

/// A way round in a graph: each comes after the next one, and the last is the first again. `None` if there is none.
///
/// `parents` are, for each node, those that it comes after.
pub fn cycle(parents: &[Vec<usize>]) -> Option<Vec<usize>> {
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
    for start in 0..parents.len() {
        if seen[start] == Seen::Not {
            seen[start] = Seen::OnPath;
            path.push((start, 0));
        }
        while let Some((node, next)) = path.last_mut() {
            let Some(&parent) = parents[*node].get(*next) else {
                seen[*node] = Seen::Done;
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
                    return Some(nodes.chain([parent]).collect());
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(vec![], None)]
    #[case(vec![vec![], vec![0], vec![0, 1], vec![2, 0]], None)]
    #[case(vec![vec![0]], Some(vec![0, 0]))]
    #[case(vec![vec![], vec![2, 0], vec![3], vec![0, 1]], Some(vec![1, 2, 3, 1]))]
    #[case(vec![vec![1], vec![2], vec![1]], Some(vec![1, 2, 1]))]
    fn a_way_round_is_found(#[case] parents: Vec<Vec<usize>>, #[case] expected: Option<Vec<usize>>) {
        assert_eq!(cycle(&parents), expected);
    }

    #[test]
    fn a_long_chain_takes_no_stack() {
        let mut chain: Vec<Vec<usize>> = (0..100_000).map(|n: usize| n.checked_sub(1).into_iter().collect()).collect();
        assert_eq!(cycle(&chain), None);
        chain[0] = vec![99_999];
        assert_eq!(cycle(&chain).unwrap().len(), 100_001);
    }
}
