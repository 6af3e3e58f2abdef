//! Comparisons: each begins once, in the order in which they were asked for, and ends once.

use std::sync::Arc;

use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};
use trine::job::ComparisonId;
use trine::store::{Comparison, ComparisonEnd, ComparisonState, Store};

use crate::Place;

crate::for_every_driver!(
    they_begin_in_the_order_of_their_ids,
    each_ends_once,
    what_ran_is_interrupted_and_what_waits_is_not,
    they_are_listed_page_by_page_and_survive_a_restart,
);

fn request(n: u32) -> Box<RawValue> {
    to_raw_value(&json!({ "n": n })).unwrap()
}

async fn add(store: &Arc<dyn Store>, n: u32) -> Comparison {
    store.add_comparison(ComparisonId::new(), None, request(n)).await.unwrap()
}

/// Begins the one that waits longest.
async fn begin(store: &Arc<dyn Store>) -> Option<Comparison> {
    let waiting = store.waiting_comparison(None).await.unwrap()?;
    store.begin_comparison(waiting.id).await.unwrap()
}

async fn state(store: &Arc<dyn Store>, id: ComparisonId) -> ComparisonState {
    store.comparison(id).await.unwrap().unwrap().state
}

async fn they_begin_in_the_order_of_their_ids(place: impl Place) {
    let store = place.open().await;
    assert!(begin(&store).await.is_none());
    let (first, second) = (add(&store, 1).await, add(&store, 2).await);
    let behind = async |after| store.waiting_comparison(Some(after)).await.unwrap().map(|waiting| waiting.id);
    assert_eq!([behind(first.id).await, behind(second.id).await], [Some(second.id), None]);
    assert_eq!((first.state, first.request.get(), first.started_at), (ComparisonState::Queued, "{\"n\":1}", None));
    for expected in [first.id, second.id] {
        let begun = begin(&store).await.unwrap();
        assert_eq!((begun.id, begun.state), (expected, ComparisonState::Running));
        assert!(begun.started_at.is_some() && begun.finished_at.is_none());
        assert!(store.end_comparison(expected, ComparisonEnd::Cancelled).await.unwrap());
    }
    assert!(begin(&store).await.is_none());
    assert!(store.comparison(ComparisonId::new()).await.unwrap().is_none());
}

async fn each_ends_once(place: impl Place) {
    let store = place.open().await;
    let ids = [add(&store, 1).await.id, add(&store, 2).await.id, add(&store, 3).await.id];
    begin(&store).await;
    let report = to_raw_value(&json!({ "matrix": [] })).unwrap();
    let ends = [ComparisonEnd::Finished(report), ComparisonEnd::Failed("no\0".into()), ComparisonEnd::Cancelled];
    for (id, end) in ids.into_iter().zip(ends) {
        assert!(store.end_comparison(id, end).await.unwrap());
        assert!(!store.end_comparison(id, ComparisonEnd::Cancelled).await.unwrap());
    }
    let mut ended = Vec::new();
    for id in ids {
        let Comparison { state, report, error, finished_at, .. } = store.comparison(id).await.unwrap().unwrap();
        assert!(finished_at.is_some());
        ended.push((
            state,
            report.map(|report| report.get().to_owned()),
            error.map(|error| error.replace(['\0', '\u{fffd}'], "")),
        ));
    }
    assert_eq!(
        ended,
        [
            (ComparisonState::Finished, Some("{\"matrix\":[]}".into()), None),
            (ComparisonState::Failed, None, Some("no".into())),
            (ComparisonState::Cancelled, None, None),
        ]
    );
    assert!(!store.end_comparison(ComparisonId::new(), ComparisonEnd::Cancelled).await.unwrap());
}

async fn what_ran_is_interrupted_and_what_waits_is_not(place: impl Place) {
    let store = place.open().await;
    let (running, waiting) = (add(&store, 1).await.id, add(&store, 2).await.id);
    begin(&store).await;
    drop(store);
    let store = place.open().await;
    assert_eq!(store.interrupt_comparisons("gone").await.unwrap(), 1);
    assert_eq!(store.interrupt_comparisons("gone").await.unwrap(), 0);
    assert_eq!(state(&store, running).await, ComparisonState::Failed);
    assert_eq!(store.comparison(running).await.unwrap().unwrap().error.as_deref(), Some("gone"));
    assert_eq!(state(&store, waiting).await, ComparisonState::Queued);
    assert_eq!(begin(&store).await.unwrap().id, waiting);
}

async fn they_are_listed_page_by_page_and_survive_a_restart(place: impl Place) {
    let store = place.open().await;
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(add(&store, n).await.id);
    }
    drop(store);
    let store = place.open().await;
    ids.reverse();
    let mut seen: Vec<ComparisonId> = Vec::new();
    loop {
        let page = store.comparisons(None, seen.last().copied(), 2).await.unwrap();
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 2);
        seen.extend(page.iter().map(|comparison| comparison.id));
    }
    assert_eq!(seen, ids);
}
