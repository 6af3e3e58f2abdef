//! Counts and quantiles.

use trine::job::{Bound, Conclusion, Ending, Executor, Queue, State};
use trine::store::{Settlement, SummaryKey};

use crate::{Place, accept, failed, io_job, settle, succeeded};

crate::for_every_driver!(results_are_counted_by_kind, quantiles_are_those_of_the_results, a_result_that_can_be_seen_is_counted);

fn key(ending: Ending) -> SummaryKey {
    SummaryKey { workload: "sleep".into(), bound: Bound::Io, executor: Executor::Async, ending, owner: None }
}

async fn results_are_counted_by_kind(place: impl Place) {
    let store = place.open().await;
    accept(&store, &(0..700).map(|_| io_job()).collect::<Vec<_>>()).await;
    let mut claimed = Vec::new();
    while claimed.len() < 700 {
        claimed.extend(store.claim(Queue::Async, 700).await.unwrap());
    }
    let settles = claimed.into_iter().enumerate().map(|(n, claimed)| {
        let settlement = if n % 7 == 0 { failed("each seventh") } else { succeeded() };
        settle(&store, claimed.lease, settlement)
    });
    futures_util::future::join_all(settles).await;
    let summary = store.summary().await.unwrap();
    assert_eq!((summary[&key(Ending::Succeeded)].count(), summary[&key(Ending::Failed)].count()), (600, 100));
}

async fn quantiles_are_those_of_the_results(place: impl Place) {
    let store = place.open().await;
    for wall_us in 1..=100 {
        accept(&store, &[io_job()]).await;
        let lease = crate::claim_one(&store).await.lease;
        let Settlement::Finish(conclusion) = succeeded() else { unreachable!() };
        let timing = Some(crate::timing(wall_us));
        settle(&store, lease, Settlement::Finish(Conclusion { timing, ..conclusion })).await.unwrap();
    }
    let summary = store.summary().await.unwrap();
    let wall = summary[&key(Ending::Succeeded)].wall().quantiles().unwrap();
    assert_eq!((wall.p50, wall.p90, wall.p99), (50, 90, 99));
}

async fn a_result_that_can_be_seen_is_counted(place: impl Place) {
    let store = place.open().await;
    for ended in 1..=100 {
        let id = accept(&store, &[io_job()]).await[0].id;
        let lease = crate::claim_one(&store).await.lease;
        let look = async {
            while !matches!(store.job(id).await.unwrap().unwrap().state, State::Finished(_)) {}
            store.summary().await.unwrap()[&key(Ending::Succeeded)].count()
        };
        let (settled, counted) = tokio::join!(settle(&store, lease, succeeded()), look);
        settled.unwrap();
        assert_eq!(counted, ended);
    }
}
