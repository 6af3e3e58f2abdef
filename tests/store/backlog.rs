//! Claims of jobs that run in other processes, one by one from a backlog: as that goes fastest, and as it must look.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use trine::clock::Timestamp;
use trine::dispatch::router::{Facts, route};
use trine::job::{Bound, Choice, Failure, Form, JobId, NewJob, Queue, Runtime, Written};
use trine::store::{Cancellation, Claimed, Depth, Settled, Settlement, StateFilter, Store, Urgency};

use crate::{PATIENCE, Place, accept, claim, new_job, not_after_a_loss, settle, state, succeeded};

crate::for_every_driver!(
    what_was_claimed_is_seen_to_run,
    in_order_whatever_comes_goes_or_comes_back,
    a_job_that_ends_at_once_has_its_attempt,
    what_runs_can_be_cancelled_and_what_waits_too,
    each_is_claimed_once_while_others_are_cancelled,
    a_crash_gives_no_result_twice_and_loses_none,
    a_job_that_must_not_be_repeated_is_known_to_run_before_it_does,
    a_long_workload_holds_up_nothing,
    what_is_too_late_is_not_at_hand,
    what_is_claimed_at_a_clean_end_waits_again,
);

const QUEUE: Queue = Queue::PythonProcesses;

pub(crate) fn job(priority: i16) -> NewJob {
    let mut job = new_job(Bound::Cpu);
    job.submission.priority = priority;
    job.submission.executor = Choice::Processes;
    let facts = Facts {
        bound: Bound::Cpu,
        choice: Choice::Processes,
        isolated: false,
        written: Written { runtime: Runtime::Python, form: Form::Blocking, gil: true, needs_a_process: false },
    };
    job.route = route(facts).unwrap();
    assert_eq!(job.route.queue, QUEUE);
    job
}

/// So many jobs, accepted in their order.
async fn backlog(store: &Arc<dyn Store>, count: usize) -> Vec<JobId> {
    let jobs: Vec<NewJob> = (0..count).map(|_| job(0)).collect();
    accept(store, &jobs).await.iter().map(|job| job.id).collect()
}

async fn claim_one(store: &Arc<dyn Store>) -> Claimed {
    claim(store, QUEUE, 1).await.remove(0)
}

async fn depth(store: &Arc<dyn Store>) -> Depth {
    // Whoever looks at a job sees everything that has happened; the count is as it was written last.
    state(store, JobId::new()).await;
    store.depth(QUEUE)
}

async fn what_was_claimed_is_seen_to_run(place: impl Place) {
    let store = place.open().await;
    let ids = backlog(&store, 100).await;
    for (at, id) in ids.iter().enumerate() {
        let claimed = claim_one(&store).await;
        assert_eq!((claimed.lease.id, claimed.attempt, claimed.losses), (*id, 1, 0));
        if at % 7 == 0 {
            assert_eq!(state(&store, *id).await, "running");
            let running = trine::store::Filter { states: vec![StateFilter::Running], ..Default::default() };
            let page = trine::store::Page { order: trine::store::Order::OldestFirst, after: None, limit: 1_000 };
            assert_eq!(store.jobs(&running, page).await.unwrap().len(), at + 1);
        }
    }
    let Depth { queued, running, .. } = depth(&store).await;
    assert_eq!((queued, running), (0, 100));
}

async fn in_order_whatever_comes_goes_or_comes_back(place: impl Place) {
    let store = place.open().await;
    let ids = backlog(&store, 50).await;
    let first: Vec<_> = claim(&store, QUEUE, 2).await.iter().map(|claimed| claimed.lease).collect();
    assert_eq!(claim_one(&store).await.lease.id, ids[2]);
    // One that goes first comes, and one behind it.
    let urgent = [job(3), job(7)];
    accept(&store, &urgent).await;
    assert_eq!(claim_one(&store).await.lease.id, urgent[1].id);
    // One that would be next goes, one that runs comes back.
    assert_eq!(store.cancel(urgent[0].id, &[]).await.unwrap(), Cancellation::Cancelled);
    settle(&store, first[0], Settlement::Release { begun: true }).await.unwrap();
    let again = claim_one(&store).await;
    assert_eq!((again.lease.id, again.attempt), (ids[0], 1));
    assert_eq!(claim_one(&store).await.lease.id, ids[3]);
    // A failed attempt is followed by another.
    let error = Failure::error("not yet");
    settle(&store, first[1], Settlement::Again { due_at: Timestamp::now(), lost: false, error, timing: None }).await.unwrap();
    let mut found = HashSet::new();
    while let Some(claimed) = (found.len() < 47).then_some(claim_one(&store)) {
        let claimed = claimed.await;
        assert_eq!(claimed.attempt, if claimed.lease.id == ids[1] { 2 } else { 1 });
        assert!(found.insert(claimed.lease.id));
    }
    assert_eq!(depth(&store).await.queued, 0);
}

async fn a_job_that_ends_at_once_has_its_attempt(place: impl Place) {
    let store = place.open().await;
    let ids = backlog(&store, 60).await;
    for id in &ids {
        let claimed = claim_one(&store).await;
        assert!(matches!(settle(&store, claimed.lease, succeeded()).await.unwrap(), Settled::Ended { .. }));
        assert_eq!(settle(&store, claimed.lease, succeeded()).await.unwrap(), Settled::Stale);
        let job = store.job(*id).await.unwrap().unwrap();
        let trine::job::State::Finished(finished) = job.state else { panic!("{id} has not ended") };
        assert_eq!(job.attempt, 1);
        assert!(finished.started_at.is_some_and(|at| at > job.accepted_at && at < finished.finished_at));
    }
    assert_eq!(depth(&store).await, Depth::default());
}

async fn what_runs_can_be_cancelled_and_what_waits_too(place: impl Place) {
    let store = place.open().await;
    let ids = backlog(&store, 40).await;
    let claimed = claim_one(&store).await;
    let also_claimed = claim_one(&store).await;
    assert_eq!(store.cancel(also_claimed.lease.id, &[]).await.unwrap(), Cancellation::Stopping(also_claimed.lease));
    assert_eq!(store.cancel(ids[2], &[]).await.unwrap(), Cancellation::Cancelled);
    assert_eq!(claim_one(&store).await.lease.id, ids[3]);
    assert_eq!(store.cancel(claimed.lease.id, &[]).await.unwrap(), Cancellation::Stopping(claimed.lease));
    settle(&store, also_claimed.lease, Settlement::Release { begun: true }).await.unwrap();
    assert_eq!(state(&store, ids[1]).await, "cancelled");
}

async fn each_is_claimed_once_while_others_are_cancelled(place: impl Place) {
    const JOBS: usize = 600;
    let store = place.open().await;
    let ids = backlog(&store, JOBS).await;
    let left = Arc::new(AtomicUsize::new(JOBS));
    let claimers: Vec<_> = (0..3)
        .map(|_| {
            let (store, left) = (Arc::clone(&store), Arc::clone(&left));
            tokio::spawn(async move {
                let mut mine = Vec::new();
                while left.load(Ordering::SeqCst) > 0 {
                    // It may be the others' that is left.
                    let claim = tokio::time::timeout(Duration::from_millis(500), store.claim(QUEUE, 1));
                    let Ok(claimed) = claim.await else { continue };
                    for claimed in claimed.unwrap() {
                        left.fetch_sub(1, Ordering::SeqCst);
                        mine.push(claimed.lease.id);
                        store.settle(claimed.lease, Arc::new(succeeded()), Urgency::Patient(Queue::Async)).await.unwrap();
                    }
                }
                mine
            })
        })
        .collect();
    let mut cancelled = HashSet::new();
    for id in ids.iter().rev().step_by(5) {
        if store.cancel(*id, &[]).await.unwrap() == Cancellation::Cancelled {
            left.fetch_sub(1, Ordering::SeqCst);
            cancelled.insert(*id);
        }
    }
    let mut seen = cancelled.clone();
    for claimer in claimers {
        for id in tokio::time::timeout(PATIENCE, claimer).await.expect("all jobs to be claimed").unwrap() {
            assert!(seen.insert(id), "{id} was claimed twice, or though it was cancelled");
        }
    }
    assert_eq!(seen.len(), JOBS);
    assert_eq!(depth(&store).await, Depth::default());
    for id in &ids {
        let expected = if cancelled.contains(id) { "cancelled" } else { "succeeded" };
        assert_eq!(state(&store, *id).await, expected);
    }
}

async fn a_crash_gives_no_result_twice_and_loses_none(place: impl Place) {
    let store = place.open().await;
    let ids = backlog(&store, 30).await;
    let mut before = Vec::new();
    for _ in 0..5 {
        before.push(claim_one(&store).await);
    }
    settle(&store, before[0].lease, succeeded()).await.unwrap();
    drop(store);
    let store = place.open().await;
    assert_eq!(state(&store, ids[0]).await, "succeeded");
    // What ran may have to wait behind the others; whether or not it was written that it did, it runs again.
    let mut left: HashSet<JobId> = ids[1..].iter().copied().collect();
    while !left.is_empty() {
        let claimed = claim_one(&store).await;
        assert!(left.remove(&claimed.lease.id));
        let ran = ids[..5].contains(&claimed.lease.id);
        assert!(claimed.attempt == 1 + claimed.losses && claimed.losses <= u32::from(ran));
        settle(&store, claimed.lease, succeeded()).await.unwrap();
    }
    for claimed in before {
        assert_eq!(settle(&store, claimed.lease, succeeded()).await.unwrap(), Settled::Stale);
    }
    assert_eq!(depth(&store).await, Depth::default());
}

async fn a_job_that_must_not_be_repeated_is_known_to_run_before_it_does(place: impl Place) {
    let store = place.open().await;
    let once = |_| {
        let mut once = job(0);
        once.submission.retry = Some(not_after_a_loss());
        once
    };
    let jobs: Vec<NewJob> = (0..20).map(once).collect();
    accept(&store, &jobs).await;
    for _ in 0..10 {
        claim_one(&store).await;
    }
    drop(store);
    let store = place.open().await;
    for (at, job) in jobs.iter().enumerate() {
        assert_eq!(state(&store, job.id).await, if at < 10 { "lost" } else { "queued" });
    }
}

async fn what_is_too_late_is_not_at_hand(place: impl Place) {
    let store = place.open().await;
    place.clock().stop();
    let hour = Duration::from_secs(3_600);
    let mut jobs: Vec<NewJob> = (0..10).map(|_| job(0)).collect();
    for late in &mut jobs[1..9] {
        late.submission.expires_at = Some(trine::clock::Clock::now(place.clock()).after(hour));
    }
    accept(&store, &jobs).await;
    // Whatever the store has at hand after that, time passes it by, and nobody tells it.
    assert_eq!(claim_one(&store).await.lease.id, jobs[0].id);
    assert_eq!(claim_one(&store).await.lease.id, jobs[1].id);
    place.clock().advance(hour);
    assert_eq!(claim_one(&store).await.lease.id, jobs[9].id);
    assert_eq!(state(&store, jobs[8].id).await, "failed");
}

async fn a_long_workload_holds_up_nothing(place: impl Place) {
    let store = place.open().await;
    let mut jobs: Vec<NewJob> = (0..9).map(|_| job(0)).collect();
    let long = format!("{{\"type\": \"python\", \"source\": \"{}\"}}", "#".repeat(3 << 20));
    for at in [0, 4] {
        jobs[at].submission.workload.json = serde_json::value::RawValue::from_string(long.clone()).unwrap();
    }
    accept(&store, &jobs).await;
    for job in &jobs {
        let claimed = claim_one(&store).await;
        assert_eq!(claimed.lease.id, job.id);
        assert_eq!(claimed.workload.json.get(), job.submission.workload.json.get());
    }
}

async fn what_is_claimed_at_a_clean_end_waits_again(place: impl Place) {
    let store = place.open().await;
    let ids = backlog(&store, 20).await;
    for _ in 0..5 {
        claim_one(&store).await;
    }
    store.close().await;
    drop(store);
    let store = place.open().await;
    for id in ids {
        let claimed = claim_one(&store).await;
        assert_eq!((claimed.lease.id, claimed.attempt, claimed.losses), (id, 1, 0));
    }
}
