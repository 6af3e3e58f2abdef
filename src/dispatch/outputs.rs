//! Other jobs' outputs in a job's workload: checked when it is submitted, put in when it is about to run.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::AbortOnDropHandle;

use super::Shared;
use super::patience::until_read;
use crate::job::{After, Failure, FailureKind, Finished, JobId, Outcome, Spec};
use crate::workload::{Invalid, Placeholder, Stop, StopReason, fill, is_pointer, may_have_placeholders, parts};

/// The longest workload with the outputs in it, in bytes: as long as a submission may be.
const MAX_BYTES: usize = 12 << 20;
/// How many workloads have outputs put in at once: each takes a thread meanwhile, and as much memory as an output.
pub(super) const AT_ONCE: usize = 32;

/// A place in a workload, and what goes there.
struct Place {
    parent: JobId,
    pointer: String,
    default: Option<String>,
}

/// Only outputs of jobs that it comes after can be asked for. Pointers are relative to the workload.
pub(super) fn check(workload: &Spec, after: &[After]) -> Result<(), Invalid> {
    if !may_have_placeholders(workload.json.get()) {
        return Ok(());
    }
    // A job may come after thousands, and ask for their outputs in as many places.
    let called: HashSet<String> = after.iter().map(|after| after.parent.called()).collect();
    fill(&workload.json, &mut |at, Placeholder { output, pointer, .. }| {
        if !called.contains(&*output) {
            let message = format!("{output:?} is not one of the jobs that this one comes after: name it in `after`");
            return Err(Invalid::new(format!("{at}/$output"), message));
        }
        if !is_pointer(&pointer) {
            return Err(Invalid::new(format!("{at}/pointer"), "must be a JSON Pointer, such as /count"));
        }
        Ok("null".into())
    })
    .map(drop)
}

/// The workload of a job that is about to run, with the outputs in it; nothing, if a job that it asks for is being run again. It may take as long
/// as the work itself, from when it is its turn.
pub(super) async fn put_in(
    shared: &Arc<Shared>,
    job: JobId,
    workload: Spec,
    deadline: Option<Duration>,
    stop: &Stop,
) -> Result<Option<Spec>, Failure> {
    if !may_have_placeholders(workload.json.get()) {
        return Ok(Some(workload));
    }
    let turn = tokio::select! {
        biased;
        turn = Arc::clone(&shared.putting_in).acquire_owned() => turn.map_err(|error| failed(&error))?,
        _ = stop.stopped() => return Err(Failure::error("stopped")),
    };
    let expired = async {
        match deadline {
            Some(deadline) => tokio::time::sleep(deadline).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        filled = on_thread(turn, Arc::clone(shared), job, workload, stop.clone()) => return filled,
        _ = stop.stopped() => {}
        () = expired => stop.stop(StopReason::Deadline),
    }
    Err(Failure::error("stopped"))
}

/// Outputs can be long, and to read them takes time that an event loop does not have, nor the threads of executors.
async fn on_thread(
    turn: OwnedSemaphorePermit,
    shared: Arc<Shared>,
    job: JobId,
    workload: Spec,
    stop: Stop,
) -> Result<Option<Spec>, Failure> {
    let home = shared.home.clone();
    let reading = home.spawn_blocking(move || {
        let _turn = turn;
        Handle::current().block_on(async {
            tokio::select! {
                biased;
                _ = stop.stopped() => Err(Failure::error("stopped")),
                filled = read(&shared, job, workload, &stop) => filled,
            }
        })
    });
    // Where nobody waits for it any more, it need not begin.
    AbortOnDropHandle::new(reading).await.unwrap_or_else(|error| Err(failed(&error)))
}

fn failed(error: &dyn std::error::Error) -> Failure {
    Failure::error(format!("its outputs could not be put in: {error}"))
}

async fn read(shared: &Shared, job: JobId, workload: Spec, stop: &Stop) -> Result<Option<Spec>, Failure> {
    let unreadable = |error| Failure::error(format!("what it comes after can't be read: {error}"));
    let parents = until_read(|| shared.store.dependencies(job)).await.map_err(unreadable)?;
    let mut ids: HashMap<String, JobId> = parents.iter().map(|parent| (parent.parent.to_string(), parent.parent)).collect();
    ids.extend(parents.into_iter().filter_map(|parent| Some((parent.name?, parent.parent))));

    let mut places = Vec::new();
    fill(&workload.json, &mut |at, Placeholder { output, pointer, default }| {
        // It was there when the job was accepted.
        let parent = *ids.get(&*output).ok_or_else(|| Invalid::new(at, format!("{output:?} is not known")))?;
        let default = default.map(|default| default.get().to_owned());
        places.push(Place { parent, pointer: pointer.into_owned(), default });
        Ok("null".into())
    })
    .map_err(|invalid| unusable(&invalid))?;

    let mut values = vec![None; places.len()];
    let mut bytes = workload.json.get().len();
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by_key(|&at| places[at].parent);
    for at in order.chunk_by(|&one, &other| places[one].parent == places[other].parent) {
        let parent = places[at[0]].parent;
        // One after the other: all of them may be more than there is memory for.
        let job = until_read(|| shared.store.job(parent)).await.map_err(unreadable)?;
        let ended = job.as_ref().and_then(|job| job.state.finished());
        if job.is_some() && ended.is_none() {
            return Ok(None);
        }
        let pointers: Vec<&str> = at.iter().map(|&at| &*places[at].pointer).collect();
        let found = match ended.and_then(|ended| ended.outcome.output()) {
            Some(output) => parts(output, &pointers, stop)?,
            None => vec![None; pointers.len()],
        };
        for (&at, found) in at.iter().zip(found) {
            let place = &places[at];
            let value = found.map(RawValue::get).or(place.default.as_deref());
            let value = value.ok_or_else(|| failure(missing(place, ended)))?;
            bytes += value.len();
            if bytes > MAX_BYTES {
                return Err(failure(format!("with the outputs that it asks for it is longer than {MAX_BYTES} bytes")));
            }
            values[at] = Some(value.to_owned());
        }
    }

    let mut values = values.into_iter().flatten();
    let json = fill(&workload.json, &mut |at, _| Ok(Cow::Owned(values.next().ok_or_else(|| Invalid::new(at, "has no value"))?)))
        .map_err(|invalid| unusable(&invalid))?;
    let filled = Spec { kind: workload.kind, json };
    match shared.registry.prepare(&filled) {
        Ok(_) => Ok(Some(filled)),
        Err(invalid) => Err(failure(format!("with the outputs that it asks for it can't be run: {invalid}"))),
    }
}

/// Why there is nothing to go to a place.
fn missing(Place { parent: id, pointer, .. }: &Place, parent: Option<&Finished>) -> String {
    match parent {
        Some(Finished { outcome: Outcome::Output(_), .. }) => format!("the output of the job {id} has no {pointer}"),
        Some(Finished { ending, .. }) => format!("the job {id} ended as {ending} and has no output"),
        None => format!("the job {id} is not kept any more"),
    }
}

fn unusable(invalid: &Invalid) -> Failure {
    failure(format!("the outputs that it asks for can't be put in: {invalid}"))
}

fn failure(message: String) -> Failure {
    Failure::new(FailureKind::Dependency, message)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::job::{OnFailure, Parent};

    #[test]
    fn many_places_for_outputs_of_many_jobs_are_checked_at_once() {
        let ids: Vec<JobId> = (0..10_000).map(|_| JobId::new()).collect();
        let places: Vec<String> = ids.iter().cycle().take(100_000).map(|id| format!(r#"{{"$output":"{id}"}}"#)).collect();
        let workload = |places: &[String]| Spec {
            kind: "function".into(),
            json: RawValue::from_string(format!(r#"{{"args":[{}]}}"#, places.join(","))).unwrap(),
        };
        let after = |id: &JobId| After { parent: Parent::Job(*id), on_failure: OnFailure::Cancel };
        let after: Vec<After> = ids.iter().map(after).collect();
        let begun = Instant::now();
        check(&workload(&places), &after).unwrap();
        // To look at each parent for each place takes far longer.
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        assert_eq!(check(&workload(&places[..1]), &after[1..]).unwrap_err().pointer, "/args/0/$output");
    }
}
