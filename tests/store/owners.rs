//! Whose jobs are, wherever they are.

use std::sync::Arc;
use std::time::Duration;

use trine::clock::Timestamp;
use trine::job::{ComparisonId, Ending, Event, JobId, NewJob, Owner};
use trine::store::{DeliveryFilter, EventFilter, Filter, MINUTE, Order, Page, Store};

use crate::webhooks::webhook;
use crate::{Place, accept, claim_one, finish_all, io_job, settle, succeeded};

crate::for_every_driver!(
    a_job_is_its_owners_wherever_it_is,
    lists_and_events_are_those_of_an_owner,
    results_are_counted_for_their_owner,
    deliveries_are_those_of_an_owner,
    comparisons_are_those_of_an_owner,
    a_minutes_worth_may_be_submitted_at_once,
);

fn owners() -> [Owner; 2] {
    ["00000000000a", "ffffffffffff"].map(|digits| digits.parse().unwrap())
}

fn job_of(owner: Owner) -> NewJob {
    let mut job = io_job();
    job.submission.owner = Some(owner);
    job
}

async fn owns(store: &Arc<dyn Store>, owner: Owner, id: JobId) -> bool {
    let owned = store.owned(owner, &[id, JobId::new()]).await.unwrap();
    assert!(owned.is_empty() || owned == [id].into());
    !owned.is_empty()
}

async fn listed(store: &Arc<dyn Store>, owner: Option<Owner>) -> Vec<JobId> {
    let page = Page { order: Order::OldestFirst, after: None, limit: 100 };
    let jobs = store.jobs(&Filter { owner, ..Filter::default() }, page).await.unwrap();
    jobs.iter().map(|job| job.id).collect()
}

async fn a_job_is_its_owners_wherever_it_is(place: impl Place) {
    let [mine, theirs] = owners();
    let store = place.open().await;
    let job = job_of(mine);
    accept(&store, std::slice::from_ref(&job)).await;
    let check = async |store: &Arc<dyn Store>| {
        assert!(owns(store, mine, job.id).await && !owns(store, theirs, job.id).await);
        assert_eq!(store.job(job.id).await.unwrap().unwrap().submission.owner, Some(mine));
    };
    check(&store).await;
    let lease = claim_one(&store).await.lease;
    check(&store).await;
    settle(&store, lease, succeeded()).await.unwrap();
    check(&store).await;
    store.requeue(job.id).await.unwrap();
    check(&store).await;
    let lease = claim_one(&store).await.lease;
    settle(&store, lease, succeeded()).await.unwrap();
    store.close().await;
    drop(store);
    check(&place.open().await).await;
}

async fn lists_and_events_are_those_of_an_owner(place: impl Place) {
    let [mine, theirs] = owners();
    let store = place.open().await;
    let jobs = [job_of(mine), job_of(theirs), io_job(), job_of(mine)];
    finish_all(&store, &jobs[..3]).await;
    accept(&store, &jobs[3..]).await;
    assert_eq!(listed(&store, Some(mine)).await, [jobs[0].id, jobs[3].id]);
    assert_eq!(listed(&store, Some(theirs)).await, [jobs[1].id]);
    assert_eq!(listed(&store, None).await.len(), 4);
    let filter = EventFilter { owner: Some(theirs), ..EventFilter::default() };
    let page = store.events(&filter, Timestamp::from_micros(0)).await.unwrap();
    let told: Vec<JobId> = page.events.iter().map(|event: &Event| event.job).collect();
    assert_eq!(told, [jobs[1].id; 3], "accepted, running, finished");
    // Nobody cancels what is somebody else's.
    let cancelled = store.cancel_page(&Filter { owner: Some(theirs), ..Filter::default() }, None).await.unwrap();
    assert!(cancelled.done.ended.is_empty() && cancelled.done.stopping.is_empty());
    let cancelled = store.cancel_page(&Filter { owner: Some(mine), ..Filter::default() }, None).await.unwrap();
    assert_eq!(cancelled.done.ended, [jobs[3].id]);
}

async fn results_are_counted_for_their_owner(place: impl Place) {
    let [mine, theirs] = owners();
    let store = place.open().await;
    finish_all(&store, &[job_of(mine), job_of(theirs), io_job(), job_of(mine)]).await;
    let counts = async |store: &Arc<dyn Store>| {
        let summary = store.summary().await.unwrap();
        let of = |owner| {
            let kept = summary.iter().filter(|(key, _)| key.owner == owner && key.ending == Ending::Succeeded);
            kept.map(|(_, sketches)| sketches.count()).sum::<u64>()
        };
        [of(Some(mine)), of(Some(theirs)), of(None)]
    };
    assert_eq!(counts(&store).await, [2, 1, 1]);
    store.close().await;
    drop(store);
    assert_eq!(counts(&place.open().await).await, [2, 1, 1]);
}

async fn deliveries_are_those_of_an_owner(place: impl Place) {
    let [mine, theirs] = owners();
    let store = place.open().await;
    let mut job = job_of(mine);
    job.submission.webhook = Some(Box::new(webhook("h")));
    finish_all(&store, std::slice::from_ref(&job)).await;
    let of = async |owner| {
        let filter = DeliveryFilter { owner: Some(owner), ..DeliveryFilter::default() };
        store.deliveries(filter, None, 10).await.unwrap()
    };
    let own = of(mine).await;
    assert_eq!((own.len(), own[0].job, of(theirs).await.len()), (1, job.id, 0));
    // While the job is run again, too.
    store.requeue(job.id).await.unwrap();
    assert_eq!((of(mine).await.len(), of(theirs).await.len()), (1, 0));
    assert!(store.redeliver(&own[0].id, Some(theirs)).await.unwrap().is_none());
    assert!(store.redeliver(&own[0].id, Some(mine)).await.unwrap().is_some());
}

async fn comparisons_are_those_of_an_owner(place: impl Place) {
    let [mine, theirs] = owners();
    let store = place.open().await;
    let request = || serde_json::value::to_raw_value(&1).unwrap();
    let kept = store.add_comparison(ComparisonId::new(), Some(mine), request()).await.unwrap();
    store.add_comparison(ComparisonId::new(), None, request()).await.unwrap();
    assert_eq!(store.comparison(kept.id).await.unwrap().unwrap().owner, Some(mine));
    let count = async |owner| store.comparisons(owner, None, 10).await.unwrap().len();
    assert_eq!([count(Some(mine)).await, count(Some(theirs)).await, count(None).await], [1, 0, 2]);
}

async fn a_minutes_worth_may_be_submitted_at_once(place: impl Place) {
    let [mine, theirs] = owners();
    let store = place.open().await;
    assert_eq!(store.spent(mine).await.unwrap(), Duration::ZERO);
    assert_eq!(store.spend(mine, Duration::from_secs(59)).await.unwrap(), None);
    assert_eq!(store.spend(mine, Duration::from_secs(1)).await.unwrap(), None);
    let wait = store.spend(mine, MINUTE).await.unwrap().unwrap();
    assert!(wait <= MINUTE && !wait.is_zero(), "{wait:?}");
    assert_eq!(store.spend(theirs, MINUTE).await.unwrap(), None);
    // What is given back can be spent once more, and only once.
    store.give_back(mine, MINUTE / 2).await.unwrap();
    assert!(store.spent(mine).await.unwrap() <= MINUTE / 2);
    assert_eq!(store.spend(mine, MINUTE / 2).await.unwrap(), None);
    assert!(store.spend(mine, MINUTE / 2).await.unwrap().is_some());
}
