//! Whose turn it is: a claim is served from the lanes one by one, those without a limit being one more lane.

use std::collections::VecDeque;
use std::time::Duration;

use super::claims::MOST_BYTES;
use super::kept::lane::{Head, OPEN, OVER_QUOTA};
use crate::clock::Timestamp;
use crate::job::JobId;

/// The fewest and the most lanes that one claim looks at.
pub(super) const LOOKED_AT: (usize, usize) = (64, 512);

/// A lane while a claim looks at it.
pub(super) struct Visited<L, F> {
    pub(super) lane: L,
    /// When it had its last turn.
    pub(super) turn: i64,
    pub(super) heads: VecDeque<Head>,
    /// Whether there may be more jobs than were looked at.
    pub(super) more: bool,
    pub(super) served: bool,
    pub(super) gate: i64,
    /// What was found out as it was last looked at whether its first job may start.
    pub(super) found: F,
}

/// Which jobs a claim is served.
pub(super) struct Served {
    /// How many of those without a limit.
    pub(super) plain: usize,
    /// When these had their last turn.
    pub(super) plain_turn: Option<i64>,
    /// Those of lanes, each with the moment of its claim.
    pub(super) jobs: Vec<(JobId, Timestamp)>,
}

/// The lanes, each with its last turn and its first jobs, of which so many were asked for.
pub(super) fn visit<L, F: Default>(lanes: impl Iterator<Item = (i64, L)>, heads: Vec<Head>, each: usize) -> Vec<Visited<L, F>> {
    let new = |(turn, lane)| Visited {
        lane,
        turn,
        heads: VecDeque::new(),
        more: false,
        served: false,
        gate: OPEN,
        found: F::default(),
    };
    let mut visited: Vec<_> = lanes.map(new).collect();
    for head in heads {
        if let Some(lane) = visited.get_mut(head.lane) {
            lane.heads.push_back(head);
            lane.more = lane.heads.len() == each;
        }
    }
    visited
}

/// Serves so many jobs from the lanes in turn, and of those without a limit, which had their last turn at `plain_turn`, no more than there are.
/// Moments are given from `before` on; rates go by `begun`. A job that may `start` at a moment has begun: what its gate has to be else, and what was
/// found out.
pub(super) fn serve<L, F>(
    visited: &mut [Visited<L, F>],
    plain_turn: i64,
    (wanted, unlimited): (usize, usize),
    (before, begun): (Timestamp, Timestamp),
    mut start: impl FnMut(&Head, Timestamp) -> (i64, F),
) -> Served {
    let (mut plain, mut jobs, mut bytes) = (0, Vec::new(), 0);
    let mut turn = before.as_micros();
    // Those without a limit stand where it is their turn.
    let own = visited.iter().position(|lane| lane.turn > plain_turn).unwrap_or(visited.len());
    let mut own_turn = None;
    let mut going_on = true;
    while going_on && plain + jobs.len() < wanted {
        going_on = false;
        for at in 0..=visited.len() {
            if plain + jobs.len() == wanted {
                break;
            }
            if at == own && plain < unlimited {
                (plain, turn, going_on) = (plain + 1, turn + 1, true);
                own_turn = Some(turn);
                if plain + jobs.len() == wanted {
                    break;
                }
            }
            let Some(lane) = visited.get_mut(at).filter(|lane| lane.gate == OPEN) else { continue };
            let Some(head) = lane.heads.front() else { continue };
            if !jobs.is_empty() && bytes + head.bytes > MOST_BYTES {
                // It is its turn with the next claim.
                going_on = false;
                break;
            }
            let behind = Duration::from_micros(jobs.len() as u64 + 1);
            (lane.gate, lane.found) = start(head, begun.after(behind));
            turn += 1;
            if lane.gate == OPEN {
                going_on = true;
                lane.served = true;
                lane.turn = turn;
                jobs.push((head.id, before.after(behind)));
                bytes += head.bytes;
                lane.heads.pop_front();
            } else if lane.gate <= OVER_QUOTA {
                // The next place that becomes free is another lane's, in case that may have it.
                lane.turn = turn;
            }
        }
    }
    Served { plain, plain_turn: own_turn, jobs }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::kept::lane::FULL;

    #[test]
    fn lanes_and_what_has_no_limit_take_turns() {
        let head = |lane| Head { lane, id: JobId::new(), concurrency: None, rate: None, owner: None, bytes: 0 };
        let heads: Vec<Head> = [0, 0, 1, 1, 2].map(head).into();
        let ids: Vec<JobId> = heads.iter().map(|head| head.id).collect();
        let mut visited = visit::<_, ()>([(1, "first"), (3, "shut"), (4, "last")].into_iter(), heads, 2);
        let gate = |head: &Head, _| (if head.lane == 1 { FULL } else { OPEN }, ());
        let (before, begun) = (Timestamp::from_micros(10), Timestamp::from_micros(20));
        let served = serve(&mut visited, 2, (5, 9), (before, begun), gate);
        assert_eq!(served.jobs, [(0, 11), (4, 12), (1, 13)].map(|(job, at)| (ids[job], Timestamp::from_micros(at))));
        assert_eq!((served.plain, served.plain_turn), (2, Some(16)));
        assert_eq!(visited.iter().map(|lane| (lane.turn, lane.gate)).collect::<Vec<_>>(), [(15, OPEN), (13, FULL), (14, OPEN)]);
    }
}
