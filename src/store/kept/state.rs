//! Where jobs are that have not ended.

use crate::job::{Ending, NewJob};
use crate::store::{StateFilter, StoreError};

// Values of `state`. The partial indexes name them too.
pub(in crate::store) const SCHEDULED: i16 = 0;
pub(in crate::store) const QUEUED: i16 = 1;
pub(in crate::store) const RUNNING: i16 = 2;
pub(in crate::store) const BLOCKED: i16 = 3;
/// Queued, with a limit: in a lane.
pub(in crate::store) const LIMITED: i16 = 4;

/// The values of `state` of those that a list shows; none for those that are not among the unfinished jobs.
pub(in crate::store) const fn codes_of(state: StateFilter) -> &'static [i16] {
    match state {
        StateFilter::Scheduled => &[SCHEDULED],
        StateFilter::Blocked => &[BLOCKED],
        StateFilter::Queued => &[QUEUED, LIMITED],
        StateFilter::Running => &[RUNNING],
        StateFilter::Ended(_) => &[],
    }
}

/// The values of `state` of those of the unfinished jobs that are in one of these.
pub(in crate::store) fn codes_of_any(states: &[StateFilter]) -> Vec<i16> {
    states.iter().flat_map(|state| codes_of(*state)).copied().collect()
}

/// How jobs have ended that are in one of these, in lots that are each found in the order of their ids: by an index for each ending that is
/// rare, and without one where the usual is among them. An empty lot is all there are.
pub(in crate::store) fn lots_of(states: &[StateFilter]) -> Vec<Vec<Ending>> {
    let mut endings = Ending::ALL.to_vec();
    endings.retain(|ending| states.contains(&StateFilter::Ended(*ending)));
    match states {
        [] => vec![Vec::new()],
        _ if endings.contains(&Ending::Succeeded) => vec![endings],
        _ => endings.into_iter().map(|ending| vec![ending]).collect(),
    }
}

/// Where a job is that has this value of `state`.
pub(in crate::store) fn stands(state: i16) -> Result<StateFilter, StoreError> {
    match state {
        SCHEDULED => Ok(StateFilter::Scheduled),
        QUEUED | LIMITED => Ok(StateFilter::Queued),
        RUNNING => Ok(StateFilter::Running),
        BLOCKED => Ok(StateFilter::Blocked),
        other => Err(StoreError::Corrupt(format!("{other} is no state"))),
    }
}

/// Where a new job is to begin with.
pub(in crate::store) fn first(job: &NewJob, is_claimed: bool) -> i16 {
    match job.due_at {
        _ if is_claimed => RUNNING,
        _ if !job.after.is_empty() => BLOCKED,
        Some(_) => SCHEDULED,
        None if job.submission.is_limited() => LIMITED,
        None => QUEUED,
    }
}
