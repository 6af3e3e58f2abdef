//! A commit that was carried out, and whose answer was lost.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use trine::clock::Clock as _;
use trine::store::Store as _;
use trine::store::postgres::PostgresStore;

use crate::postgres::Schema;
use crate::proxy::Proxy;
use crate::{PATIENCE, Place as _, end_one, io_job};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_never_heard_that_it_has_a_new_place_does_not_take_itself_for_another() {
    let place = Schema::new();
    let proxy = Proxy::that_cuts(Schema::socket()).await;
    let store = Arc::new(PostgresStore::open(place.through(proxy.port)).await.unwrap());
    proxy.cut();
    // As if another node had taken it for gone.
    let gone = "BEGIN; SELECT 1 FROM shared FOR UPDATE; DELETE FROM nodes; \
                UPDATE shared SET state = jsonb_set(state::JSONB, '{nodes}', '[]')::TEXT; COMMIT";
    sqlx::raw_sql(gone).execute(&mut place.raw().await).await.unwrap();
    // That or its heartbeat has it take a new place.
    let checked = store.check().await;
    proxy.happened().await;
    let mut checked = checked.and(store.check().await);
    let there = async {
        while let Err(error) = checked {
            assert!(!error.to_string().contains("of this name"), "{error}");
            checked = store.check().await;
        }
    };
    tokio::time::timeout(PATIENCE, there).await.expect("it goes on");
    store.accept(vec![io_job()]).await.unwrap();
    end_one(&store).await;
    let nodes: i64 = sqlx::query_scalar("SELECT count(*) FROM nodes").fetch_one(&mut place.raw().await).await.unwrap();
    assert_eq!(nodes, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_job_is_told_of_its_end_though_nobody_heard_that_it_was_committed() {
    let place = Schema::new();
    place.clock().stop();
    let proxy = Proxy::that_cuts(Schema::socket()).await;
    let store = PostgresStore::open(place.through(proxy.port)).await.unwrap();
    store.somebody_waits().store(true, Ordering::SeqCst);
    let mut job = io_job();
    job.submission.expires_at = Some(place.clock().now().after(Duration::from_secs(60)));
    store.accept(vec![job.clone()]).await.unwrap();
    proxy.cut();
    place.clock().advance(Duration::from_secs(60));
    proxy.happened().await;
    let ended = tokio::time::timeout(PATIENCE, store.ended_unasked()).await.expect("an end");
    assert_eq!(ended, [job.id]);
}
