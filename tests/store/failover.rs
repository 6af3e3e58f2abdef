//! A database of which a standby takes the place, at an address of its own.

use std::sync::Arc;

use sqlx::{Connection as _, PgConnection};
use trine::auth::{Key, Scopes};
use trine::job::JobId;
use trine::store::postgres::PostgresStore;
use trine::store::{KeyStore as _, Lease, Settled, Store as _, StoreError};

use crate::postgres::options_at;
use crate::server::Postgres;
use crate::{claim_one, io_job, settle, succeeded, until};

fn url(server: &Postgres, port: u16) -> String {
    format!("postgres://trine@localhost:{port}/postgres?host={}", server.folder())
}

async fn open(urls: Vec<String>) -> Result<PostgresStore, StoreError> {
    PostgresStore::open(options_at(urls, "one")).await
}

/// A job that was accepted, however often that has to be tried.
async fn accepted(store: &PostgresStore) -> JobId {
    let accepted = async || Some(store.accept(vec![io_job()]).await.ok()?[0].id);
    until("the database can be written in", accepted).await
}

/// What came of a result, however often it has to be said.
async fn settled(store: &Arc<PostgresStore>, lease: Lease) -> Settled {
    until("the database can be written in", async || settle(store, lease, succeeded()).await.ok()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_hosts_the_one_is_used_that_can_be_written_in() {
    let mut server = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
    let both = [url(&server, 5433), url(&server, 5432)];
    let nowhere = open(vec![both[0].clone(), both[0].clone()]).await.err().expect("nothing there").to_string();
    assert!(nowhere.matches(":5433: ").count() == 2, "{nowhere}");
    server.tell("standby");
    // The first one answers, and is not the one.
    let only_standby = open(vec![both[0].clone(), both[0].clone()]).await.err().expect("a standby").to_string();
    assert!(only_standby.contains(":5433: nothing can be written there, nor to "), "{only_standby}");
    let store = Arc::new(open(both.to_vec()).await.unwrap());
    let before = accepted(&store).await;
    assert!(store.job(before).await.unwrap().is_some());

    server.tell("stop");
    server.tell("take-over");
    let after = accepted(&store).await;
    let (key, _) = Key::new("k".into(), Scopes::ALL, None).unwrap();
    // The connections of the pool go there as well.
    let read = until("it is read", async || store.job(before).await.ok()).await;
    assert!(read.is_some() && store.job(after).await.unwrap().is_some());
    store.add_key(key, None).await.unwrap();
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_goes_on_where_the_database_that_is_not_there_any_more_says_nothing() {
    let mut server = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
    server.tell("standby");
    let store = Arc::new(open(vec![url(&server, 5432), url(&server, 5433)]).await.unwrap());
    accepted(&store).await;
    let lease = claim_one(&store).await.lease;
    server.tell("freeze");
    server.tell("take-over");
    let mut now = PgConnection::connect(&url(&server, 5433)).await.unwrap();
    let taken_over: i64 =
        sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::BIGINT").fetch_one(&mut now).await.unwrap();
    let text = "SELECT EXISTS (SELECT 1 FROM trine.nodes WHERE extract(epoch FROM seen_at) * 1000000 > $1)";
    let is_heard = || sqlx::query_scalar::<_, bool>(text).bind(taken_over);
    tokio::select! {
        () = until("it is told that the node is there", async || is_heard().fetch_one(&mut now).await.unwrap().then_some(())) => {}
        revoked = store.revoked() => panic!("{revoked:?}"),
    }
    assert!(matches!(settled(&store, lease).await, Settled::Ended { .. }));
    store.close().await;
}
