//! How many jobs of an owner may run at once.

use std::collections::HashMap;

use trine::job::{Concurrency, NewJob, Owner, Queue};
use trine::store::{Gate, LimitKey, Usage};

use crate::limits::{claim_all, limited};
use crate::{PATIENCE, Place, accept, io_job, settle, succeeded};

crate::for_every_driver!(
    what_an_owner_may_have_run_is_not_exceeded,
    what_an_owner_may_have_run_can_be_changed_while_jobs_wait,
    however_many_lanes_a_quota_has_shut_they_open_as_it_is_raised_and_as_it_goes,
    what_is_allowed_opens_no_lane_that_it_changes_nothing_for,
);

/// One that counts for its owner.
pub(crate) fn confined(owner: Owner) -> NewJob {
    let mut job = io_job();
    (job.submission.owner, job.submission.confined) = (Some(owner), true);
    job
}

pub(crate) fn owner() -> Owner {
    "00000000000a".parse().unwrap()
}

async fn what_an_owner_may_have_run_is_not_exceeded(place: impl Place) {
    let store = place.open().await;
    let allowed = || HashMap::from([(owner(), 2)]);
    store.allow(allowed()).await.unwrap();
    let mut jobs: Vec<NewJob> = (0..5).map(|_| confined(owner())).collect();
    // Whichever is reached first holds.
    jobs[1].submission.concurrency = Some(Box::new(Concurrency { key: "a".into(), limit: 1 }));
    jobs[2].submission.concurrency = Some(Box::new(Concurrency { key: "a".into(), limit: 1 }));
    accept(&store, &jobs).await;
    let running = claim_all(&store, 100).await;
    assert_eq!(running.len(), 2);
    let waiting = jobs.iter().filter(|job| running.iter().all(|claimed| claimed.lease.id != job.id));
    for job in waiting {
        let gate = store.gate(job.id).await.unwrap().unwrap();
        assert!(matches!(gate, Gate::OverQuota { running: 2 } | Gate::Full { running: 1 }), "{gate:?}");
    }
    // It is no limit that others see.
    assert!(store.limits(None, 10).await.unwrap().iter().all(|limit| limit.key() == LimitKey::Concurrency("a".into())));
    // One that is run again counts, too.
    settle(&store, running[0].lease, succeeded()).await.unwrap();
    let next = claim_all(&store, 100).await;
    assert_eq!(next.len(), 1);
    store.requeue(running[0].lease.id).await.unwrap();
    assert!(claim_all(&store, 100).await.is_empty());
    let usage = store.usage(owner()).await.unwrap();
    assert_eq!((usage.queued, usage.running), (3, 2));
    let workload = jobs[0].submission.workload.json.get().len() as u64;
    assert_eq!(usage.bytes, 3 * workload);
    // What ran when the server went down waits again; then it is counted from nothing.
    drop(store);
    let store = place.open().await;
    store.allow(allowed()).await.unwrap();
    let mut left = 5;
    while left > 0 {
        let running = claim_all(&store, 100).await;
        assert!((1..=2).contains(&running.len()));
        left -= running.len();
        for claimed in running {
            settle(&store, claimed.lease, succeeded()).await.unwrap();
        }
    }
    assert_eq!(store.usage(owner()).await.unwrap(), Usage::default());
}

async fn what_an_owner_may_have_run_can_be_changed_while_jobs_wait(place: impl Place) {
    let store = place.open().await;
    store.allow(HashMap::from([(owner(), 1)])).await.unwrap();
    let jobs: Vec<NewJob> = (0..8).map(|_| confined(owner())).collect();
    accept(&store, &jobs).await;
    assert_eq!(claim_all(&store, 100).await.len(), 1);
    // A claim that waits already is served.
    let more = async {
        store.allow(HashMap::from([(owner(), 3)])).await.unwrap();
    };
    let (claimed, ()) = tokio::join!(tokio::time::timeout(PATIENCE, store.claim(Queue::Async, 100)), more);
    assert_eq!(claimed.unwrap().unwrap().len(), 2);
    store.allow(HashMap::from([(owner(), 2)])).await.unwrap();
    assert!(claim_all(&store, 100).await.is_empty());
    store.allow(HashMap::new()).await.unwrap();
    assert_eq!(claim_all(&store, 100).await.len(), 5);
}

async fn however_many_lanes_a_quota_has_shut_they_open_as_it_is_raised_and_as_it_goes(place: impl Place) {
    // More than one transaction opens.
    const ALL: usize = 1_100;
    let store = place.open().await;
    store.allow(HashMap::from([(owner(), 1)])).await.unwrap();
    let own = |n: usize| {
        let mut job = confined(owner());
        job.submission.concurrency = Some(Box::new(Concurrency { key: n.to_string(), limit: 1 }));
        job
    };
    accept(&store, &(0..ALL).map(own).collect::<Vec<_>>()).await;
    let mut running = claim_all(&store, ALL).await.len();
    assert_eq!(running, 1);
    // Until all lanes have been looked at, and are shut.
    for _ in 0..ALL.div_ceil(512) {
        assert!(claim_all(&store, ALL).await.is_empty());
    }
    for (allowed, most) in [(HashMap::from([(owner(), 600)]), 600), (HashMap::new(), ALL)] {
        store.allow(allowed).await.unwrap();
        while running < most {
            running += tokio::time::timeout(PATIENCE, store.claim(Queue::Async, ALL)).await.unwrap().unwrap().len();
        }
        assert_eq!(running, most);
        assert!(claim_all(&store, ALL).await.is_empty());
    }
}

async fn what_is_allowed_opens_no_lane_that_it_changes_nothing_for(place: impl Place) {
    let store = place.open().await;
    let allowed = |running| HashMap::from([(owner(), running)]);
    store.allow(allowed(1)).await.unwrap();
    let (keyed, owned) = ([limited("a", 1), limited("a", 1)], [confined(owner()), confined(owner())]);
    accept(&store, &[&keyed[..], &owned[..]].concat()).await;
    assert_eq!(claim_all(&store, 100).await.len(), 2);
    let gates = async || [store.gate(keyed[1].id).await.unwrap().unwrap(), store.gate(owned[1].id).await.unwrap().unwrap()];
    store.allow(allowed(1)).await.unwrap();
    assert_eq!(gates().await, [Gate::Full { running: 1 }, Gate::OverQuota { running: 1 }]);
    // No quota says how many jobs with a key may run.
    store.allow(allowed(2)).await.unwrap();
    assert_eq!(gates().await, [Gate::Full { running: 1 }, Gate::Open]);
}
