//! What becomes of jobs whose server went down.

use crate::job::{Ending, Failure, FailureKind, Job, State};

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

fn ordinal(n: u32) -> String {
    match n {
        1 => "first".into(),
        2 => "second".into(),
        3 => "third".into(),
        n => format!("{n}th"),
    }
}
