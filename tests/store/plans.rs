//! How PostgreSQL finds what it is asked for.

use std::sync::Arc;

use sqlx::PgConnection;
use trine::store::Store;

use crate::postgres::Schema;
use crate::{claim_one, io_job, settle, succeeded};

const JOBS: i64 = 300;

/// How often `work`, `jobs` and `results` were read as a whole, how many entries of the index of what runs were looked at, and how many
/// jobs are gone from `work`: as of the last time that a session said so.
async fn scans(raw: &mut PgConnection) -> (i64, i64, i64) {
    let text = "SELECT (SELECT sum(seq_scan)::BIGINT FROM pg_stat_user_tables WHERE schemaname = current_schema() \
                AND relname IN ('work', 'jobs', 'results')), \
                (SELECT idx_tup_read FROM pg_stat_user_indexes WHERE schemaname = current_schema() AND indexrelname = 'work_running'), \
                (SELECT n_tup_del FROM pg_stat_user_tables WHERE schemaname = current_schema() AND relname = 'work')";
    sqlx::query_as(text).fetch_one(raw).await.unwrap()
}

/// Plans are made while tables are empty, and kept as they grow: with what is dead, `work` is large even where little waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_path_of_a_job_goes_by_keys_also_where_tables_were_empty() {
    let place = Schema::new();
    let store: Arc<dyn Store> = place.node("here").await;
    let mut raw = place.raw().await;
    for _ in 0..JOBS {
        store.accept(vec![io_job()]).await.unwrap();
        let claimed = claim_one(&store).await;
        settle(&store, claimed.lease, succeeded()).await.unwrap();
    }
    let (scans, running) = loop {
        let (scans, running, ended) = scans(&mut raw).await;
        if ended == JOBS {
            break (scans, running);
        }
        // Whoever has nothing to do says what it has done.
        store.check().await.unwrap();
        tokio::task::yield_now().await;
    };
    assert!(scans < JOBS / 4 && running < JOBS, "{scans} scans, {running} entries");
}
