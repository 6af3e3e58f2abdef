//! What a server finds that was started on an earlier one's data.

use std::sync::Arc;
use std::time::Duration;

use trine::clock::Timestamp;
use trine::job::{Ending, Failure, FailureKind, NewJob, Outcome, Queue, State};
use trine::store::{Settled, Settlement, Store};

use crate::{Place, accept, claim_one, finish_all, io_job, not_after_a_loss, settle, state, succeeded};

crate::for_every_form!(
    everything_is_still_there,
    interrupted_attempts_run_again,
    a_job_that_takes_the_server_down_each_time_is_lost_in_the_end,
    a_job_that_must_not_be_repeated_is_lost_at_once,
    a_job_that_was_being_stopped_is_cancelled,
    what_is_claimed_at_a_clean_end_is_handed_back,
);

/// Opens the place again as after a crash: the old store is dropped with whatever was claimed.
async fn reopened(place: &impl Place, store: Arc<dyn Store>) -> Arc<dyn Store> {
    drop(store);
    place.open().await
}

async fn everything_is_still_there(place: impl Place) {
    let store = place.open().await;
    let (done, scheduled, queued) = (io_job(), io_job(), io_job());
    finish_all(&store, std::slice::from_ref(&done)).await;
    accept(&store, std::slice::from_ref(&scheduled)).await;
    let lease = claim_one(&store).await.lease;
    let due_at = Timestamp::now().after(Duration::from_secs(3_600));
    settle(&store, lease, Settlement::Again { due_at, lost: false, error: Failure::error("not yet"), timing: None })
        .await
        .unwrap();
    accept(&store, std::slice::from_ref(&queued)).await;
    let summary = store.summary().await.unwrap();

    let store = reopened(&place, store).await;
    let states = [state(&store, done.id).await, state(&store, scheduled.id).await, state(&store, queued.id).await];
    assert_eq!(states, ["succeeded", "scheduled", "queued"]);
    let depth = store.depth(Queue::Async);
    assert_eq!((depth.queued, depth.scheduled, depth.running), (1, 1, 0));
    let counts = |summary: &std::collections::BTreeMap<_, trine::store::Sketches>| {
        summary.values().map(|sketches| (sketches.count(), sketches.wall().quantiles())).collect::<Vec<_>>()
    };
    assert_eq!(counts(&store.summary().await.unwrap()), counts(&summary));
}

async fn interrupted_attempts_run_again(place: impl Place) {
    let store = place.open().await;
    let jobs: Vec<NewJob> = (0..10).map(|_| io_job()).collect();
    accept(&store, &jobs).await;
    let before = store.claim(Queue::Async, 10).await.unwrap();
    let store = reopened(&place, store).await;
    let after = store.claim(Queue::Async, 10).await.unwrap();
    assert_eq!(after.len(), 10);
    for (old, new) in before.iter().zip(&after) {
        assert_eq!((old.lease.id, new.attempt, new.losses), (new.lease.id, 2, 1));
        // Somebody of the time before the crash is not heard any more.
        assert_eq!(settle(&store, old.lease, succeeded()).await.unwrap(), Settled::Stale);
        assert!(matches!(settle(&store, new.lease, succeeded()).await.unwrap(), Settled::Ended { .. }));
    }
}

async fn a_job_that_takes_the_server_down_each_time_is_lost_in_the_end(place: impl Place) {
    let mut store = place.open().await;
    let job = io_job();
    accept(&store, std::slice::from_ref(&job)).await;
    for crash in 0..3 {
        let claimed = claim_one(&store).await;
        assert_eq!(claimed.losses, crash);
        store = reopened(&place, store).await;
    }
    let State::Finished(finished) = store.job(job.id).await.unwrap().unwrap().state else { panic!("it loops") };
    assert_eq!(finished.ending, Ending::Lost);
    let Outcome::Error(failure) = finished.outcome else { panic!("no error") };
    assert_eq!(failure.kind, FailureKind::Lost);
    assert_eq!(store.summary().await.unwrap().len(), 1);
}

async fn a_job_that_must_not_be_repeated_is_lost_at_once(place: impl Place) {
    let store = place.open().await;
    let mut job = io_job();
    job.submission.retry = Some(not_after_a_loss());
    accept(&store, std::slice::from_ref(&job)).await;
    claim_one(&store).await;
    let store = reopened(&place, store).await;
    assert_eq!(state(&store, job.id).await, "lost");
}

async fn a_job_that_was_being_stopped_is_cancelled(place: impl Place) {
    let store = place.open().await;
    let job = io_job();
    accept(&store, std::slice::from_ref(&job)).await;
    claim_one(&store).await;
    store.cancel(job.id, &[]).await.unwrap();
    let store = reopened(&place, store).await;
    assert_eq!(state(&store, job.id).await, "cancelled");
}

async fn what_is_claimed_at_a_clean_end_is_handed_back(place: impl Place) {
    let store = place.open().await;
    accept(&store, &[io_job()]).await;
    claim_one(&store).await;
    store.close().await;
    drop(store);
    let store = place.open().await;
    let claimed = claim_one(&store).await;
    assert_eq!((claimed.attempt, claimed.losses), (1, 0));
    // What does not stop is a loss, whatever became of it.
    let mut once = io_job();
    once.submission.retry = Some(not_after_a_loss());
    accept(&store, std::slice::from_ref(&once)).await;
    store.leave_behind(vec![claimed.lease, claim_one(&store).await.lease]);
    store.close().await;
    drop(store);
    let store = place.open().await;
    let again = claim_one(&store).await;
    assert_eq!((again.lease.id, again.attempt, again.losses), (claimed.lease.id, 2, 1));
    assert_eq!(state(&store, once.id).await, "lost");
}
