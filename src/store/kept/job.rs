//! Jobs, how they ended, and what a claim hands over.

use std::time::Duration;

use serde_json::value::RawValue;

use super::{Cells, Figures, Options, Row, corrupt, timing};
use crate::clock::Timestamp;
use crate::job::{Failure, Finished, Job, JobId, NewJob, Outcome, Queue, Route, Rule, Spec, State, Submission, Timing};
use crate::store::{Claimed, Lease, StoreError};

/// From `id, queue, rule, bound, choice, type, workload, priority, options, accepted_at, attempt, losses`; the state is to be filled in.
pub(in crate::store) fn job(cells: &mut Cells<'_, impl Row>) -> Result<Job, StoreError> {
    let id = cells.id()?;
    let queue: Queue = cells.code()?;
    let mut route = Route { executor: queue.executor(), queue, rule: cells.code()?, evidence: None };
    let isolated = route.rule == Rule::Isolated;
    let (bound, executor) = (cells.code()?, cells.code()?);
    let workload = Spec { kind: cells.take()?, json: cells.raw()? };
    let mut submission = Box::new(Submission { isolated, executor, priority: cells.take()?, ..Submission::new(bound, workload) });
    cells.json::<Options<'_>>()?.unwrap_or_default().give_back(&mut submission, &mut route);
    let accepted_at = cells.time()?;
    Ok(Job { id, submission, route, accepted_at, attempt: cells.number()?, losses: cells.number()?, state: State::Queued })
}

/// From `ending, started_at, finished_at, output, error, timing`, as far as there is an ending.
pub(in crate::store) fn finished(cells: &mut Cells<'_, impl Row>, id: JobId) -> Result<Option<Finished>, StoreError> {
    let Some(ending) = cells.code_or_none()? else { return Ok(None) };
    let (started_at, finished_at) = (cells.time_or_none()?, cells.time()?);
    let outcome = outcome(cells.take()?, cells.take()?, id)?;
    Ok(Some(Finished { ending, outcome, timing: measured(cells)?, started_at, finished_at }))
}

/// From the two columns of which one is there.
pub(in crate::store) fn outcome(output: Option<String>, error: Option<&str>, id: JobId) -> Result<Outcome, StoreError> {
    match (output, error) {
        (_, Some(error)) => Ok(Outcome::Error(serde_json::from_str::<Failure>(error).map_err(corrupt)?)),
        (Some(output), None) => Ok(Outcome::Output(RawValue::from_string(output).map_err(corrupt)?)),
        (None, None) => Err(StoreError::Corrupt(format!("the result of {id} has neither output nor error"))),
    }
}

/// From the figures of a timing.
pub(in crate::store) fn measured(cells: &mut Cells<'_, impl Row>) -> Result<Option<Timing>, StoreError> {
    Ok(cells.json::<Figures>()?.map(timing))
}

/// From `id, token, bound, type, workload, options, attempt, losses`, the attempts before it was last run again by hand, and how long it
/// waited; with the options that the claim itself does not need.
pub(in crate::store) fn claimed(cells: &mut Cells<'_, impl Row>) -> Result<(Claimed, Options<'static>), StoreError> {
    let lease = Lease { id: cells.id()?, token: cells.take()? };
    let bound = cells.code()?;
    let workload = Spec { kind: cells.take()?, json: cells.raw()? };
    let mut options = cells.json::<Options<'_>>()?.unwrap_or_default();
    let claimed = Claimed {
        lease,
        owner: options.owner,
        bound,
        workload,
        deadline: options.deadline(),
        retry: options.retry(),
        requires: options.requires(),
        attempt: cells.number()?,
        losses: cells.number()?,
        earlier: cells.number()?,
        queued_for: Duration::from_micros(cells.take::<i64>()?.try_into().unwrap_or(0)),
        profile: None,
    };
    Ok((claimed, options))
}

/// A new job as its claim hands it over.
pub(in crate::store) fn claimed_at_once(job: &NewJob, token: i64, at: Timestamp) -> Claimed {
    Claimed {
        lease: Lease { id: job.id, token },
        owner: job.submission.owner,
        bound: job.submission.bound,
        workload: job.submission.workload.clone(),
        deadline: job.submission.deadline,
        retry: job.submission.retry.clone(),
        requires: job.submission.requires.clone(),
        attempt: 1,
        losses: 0,
        earlier: 0,
        queued_for: at.since(job.accepted_at),
        profile: job.profile.clone(),
    }
}
