//! The lock of all nodes is given back before the log is synced, and nobody is told of what is not.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::task::JoinHandle;
use trine::clock::Timestamp;
use trine::store::postgres::{PostgresOptions, PostgresStore};
use trine::store::{Answered, Once, OnceStore as _, Store as _};

use crate::postgres::options_at;
use crate::server::Postgres;
use crate::{PATIENCE, io_job, until};

/// A PostgreSQL of a test's own, whose commits can be made to wait for a standby that never comes.
struct Database {
    connection: PgConnection,
    url: String,
    _server: Postgres,
}

impl Database {
    async fn start() -> Self {
        let server = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
        let url = server.url();
        Self { connection: PgConnection::connect(&url).await.unwrap(), url, _server: server }
    }

    async fn node(&self, name: &str) -> Arc<PostgresStore> {
        // What says that it is there waits for the standby as well, and would be counted.
        self.node_with(name, Duration::from_secs(3_600)).await
    }

    async fn node_with(&self, name: &str, lease: Duration) -> Arc<PostgresStore> {
        let options = PostgresOptions { lease, ..options_at(vec![self.url.clone()], name) };
        Arc::new(PostgresStore::open(options).await.unwrap())
    }

    async fn execute(&mut self, text: &str) {
        sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut self.connection).await.unwrap();
    }

    /// How many sessions have committed and wait for the standby.
    async fn waiting(&mut self) -> i64 {
        let text = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        sqlx::query_scalar(text).fetch_one(&mut self.connection).await.unwrap()
    }

    async fn until_waiting(&mut self, sessions: i64) {
        until("sessions wait for the standby", async || (self.waiting().await >= sessions).then_some(())).await;
    }

    /// Has all commits wait from now on. That is so as soon as one does, which is given back.
    async fn hold(&mut self) -> JoinHandle<()> {
        self.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await;
        self.execute("SELECT pg_reload_conf()").await;
        let held = async || {
            let mut other = PgConnection::connect(&self.url).await.unwrap();
            let commit = tokio::spawn(async move {
                sqlx::raw_sql("SELECT pg_logical_emit_message(true, '', '')").execute(&mut other).await.unwrap();
            });
            while !commit.is_finished() {
                if self.waiting().await > 0 {
                    return Some(commit);
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            None
        };
        until("a commit waits", held).await
    }

    async fn let_go(&mut self) {
        self.execute("ALTER SYSTEM RESET synchronous_standby_names").await;
        self.execute("SELECT pg_reload_conf()").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_log_waits_others_have_their_turns_and_nobody_is_told() {
    let mut database = Database::start().await;
    let (front, back) = (database.node("front").await, database.node("back").await);
    let held = database.hold().await;
    let job = io_job();
    let id = job.id;
    let request =
        Answered { key: "k".into(), digest: [7; 32], jobs: vec![(id, false)], until: Timestamp::now().after(PATIENCE * 60) };
    let accepted = tokio::spawn({
        let front = Arc::clone(&front);
        async move { front.accept_once(vec![job], Once { request: Some(request), unique: Vec::new() }).await }
    });
    database.until_waiting(2).await;
    // It is committed, so the lock is free.
    let there: i64 = sqlx::query_scalar("SELECT count(*) FROM trine.jobs").fetch_one(&mut database.connection).await.unwrap();
    assert_eq!(there, 1);
    database.execute("BEGIN; SELECT 1 FROM trine.shared FOR UPDATE NOWAIT; ROLLBACK").await;
    let read = tokio::spawn({
        let back = Arc::clone(&back);
        async move { back.job(id).await }
    });
    database.until_waiting(3).await;
    let answered = tokio::spawn({
        let back = Arc::clone(&back);
        async move { back.answered("k").await }
    });
    database.until_waiting(4).await;
    assert!(!accepted.is_finished() && !read.is_finished() && !answered.is_finished());
    database.let_go().await;
    assert_eq!(accepted.await.unwrap().unwrap()[0].id, id);
    assert!(read.await.unwrap().unwrap().is_some_and(|job| job.id == id));
    assert!(answered.await.unwrap().unwrap().is_some_and(|answered| answered.jobs == [(id, false)]));
    held.await.unwrap();
    // What is known to be safe is read without more.
    let held = database.hold().await;
    assert!(back.job(id).await.unwrap().is_some());
    database.let_go().await;
    held.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_standby_and_was_given_up_does_not_stay() {
    let mut database = Database::start().await;
    let store = database.node_with("one", Duration::from_secs(6)).await;
    let held = database.hold().await;
    let text = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'trine%' AND state = 'active'";
    let mut seen: HashSet<i32> = HashSet::new();
    let bounded = async {
        // Each try to say that it is there has a connection of its own.
        loop {
            let waiting: Vec<i32> = sqlx::query_scalar(text).fetch_all(&mut database.connection).await.unwrap();
            seen.extend(&waiting);
            if seen.len() >= 3 && waiting.len() <= 1 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE / 2, bounded).await.expect("few sessions that wait");
    database.let_go().await;
    held.await.unwrap();
    store.accept(vec![io_job()]).await.unwrap();
}
