//! Which PostgreSQL a store can be opened in, and what it says of the others.

use std::sync::Arc;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use trine::auth::{Key, Scopes};
use trine::store::postgres::{PostgresOptions, PostgresStore};
use trine::store::{KeyStore as _, ScheduleStore as _, Store as _, StoreError};

use crate::postgres::Schema;
use crate::{io_job, until};

async fn execute(text: impl Into<String>) {
    let url = format!("postgres://trine@localhost/postgres?host={}", Schema::socket());
    let mut connection = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(text.into())).execute(&mut connection).await.unwrap();
}

fn options(place: &Schema, user: &str, database: &str) -> PostgresOptions {
    let url = format!("postgres://{user}@localhost/{database}?host={}", Schema::socket());
    PostgresOptions { urls: vec![url], clock: None, ..place.options() }
}

async fn refused(options: PostgresOptions) -> String {
    match PostgresStore::open(options).await {
        Err(StoreError::Unusable(why)) => why,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it is opened"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_used_is_told_before_anything_is_written() {
    let place = Schema::new();
    for name in ["", "A", &"a".repeat(64)] {
        let why = refused(PostgresOptions { schema: name.to_owned(), ..place.options() }).await;
        assert_eq!(why, format!("a schema can't have the name {name:?}: it has 1 to 63 of a-z, 0-9 and _"));
    }
    execute("CREATE DATABASE latin ENCODING LATIN1 LOCALE 'C' TEMPLATE template0").await;
    let why = refused(options(&place, "trine", "latin")).await;
    assert!(why.contains("its encoding is LATIN1"), "{why}");
    execute("CREATE ROLE reader SUPERUSER LOGIN; ALTER ROLE reader SET default_transaction_read_only = on").await;
    let why = refused(options(&place, "reader", "postgres")).await;
    assert!(why.contains("it is read-only"), "{why}");
    // Somebody else has made the schema, and forgot to give it to the user.
    let schema = place.options().schema;
    execute(format!("CREATE ROLE poor LOGIN; CREATE SCHEMA {schema}")).await;
    let why = refused(options(&place, "poor", "postgres")).await;
    assert!(why.contains(&format!("the user poor needs the rights USAGE and CREATE on the schema {schema}")), "{why}");
    execute(format!("GRANT USAGE, CREATE ON SCHEMA {schema} TO poor")).await;
    let store = PostgresStore::open(options(&place, "poor", "postgres")).await.unwrap();
    execute(format!("REVOKE SELECT ON {schema}.schedules FROM poor")).await;
    let said = store.count_schedules().await.unwrap_err().to_string();
    assert_eq!(said, "error returned from database: permission denied for table schedules");
    // Nobody has made it, and the user may not; then there is something else in it.
    let other = Schema::new();
    let schema = other.options().schema;
    let why = refused(options(&other, "poor", "postgres")).await;
    assert!(why.contains(&format!("the schema {schema} can't be made by the user poor: permission denied")), "{why}");
    execute(format!("CREATE SCHEMA {schema} AUTHORIZATION poor; CREATE TABLE {schema}.jobs (id INT)")).await;
    let why = refused(options(&other, "poor", "postgres")).await;
    let expected = format!("the schema {schema} can't be brought up to date by the user poor: relation \"jobs\" already exists");
    assert_eq!(why, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_kept_that_does_nothing_for_longer_than_the_database_lets_others() {
    let place = Schema::new();
    execute("CREATE ROLE idle SUPERUSER LOGIN; ALTER ROLE idle SET idle_session_timeout = '300ms'").await;
    let lease = Duration::from_secs(3);
    let store = PostgresStore::open(PostgresOptions { lease, ..options(&place, "idle", "postgres") }).await.unwrap();
    let mut raw = PgConnection::connect(&place.url()).await.unwrap();
    let text = format!(
        "SELECT pid, seen_at::TEXT FROM pg_stat_activity, {}.nodes WHERE usename = 'idle' AND application_name LIKE '%heartbeat'",
        place.options().schema
    );
    let mut beats: Vec<(i32, String)> = Vec::new();
    let beating = async || {
        let beat = sqlx::query_as(AssertSqlSafe(text.clone())).fetch_optional(&mut raw).await.unwrap();
        beats.extend(beat.filter(|beat| beats.last() != Some(beat)));
        (beats.len() >= 4).then_some(())
    };
    until("it says that it is there", beating).await;
    assert!(beats.iter().all(|(session, _)| *session == beats[0].0), "{beats:?}");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_was_read_only_for_a_while_is_written_again() {
    let place = Schema::new();
    execute("CREATE ROLE owner SUPERUSER LOGIN").await;
    let store = Arc::new(PostgresStore::open(options(&place, "owner", "postgres")).await.unwrap());
    let keep = async || {
        let (key, _) = Key::new("k".into(), Scopes::ALL, None).unwrap();
        // Both ways to the database: that of what is asked for, and that of jobs.
        store.add_key(key, None).await.is_ok() && store.accept(vec![io_job()]).await.is_ok()
    };
    let until_kept = async |kept: bool| until("it is so", async || (keep().await == kept).then_some(())).await;
    until_kept(true).await;
    // As where a disk is nearly full: new sessions can't write, and the old ones are ended.
    execute("ALTER ROLE owner SET default_transaction_read_only = on").await;
    execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'owner'").await;
    until_kept(false).await;
    execute("ALTER ROLE owner RESET default_transaction_read_only").await;
    until_kept(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_goes_on_where_its_readers_have_all_connections_that_there_may_be() {
    let place = Schema::new();
    let schema = place.options().schema;
    execute(format!("CREATE ROLE few LOGIN; CREATE SCHEMA {schema} AUTHORIZATION few")).await;
    let lease = Duration::from_secs(3);
    let options = PostgresOptions { lease, connections: 8, ..options(&place, "few", "postgres") };
    let store = Arc::new(PostgresStore::open(options).await.unwrap());
    let (mut raw, mut looking) = (place.raw().await, place.raw().await);
    let mut has = async |what: &str| {
        let text = format!("SELECT {what} FROM pg_stat_activity WHERE usename = 'few'");
        let query = || sqlx::query_scalar::<_, bool>(AssertSqlSafe(text.clone()));
        until(&text, async || query().fetch_one(&mut looking).await.unwrap().then_some(())).await;
    };
    // One listens already; all that are left wait for a lock.
    let mut locked = raw.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE schedules IN ACCESS EXCLUSIVE MODE").execute(&mut *locked).await.unwrap();
    let reads = (0..7).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.count_schedules().await })
    });
    let reads: Vec<_> = reads.collect();
    has("count(*) FILTER (WHERE wait_event_type = 'Lock') = 7").await;
    locked.rollback().await.unwrap();
    for read in reads {
        read.await.unwrap().unwrap();
    }
    // As after a restart in which the readers were the first to come back.
    execute("ALTER ROLE few CONNECTION LIMIT 8").await;
    let text =
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'few' AND application_name ~ 'writer|heartbeat'";
    execute(text).await;
    until("there is a connection to write by", async || store.accept(vec![io_job()]).await.ok()).await;
    has("count(DISTINCT substring(application_name FROM 'writer|heartbeat')) = 2").await;
    store.count_schedules().await.unwrap();
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_its_user_waits_for_locks_is_no_limit_for_a_store() {
    let place = Schema::new();
    execute("CREATE ROLE hasty SUPERUSER LOGIN; ALTER ROLE hasty SET lock_timeout = '50ms'; ALTER ROLE hasty SET statement_timeout = '50ms'")
        .await;
    let store = Arc::new(PostgresStore::open(options(&place, "hasty", "postgres")).await.unwrap());
    let mut raw = place.raw().await;
    let mut locked = raw.begin().await.unwrap();
    sqlx::raw_sql("SELECT FROM shared FOR UPDATE").execute(&mut *locked).await.unwrap();
    let accepted = tokio::spawn(async move { store.accept(vec![io_job()]).await.map(drop) });
    let mut looking = place.raw().await;
    // For longer than it would, to be sure of which the database is asked.
    let text = "SELECT count(*) > 0 FROM pg_stat_activity WHERE usename = 'hasty' AND wait_event_type = 'Lock' \
                AND query_start < clock_timestamp() - INTERVAL '200 milliseconds'";
    let waits = async || {
        let waits = sqlx::query_scalar::<_, bool>(text).fetch_one(&mut looking).await.unwrap();
        (waits || accepted.is_finished()).then_some(())
    };
    until("the writer waits", waits).await;
    locked.rollback().await.unwrap();
    accepted.await.unwrap().unwrap();
}
