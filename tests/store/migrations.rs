//! Databases of earlier schemas, with rows in them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};
use trine::clock::Timestamp;
use trine::job::State;
use trine::store::sqlite::SqliteStore;
use trine::store::{DeliveryFilter, EventFilter, Filter, Order, Page, Store};

use crate::sqlite::Folder;
use crate::{finish_all, io_job};

const EVERYTHING: Page = Page { order: Order::OldestFirst, after: None, limit: 10_000 };

/// The stored databases, each of an earlier schema.
fn stored() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/store/schemas");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|extension| extension == "sql")).collect();
    files.sort();
    files
}

async fn load(connection: &mut SqliteConnection, path: &Path) {
    let text = std::fs::read_to_string(path).unwrap();
    sqlx::raw_sql(AssertSqlSafe(text)).execute(connection).await.unwrap();
}

async fn names(connection: &mut SqliteConnection, text: &str) -> Vec<String> {
    sqlx::query_scalar(AssertSqlSafe(text.to_owned())).fetch_all(connection).await.unwrap()
}

async fn number(connection: &mut SqliteConnection, text: String) -> usize {
    let number: i64 = sqlx::query_scalar(AssertSqlSafe(text)).fetch_one(connection).await.unwrap();
    usize::try_from(number).unwrap()
}

async fn tables(connection: &mut SqliteConnection, database: &str) -> Vec<String> {
    let text = format!(
        "SELECT name FROM {database}.sqlite_schema WHERE type = 'table' AND name NOT LIKE '\\_%' ESCAPE '\\' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    );
    names(connection, &text).await
}

/// What was there is still there, can be read, and goes on.
async fn goes_on(folder: &Folder, what: &str) {
    let mut raw = folder.raw().await;
    let jobs = number(&mut raw, "SELECT count(*) FROM jobs".into()).await;
    let results = number(&mut raw, "SELECT count(*) FROM results".into()).await;
    raw.close().await.unwrap();
    let store: Arc<dyn Store> =
        Arc::new(SqliteStore::open(folder.options()).await.unwrap_or_else(|error| panic!("{what}: {error}")));
    let found = store.jobs(&Filter::default(), EVERYTHING).await.unwrap();
    assert_eq!(found.len(), jobs + results, "{what}: a job is gone");
    for job in &found {
        assert!(store.job(job.id).await.unwrap().is_some());
        store.graph(job.id, None, 10).await.unwrap();
        store.gate(job.id).await.unwrap();
    }
    // What ran waits again, or has ended as lost.
    assert!(found.iter().all(|job| !matches!(job.state, State::Running { .. })), "{what}");
    let ended = store.results(&Filter::default(), EVERYTHING).await.unwrap();
    assert!(ended.len() >= results, "{what}");
    store.events(&EventFilter::default(), Timestamp::from_micros(0)).await.unwrap();
    store.summary().await.unwrap();
    store.profiles().await.unwrap();
    store.profile_days(0, i64::MAX).await.unwrap();
    store.limits(None, 100).await.unwrap();
    for comparison in store.comparisons(None, None, 100).await.unwrap() {
        store.comparison(comparison.id).await.unwrap().unwrap();
    }
    for schedule in store.schedules(None, 100).await.unwrap() {
        store.fires(&schedule.name, 100).await.unwrap();
    }
    store.deliveries(DeliveryFilter::default(), None, 100).await.unwrap();
    for function in store.functions().await.unwrap() {
        store.function_content(&function.name, &function.version).await.unwrap().unwrap();
    }
    for key in store.keys().await.unwrap() {
        store.usage(key.owner).await.unwrap();
    }
    store.acts(None, 100).await.unwrap();
    finish_all(&store, &[io_job()]).await;
    if let Some(job) = ended.first() {
        store.requeue(job.id).await.unwrap();
    }
    store.close().await;
    drop(store);
    let mut raw = folder.raw().await;
    let verdict = names(&mut raw, "PRAGMA integrity_check").await;
    assert_eq!(verdict, ["ok"], "{what}");
}

#[tokio::test]
async fn a_database_of_each_stored_schema_is_opened_with_all_that_is_in_it() {
    let files = stored();
    assert!(!files.is_empty());
    for path in files {
        let folder = Folder::new();
        let mut raw =
            SqliteConnection::connect(&format!("sqlite:{}?mode=rwc", folder.path().join("trine.db").display())).await.unwrap();
        load(&mut raw, &path).await;
        for table in tables(&mut raw, "main").await {
            let rows = number(&mut raw, format!("SELECT count(*) FROM {table}")).await;
            assert!(rows > 0 || table == "releases", "{}: no row of {table}", path.display());
        }
        raw.close().await.unwrap();
        goes_on(&folder, &path.display().to_string()).await;
    }
}

/// The rows are those of a later schema, as far as this one has a place for them.
#[tokio::test]
async fn a_database_is_opened_as_it_was_after_each_migration() {
    let latest = stored().pop().unwrap();
    let source = Folder::new();
    let source = source.path().join("source.db");
    let mut raw = SqliteConnection::connect(&format!("sqlite:{}?mode=rwc", source.display())).await.unwrap();
    load(&mut raw, &latest).await;
    raw.close().await.unwrap();
    let all = Migrator::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/sqlite").as_path()).await.unwrap();
    let migrations: Vec<_> = all.iter().cloned().collect();
    for count in 1..=migrations.len() {
        let folder = Folder::new();
        let path = folder.path().join("trine.db");
        let mut raw = SqliteConnection::connect(&format!("sqlite:{}?mode=rwc", path.display())).await.unwrap();
        Migrator::with_migrations(migrations[..count].to_vec()).run_direct(None, &mut raw, false).await.unwrap();
        sqlx::query("ATTACH ? AS source").bind(source.to_str().unwrap()).execute(&mut raw).await.unwrap();
        copy(&mut raw, migrations[count - 1].version).await;
        raw.close().await.unwrap();
        goes_on(&folder, &format!("after migration {}", migrations[count - 1].version)).await;
    }
}

async fn copy(raw: &mut SqliteConnection, version: i64) {
    let there = tables(raw, "source").await;
    for table in tables(raw, "main").await.into_iter().filter(|table| there.contains(table)) {
        let columns = |database: &str| format!("SELECT name FROM pragma_table_xinfo('{table}', '{database}') WHERE hidden = 0");
        let (own, others) = (names(raw, &columns("main")).await, names(raw, &columns("source")).await);
        let shared: Vec<_> = own.into_iter().filter(|column| others.contains(column)).collect();
        let values: Vec<String> = shared
            .iter()
            .map(|column| match column.as_str() {
                // It stood in its job's row before.
                "workload" if version < 16 => {
                    "iif(payload IS NULL, workload, (SELECT text FROM source.payloads WHERE n = payload))".into()
                }
                column => column.to_owned(),
            })
            .collect();
        // Jobs were not blocked or in lanes before there were graphs and limits.
        let which = if table == "jobs" && version < 7 { " WHERE state < 3" } else { "" };
        let text = format!(
            "INSERT OR REPLACE INTO main.{table} ({}) SELECT {} FROM source.{table}{which}",
            shared.join(", "),
            values.join(", ")
        );
        sqlx::query(AssertSqlSafe(text)).execute(&mut *raw).await.unwrap();
    }
}
