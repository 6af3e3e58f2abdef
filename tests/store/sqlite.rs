//! What is special to SQLite.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use sqlx::{Connection, SqliteConnection};
use trine::clock::{Clock, Timestamp};
use trine::job::{Job, Queue, State};
use trine::store::sqlite::{SqliteOptions, SqliteStore};
use trine::store::{Store, StoreError};

use crate::{PATIENCE, Place, TestClock, accept, claim_one, finish_all, gave, io_job, settle};

pub(crate) struct Folder(tempfile::TempDir, Arc<TestClock>);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap(), Arc::default())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) async fn try_open(&self) -> Result<SqliteStore, StoreError> {
        SqliteStore::open(self.options()).await
    }

    pub(crate) fn options(&self) -> SqliteOptions {
        let clock = Arc::<TestClock>::clone(&self.1);
        let path = self.0.path().join("trine.db");
        let labels = trine::job::Labels::from([("node".to_owned(), "one".to_owned())]);
        SqliteOptions { path, node: "one".into(), labels, clock, max_losses: 3, job_log_lines: 50, job_log_bytes: 10_000 }
    }

    /// What a crash would leave behind now. (The database itself does not change as long as its journal is short.)
    pub(crate) fn crashed(&self) -> Self {
        let copy = Self::new();
        for name in ["trine.db", "trine.db-wal"] {
            std::fs::copy(self.0.path().join(name), copy.0.path().join(name)).unwrap();
        }
        copy
    }

    pub(crate) async fn raw(&self) -> SqliteConnection {
        SqliteConnection::connect(&format!("sqlite:{}", self.options().path.display())).await.unwrap()
    }
}

impl Place for Folder {
    const CASES: u64 = 700;

    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(self.try_open().await.unwrap())
    }

    fn another(&self) -> Self {
        Self::new()
    }

    fn light(self) -> Self {
        let memory = std::path::Path::new("/dev/shm");
        if memory.is_dir() { Self(tempfile::tempdir_in(memory).unwrap(), self.1) } else { self }
    }

    fn clock(&self) -> &TestClock {
        &self.1
    }
}

#[tokio::test]
async fn the_library_has_no_known_way_to_lose_commits() {
    // Before 3.51.3 a WAL that is reset at the wrong moment can lose them.
    let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
    let version: String = sqlx::query_scalar("SELECT sqlite_version()").fetch_one(&mut connection).await.unwrap();
    let parts: Vec<u32> = version.split('.').map(|part| part.parse().unwrap()).collect();
    assert!(parts >= vec![3, 51, 3], "{version}");
}

#[tokio::test]
async fn one_file_is_never_served_twice_at_once() {
    let folder = Folder::new();
    let store = folder.open().await;
    let Err(refused) = SqliteStore::open(folder.options()).await else { panic!("opened twice") };
    assert!(refused.to_string().contains("another server"), "{refused}");
    store.close().await;
    drop(store);
    folder.open().await;
}

#[tokio::test]
async fn a_newer_schema_is_refused_by_name() {
    let folder = Folder::new();
    folder.open().await.close().await;
    let mut raw = folder.raw().await;
    sqlx::query("INSERT INTO _sqlx_migrations VALUES (9999, 'from the future', CURRENT_TIMESTAMP, true, x'00', 0)")
        .execute(&mut raw)
        .await
        .unwrap();
    let Err(StoreError::TooNew { found: 9999, .. }) = SqliteStore::open(folder.options()).await else {
        panic!("a newer schema was opened")
    };
}

#[tokio::test]
async fn what_is_no_database_is_named_with_its_path() {
    let folder = Folder::new();
    let path = folder.options().path;
    let refused = async || match folder.try_open().await {
        Err(StoreError::Unusable(why)) => why,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it is opened"),
    };
    std::fs::write(&path, "no database, ".repeat(1_000)).unwrap();
    assert!(refused().await.starts_with(&format!("{} is no SQLite database", path.display())));
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(refused().await.starts_with(&format!("the database {} can't be used: ", path.display())));
}

#[tokio::test]
async fn a_journal_whose_database_is_gone_is_refused_and_kept() {
    let folder = Folder::new();
    let store = folder.open().await;
    let job = io_job();
    accept(&store, std::slice::from_ref(&job)).await;
    let crashed = folder.crashed();
    let (path, away) = (crashed.options().path, crashed.path().join("away"));
    let refused = async || match crashed.try_open().await {
        Err(StoreError::Unusable(why)) => assert!(why.contains("trine.db-wal is there"), "{why}"),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it is opened"),
    };
    std::fs::rename(&path, &away).unwrap();
    refused().await;
    std::fs::write(&path, "").unwrap();
    refused().await;
    std::fs::rename(&away, &path).unwrap();
    assert!(crashed.open().await.job(job.id).await.unwrap().is_some());
}

#[tokio::test]
async fn the_summary_is_exact_after_a_crash() {
    let counts = async |store: &Arc<dyn Store>| {
        let summary = store.summary().await.unwrap();
        summary.iter().map(|(key, sketches)| (key.clone(), sketches.count(), sketches.cpu().quantiles())).collect::<Vec<_>>()
    };
    let folder = Folder::new();
    let store = folder.open().await;
    let jobs: Vec<_> = (0..300).map(|_| io_job()).collect();
    finish_all(&store, &jobs).await;
    store.requeue(jobs[0].id).await.unwrap();
    store.cancel(jobs[0].id, &[]).await.unwrap();
    let before = counts(&store).await;
    assert_eq!(before.iter().map(|(_, count, _)| count).collect::<Vec<_>>(), [&299, &1]);

    // Whether the rollups were written before the crash or not, and whether it happens again or not.
    let crashed = folder.crashed();
    let again = crashed.open().await;
    assert_eq!(counts(&again).await, before);
    let twice = crashed.crashed();
    assert_eq!(counts(&twice.open().await).await, before);
    finish_all(&again, &[io_job()]).await;
    again.close().await;
    drop(again);
    let after = counts(&crashed.open().await).await;
    assert_eq!(after.iter().map(|(_, count, _)| count).collect::<Vec<_>>(), [&300, &1]);
}

#[tokio::test]
async fn what_is_left_is_sound_and_in_one_file() {
    let folder = Folder::new();
    let store = folder.open().await;
    accept(&store, &(0..500).map(|_| io_job()).collect::<Vec<_>>()).await;
    store.close().await;
    let wal = folder.0.path().join("trine.db-wal");
    assert!(std::fs::metadata(wal).map_or(0, |wal| wal.len()) == 0, "the journal was not folded in");
    let verdict: String = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut folder.raw().await).await.unwrap();
    assert_eq!(verdict, "ok");
}

#[tokio::test]
async fn after_closing_everything_is_refused() {
    let store = Folder::new().open().await;
    store.close().await;
    assert!(matches!(store.accept(vec![io_job()]).await, Err(StoreError::Closed)));
    assert!(matches!(store.check().await, Err(StoreError::Closed)));
}

#[tokio::test]
async fn of_a_removed_result_nothing_is_left() {
    let folder = Folder::new();
    let store = folder.open().await;
    let mut job = io_job();
    let text = serde_json::json!({"type": "sleep", "ms": 1, "x": "long".repeat(1_000)});
    job.submission.workload.json = serde_json::value::to_raw_value(&text).unwrap();
    job.submission.tags = [("team".into(), "search".into())].into();
    accept(&store, std::slice::from_ref(&job)).await;
    let long = gave(&"long".repeat(1_000).into());
    settle(&store, claim_one(&store).await.lease, long.clone()).await.unwrap();
    let mut raw = folder.raw().await;
    let inside: i64 = sqlx::query_scalar("SELECT octet_length(workload) + octet_length(output) FROM results")
        .fetch_one(&mut raw)
        .await
        .unwrap();
    assert_eq!(inside, 0, "a search would read it whenever it comes by this row");
    store.requeue(job.id).await.unwrap();
    let apart: i64 = sqlx::query_scalar("SELECT count(*) FROM payloads").fetch_one(&mut raw).await.unwrap();
    assert_eq!(apart, 1, "the workload");
    settle(&store, claim_one(&store).await.lease, long).await.unwrap();
    store.remove_result(job.id).await.unwrap();
    store.close().await;
    drop(store);
    let text = "SELECT (SELECT count(*) FROM jobs) + (SELECT count(*) FROM results) + (SELECT count(*) FROM payloads) \
                + (SELECT count(*) FROM tags) + (SELECT count(*) FROM events)";
    let left: i64 = sqlx::query_scalar(text).fetch_one(&mut raw).await.unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn the_journal_is_folded_into_the_database_while_jobs_come() {
    let folder = Folder::new().light();
    let store = folder.open().await;
    let length = || std::fs::metadata(folder.path().join("trine.db")).unwrap().len();
    let before = length();
    let folded = async {
        while length() == before {
            accept(&store, &[io_job()]).await;
        }
    };
    tokio::time::timeout(PATIENCE, folded).await.unwrap();
    // Far less than what SQLite itself would let it grow to.
    assert!(std::fs::metadata(folder.path().join("trine.db-wal")).unwrap().len() < 40_000 * 4_096);
    let jobs = store.depth(Queue::Async).queued;
    store.close().await;
    drop(store);
    assert_eq!(folder.open().await.depth(Queue::Async).queued, jobs);
}

#[tokio::test]
async fn a_start_counts_losses_without_reading_workloads() {
    // If they were too much for its memory, it would die before it has counted, and start again for ever.
    let folder = Folder::new();
    let store = folder.open().await;
    let mut job = io_job();
    let text = serde_json::json!({"type": "sleep", "ms": 1, "x": "long".repeat(1_000)});
    job.submission.workload.json = serde_json::value::to_raw_value(&text).unwrap();
    accept(&store, &[job]).await;
    claim_one(&store).await;
    drop(store);
    let mut raw = folder.raw().await;
    sqlx::query("UPDATE payloads SET text = 'no JSON' || text").execute(&mut raw).await.unwrap();
    let store = folder.open().await;
    sqlx::query("UPDATE payloads SET text = substr(text, 8)").execute(&mut raw).await.unwrap();
    let claimed = claim_one(&store).await;
    assert_eq!((claimed.attempt, claimed.losses), (2, 1));
}

/// A clock on which time passes whenever somebody looks.
#[derive(Debug)]
struct Ticking(AtomicI64);

impl Clock for Ticking {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.fetch_add(1_000, Ordering::SeqCst))
    }
}

#[tokio::test]
async fn nothing_starts_when_it_is_too_late_however_long_the_transaction_takes_that_claims_it() {
    let (folder, now) = (Folder::new(), Timestamp::now());
    let clock = Arc::new(Ticking(AtomicI64::new(now.as_micros())));
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(SqliteOptions { clock, ..folder.options() }).await.unwrap());
    let (mut last, hurried) = (io_job(), |ms| {
        let mut job = io_job();
        job.submission.expires_at = Some(now.after(Duration::from_millis(ms)));
        job
    });
    last.submission.priority = -100;
    // Which of them is next is too late a moment later. That they are accepted takes time as well.
    let jobs: Vec<_> = (600..1_000).map(hurried).chain([last.clone()]).collect();
    accept(&store, &jobs).await;
    let mut started = 0;
    loop {
        let id = claim_one(&store).await.lease.id;
        if id == last.id {
            break;
        }
        let Job { submission, state: State::Running { claimed_at, .. }, .. } = store.job(id).await.unwrap().unwrap() else {
            panic!("it does not run")
        };
        assert!(submission.expires_at.unwrap() > claimed_at, "{started}: {:?} at {claimed_at}", submission.expires_at);
        started += 1;
    }
    assert!(started > 0);
}
