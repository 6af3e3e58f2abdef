//! What is accepted once: a request with a key, and a unique job.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use super::{Dispatcher, Shared, SubmitError, Wrong, to_the_end};
use crate::clock::Timestamp;
use crate::job::{Dependency, Job, JobId, NewJob, Owner, Spec, Submission, parents_first};
use crate::store::{Answered, Digest, Once, StoreError, Twin, Unique};
use crate::workload::{Invalid, Placeholder, fill, may_have_placeholders};

/// How often what is not needed any more is looked for.
const FORGET_EVERY: Duration = Duration::from_secs(60);
/// The longest workload of which it makes no difference how it is written, in bytes.
const LONGEST_READ: usize = 64 << 10;

/// The key that a client gave to a request, and a digest of what it sent with it.
#[derive(Clone, Debug)]
pub struct RequestKey {
    /// The key.
    pub key: String,
    /// Of the rest.
    pub digest: Digest,
}

/// What became of a submission.
#[derive(Clone, Debug)]
pub struct Submitted {
    /// The job that runs it.
    pub job: Job,
    /// The submission is unique, and the job was there before it.
    pub existing: bool,
}

/// What became of the submissions of a request.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// A job for each submission, in their order.
    pub jobs: Vec<Submitted>,
    /// The request came before, and this is what was accepted then.
    pub replayed: bool,
}

impl RequestKey {
    /// The key of a request to `path` with this body.
    pub fn new(key: &str, path: &str, body: &[u8]) -> Self {
        let digest = Sha256::new().chain_update(path).chain_update([0]).chain_update(body).finalize().into();
        Self { key: key.to_owned(), digest }
    }
}

impl Dispatcher {
    /// What was accepted when a request with this key came before, if one did.
    pub async fn answered(&self, request: &RequestKey) -> Result<Option<Receipt>, SubmitError> {
        let Some(answered) = self.shared.store.answered(&request.key).await? else { return Ok(None) };
        if answered.digest != request.digest {
            return Err(SubmitError::KeyUsed);
        }
        let ids: Vec<JobId> = answered.jobs.iter().map(|(id, _)| *id).collect();
        let found = self.found(&ids, ids.len() == 1).await?;
        let mut jobs = Vec::with_capacity(answered.jobs.len());
        for (id, existing) in answered.jobs {
            // Each has its place, so without one that is not kept any more there is no answer.
            let job = found.get(&id).cloned().ok_or(SubmitError::Gone)?;
            jobs.push(Submitted { job, existing });
        }
        Ok(Some(Receipt { jobs, replayed: true }))
    }

    /// Validates, routes and makes durable: all of them, or none. A job for each, in their order. What came before is not accepted again: the
    /// request, by its key, and unique jobs.
    pub async fn submit_once(
        &self,
        submissions: Vec<Box<Submission>>,
        request: Option<RequestKey>,
    ) -> Result<Receipt, SubmitError> {
        let jobs = self.prepared(submissions).await?;
        let uniques: Vec<Option<Digest>> = jobs
            .iter()
            .map(|job| job.submission.unique.map(|_| likeness(job.submission.owner, &job.submission.workload, &job.after)))
            .collect();
        if request.is_none() && uniques.iter().all(Option::is_none) {
            let new = |job: NewJob| Submitted { job: job.into_job(), existing: false };
            let accepted = self.accept(jobs, None).await?;
            return Ok(Receipt { jobs: accepted.into_iter().map(new).collect(), replayed: false });
        }
        let this = self.clone();
        // Nobody else has the turn until the store has answered.
        let accepted = to_the_end(async move {
            loop {
                match this.look_and_accept(jobs.clone(), uniques.clone(), request.clone()).await {
                    // Another server has accepted the same in between, so now it is there to be found.
                    Err(SubmitError::Store(StoreError::Taken)) => {}
                    done => return done,
                }
            }
        });
        accepted.await.unwrap_or_else(|| Err(StoreError::Closed.into()))
    }

    /// Accepts what has not been accepted before.
    async fn look_and_accept(
        &self,
        jobs: Vec<NewJob>,
        uniques: Vec<Option<Digest>>,
        request: Option<RequestKey>,
    ) -> Result<Receipt, SubmitError> {
        // Between looking and accepting, nobody else may accept the same.
        let key = request.as_ref().map(|request| Key::Request(request.key.clone()));
        let keys = uniques.iter().flatten().map(|digest| Key::Unique(*digest)).chain(key);
        let _turn = self.shared.turns.take(keys.collect()).await;
        if let Some(request) = &request
            && let Some(receipt) = self.answered(request).await?
        {
            return Ok(receipt);
        }
        let digests: Vec<Digest> = uniques.iter().flatten().copied().collect();
        let twins = self.shared.store.twins(&digests).await?;
        let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
        let mut sorted = sort(jobs, &uniques, &twins, self.shared.store.now());
        sorted.go_after(&ids)?;
        let request = request.map(|RequestKey { key, digest }| {
            let until = self.shared.store.now().after(self.shared.keys_kept);
            let jobs = sorted.places.iter().map(|place| (place.id(&sorted.new), place.is_existing())).collect();
            Answered { key, digest, jobs, until }
        });
        let once = Once { request, unique: sorted.unique };
        let accepted: Vec<NewJob> = self.accept(sorted.new, Some(once)).await.map_err(|error| match error {
            SubmitError::Invalid(mut wrong) => {
                for Wrong { index, .. } in &mut wrong {
                    let place = sorted.places.iter().position(|place| matches!(place, Place::New(at) if at == index));
                    *index = place.unwrap_or(*index);
                }
                SubmitError::Invalid(wrong)
            }
            error => error,
        })?;
        let mut receipt = Receipt { jobs: Vec::with_capacity(sorted.places.len()), replayed: false };
        let twin = |place: &Place| if let Place::Twin(id) = place { Some(*id) } else { None };
        let twins: Vec<JobId> = sorted.places.iter().filter_map(twin).collect();
        let found = self.found(&twins, sorted.places.len() == 1).await?;
        for place in sorted.places {
            let (job, existing) = match place {
                Place::New(at) => (accepted.get(at).cloned().map(NewJob::into_job), false),
                Place::Twin(id) => (found.get(&id).cloned(), true),
                Place::Earlier(at) => (accepted.get(at).cloned().map(NewJob::into_job), true),
            };
            // A store gives back what it was given, and what has just been found is not gone yet.
            receipt.jobs.push(Submitted { job: job.ok_or(StoreError::Closed)?, existing });
        }
        Ok(receipt)
    }

    /// Jobs that were there before. One of many comes without its workload and its outcome: together they could fill the memory.
    async fn found(&self, ids: &[JobId], whole: bool) -> Result<HashMap<JobId, Job>, StoreError> {
        match ids {
            [] => Ok(HashMap::new()),
            [id] if whole => Ok(self.shared.store.job(*id).await?.map(|job| (*id, job)).into_iter().collect()),
            _ => self.shared.store.outlines(ids).await,
        }
    }
}

/// What becomes of the jobs of a request.
struct Sorted {
    /// Those that are to be accepted.
    new: Vec<NewJob>,
    /// For each job of the request, where it is.
    places: Vec<Place>,
    /// The unique ones among the new ones.
    unique: Vec<Unique>,
}

impl Sorted {
    /// What comes after a job of the request comes after the one that is there in its place. `ids` are those that they would have had.
    ///
    /// # Errors
    /// One would come after itself by that.
    fn go_after(&mut self, ids: &[JobId]) -> Result<(), SubmitError> {
        let existing = ids.iter().zip(&self.places).filter(|(_, place)| place.is_existing());
        let instead: HashMap<JobId, JobId> = existing.map(|(id, place)| (*id, place.id(&self.new))).collect();
        if instead.is_empty() {
            return Ok(());
        }
        for job in &mut self.new {
            for after in &mut job.after {
                after.parent = instead.get(&after.parent).copied().unwrap_or(after.parent);
            }
            merge(job);
        }
        let here: HashMap<JobId, usize> = self.new.iter().enumerate().map(|(at, job)| (job.id, at)).collect();
        let siblings = |job: &NewJob| job.after.iter().filter_map(|after| here.get(&after.parent).copied()).collect();
        let graph: Vec<Vec<usize>> = self.new.iter().map(siblings).collect();
        parents_first(&graph).map(drop).map_err(|way| {
            let index =
                way.first().and_then(|at| self.places.iter().position(|place| matches!(place, Place::New(new) if new == at)));
            let message = "with the jobs that are there in place of `unique` ones, it comes after itself";
            Wrong { index: index.unwrap_or_default(), invalid: Invalid::new("/after", message) }.into()
        })
    }
}

#[derive(Clone, Copy)]
enum Place {
    /// Among the new ones.
    New(usize),
    /// It is like one of the new ones, which came earlier in the request.
    Earlier(usize),
    /// It is like this job.
    Twin(JobId),
}

impl Place {
    const fn is_existing(self) -> bool {
        !matches!(self, Self::New(_))
    }

    fn id(self, new: &[NewJob]) -> JobId {
        match self {
            Self::New(at) | Self::Earlier(at) => new[at].id,
            Self::Twin(id) => id,
        }
    }
}

/// Makes one of the dependencies of a job that have become one: by the strictest rule, and under the first name.
fn merge(job: &mut NewJob) {
    let mut merged: Vec<Dependency> = Vec::with_capacity(job.after.len());
    let mut at: HashMap<JobId, usize> = HashMap::new();
    let mut renamed: HashMap<String, String> = HashMap::new();
    for after in std::mem::take(&mut job.after) {
        let Some(&at) = at.get(&after.parent) else {
            at.insert(after.parent, merged.len());
            merged.push(after);
            continue;
        };
        let first = &mut merged[at];
        first.on_failure = first.on_failure.stricter(after.on_failure);
        match (&first.name, after.name) {
            (Some(name), Some(other)) => drop(renamed.insert(other, name.clone())),
            (None, name) => first.name = name,
            (Some(_), None) => {}
        }
    }
    job.after = merged;
    let workload = &mut job.submission.workload;
    if renamed.is_empty() || !may_have_placeholders(workload.json.get()) {
        return;
    }
    let renamed = fill(&workload.json, &mut |at, mut place: Placeholder<'_>| {
        if let Some(name) = renamed.get(&*place.output) {
            place.output = Cow::Owned(name.clone());
        }
        serde_json::to_string(&place).map(Cow::Owned).map_err(|error| Invalid::new(at, error.to_string()))
    });
    // It was read before, so it can be.
    if let Ok(json) = renamed {
        workload.json = json;
    }
}

/// Tells new jobs from those that are there.
fn sort(jobs: Vec<NewJob>, uniques: &[Option<Digest>], twins: &HashMap<Digest, Twin>, now: Timestamp) -> Sorted {
    let mut sorted = Sorted { new: Vec::new(), places: Vec::with_capacity(jobs.len()), unique: Vec::new() };
    let mut here: HashMap<Digest, usize> = HashMap::new();
    for (job, digest) in jobs.into_iter().zip(uniques) {
        let like_it = digest.and_then(|digest| twins.get(&digest));
        let twin = like_it.filter(|twin| holds(&job, twin, now));
        let place = match (digest.and_then(|digest| here.get(&digest)), twin) {
            (Some(earlier), _) => Place::Earlier(*earlier),
            (None, Some(twin)) => Place::Twin(twin.job),
            (None, None) => {
                if let Some(digest) = digest {
                    here.insert(*digest, sorted.new.len());
                    let beside = like_it.filter(|twin| twin.unfinished).map(|twin| twin.job);
                    sorted.unique.push(Unique { digest: *digest, job: job.id, beside, within: within(&job) });
                }
                sorted.new.push(job);
                Place::New(sorted.new.len() - 1)
            }
        };
        sorted.places.push(place);
    }
    sorted
}

/// Whether a unique job is taken for the one that is there.
fn holds(job: &NewJob, twin: &Twin, now: Timestamp) -> bool {
    match within(job) {
        Some(within) => twin.accepted_at.after(within) > now,
        None => twin.unfinished,
    }
}

fn within(job: &NewJob) -> Option<Duration> {
    job.submission.unique?.within_ms.map(Duration::from_millis)
}

/// What workloads of an owner have in common that are the same with the same parameters, wherever spaces are and however names are sorted. If
/// they take outputs by names, these have to be names for the same jobs.
fn likeness(owner: Option<Owner>, workload: &Spec, after: &[Dependency]) -> Digest {
    let mut hash = Sha256::new().chain_update(owner.map(|owner| owner.to_string()).unwrap_or_default());
    let text = workload.json.get();
    if may_have_placeholders(text) {
        for (name, parent) in after.iter().filter_map(|after| Some((after.name.as_ref()?, after.parent))) {
            hash.update(format!("{name:?} {parent}\n"));
        }
    }
    // Of what is read once for each of its levels, there may not be much.
    if text.len() > LONGEST_READ || read_into(&mut hash, text).is_err() {
        hash.update(text);
    }
    hash.finalize().into()
}

/// Hashes JSON: objects sorted by their names, strings without their escapes; but numbers as they are written, or two large ones that have the
/// same nearest `f64` would be taken for each other.
fn read_into(hash: &mut Sha256, text: &str) -> serde_json::Result<()> {
    match text.as_bytes().first() {
        Some(b'{') => {
            let fields: BTreeMap<String, &RawValue> = serde_json::from_str(text)?;
            hash.update("{");
            for (name, value) in fields {
                hash.update(serde_json::to_string(&name)?);
                read_into(hash, value.get())?;
            }
            hash.update("}");
        }
        Some(b'[') => {
            hash.update("[");
            for value in serde_json::from_str::<Vec<&RawValue>>(text)? {
                read_into(hash, value.get())?;
                hash.update(",");
            }
            hash.update("]");
        }
        Some(b'"') => hash.update(serde_json::to_string(&serde_json::from_str::<String>(text)?)?),
        _ => hash.update(text),
    }
    Ok(())
}

/// What only one request at a time may accept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Request(String),
    Unique(Digest),
}

/// Lets one request at a time look for a key, and accept it.
#[derive(Debug, Default)]
pub(super) struct Turns {
    taken: Mutex<BTreeSet<Key>>,
    freed: Notify,
}

/// The right to accept these keys, until it is dropped.
struct Turn<'a> {
    turns: &'a Turns,
    keys: BTreeSet<Key>,
}

impl Turns {
    /// Waits until none of these keys is taken, then takes all of them at once.
    async fn take(&self, keys: BTreeSet<Key>) -> Turn<'_> {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // From here on, whatever is freed is heard of.
            freed.as_mut().enable();
            {
                let mut taken = self.taken();
                if taken.is_disjoint(&keys) {
                    taken.extend(keys.iter().cloned());
                    return Turn { turns: self, keys };
                }
            }
            freed.await;
        }
    }

    fn taken(&self) -> MutexGuard<'_, BTreeSet<Key>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut taken = self.turns.taken();
        for key in &self.keys {
            taken.remove(key);
        }
        drop(taken);
        self.turns.freed.notify_waiters();
    }
}

/// Forgets what is not needed any more, until the dispatcher drains.
pub(super) async fn forget(shared: Arc<Shared>) {
    let forgetting = async {
        loop {
            match shared.store.forget_once(shared.store.now()).await {
                Ok(true) => {}
                Ok(false) => tokio::time::sleep(FORGET_EVERY).await,
                Err(error) => {
                    tracing::warn!(%error, "keys that are over are not forgotten yet");
                    tokio::time::sleep(FORGET_EVERY).await;
                }
            }
        }
    };
    shared.draining.run_until_cancelled(forgetting).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::OnFailure;

    fn spec(json: &str) -> Spec {
        Spec { kind: "x".into(), json: RawValue::from_string(json.into()).unwrap() }
    }

    #[test]
    fn how_a_workload_is_written_makes_no_difference() {
        let likeness = |spec: &Spec| likeness(None, spec, &[]);
        let one = likeness(&spec(r#"{"type":"x","a":{"b":1,"c":[1,2]}}"#));
        assert_eq!(one, likeness(&spec(r#"{ "a": {"c": [1, 2], "b": 1}, "type": "\u0078" }"#)));
        assert_ne!(one, likeness(&spec(r#"{"type":"x","a":{"b":1,"c":[2,1]}}"#)));
        assert_ne!(likeness(&spec(r#"{"a":["b"]}"#)), likeness(&spec(r#"{"a":"[\"b\",]"}"#)));
        let numbers = ["55555555555555555555551", "55555555555555555555552", "1e400", "1e401", "0.1", "0.10000000000000000001"];
        let numbers = numbers.map(|number| likeness(&spec(&format!(r#"{{"type":"x","a":[{number}]}}"#))));
        assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), numbers.len());
        let theirs = super::likeness(Owner::from_code(1), &spec(r#"{"type":"x","a":{"b":1,"c":[1,2]}}"#), &[]);
        assert_ne!(one, theirs);
    }

    #[test]
    fn outputs_of_other_jobs_are_other_parameters() {
        let after = |parent| [Dependency { parent, name: Some("a".into()), on_failure: OnFailure::Cancel }];
        let (one, other) = (JobId::new(), JobId::new());
        let of = |text: &str, parent| likeness(None, &spec(text), &after(parent));
        let asking = r#"{"type":"x","a":{"$output":"a"}}"#;
        assert_eq!(of(asking, one), of(asking, one));
        assert_ne!(of(asking, one), of(asking, other));
        assert_eq!(of(r#"{"type":"x"}"#, one), of(r#"{"type":"x"}"#, other));
    }

    #[tokio::test]
    async fn one_request_at_a_time() {
        let turns = Arc::new(Turns::default());
        let key = |n: u8| Key::Unique([n; 32]);
        let first = turns.take([key(1), key(2)].into()).await;
        let second = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move { turns.take([key(2), key(3)].into()).await.keys.len() }
        });
        drop(turns.take([key(3), Key::Request("a".into())].into()).await);
        assert!(!second.is_finished());
        drop(first);
        assert_eq!(second.await.unwrap(), 2);
        assert!(turns.taken().is_empty());
    }
}
