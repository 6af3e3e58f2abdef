//! What nodes hear of each other.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sqlx::postgres::PgListener;
use trine::clock::Timestamp;
use trine::job::{NewJob, Queue};
use trine::store::postgres::PostgresStore;
use trine::store::{Cancellation, EventFilter, Follower, Revocation, Settled, Settlement, Store};

use super::revoked;
use crate::limits::limited;
use crate::postgres::Schema;
use crate::{PATIENCE, claim_one, io_job, settle, succeeded};

crate::on_postgres!(
    what_one_node_takes_another_runs_and_both_hear_of_it,
    a_job_that_runs_on_another_node_can_be_cancelled,
    ends_on_other_nodes_are_heard_of_however_many_there_are,
);

async fn what_one_node_takes_another_runs_and_both_hear_of_it(place: Schema) {
    const JOBS: usize = 40;
    let (front, back) = (place.node("front").await, place.node("back").await);
    front.somebody_waits().store(true, Ordering::SeqCst);
    let store: Arc<dyn Store> = Arc::<PostgresStore>::clone(&front);
    let mut follower = Follower::new(store, EventFilter::default(), Some(Timestamp::from_micros(0)));
    let worker = tokio::spawn(async move {
        for _ in 0..JOBS {
            let claimed = claim_one(&back).await;
            assert!(matches!(settle(&back, claimed.lease, succeeded()).await.unwrap(), Settled::Ended { .. }));
        }
        back
    });
    let mut ids = HashSet::new();
    for _ in 0..JOBS {
        let job = io_job();
        ids.insert(job.id);
        front.accept(vec![job]).await.unwrap();
    }
    let mut ended = HashSet::new();
    while ended.len() < JOBS {
        for id in tokio::time::timeout(PATIENCE, front.ended_unasked()).await.expect("an end") {
            assert!(ended.insert(id), "{id} has ended twice");
        }
    }
    assert_eq!(ended, ids);
    let mut last = Timestamp::from_micros(0);
    for _ in 0..3 * JOBS {
        let event = tokio::time::timeout(PATIENCE, follower.next()).await.expect("an event").unwrap().unwrap();
        assert!(event.at > last);
        last = event.at;
    }
    let back = worker.await.unwrap();
    let depth = async |store: &PostgresStore| {
        store.check().await.unwrap();
        store.depth(Queue::Async)
    };
    assert_eq!((depth(&front).await, depth(&back).await), Default::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_are_told_of_what_a_node_leaves_to_them() {
    let place = Schema::new();
    let node = place.node("one").await;
    let mut told = PgListener::connect(&place.url()).await.unwrap();
    told.listen(&format!("trine_{}", place.options().schema)).await.unwrap();
    let mut hear = async || tokio::time::timeout(PATIENCE, told.recv()).await.expect("a hint").unwrap();
    let waiting = {
        let node = Arc::clone(&node);
        tokio::spawn(async move { claim_one(&node).await })
    };
    // So that the claim is there when the jobs come.
    for _ in 0..3 {
        node.check().await.unwrap();
    }
    node.accept(vec![io_job(), io_job()]).await.unwrap();
    hear().await;
    waiting.await.unwrap();
    // Those with a limit wait as well.
    node.accept(vec![limited("k", 1)]).await.unwrap();
    hear().await;
}

async fn a_job_that_runs_on_another_node_can_be_cancelled(place: Schema) {
    let (asked, runs) = (place.node("asked").await, place.node("runs").await);
    let job = io_job();
    asked.accept(vec![job.clone()]).await.unwrap();
    let lease = claim_one(&runs).await.lease;
    assert_eq!(asked.cancel(job.id, &[]).await.unwrap(), Cancellation::Stopping(lease));
    assert_eq!(revoked(&runs).await, [(lease, Revocation::Cancelled)]);
    settle(&runs, lease, Settlement::Release { begun: true }).await.unwrap();
    assert_eq!(asked.job(job.id).await.unwrap().unwrap().state.as_str(), "cancelled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_writes_all_the_time_hears_of_cancellations_all_the_same() {
    const JOBS: usize = 20;
    let place = Schema::new();
    // It says so seldom that it is there that it hears of nothing by that.
    let (asked, runs) = (place.node("asked").await, place.node_with("runs", Duration::from_secs(3_600)).await);
    let jobs: Vec<NewJob> = (0..JOBS).map(|_| io_job()).collect();
    asked.accept(jobs.clone()).await.unwrap();
    let mut leases = Vec::new();
    while leases.len() < JOBS {
        leases.extend(runs.claim(Queue::Async, JOBS).await.unwrap().into_iter().map(|claimed| claimed.lease));
    }
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let runs = Arc::clone(&runs);
        writers.spawn(async move {
            loop {
                runs.check().await.unwrap();
            }
        });
    }
    let mut revoked_here = HashSet::new();
    for job in jobs {
        asked.cancel(job.id, &[]).await.unwrap();
        while !revoked_here.contains(&job.id) {
            revoked_here.extend(revoked(&runs).await.into_iter().map(|(lease, _)| lease.id));
        }
    }
}

async fn ends_on_other_nodes_are_heard_of_however_many_there_are(place: Schema) {
    const JOBS: usize = 25_000;
    let store = place.node("here").await;
    store.somebody_waits().store(true, Ordering::SeqCst);
    let mut raw = place.raw().await;
    // As if another one had recorded them while this one looked away.
    let text = "BEGIN; \
        INSERT INTO results (id, ending, attempt, losses, finished_at) \
            SELECT gen_random_uuid(), 0, 1, 0, s.latest + n \
            FROM (SELECT (state::JSONB ->> 'latest')::BIGINT AS latest FROM shared FOR UPDATE) AS s, generate_series(1, 25000) AS n; \
        UPDATE shared SET state = jsonb_set(state::JSONB, '{latest}', to_jsonb((state::JSONB ->> 'latest')::BIGINT + 25000))::TEXT; \
        COMMIT";
    sqlx::raw_sql(text).execute(&mut raw).await.unwrap();
    let mut ended = HashSet::new();
    while ended.len() < JOBS {
        ended.extend(tokio::time::timeout(PATIENCE, store.ended_unasked()).await.expect("the rest of them"));
    }
}
