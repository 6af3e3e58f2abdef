//! What becomes of a claimed job.

use std::time::Duration;

use trine::clock::{Clock as _, Timestamp};
use trine::job::{Ending, Failure, Finished, JobId, Outcome, Queue, State};
use trine::store::{Cancellation, Lease, Requeue, Settled, Settlement};

use crate::{Place, accept, claim_one, failed, io_job, settle, state, succeeded, timing};

crate::for_every_form!(
    a_result_is_recorded_with_its_timing,
    only_the_valid_lease_is_heard,
    a_job_that_runs_again_waits_for_its_time,
    a_loss_is_counted,
    a_released_attempt_does_not_count,
    what_waits_can_be_cancelled,
    what_runs_is_marked_and_then_cancelled,
    what_has_ended_or_is_unknown_cannot_be_cancelled,
    a_finished_job_can_be_run_again,
);

fn again(due_at: Timestamp, lost: bool) -> Settlement {
    Settlement::Again { due_at, lost, error: Failure::error("not yet"), timing: None }
}

fn later() -> Settlement {
    Settlement::Later { due_at: Timestamp::now() }
}

async fn finished(store: &std::sync::Arc<dyn trine::store::Store>, id: JobId) -> Finished {
    let State::Finished(finished) = store.job(id).await.unwrap().unwrap().state else { panic!("not finished") };
    *finished
}

async fn a_result_is_recorded_with_its_timing(place: impl Place) {
    let store = place.open().await;
    let (good, bad) = (io_job(), io_job());
    accept(&store, &[good.clone(), bad.clone()]).await;
    let leases: Vec<_> = store.claim(Queue::Async, 2).await.unwrap().into_iter().map(|claimed| claimed.lease).collect();
    let (first, second) = tokio::join!(settle(&store, leases[0], succeeded()), settle(&store, leases[1], failed("no luck")));
    let Settled::Ended { started_at, finished_at } = first.unwrap() else { panic!("not ended") };
    assert!(matches!(second.unwrap(), Settled::Ended { .. }));
    let result = finished(&store, good.id).await;
    assert_eq!((Some(started_at), finished_at), (result.started_at, result.finished_at));
    let Finished { ending, outcome: Outcome::Output(output), timing: Some(seen), .. } = result else { panic!("no output") };
    assert_eq!((ending, output.get(), seen), (Ending::Succeeded, r#"{"slept_ms":5}"#, timing(5_000)));
    let Finished { outcome: Outcome::Error(failure), .. } = finished(&store, bad.id).await else { panic!("no error") };
    assert_eq!(failure.message, "no luck");
    assert_eq!(store.depth(Queue::Async), trine::store::Depth::default());
}

async fn only_the_valid_lease_is_heard(place: impl Place) {
    let store = place.open().await;
    let job = io_job();
    accept(&store, std::slice::from_ref(&job)).await;
    let first = claim_one(&store).await.lease;
    let forged = Lease { token: first.token + 1, ..first };
    for settlement in [succeeded(), again(Timestamp::now(), false), Settlement::Release { begun: true }, later()] {
        assert_eq!(settle(&store, forged, settlement).await.unwrap(), Settled::Stale);
    }
    // The first attempt is taken for lost and runs again; then it reports after all.
    settle(&store, first, again(Timestamp::now(), true)).await.unwrap();
    let second = claim_one(&store).await.lease;
    assert_ne!(first.token, second.token);
    assert_eq!(settle(&store, first, failed("too late")).await.unwrap(), Settled::Stale);
    assert_eq!(state(&store, job.id).await, "running");
    // Both in one breath: exactly the valid one is recorded.
    let (late, valid) = tokio::join!(settle(&store, first, failed("too late")), settle(&store, second, succeeded()));
    assert_eq!(late.unwrap(), Settled::Stale);
    assert!(matches!(valid.unwrap(), Settled::Ended { .. }));
    assert_eq!(settle(&store, second, failed("twice")).await.unwrap(), Settled::Stale);
    assert_eq!(finished(&store, job.id).await.ending, Ending::Succeeded);
}

async fn a_job_that_runs_again_waits_for_its_time(place: impl Place) {
    let store = place.open().await;
    place.clock().stop();
    let job = io_job();
    accept(&store, std::slice::from_ref(&job)).await;
    let lease = claim_one(&store).await.lease;
    let (nearly, rest) = (Duration::from_millis(59_999), Duration::from_millis(1));
    let due_at = place.clock().now().after(nearly + rest);
    settle(&store, lease, again(due_at, false)).await.unwrap();
    let State::Scheduled { due_at: seen } = store.job(job.id).await.unwrap().unwrap().state else { panic!("not scheduled") };
    assert_eq!(seen, due_at);
    assert_eq!(store.depth(Queue::Async).scheduled, 1);
    let mut claim = Box::pin(claim_one(&store));
    for passed in [nearly, rest] {
        assert!(futures_util::poll!(&mut claim).is_pending(), "claimed before it was due");
        place.clock().advance(passed);
        store.check().await.unwrap();
    }
    let claimed = claim.await;
    assert_eq!((claimed.attempt, claimed.losses), (2, 0));
    assert_eq!((store.depth(Queue::Async).scheduled, store.depth(Queue::Async).running), (0, 1));
}

async fn a_loss_is_counted(place: impl Place) {
    let store = place.open().await;
    accept(&store, &[io_job()]).await;
    let lease = claim_one(&store).await.lease;
    settle(&store, lease, again(Timestamp::now(), true)).await.unwrap();
    let claimed = claim_one(&store).await;
    assert_eq!((claimed.attempt, claimed.losses), (2, 1));
}

async fn a_released_attempt_does_not_count(place: impl Place) {
    let store = place.open().await;
    accept(&store, &[io_job()]).await;
    let lease = claim_one(&store).await.lease;
    settle(&store, lease, Settlement::Release { begun: true }).await.unwrap();
    let claimed = claim_one(&store).await;
    assert_eq!((claimed.attempt, claimed.losses), (1, 0));
    assert_ne!(claimed.lease, lease);
    // Nor does one that is put off.
    settle(&store, claimed.lease, Settlement::Later { due_at: Timestamp::now().after(Duration::from_secs(3_600)) })
        .await
        .unwrap();
    let id = claimed.lease.id;
    assert_eq!((state(&store, id).await, store.job(id).await.unwrap().unwrap().attempt), ("scheduled", 0));
    assert_eq!((store.depth(Queue::Async).scheduled, store.depth(Queue::Async).running), (1, 0));
    assert_eq!(store.cancel(id, &[]).await.unwrap(), Cancellation::Cancelled);
}

async fn what_waits_can_be_cancelled(place: impl Place) {
    let store = place.open().await;
    let (queued, scheduled) = (io_job(), io_job());
    accept(&store, std::slice::from_ref(&scheduled)).await;
    let lease = claim_one(&store).await.lease;
    settle(&store, lease, again(Timestamp::now().after(Duration::from_secs(3_600)), false)).await.unwrap();
    accept(&store, std::slice::from_ref(&queued)).await;
    for job in [&queued, &scheduled] {
        assert_eq!(store.cancel(job.id, &[]).await.unwrap(), Cancellation::Cancelled);
        let ended = finished(&store, job.id).await;
        assert_eq!((ended.ending, ended.timing, ended.started_at), (Ending::Cancelled, None, None));
    }
    assert_eq!(store.depth(Queue::Async), trine::store::Depth::default());
}

async fn what_runs_is_marked_and_then_cancelled(place: impl Place) {
    let store = place.open().await;
    // However the attempt ends after that, other than with a result of its own, the job does not run again.
    for settlement in
        [again(Timestamp::now(), false), again(Timestamp::now(), true), Settlement::Release { begun: true }, later()]
    {
        let job = io_job();
        accept(&store, std::slice::from_ref(&job)).await;
        let lease = claim_one(&store).await.lease;
        assert_eq!(store.cancel(job.id, &[]).await.unwrap(), Cancellation::Stopping(lease));
        let State::Running { stopping: true, .. } = store.job(job.id).await.unwrap().unwrap().state else { panic!("not marked") };
        assert_eq!(settle(&store, lease, settlement).await.unwrap(), Settled::Recorded);
        assert_eq!(finished(&store, job.id).await.ending, Ending::Cancelled);
    }
    assert_eq!(store.depth(Queue::Async), trine::store::Depth::default());
}

async fn what_has_ended_or_is_unknown_cannot_be_cancelled(place: impl Place) {
    let store = place.open().await;
    let job = io_job();
    crate::finish_all(&store, std::slice::from_ref(&job)).await;
    assert_eq!(store.cancel(job.id, &[]).await.unwrap(), Cancellation::Finished(Ending::Succeeded));
    assert_eq!(store.cancel(JobId::new(), &[]).await.unwrap(), Cancellation::Unknown);
}

async fn a_finished_job_can_be_run_again(place: impl Place) {
    let store = place.open().await;
    let job = io_job();
    assert_eq!(store.requeue(job.id).await.unwrap(), Requeue::Unknown);
    accept(&store, std::slice::from_ref(&job)).await;
    assert_eq!(store.requeue(job.id).await.unwrap(), Requeue::Unfinished);
    let lease = claim_one(&store).await.lease;
    settle(&store, lease, failed("once")).await.unwrap();
    assert_eq!(store.requeue(job.id).await.unwrap(), Requeue::Queued);
    assert_eq!(state(&store, job.id).await, "queued");
    let claimed = claim_one(&store).await;
    assert_eq!((claimed.lease.id, claimed.attempt), (job.id, 2));
    settle(&store, claimed.lease, succeeded()).await.unwrap();
    assert_eq!(state(&store, job.id).await, "succeeded");
    assert_eq!(store.summary().await.unwrap().values().map(trine::store::Sketches::count).sum::<u64>(), 1);
}
