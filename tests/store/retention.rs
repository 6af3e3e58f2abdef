//! Removing results: the oldest first, a few at a time, and what was counted of them stays.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use serde_json::value::to_raw_value;
use trine::clock::Timestamp;
use trine::dispatch::Retention;
use trine::job::{ComparisonId, JobId, LogStream, NewJob, Note};
use trine::store::{ComparisonEnd, DeliveryFilter, Filter, Order, Page, Removal, Removed, Store};
use trine::webhook::{DeliveryAttempt, Verdict};

use crate::webhooks::told;
use crate::{Place, accept, claim_one, end_one, finish_all, io_job, settle, state, succeeded};

crate::for_every_driver!(
    the_oldest_are_removed_with_all_that_belongs_to_them,
    by_age_only_what_has_ended_before_is_removed,
    what_is_still_to_be_told_stays,
    what_is_removed_by_its_id_is_still_told,
    many_events_take_several_steps,
    a_result_is_removed_by_its_id,
    what_was_counted_stays_counted,
    age_and_count_are_kept_to,
);
// Where a day's results go together, `partitions.rs` says how they go by age.
crate::in_partitions!(
    the_oldest_are_removed_with_all_that_belongs_to_them,
    what_is_still_to_be_told_stays,
    what_is_removed_by_its_id_is_still_told,
    many_events_take_several_steps,
    a_result_is_removed_by_its_id,
    what_was_counted_stays_counted,
);

fn page(limit: usize) -> Page {
    Page { order: Order::OldestFirst, after: None, limit }
}

async fn results(store: &Arc<dyn Store>) -> Vec<JobId> {
    store.results(&Filter::default(), page(1_000)).await.unwrap().into_iter().map(|job| job.id).collect()
}

async fn finished(store: &Arc<dyn Store>, count: usize) -> Vec<JobId> {
    let jobs: Vec<NewJob> = (0..count).map(|_| io_job()).collect();
    finish_all(store, &jobs).await;
    jobs.into_iter().map(|job| job.id).collect()
}

fn removed(results: u64) -> Removed {
    Removed { results, any: true }
}

async fn the_oldest_are_removed_with_all_that_belongs_to_them(place: impl Place) {
    let store = place.open().await;
    let tagged: Vec<NewJob> = (0..4)
        .map(|n| {
            let mut job = io_job();
            job.submission.tags = [("team".into(), "search".into()), ("n".into(), n.to_string())].into();
            job
        })
        .collect();
    finish_all(&store, &tagged).await;
    accept(&store, &[io_job()]).await;
    assert_eq!(store.remove_results(None, 3).await.unwrap(), removed(3));
    assert_eq!(results(&store).await, [tagged[3].id]);
    assert_eq!((state(&store, tagged[0].id).await, state(&store, tagged[3].id).await), ("unknown", "succeeded"));
    let search = Filter { tags: vec![("team".into(), "search".into())], ..Filter::default() };
    assert_eq!(store.jobs(&search, page(10)).await.unwrap().len(), 1);
    assert_eq!(store.remove_results(None, 3).await.unwrap(), removed(1));
    assert_eq!(store.remove_results(None, 3).await.unwrap(), Removed::default());
    // What has not ended is no result.
    assert_eq!(store.jobs(&Filter::default(), page(10)).await.unwrap().len(), 1);
}

async fn by_age_only_what_has_ended_before_is_removed(place: impl Place) {
    let store = place.open().await;
    let slow = io_job();
    accept(&store, std::slice::from_ref(&slow)).await;
    let lease = claim_one(&store).await.lease;
    let old = finished(&store, 3).await;
    // Ids tell milliseconds.
    tokio::time::sleep(Duration::from_millis(2)).await;
    let moment = Timestamp::now();
    settle(&store, lease, succeeded()).await.unwrap();
    let new = finished(&store, 2).await;
    assert_eq!(store.remove_results(Some(moment), 100).await.unwrap(), removed(3));
    assert_eq!(results(&store).await, [vec![slow.id], new].concat());
    assert_eq!(store.remove_results(Some(moment), 100).await.unwrap(), Removed::default());
    assert_eq!(state(&store, old[0]).await, "unknown");
}

async fn what_is_still_to_be_told_stays(place: impl Place) {
    let store = place.open().await;
    let job = told("a");
    finish_all(&store, std::slice::from_ref(&job)).await;
    let others = finished(&store, 2).await;
    assert_eq!(store.remove_results(None, 100).await.unwrap(), removed(2));
    assert_eq!((results(&store).await, state(&store, others[0]).await), (vec![job.id], "unknown"));
    let deliveries = async || store.deliveries(DeliveryFilter::default(), None, 10).await.unwrap();
    let attempt = DeliveryAttempt { at: Timestamp::now(), took_us: 1, status: Some(200), error: None };
    store.note_delivery(&deliveries().await[0], attempt, Verdict::Delivered).await.unwrap();
    assert_eq!(store.remove_results(None, 100).await.unwrap(), removed(1));
    assert!(deliveries().await.is_empty());
}

async fn what_is_removed_by_its_id_is_still_told(place: impl Place) {
    let store = place.open().await;
    let job = told("a");
    finish_all(&store, std::slice::from_ref(&job)).await;
    assert_eq!(store.remove_result(job.id).await.unwrap(), Removal::Removed);
    let due = async || store.due_deliveries(Timestamp::now(), (10, 10), &[]).await.unwrap();
    assert_eq!(due().await.iter().map(|due| due.delivery.job).collect::<Vec<_>>(), [job.id]);
    // With the last word on it, it is gone as well.
    let attempt = DeliveryAttempt { at: Timestamp::now(), took_us: 1, status: Some(500), error: None };
    let deliveries = async || store.deliveries(DeliveryFilter::default(), None, 10).await.unwrap().len();
    for (verdict, left) in [(Verdict::Again(Timestamp::now()), 1), (Verdict::GivenUp, 0)] {
        store.note_delivery(&due().await[0].delivery, attempt.clone(), verdict).await.unwrap();
        assert_eq!(deliveries().await, left);
    }
}

async fn many_events_take_several_steps(place: impl Place) {
    let store = place.open().await;
    let talkers: Vec<NewJob> = (0..30).map(|_| io_job()).collect();
    accept(&store, &talkers).await;
    for _ in &talkers {
        let lease = claim_one(&store).await.lease;
        for n in 0..40 {
            store.note(lease, Note::log(LogStream::Stdout, format!("line {n}"))).await;
        }
        settle(&store, lease, succeeded()).await.unwrap();
    }
    let mut steps = Vec::new();
    loop {
        let step = store.remove_results(None, 100).await.unwrap();
        if !step.any {
            break;
        }
        steps.push(step.results);
    }
    assert_eq!(steps, [0, 0, 30]);
}

async fn a_result_is_removed_by_its_id(place: impl Place) {
    let store = place.open().await;
    let ids = finished(&store, 3).await;
    let waiting = io_job();
    accept(&store, std::slice::from_ref(&waiting)).await;
    assert_eq!(store.remove_result(ids[1]).await.unwrap(), Removal::Removed);
    assert_eq!(store.remove_result(ids[1]).await.unwrap(), Removal::Unknown);
    assert_eq!(store.remove_result(waiting.id).await.unwrap(), Removal::Unfinished);
    assert_eq!(results(&store).await, [ids[0], ids[2]]);
    assert_eq!(store.kept().await.unwrap(), 2);
}

async fn what_was_counted_stays_counted(place: impl Place) {
    let mut store = place.open().await;
    finished(&store, 10).await;
    store.remove_results(None, 4).await.unwrap();
    for _ in 0..2 {
        let summary = store.summary().await.unwrap();
        assert_eq!(summary.values().map(trine::store::Sketches::count).sum::<u64>(), 10);
        assert_eq!((store.kept().await.unwrap(), results(&store).await.len()), (6, 6));
        drop(store);
        store = place.open().await;
    }
    // One that is run again is no result until it has ended once more.
    let again = results(&store).await[0];
    store.requeue(again).await.unwrap();
    assert_eq!((store.kept().await.unwrap(), results(&store).await.len()), (5, 5));
    assert_eq!(store.remove_result(again).await.unwrap(), Removal::Unfinished);
    end_one(&store).await;
    assert_eq!(store.kept().await.unwrap(), 6);
}

async fn age_and_count_are_kept_to(place: impl Place) {
    let store = place.open().await;
    let (now, hour) = (Timestamp::now, Duration::from_secs(3_600));
    let ids = finished(&store, 30).await;
    let all = async |retention: Retention, at: Timestamp| {
        let mut steps = 0;
        while retention.step(&*store, at).await.unwrap() {
            steps += 1;
        }
        (steps, results(&store).await.len())
    };
    assert_eq!(all(Retention::default(), now()).await, (0, 30));
    assert_eq!(all(Retention { age: Some(hour), count: Some(30) }, now()).await, (0, 30));
    assert_eq!(all(Retention { age: Some(hour), count: Some(12) }, now()).await, (1, 12));
    assert_eq!(results(&store).await, ids[18..]);
    assert_eq!(all(Retention { age: Some(hour), count: None }, now().after(hour * 2)).await, (1, 0));
    // Comparisons go by age alone, one at a time.
    let mut comparisons = Vec::new();
    for _ in 0..3 {
        comparisons.push(store.add_comparison(ComparisonId::new(), None, to_raw_value(&json!({})).unwrap()).await.unwrap().id);
    }
    for id in &comparisons[..2] {
        assert!(!store.remove_comparison(*id).await.unwrap(), "it has not ended");
        assert!(store.end_comparison(*id, ComparisonEnd::Cancelled).await.unwrap());
    }
    assert_eq!(all(Retention { age: Some(hour), count: Some(0) }, now()).await, (0, 0));
    assert_eq!(all(Retention { age: Some(hour), count: None }, now().after(hour * 2)).await, (2, 0));
    let left: Vec<_> = store.comparisons(None, None, 10).await.unwrap().into_iter().map(|left| left.id).collect();
    assert_eq!(left, comparisons[2..]);
    finished(&store, 3).await;
    assert_eq!(all(Retention { age: None, count: Some(0) }, now()).await, (1, 0));
}
