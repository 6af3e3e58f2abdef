//! Other jobs' outputs in a job's workload: checked when it is submitted, put in when it is about to run.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use serde_json::value::RawValue;
use tokio::runtime::Handle;

use super::Shared;
use crate::job::{After, Failure, FailureKind, Finished, Job, JobId, Outcome, Spec, State};
use crate::workload::{Invalid, Placeholder, fill, is_pointer, may_have_placeholders, part};

/// The longest workload with the outputs in it, in bytes: as long as a submission may be.
const MAX_BYTES: usize = 12 << 20;

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
    fill(&workload.json, &mut |at, Placeholder { output, pointer, .. }| {
        if !after.iter().any(|after| after.parent.called() == output) {
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

/// The workload of a job that is about to run, with the outputs in it.
pub(super) async fn put_in(shared: &Arc<Shared>, job: JobId, workload: Spec) -> Result<Spec, Failure> {
    if !may_have_placeholders(workload.json.get()) {
        return Ok(workload);
    }
    let shared = Arc::clone(shared);
    // Outputs can be long, and to read them takes time that an event loop does not have.
    let read = tokio::task::spawn_blocking(move || Handle::current().block_on(read(&shared, job, workload)));
    read.await.unwrap_or_else(|error| Err(Failure::error(format!("its outputs could not be put in: {error}"))))
}

async fn read(shared: &Shared, job: JobId, workload: Spec) -> Result<Spec, Failure> {
    let unreadable = |error| Failure::error(format!("what it comes after can't be read: {error}"));
    let parents = shared.store.dependencies(job).await.map_err(unreadable)?;
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
        let ended = shared.store.job(parent).await.map_err(unreadable)?;
        for &at in at {
            let value = value(&places[at], ended.as_ref())?;
            bytes += value.len();
            if bytes > MAX_BYTES {
                return Err(failure(format!("with the outputs that it asks for it is longer than {MAX_BYTES} bytes")));
            }
            values[at] = Some(value.into_owned());
        }
    }

    let mut values = values.into_iter().flatten();
    let json = fill(&workload.json, &mut |at, _| Ok(Cow::Owned(values.next().ok_or_else(|| Invalid::new(at, "has no value"))?)))
        .map_err(|invalid| unusable(&invalid))?;
    let filled = Spec { kind: workload.kind, json };
    match shared.registry.prepare(&filled) {
        Ok(_) => Ok(filled),
        Err(invalid) => Err(failure(format!("with the outputs that it asks for it can't be run: {invalid}"))),
    }
}

/// What goes to a place: a part of the output of the job that has ended.
fn value<'a>(place: &'a Place, parent: Option<&'a Job>) -> Result<Cow<'a, str>, Failure> {
    let Place { parent: id, pointer, default } = place;
    let finished = parent.and_then(|job| match &job.state {
        State::Finished(finished) => Some(&**finished),
        _ => None,
    });
    let found = match finished {
        Some(Finished { outcome: Outcome::Output(output), .. }) => part(output, pointer),
        _ => None,
    };
    let missing = || match (finished, parent) {
        (Some(Finished { outcome: Outcome::Output(_), .. }), _) => format!("the output of the job {id} has no {pointer}"),
        (Some(Finished { ending, .. }), _) => format!("the job {id} ended as {ending} and has no output"),
        (None, Some(job)) => format!("the job {id} is {} again and has no output", job.state.as_str()),
        (None, None) => format!("the job {id} is not kept any more"),
    };
    found.map(RawValue::get).or(default.as_deref()).map(Cow::Borrowed).ok_or_else(|| failure(missing()))
}

fn unusable(invalid: &Invalid) -> Failure {
    failure(format!("the outputs that it asks for can't be put in: {invalid}"))
}

fn failure(message: String) -> Failure {
    Failure::new(FailureKind::Dependency, message)
}
