//! Nodes that are looked at, drained and resumed.

use std::sync::Arc;

use trine::job::{NewJob, Queue};
use trine::store::Settled;

use crate::{PATIENCE, Place, accept, apart, claim, claim_one, io_job, settle, state, succeeded, until};

crate::for_every_driver!(a_node_says_what_it_is_and_holds, a_drained_node_ends_what_it_runs_and_claims_nothing_more);

async fn a_node_says_what_it_is_and_holds(place: impl Place) {
    let store = place.open().await;
    let jobs = [io_job(), io_job()];
    accept(&store, &jobs).await;
    let lease = claim_one(&store).await.lease;
    claim_one(&store).await;
    let node = store.nodes().await.unwrap().remove(0);
    assert_eq!((node.name.as_str(), node.leases, node.is_this), ("one", 2, true));
    assert_eq!((node.version.as_str(), node.is_draining, node.has_expired), (env!("CARGO_PKG_VERSION"), false, false));
    assert!(node.started_at <= node.seen_at && node.unheard_for < PATIENCE);
    settle(&store, lease, succeeded()).await.unwrap();
    assert_eq!(store.nodes().await.unwrap()[0].leases, 1);
    store.close().await;
    drop(store);
    let store = place.open().await;
    let nodes = store.nodes().await.unwrap();
    assert_eq!((nodes.len(), nodes[0].leases), (1, 0));
    assert!(nodes[0].start > node.start);
}

async fn a_drained_node_ends_what_it_runs_and_claims_nothing_more(place: impl Place) {
    let store = place.open().await;
    // Of the one queue, jobs are claimed from the database, of the other one perhaps from memory.
    for (queue, job) in [(Queue::Async, io_job as fn() -> NewJob), (Queue::Processes, || apart(io_job()))] {
        let jobs: Vec<_> = (0..40).map(|_| job()).collect();
        accept(&store, &jobs).await;
        let runs = claim(&store, queue, 1).await.remove(0).lease;
        for _ in 0..3 {
            let claimed = claim(&store, queue, 1).await.remove(0);
            settle(&store, claimed.lease, succeeded()).await.unwrap();
        }
        assert!(!store.set_draining("another", true).await.unwrap());
        assert!(store.set_draining("one", true).await.unwrap());
        until("the node hears of it", async || store.is_draining().then_some(())).await;
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let store = Arc::clone(&store);
                tokio::spawn(async move { claim(&store, queue, 1).await.remove(0) })
            })
            .collect();
        let next = job();
        accept(&store, std::slice::from_ref(&next)).await;
        store.check().await.unwrap();
        assert!(matches!(settle(&store, runs, succeeded()).await.unwrap(), Settled::Ended { .. }));
        store.check().await.unwrap();
        assert_eq!((store.nodes().await.unwrap()[0].leases, state(&store, next.id).await), (0, "queued"));
        assert_eq!(store.depth(queue).queued, 37);
        assert!(waiting.iter().all(|claim| !claim.is_finished()));
        assert!(store.nodes().await.unwrap()[0].is_draining);
        assert!(store.set_draining("one", false).await.unwrap());
        let mut claimed = Vec::new();
        for claim in waiting {
            claimed.push(tokio::time::timeout(PATIENCE, claim).await.expect("a job to claim").unwrap());
        }
        while claimed.len() < 37 {
            claimed.push(claim(&store, queue, 1).await.remove(0));
        }
        for claimed in claimed {
            settle(&store, claimed.lease, succeeded()).await.unwrap();
        }
        assert_eq!(state(&store, next.id).await, "succeeded");
    }
    // Claims that wait already get nothing, either.
    let waiting = {
        let store = Arc::clone(&store);
        tokio::spawn(async move { claim_one(&store).await })
    };
    store.check().await.unwrap();
    store.set_draining("one", true).await.unwrap();
    until("the node hears of it", async || store.is_draining().then_some(())).await;
    let job = io_job();
    accept(&store, std::slice::from_ref(&job)).await;
    store.check().await.unwrap();
    assert_eq!(state(&store, job.id).await, "queued");
    store.set_draining("one", false).await.unwrap();
    assert_eq!(waiting.await.unwrap().lease.id, job.id);
}
