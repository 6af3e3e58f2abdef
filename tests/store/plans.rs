//! How PostgreSQL finds what it is asked for.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgConnection;
use trine::job::{NewJob, Owner, Queue};
use trine::store::{Settlement, Store};

use crate::limits::limited;
use crate::postgres::Schema;
use crate::{claim_one, io_job, settle, succeeded, until};

/// What was read to find rows, as of when sessions last said so.
struct Reads {
    /// How often `work`, `jobs` and `results` were read as a whole.
    scans: i64,
    /// How many entries of the indexes of `work` and `jobs` were looked at. Of what waits those count whose rows live: while a transaction of
    /// another test is open, a claim walks over all that was claimed since it began.
    entries: i64,
}

/// What was read by the time that so many rows of `work` were changed or are gone.
async fn reads(store: &Arc<dyn Store>, raw: &mut PgConnection, changes: i64) -> Reads {
    let text = "SELECT (SELECT sum(seq_scan)::BIGINT FROM pg_stat_user_tables WHERE schemaname = current_schema() \
                AND relname IN ('work', 'jobs', 'results')) AS scans, \
                (SELECT sum(CASE indexrelname WHEN 'work_queued' THEN idx_tup_fetch ELSE idx_tup_read END)::BIGINT \
                FROM pg_stat_user_indexes WHERE schemaname = current_schema() AND relname IN ('work', 'jobs')) AS entries, \
                (SELECT n_tup_upd + n_tup_del FROM pg_stat_user_tables WHERE schemaname = current_schema() AND relname = 'work') AS changes";
    let said = async || {
        // A session says what it has read after a transaction, if it did not just before.
        store.check().await.unwrap();
        let (scans, entries, changed): (i64, i64, i64) = sqlx::query_as(text).fetch_one(&mut *raw).await.unwrap();
        (changed >= changes).then_some(Reads { scans, entries })
    };
    until("it is said what was read", said).await
}

/// Plans were made while tables were empty, and kept as they grew: with what is dead, `work` is large even where little waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_path_of_a_job_goes_by_keys_where_tables_were_empty() {
    const JOBS: i64 = 300;
    let place = Schema::new();
    let store: Arc<dyn Store> = place.node("here").await;
    let mut raw = place.raw().await;
    for _ in 0..JOBS {
        store.accept(vec![io_job()]).await.unwrap();
        let claimed = claim_one(&store).await;
        settle(&store, claimed.lease, succeeded()).await.unwrap();
    }
    let Reads { scans, entries, .. } = reads(&store, &mut raw, 2 * JOBS).await;
    assert!(scans < JOBS / 4 && entries < 20 * JOBS, "{scans} scans, {entries} entries");
}

/// A table that was vacuumed when it was nearly empty is taken for much smaller than it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_path_of_a_job_goes_by_keys_where_tables_have_grown() {
    const JOBS: i64 = 4_000;
    let place = Schema::new();
    let store: Arc<dyn Store> = place.node("here").await;
    let mut raw = place.raw().await;
    let jobs = |count: i64| (0..count).map(|_| io_job()).collect::<Vec<NewJob>>();
    store.accept(jobs(3)).await.unwrap();
    sqlx::raw_sql("VACUUM (ANALYZE) work, jobs, results").execute(&mut raw).await.unwrap();
    store.accept(jobs(JOBS - 3)).await.unwrap();
    let mut running = Vec::new();
    while i64::try_from(running.len()).unwrap() < JOBS {
        running.extend(store.claim(Queue::Async, 64).await.unwrap());
    }
    // Some wait again, one by one, while all others run; these end, so many at once.
    let due_at = store.now().after(Duration::from_secs(3_600));
    let ending = running.split_off(200);
    for claimed in running {
        settle(&store, claimed.lease, Settlement::Later { due_at }).await.unwrap();
    }
    for some in ending.chunks(64) {
        futures_util::future::try_join_all(some.iter().map(|claimed| settle(&store, claimed.lease, succeeded()))).await.unwrap();
    }
    let Reads { scans, entries, .. } = reads(&store, &mut raw, 2 * JOBS).await;
    // Whoever reads a table for each job looks at thousands.
    assert!(scans < 30 && entries < 20 * JOBS, "{scans} scans, {entries} entries");
}

/// What was vacuumed when much waited is taken for much larger than it is, when nearly all of it has ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_of_an_owner_is_counted_without_what_has_ended() {
    let place = Schema::new();
    let store: Arc<dyn Store> = place.node("here").await;
    let mut raw = place.raw().await;
    let owner = Owner::from_code(1).unwrap();
    let job = |_| {
        let mut job = io_job();
        job.submission.owner = Some(owner);
        job
    };
    store.accept((0..3_000).map(job).collect()).await.unwrap();
    let text = "VACUUM (ANALYZE) work, jobs; DELETE FROM work WHERE id > (SELECT id FROM work ORDER BY id OFFSET 9 LIMIT 1)";
    for text in text.split("; ") {
        sqlx::raw_sql(text).execute(&mut raw).await.unwrap();
    }
    let text = "SELECT seq_tup_read, idx_scan FROM pg_stat_user_tables WHERE schemaname = current_schema() AND relname = 'jobs'";
    let said = async || {
        assert_eq!(store.usage(owner).await.unwrap().queued, 10);
        // A session says what it has read after a transaction, if it did not just before.
        let (rows, looked_up): (i64, i64) = sqlx::query_as(text).fetch_one(&mut raw).await.unwrap();
        (rows + looked_up > 0).then_some(rows)
    };
    assert_eq!(until("it is said what was read", said).await, 0, "rows of all jobs were read");
}

/// Of very many keys, a page of limits looks at those that are on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_limits_is_no_walk_over_all_lanes() {
    let place = Schema::new();
    let store: Arc<dyn Store> = place.node("here").await;
    store.accept(vec![limited("0", 1)]).await.unwrap();
    let mut raw = place.raw().await;
    let lanes = "INSERT INTO lanes (queue, lane, turn, ckey, place) \
                 SELECT 0, n::TEXT, n, n::TEXT, '' FROM generate_series(1, 3000) AS n; ANALYZE lanes";
    sqlx::raw_sql(lanes).execute(&mut raw).await.unwrap();
    let text = "SELECT (SELECT seq_scan + idx_scan FROM pg_stat_user_tables WHERE schemaname = current_schema() AND relname = 'lanes'), \
                (SELECT seq_tup_read FROM pg_stat_user_tables WHERE schemaname = current_schema() AND relname = 'lanes') \
                + (SELECT sum(idx_tup_read)::BIGINT FROM pg_stat_user_indexes WHERE schemaname = current_schema() AND relname = 'lanes')";
    let said = async || {
        assert_eq!(store.limits(None, 1).await.unwrap().len(), 1);
        // A session says what it has read after a transaction, if it did not just before.
        let (scans, read): (i64, i64) = sqlx::query_as(text).fetch_one(&mut raw).await.unwrap();
        (scans >= 20).then_some((scans, read))
    };
    let (scans, read) = until("it is said what was read", said).await;
    assert!(read < 20 * scans, "{read} read by {scans} scans");
}
