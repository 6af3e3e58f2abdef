//! Which PostgreSQL a store can be opened in, and what it says of the others.

use std::sync::Arc;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use trine::auth::{Key, Scopes};
use trine::store::postgres::{PostgresOptions, PostgresStore};
use trine::store::{KeyStore as _, Store as _, StoreError};

use crate::postgres::Schema;
use crate::{PATIENCE, io_job};

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
    PostgresStore::open(options(&place, "poor", "postgres")).await.unwrap();
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
    let until = async |fails: bool| {
        let waiting = async {
            while keep().await == fails {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("it does not happen");
    };
    until(false).await;
    // As where a disk is nearly full: new sessions can't write, and the old ones are ended.
    execute("ALTER ROLE owner SET default_transaction_read_only = on").await;
    execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'owner'").await;
    until(true).await;
    execute("ALTER ROLE owner RESET default_transaction_read_only").await;
    until(false).await;
}
