//! Workloads that are longer than most: whatever way a job takes, its workload is what it was.

use std::sync::Arc;

use serde_json::json;
use serde_json::value::to_raw_value;
use trine::job::{JobId, NewJob, Queue};
use trine::store::{Claimed, Filter, Order, Page, Removal, Store};

use crate::{Place, accept, apart, claim_one, io_job, settle, succeeded};

crate::for_every_driver!(a_long_workload_goes_where_its_job_goes, it_stands_at_the_front_of_a_queue_and_survives_a_restart,);

fn long(mut job: NewJob, n: usize) -> NewJob {
    let text = json!({"type": "sleep", "ms": n, "x": "long ".repeat(n)});
    job.submission.workload.json = to_raw_value(&text).unwrap();
    job
}

fn text(job: &NewJob) -> &str {
    job.submission.workload.json.get()
}

async fn stored(store: &Arc<dyn Store>, id: JobId) -> String {
    store.job(id).await.unwrap().unwrap().submission.workload.json.get().to_owned()
}

async fn a_long_workload_goes_where_its_job_goes(place: impl Place) {
    let store = place.open().await;
    // From shorter than a row can hold to longer than a page.
    let jobs: Vec<NewJob> = [80, 110, 300, 2_000, 50_000].map(|n| long(io_job(), n)).into();
    accept(&store, &jobs).await;
    for job in &jobs {
        let claimed = claim_one(&store).await;
        assert_eq!((claimed.lease.id, claimed.workload.json.get()), (job.id, text(job)));
        assert_eq!(stored(&store, job.id).await, text(job));
        settle(&store, claimed.lease, succeeded()).await.unwrap();
    }
    let page = Page { order: Order::OldestFirst, after: None, limit: 10 };
    let results = store.results(&Filter::default(), page).await.unwrap();
    assert!(results.iter().zip(&jobs).all(|(result, job)| result.submission.workload.json.get() == text(job)));
    // Once more, and this time it is cancelled while it waits.
    store.requeue(jobs[3].id).await.unwrap();
    assert_eq!(stored(&store, jobs[3].id).await, text(&jobs[3]));
    store.cancel(jobs[3].id, &[]).await.unwrap();
    assert_eq!(stored(&store, jobs[3].id).await, text(&jobs[3]));
    for job in &jobs {
        assert_eq!(store.remove_result(job.id).await.unwrap(), Removal::Removed);
    }
}

async fn it_stands_at_the_front_of_a_queue_and_survives_a_restart(place: impl Place) {
    let store = place.open().await;
    let jobs: Vec<NewJob> = (0..20).map(|n| long(apart(io_job()), 100 + n)).collect();
    accept(&store, &jobs[..10]).await;
    let mut claimed = take(&store, 5).await;
    store.close().await;
    drop(store);
    let store = place.open().await;
    accept(&store, &jobs[10..]).await;
    claimed.extend(take(&store, 15).await);
    claimed.sort_by_key(|claimed| claimed.lease.id);
    claimed.dedup_by_key(|claimed| claimed.lease.id);
    let told: Vec<_> = claimed.iter().map(|claimed| (claimed.lease.id, claimed.workload.json.get())).collect();
    assert!(told.iter().all(|(id, workload)| jobs.iter().any(|job| job.id == *id && text(job) == *workload)));
    for job in &jobs {
        assert_eq!(stored(&store, job.id).await, text(job));
    }
}

/// Claims so many, one after the other.
async fn take(store: &Arc<dyn Store>, count: usize) -> Vec<Claimed> {
    let mut taken = Vec::new();
    while taken.len() < count {
        taken.extend(store.claim(Queue::Processes, 1).await.unwrap());
    }
    taken
}
