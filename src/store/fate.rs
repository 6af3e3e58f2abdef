//! What becomes of jobs whose server went down.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::job::{Ending, Failure, FailureKind, Job, State};

/// Moments are ahead of the clock by some microseconds at the most, unless it was set back.
const USUAL: Duration = Duration::from_secs(1);

/// Whether a job that was running when its runner died is finished by that, and how.
pub(super) fn fate(job: &Job, max_losses: u32) -> Option<(Ending, Failure)> {
    if matches!(job.state, State::Running { stopping: true, .. }) {
        return Some((Ending::Cancelled, Failure::cancelled()));
    }
    let losses = job.losses + 1;
    (!job.submission.retry().survives_loss(losses, max_losses)).then(|| {
        let message = format!("the server went down while this job ran, for the {} time; it is not run again", ordinal(losses));
        (Ending::Lost, Failure::new(FailureKind::Lost, message))
    })
}

/// When one that is not finished by it is due again: at once, which is behind all that waited before this moment. It is the clock that says what
/// is due, and one that was set back would take long to come there.
pub(super) fn again_at(moment: Timestamp, clock: Timestamp) -> Timestamp {
    if moment.since(clock) > USUAL { clock } else { moment }
}

fn ordinal(n: u32) -> String {
    match n {
        1 => "first".into(),
        2 => "second".into(),
        3 => "third".into(),
        n => format!("{n}th"),
    }
}
