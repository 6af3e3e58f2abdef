//! What is accepted once.

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use trine::clock::Timestamp;
use trine::job::{JobId, Outcome, State};
use trine::store::{Answered, Once, Store, Unique};

use crate::{Place, accept, claim_one, io_job, settle, state, succeeded};

crate::for_every_driver!(
    the_answer_to_a_request_is_kept_with_its_jobs,
    a_request_whose_jobs_are_not_taken_leaves_no_answer,
    the_latest_unique_job_is_known,
    very_many_jobs_are_found_without_what_may_be_long,
    what_is_over_is_forgotten_in_small_steps,
);

fn answered(key: &str, jobs: &[(JobId, bool)], until: Timestamp) -> Answered {
    Answered { key: key.into(), digest: [7; 32], jobs: jobs.to_vec(), until }
}

fn in_an_hour() -> Timestamp {
    Timestamp::now().after(Duration::from_secs(3_600))
}

fn request(answered: Answered) -> Once {
    Once { request: Some(answered), unique: Vec::new() }
}

async fn the_answer_to_a_request_is_kept_with_its_jobs(place: impl Place) {
    let store = place.open().await;
    let (there, new) = (io_job(), io_job());
    accept(&store, std::slice::from_ref(&there)).await;
    let kept = answered("k", &[(new.id, false), (there.id, true)], in_an_hour());
    let accepted = store.accept_once(vec![new.clone()], request(kept.clone())).await.unwrap();
    assert_eq!(accepted[0].id, new.id);
    // There need not be a new job.
    let other = answered("other", &[(there.id, true)], in_an_hour());
    assert!(store.accept_once(Vec::new(), request(other.clone())).await.unwrap().is_empty());
    drop(store);
    let store = place.open().await;
    assert_eq!(store.answered("k").await.unwrap(), Some(kept));
    assert_eq!(store.answered("other").await.unwrap(), Some(other));
    assert_eq!(store.answered("K").await.unwrap(), None);
    assert_eq!(state(&store, new.id).await, "queued");
    // One that is over is not there, and makes way.
    let over = answered("over", &[(there.id, false)], Timestamp::now());
    store.accept_once(Vec::new(), request(over)).await.unwrap();
    assert_eq!(store.answered("over").await.unwrap(), None);
    let again = answered("over", &[(new.id, false)], in_an_hour());
    store.accept_once(Vec::new(), request(again.clone())).await.unwrap();
    assert_eq!(store.answered("over").await.unwrap(), Some(again));
}

async fn a_request_whose_jobs_are_not_taken_leaves_no_answer(place: impl Place) {
    let store = place.open().await;
    let job = io_job();
    let kept = answered("k", &[(job.id, false)], in_an_hour());
    let refused = store.accept_once(vec![job.clone(), job.clone()], request(kept)).await;
    assert!(refused.is_err());
    assert_eq!(store.answered("k").await.unwrap(), None);
    assert_eq!(state(&store, job.id).await, "unknown");
}

async fn unique(store: &Arc<dyn Store>, digest: u8) -> JobId {
    let job = io_job();
    let once = Once { request: None, unique: vec![Unique { digest: [digest; 32], job: job.id, beside: None, within: None }] };
    store.accept_once(vec![job.clone()], once).await.unwrap();
    job.id
}

async fn the_latest_unique_job_is_known(place: impl Place) {
    let store = place.open().await;
    let (first, other) = (unique(&store, 1).await, unique(&store, 2).await);
    let lease = claim_one(&store).await.lease;
    settle(&store, lease, succeeded()).await.unwrap();
    let twins = store.twins(&[[1; 32], [2; 32], [3; 32]]).await.unwrap();
    assert_eq!(twins.len(), 2);
    assert_eq!((twins[&[1; 32]].job, twins[&[1; 32]].unfinished), (first, false));
    assert_eq!((twins[&[2; 32]].job, twins[&[2; 32]].unfinished), (other, true));
    let accepted_at = store.job(first).await.unwrap().unwrap().accepted_at;
    assert_eq!(twins[&[1; 32]].accepted_at, accepted_at);
    let second = unique(&store, 1).await;
    assert_eq!(store.twins(&[[1; 32]]).await.unwrap()[&[1; 32]].job, second);
    let many: Vec<_> = (0..=255).map(|n| [n; 32]).cycle().take(1_500).collect();
    assert_eq!(store.twins(&many).await.unwrap().len(), 2);
}

async fn very_many_jobs_are_found_without_what_may_be_long(place: impl Place) {
    let store = place.open().await;
    let mut jobs: Vec<_> = (0..1_200).map(|_| io_job()).collect();
    jobs[0].submission.tags.insert("team".into(), "search".into());
    accept(&store, &jobs).await;
    let [ended, running] = [claim_one(&store).await, claim_one(&store).await];
    settle(&store, ended.lease, succeeded()).await.unwrap();
    let ids: Vec<JobId> = jobs.iter().map(|job| job.id).chain([JobId::new()]).collect();
    let found = store.outlines(&ids).await.unwrap();
    assert_eq!(found.len(), jobs.len());
    for id in [ended.lease.id, running.lease.id, jobs[9].id] {
        let (mut whole, found) = (store.job(id).await.unwrap().unwrap(), &found[&id]);
        whole.submission.workload.json = RawValue::NULL.to_owned();
        if let State::Finished(finished) = &mut whole.state {
            finished.outcome = Outcome::Output(RawValue::NULL.to_owned());
        }
        assert_eq!(format!("{whole:?}"), format!("{found:?}"));
    }
}

async fn what_is_over_is_forgotten_in_small_steps(place: impl Place) {
    const KEYS: usize = 1_200;
    let store = place.open().await;
    for n in 0..KEYS {
        let over = answered(&n.to_string(), &[], Timestamp::now());
        store.accept_once(Vec::new(), request(over)).await.unwrap();
    }
    let kept = answered("kept", &[], in_an_hour());
    store.accept_once(Vec::new(), request(kept.clone())).await.unwrap();
    let (ended, waits) = (unique(&store, 1).await, unique(&store, 2).await);
    let lease = claim_one(&store).await.lease;
    assert_eq!(lease.id, ended);
    settle(&store, lease, succeeded()).await.unwrap();
    let mut steps = 0;
    while store.forget_once(Timestamp::now()).await.unwrap() {
        steps += 1;
    }
    assert_eq!(steps, 2);
    assert_eq!(store.answered("kept").await.unwrap(), Some(kept));
    // Of unique jobs, those that have not ended stay known.
    assert_eq!(store.twins(&[[1; 32], [2; 32]]).await.unwrap().len(), 2);
    let in_a_month = Timestamp::now().after(Duration::from_secs(30 * 24 * 3_600));
    assert!(!store.forget_once(in_a_month).await.unwrap());
    let twins = store.twins(&[[1; 32], [2; 32]]).await.unwrap();
    assert_eq!(twins.values().map(|twin| twin.job).collect::<Vec<_>>(), [waits]);
    assert_eq!(store.answered("kept").await.unwrap(), None);
}
