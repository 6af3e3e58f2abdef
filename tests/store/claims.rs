//! Who gets which job.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::value::RawValue;
use trine::job::{Bound, Concurrency, NewJob, Queue, Retry};

use crate::{PATIENCE, Place, accept, claim_one, io_job, new_job, settle, state, succeeded, with_priority};

crate::for_every_driver!(
    an_accepted_job_can_be_read_and_claimed,
    the_highest_priority_first_then_the_oldest,
    a_claim_waits_for_a_job,
    a_claim_that_is_dropped_keeps_nothing,
    a_claim_takes_from_its_own_queue_only,
    all_or_none_are_accepted,
    each_job_goes_to_one_claimer,
    long_workloads_are_claimed_a_few_at_a_time,
);

async fn an_accepted_job_can_be_read_and_claimed(place: impl Place) {
    let store = place.open().await;
    let mut job = io_job();
    job.submission.tags.insert("team".into(), "search".into());
    job.submission.retry = Some(Arc::new(Retry { attempts: 4, ..Retry::DEFAULT }));
    let accepted = accept(&store, std::slice::from_ref(&job)).await.remove(0);
    let seen = store.job(job.id).await.unwrap().unwrap();
    assert_eq!(seen.state.as_str(), "queued");
    assert_eq!((seen.route, seen.accepted_at, seen.attempt), (job.route, accepted.accepted_at, 0));
    assert_eq!((&seen.submission.tags, &seen.submission.retry), (&job.submission.tags, &job.submission.retry));
    assert_eq!(store.depth(Queue::Async).queued, 1);

    let claimed = claim_one(&store).await;
    assert_eq!((claimed.lease.id, claimed.attempt, claimed.losses), (job.id, 1, 0));
    assert_eq!(claimed.workload.json.get(), job.submission.workload.json.get());
    assert_eq!(state(&store, job.id).await, "running");
    let depth = store.depth(Queue::Async);
    assert_eq!((depth.queued, depth.running), (0, 1));
}

async fn the_highest_priority_first_then_the_oldest(place: impl Place) {
    let store = place.open().await;
    let jobs = [0, 5, -3, 5, 0].map(with_priority);
    accept(&store, &jobs).await;
    let mut order = Vec::new();
    for most in [2, 10] {
        order.extend(store.claim(Queue::Async, most).await.unwrap().into_iter().map(|claimed| claimed.lease.id));
    }
    assert_eq!(order, [1, 3, 0, 4, 2].map(|at: usize| jobs[at].id));
}

async fn a_claim_waits_for_a_job(place: impl Place) {
    let store = place.open().await;
    let claimer = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.claim(Queue::Async, 2).await.unwrap() }
    });
    // Whether the claim or the job is there first, the one finds the other; of three jobs, the two that go first.
    let jobs = [with_priority(0), with_priority(9), with_priority(4)];
    accept(&store, &jobs).await;
    let claimed = tokio::time::timeout(PATIENCE, claimer).await.unwrap().unwrap();
    let ids: Vec<_> = claimed.iter().map(|claimed| claimed.lease.id).collect();
    assert_eq!(ids, [jobs[1].id, jobs[2].id]);
    assert_eq!(state(&store, jobs[0].id).await, "queued");
    assert_eq!(claim_one(&store).await.lease.id, jobs[0].id);
}

async fn a_claim_that_is_dropped_keeps_nothing(place: impl Place) {
    let store = place.open().await;
    for _ in 0..20 {
        let claimer = tokio::spawn({
            let store = Arc::clone(&store);
            async move { store.claim(Queue::Async, 1).await }
        });
        tokio::task::yield_now().await;
        claimer.abort();
    }
    let job = io_job();
    accept(&store, std::slice::from_ref(&job)).await;
    let claimed = claim_one(&store).await;
    assert_eq!((claimed.lease.id, claimed.attempt), (job.id, 1));
}

async fn a_claim_takes_from_its_own_queue_only(place: impl Place) {
    let store = place.open().await;
    let (io, cpu) = (io_job(), new_job(Bound::Cpu));
    accept(&store, &[io.clone(), cpu.clone()]).await;
    let threads = store.claim(Queue::ThreadsCpu, 10).await.unwrap();
    assert_eq!(threads.iter().map(|claimed| claimed.lease.id).collect::<Vec<_>>(), [cpu.id]);
    assert_eq!(claim_one(&store).await.lease.id, io.id);
}

async fn all_or_none_are_accepted(place: impl Place) {
    let store = place.open().await;
    let twice = io_job();
    let batch = vec![io_job(), twice.clone(), io_job(), twice];
    let ids: Vec<_> = batch.iter().map(|job| job.id).collect();
    // In the same breath as a good batch, which must not suffer.
    let good = io_job();
    let (bad, fine) = tokio::join!(store.accept(batch), store.accept(vec![good.clone()]));
    assert!(bad.is_err());
    fine.unwrap();
    for id in ids {
        assert_eq!(state(&store, id).await, "unknown");
    }
    assert_eq!(state(&store, good.id).await, "queued");
    assert_eq!(store.depth(Queue::Async).queued, 1);
}

async fn each_job_goes_to_one_claimer(place: impl Place) {
    const JOBS: usize = 2_000;
    let store = place.open().await;
    let claimers: Vec<_> = (0..4)
        .map(|claimer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut mine = Vec::new();
                // Each takes its share, so that all of them end.
                while mine.len() < JOBS / 4 {
                    let most = (claimer * 7 + 1).min(JOBS / 4 - mine.len());
                    for claimed in store.claim(Queue::Async, most).await.unwrap() {
                        assert_eq!(claimed.attempt, 1);
                        settle(&store, claimed.lease, succeeded()).await.unwrap();
                        mine.push(claimed.lease.id);
                    }
                }
                mine
            })
        })
        .collect();
    let jobs: Vec<NewJob> = (0..JOBS).map(|_| io_job()).collect();
    for chunk in jobs.chunks(23) {
        accept(&store, chunk).await;
    }
    let mut seen = HashSet::new();
    for claimer in claimers {
        for id in tokio::time::timeout(PATIENCE, claimer).await.unwrap().unwrap() {
            assert!(seen.insert(id), "{id} was claimed twice");
        }
    }
    assert_eq!(seen, jobs.iter().map(|job| job.id).collect());
    assert_eq!(store.depth(Queue::Async), trine::store::Depth::default());
}

async fn long_workloads_are_claimed_a_few_at_a_time(place: impl Place) {
    let store = place.light().open().await;
    let long = RawValue::from_string(format!("\"{}\"", "x".repeat(17 << 20))).unwrap();
    for limit in [None, Some(Box::new(Concurrency { key: "k".into(), limit: 10 }))] {
        for _ in 0..2 {
            let mut job = io_job();
            job.submission.workload.json.clone_from(&long);
            job.submission.concurrency.clone_from(&limit);
            accept(&store, &[job]).await;
        }
        for _ in 0..2 {
            assert_eq!(store.claim(Queue::Async, 10).await.unwrap().len(), 1);
        }
    }
}
