//! Lanes that open because more jobs of their owners may run.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::job::Owner;

/// The most lanes that one transaction opens for this: there may be a million, and others wait meanwhile.
const MOST: u64 = 512;

/// How many lanes of which owners are still to be opened, of those that were shut for the owner's quota: one for each job that may run now, since
/// whoever finds that its lane can't go on passes the place on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Reopens(Vec<(i64, u64)>);

impl Reopens {
    /// So many jobs of owners may run at once now, where it was so many before. Of one without a quota all lanes open.
    pub(super) fn note(&mut self, before: &HashMap<Owner, u32>, now: &HashMap<Owner, u32>) {
        let allowed = |owner| now.get(&owner).map_or(u64::MAX, |allowed| u64::from(*allowed));
        // Those that are shut again for a quota would else be opened for ever.
        for (owner, lanes) in &mut self.0 {
            *lanes = Owner::from_code(*owner).map_or(0, allowed).min(*lanes);
        }
        self.0.retain(|(_, lanes)| *lanes > 0);
        let more = before.iter().filter(|(owner, was)| allowed(**owner) > u64::from(**was));
        self.look_again(more.map(|(owner, _)| *owner), now);
    }

    /// The lanes of these owners may be shut for lower numbers than those now.
    pub(super) fn look_again(&mut self, owners: impl Iterator<Item = Owner>, now: &HashMap<Owner, u32>) {
        for owner in owners {
            self.are_over(owner);
            self.0.push((owner.code(), now.get(&owner).map_or(u64::MAX, |allowed| u64::from(*allowed))));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whose lanes one transaction opens, and up to how many. The owners take turns.
    pub(super) fn take(&mut self) -> Option<(Owner, usize)> {
        if self.is_empty() {
            return None;
        }
        let (owner, lanes) = self.0.remove(0);
        let some = lanes.min(MOST);
        if lanes > some {
            self.0.push((owner, lanes - some));
        }
        Some((Owner::from_code(owner)?, usize::try_from(some).unwrap_or(usize::MAX)))
    }

    /// No lane of this owner is shut for the quota any more.
    pub(super) fn are_over(&mut self, owner: Owner) {
        self.0.retain(|(there, _)| *there != owner.code());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(code: i64) -> Owner {
        Owner::from_code(code).unwrap()
    }

    #[test]
    fn as_many_lanes_open_as_jobs_may_run_more() {
        let mut reopens = Reopens::default();
        let before = HashMap::from([(owner(1), 1), (owner(2), 5), (owner(3), 9), (owner(4), 1)]);
        // Of the third fewer may run, of the fourth as many as before, and the fifth had no quota.
        let now = HashMap::from([(owner(1), 700), (owner(3), 2), (owner(4), 1), (owner(5), 1)]);
        reopens.note(&HashMap::new(), &before);
        assert!(reopens.is_empty());
        reopens.note(&before, &now);
        let mut some: Vec<_> = std::iter::from_fn(|| reopens.take()).take(4).collect();
        some.sort_unstable();
        assert_eq!(some, [(owner(1), 188), (owner(1), 512), (owner(2), 512), (owner(2), 512)]);
        // The second has none at all, until it gets one again.
        let limited = HashMap::from([(owner(1), 700), (owner(2), 3), (owner(3), 2), (owner(4), 1), (owner(5), 1)]);
        reopens.note(&now, &limited);
        assert_eq!(std::iter::from_fn(|| reopens.take()).take(4).collect::<Vec<_>>(), [(owner(2), 3)]);
    }

    #[test]
    fn no_more_are_looked_for_than_there_are() {
        let mut reopens = Reopens::default();
        reopens.note(&HashMap::from([(owner(1), 1)]), &HashMap::new());
        assert_eq!(reopens.take(), Some((owner(1), 512)));
        reopens.are_over(owner(1));
        assert!(reopens.is_empty() && reopens.take().is_none());
    }
}
