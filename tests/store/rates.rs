//! Limits by a key of how many jobs start in a period.

use std::sync::Arc;
use std::time::Duration;

use trine::clock::Timestamp;
use trine::job::{NewJob, Queue, Rate, State};
use trine::store::{Settlement, Store};

use crate::limits::{claim_all, ids};
use crate::sqlite::Folder;
use crate::{PATIENCE, Place, accept, claim_one, io_job, settle, succeeded};

crate::for_every_driver!(
    at_most_so_many_of_a_key_start_in_a_period,
    a_lane_that_is_shut_for_the_rate_of_a_job_that_has_left_opens,
    what_was_claimed_and_has_not_begun_is_no_start,
    a_clock_that_is_set_back_holds_up_no_rate,
    a_clock_that_is_set_back_holds_up_no_rate_though_nothing_else_happens,
);

pub(crate) fn rated(key: &str, limit: u32, per_ms: u64) -> NewJob {
    let mut job = io_job();
    job.submission.rate = Some(Box::new(Rate { key: key.into(), limit, per_ms }));
    job
}

/// Whoever is first there then may have another rate.
async fn a_lane_that_is_shut_for_the_rate_of_a_job_that_has_left_opens(place: impl Place) {
    const DAY: u64 = 86_400_000;
    let store = place.open().await;
    place.clock().stop();
    for key in ["cancelled", "expired"] {
        accept(&store, &[rated(key, 1, DAY)]).await;
        claim_one(&store).await;
        let (mut mistaken, right) = (rated(key, 1, DAY), rated(key, 100, 1));
        if key == "expired" {
            mistaken.submission.expires_at = Some(store.now().after(Duration::from_mins(1)));
        }
        accept(&store, std::slice::from_ref(&mistaken)).await;
        // It is looked at, and shut.
        assert!(claim_all(&store, 10).await.is_empty());
        if key == "expired" {
            place.clock().advance(Duration::from_mins(2));
        } else {
            store.cancel(mistaken.id, &[]).await.unwrap();
        }
        accept(&store, std::slice::from_ref(&right)).await;
        assert_eq!(claim_one(&store).await.lease.id, right.id, "{key}");
    }
}

/// The next one in its lane starts in its place; what has begun was a start.
async fn what_was_claimed_and_has_not_begun_is_no_start(place: impl Place) {
    const DAY: u64 = 86_400_000;
    let store = place.open().await;
    place.clock().stop();
    accept(&store, &[(); 4].map(|()| rated("a", 2, DAY))).await;
    let claimed = claim_all(&store, 10).await;
    assert_eq!(claimed.len(), 2);
    let later = |at: Timestamp| Settlement::Later { due_at: at.after(Duration::from_secs(1)) };
    settle(&store, claimed[0].lease, later(store.now())).await.unwrap();
    let third = claim_one(&store).await;
    assert!(claim_all(&store, 10).await.is_empty());
    settle(&store, claimed[1].lease, Settlement::Release { begun: false }).await.unwrap();
    assert_eq!(claim_one(&store).await.lease.id, claimed[1].lease.id);
    settle(&store, third.lease, Settlement::Release { begun: true }).await.unwrap();
    place.clock().advance(Duration::from_secs(2));
    assert!(claim_all(&store, 10).await.is_empty());

    // One that would not count any more takes back none of another.
    accept(&store, &[(); 3].map(|()| rated("b", 1, 1_000))).await;
    let first = claim_one(&store).await;
    place.clock().advance(Duration::from_secs(2));
    claim_one(&store).await;
    settle(&store, first.lease, Settlement::Release { begun: false }).await.unwrap();
    assert!(claim_all(&store, 10).await.is_empty());
}

async fn at_most_so_many_of_a_key_start_in_a_period(place: impl Place) {
    let store = place.open().await;
    let jobs: Vec<NewJob> = (0..10).map(|_| rated("a", 3, 200)).collect();
    accept(&store, &jobs).await;
    let mut left = jobs.len();
    while left > 0 {
        for claimed in tokio::time::timeout(PATIENCE, store.claim(Queue::Async, 100)).await.unwrap().unwrap() {
            settle(&store, claimed.lease, succeeded()).await.unwrap();
            left -= 1;
        }
    }
    let starts = starts(&store, &jobs).await;
    assert_rate(&starts, 3, Duration::from_millis(200));
    // Not more slowly than it has to be, give or take what a busy machine takes.
    assert!(starts[9].since(starts[0]) >= Duration::from_millis(600));
}

/// When each job started, in order.
pub(crate) async fn starts(store: &Arc<dyn Store>, jobs: &[NewJob]) -> Vec<Timestamp> {
    let mut starts = Vec::new();
    for job in jobs {
        let State::Finished(finished) = store.job(job.id).await.unwrap().unwrap().state else { panic!("not finished") };
        starts.extend(finished.started_at);
    }
    starts.sort_unstable();
    starts
}

pub(crate) fn assert_rate(starts: &[Timestamp], limit: usize, period: Duration) {
    for window in starts.windows(limit + 1) {
        assert!(window[limit].since(window[0]) >= period, "{limit} in {period:?}: {window:?}");
    }
}

async fn a_clock_that_is_set_back_holds_up_no_rate(place: impl Place) {
    let store = place.open().await;
    place.clock().stop();
    accept(&store, &(0..4).map(|_| rated("a", 1, 1_000)).collect::<Vec<_>>()).await;
    assert_eq!(claim_all(&store, 10).await.len(), 1);
    place.clock().set_back(Duration::from_secs(24 * 3_600));
    // What started by the clock as it was counts no more; what starts by the clock as it is does.
    for _ in 0..3 {
        assert_eq!(claim_all(&store, 10).await.len(), 1);
        assert!(claim_all(&store, 10).await.is_empty());
        place.clock().advance(Duration::from_millis(1_100));
    }
}

async fn a_clock_that_is_set_back_holds_up_no_rate_though_nothing_else_happens(place: impl Place) {
    let mut store = place.open().await;
    place.clock().stop();
    accept(&store, &[rated("a", 1, 1_000), rated("a", 1, 1_000), rated("a", 1, 1_000)]).await;
    for is_restarted in [false, true] {
        assert_eq!(claim_all(&store, 10).await.len(), 1);
        if is_restarted {
            store.close().await;
            drop(store);
            place.clock().set_back(Duration::from_secs(24 * 3_600));
            store = place.open().await;
        } else {
            place.clock().set_back(Duration::from_secs(24 * 3_600));
        }
        let waits = tokio::time::timeout(PATIENCE, store.claim(Queue::Async, 1)).await.expect("what the clock held up").unwrap();
        settle(&store, waits[0].lease, succeeded()).await.unwrap();
        // The next one of this key comes by the clock as it is.
        accept(&store, &[rated("a", 1, 1_000)]).await;
        place.clock().advance(Duration::from_millis(1_100));
    }
}

#[tokio::test]
async fn a_lane_that_is_shut_for_a_rate_opens_for_nobody_who_stands_behind() {
    let folder = Folder::new();
    let (store, hour) = (folder.open().await, 3_600_000);
    let [running, first] = [rated("a", 1, hour), rated("a", 1, hour)];
    accept(&store, &[running.clone(), first.clone()]).await;
    assert_eq!(ids(&claim_all(&store, 10).await), [running.id]);
    let mut raw = folder.raw().await;
    let gate = "SELECT gate FROM lanes";
    let shut: i64 = sqlx::query_scalar(gate).fetch_one(&mut raw).await.unwrap();
    let behind = rated("a", 2, hour);
    accept(&store, std::slice::from_ref(&behind)).await;
    assert_eq!(sqlx::query_scalar::<_, i64>(gate).fetch_one(&mut raw).await.unwrap(), shut);
    assert!(shut > running.accepted_at.as_micros());
    // Once it is first, its own rate counts.
    store.cancel(first.id, &[]).await.unwrap();
    assert_eq!(ids(&claim_all(&store, 10).await), [behind.id]);
}
