//! Nodes of different versions on one PostgreSQL. The newer version is made up: by what it would have done to the database.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::{Executor, PgConnection};
use trine::auth::{Key, Scopes};
use trine::clock::{Clock, Timestamp};
use trine::dispatch::{Deliverer, DeliverySettings};
use trine::job::{NewJob, Owner, Queue, Secret};
use trine::outbound::{Outbound, OutboundSettings};
use trine::store::postgres::PostgresStore;
use trine::store::{
    DeliveryFilter, Depth, KeyStore, NodeStore, Requeue, RetentionStore, ScheduleStore, Store, StoreError, WebhookStore,
};
use trine::webhook::{DeliveryAttempt, Rules, Verdict};

use crate::limits::limited;
use crate::postgres::Schema;
use crate::webhooks::told;
use crate::{Place, end_one, io_job, settle, succeeded, until};

/// What a newer version does to the database that older ones can live with.
const NEWER: &str = r#"
BEGIN;
ALTER TABLE jobs ADD COLUMN added BIGINT NOT NULL DEFAULT 7;
ALTER TABLE work ADD COLUMN added TEXT NOT NULL DEFAULT 'seven';
ALTER TABLE results ADD COLUMN added BIGINT DEFAULT 7;
ALTER TABLE nodes ADD COLUMN added BIGINT NOT NULL DEFAULT 7;
ALTER TABLE events ADD COLUMN added BIGINT NOT NULL DEFAULT 7;
ALTER TABLE lanes ADD COLUMN added BIGINT NOT NULL DEFAULT 7;
ALTER TABLE shared ADD COLUMN added BIGINT NOT NULL DEFAULT 7;
CREATE INDEX work_added ON work (added);
CREATE TABLE added (id BIGINT NOT NULL PRIMARY KEY);
INSERT INTO versions (kind, version) VALUES (2, 5);
UPDATE shared SET state = (state::JSONB || '{"added": {"a": [1, null, "x"]}}')::TEXT, added = 8;
INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, 'newer', true, '\x00', 1);
INSERT INTO nodes (name, version, role, labels, expires_at, knows)
    VALUES ('newer', '99.1.0', 'all', '{}', clock_timestamp() + INTERVAL '1 hour', 9999);
COMMIT;
"#;

async fn do_as_newer(raw: &mut PgConnection, text: &'static str) {
    raw.execute(text).await.unwrap();
}

async fn number(raw: &mut PgConnection, text: &'static str) -> i64 {
    sqlx::query_scalar(text).fetch_one(raw).await.unwrap()
}

async fn added(raw: &mut PgConnection) -> Value {
    let state: String = sqlx::query_scalar("SELECT state FROM shared").fetch_one(raw).await.unwrap();
    serde_json::from_str::<Value>(&state).unwrap()["added"].take()
}

/// Runs so many jobs that wait or will.
async fn run(store: &Arc<PostgresStore>, jobs: usize) {
    for _ in 0..jobs {
        end_one(store).await;
    }
}

async fn state(store: &PostgresStore, job: &NewJob) -> &'static str {
    store.job(job.id).await.unwrap().unwrap().state.as_str()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_newer_version_adds_disturbs_nobody_and_stays() {
    let place = Schema::new();
    let there = place.node("there").await;
    let mut raw = place.raw().await;
    let before: Vec<NewJob> = (0..3).map(|_| io_job()).collect();
    there.accept(before.clone()).await.unwrap();
    let begun = there.claim(Queue::Async, 1).await.unwrap().remove(0);

    do_as_newer(&mut raw, NEWER).await;
    let late = place.node("late").await;
    settle(&there, begun.lease, succeeded()).await.unwrap();
    run(&there, 1).await;
    run(&late, 1).await;
    for (takes, runs) in [(&there, &late), (&late, &there)] {
        let jobs: Vec<NewJob> = (0..5).map(|_| io_job()).collect();
        takes.accept(jobs.clone()).await.unwrap();
        run(runs, 5).await;
        assert_eq!(takes.requeue(jobs[0].id).await.unwrap(), Requeue::Queued);
        run(takes, 1).await;
        takes.accept(vec![limited("k", 1)]).await.unwrap();
        run(runs, 1).await;
    }
    let nodes = there.nodes().await.unwrap();
    let versions: Vec<_> = nodes.iter().map(|node| (node.name.as_str(), node.version.as_str())).collect();
    let own = env!("CARGO_PKG_VERSION");
    assert_eq!(versions, [("late", own), ("newer", "99.1.0"), ("there", own)]);
    there.close().await;
    late.close().await;
    // Whoever comes when all others are gone counts anew.
    place.node("alone").await.close().await;
    assert_eq!(added(&mut raw).await, json!({ "a": [1, null, "x"] }));
    assert_eq!(number(&mut raw, "SELECT added FROM shared").await, 8);
    assert_eq!(number(&mut raw, "SELECT count(*) FROM results WHERE added = 7").await, 15);
    assert_eq!(number(&mut raw, "SELECT count(*) FROM jobs WHERE added = 7").await, 15);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_only_newer_versions_can_go_by_is_refused() {
    let place = Schema::new();
    let there = place.node("there").await;
    let mut raw = place.raw().await;
    do_as_newer(&mut raw, NEWER).await;
    do_as_newer(&mut raw, "UPDATE shared SET oldest = 9999").await;
    let Err(error) = PostgresStore::open(place.options()).await else { panic!("it was opened") };
    let StoreError::Outdated { oldest: 9999, known } = error else { panic!("{error}") };
    let said = error.to_string();
    assert!(said.contains("9999") && said.contains(&format!("up to {known}")) && said.contains("use a newer trine"), "{said}");
    // One that runs says so as well, and changes nothing any more.
    let job = io_job();
    let Err(StoreError::Unavailable(why)) = there.accept(vec![job.clone()]).await else { panic!("it was accepted") };
    assert!(why.contains("9999"), "{why}");
    assert_eq!(number(&mut raw, "SELECT count(*) FROM jobs").await, 0);
    let (key, _) = Key::new("k".into(), Scopes::ALL, None).unwrap();
    let removed = there.remove_schedule("s").await;
    assert!(matches!(&removed, Err(StoreError::Unavailable(why)) if why.contains("9999")), "{removed:?}");
    assert!(matches!(there.add_key(key, None).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(there.due_deliveries(Timestamp::now(), (1, 1), &[]).await, Err(StoreError::Unavailable(_))));
    do_as_newer(&mut raw, "UPDATE shared SET oldest = 4").await;
    until("it goes on", async || there.accept(vec![job.clone()]).await.ok()).await;
    run(&there, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_is_not_taken_from_older_nodes() {
    let place = Schema::new();
    place.open().await.close().await;
    let mut raw = place.raw().await;
    // As versions were that could go by less than this one.
    let older = "UPDATE shared SET oldest = 0; \
                 INSERT INTO nodes (name, version, role, labels, expires_at, knows) VALUES \
                 ('b', '0.0.8', 'all', '{}', clock_timestamp() + INTERVAL '1 hour', 0), \
                 ('a', '0.0.9', 'api', '{}', clock_timestamp() + INTERVAL '1 hour', 0), \
                 ('gone', '0.0.7', 'all', '{}', clock_timestamp() - INTERVAL '1 second', 0)";
    do_as_newer(&mut raw, older).await;
    let Err(error) = PostgresStore::open(place.options()).await else { panic!("it was opened") };
    assert!(matches!(error, StoreError::OldNodes { oldest: 4, .. }), "{error}");
    let said = error.to_string();
    assert!(said.contains("a (0.0.9), b (0.0.8)") && !said.contains("gone"), "{said}");
    assert_eq!(number(&mut raw, "SELECT oldest FROM shared").await, 0);
    do_as_newer(&mut raw, "UPDATE nodes SET expires_at = clock_timestamp() - INTERVAL '1 second'").await;
    place.open().await.close().await;
    assert_eq!(number(&mut raw, "SELECT oldest FROM shared").await, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_cannot_be_read_holds_up_no_other() {
    let place = Schema::new();
    place.clock().stop();
    let store = Arc::new(PostgresStore::open(place.options()).await.unwrap());
    let mut raw = place.raw().await;
    let (plain, limited, mut late) = (io_job(), limited("k", 1), io_job());
    late.submission.expires_at = Some(place.clock().now().after(Duration::from_secs(3_600)));
    store.accept(vec![plain.clone(), limited.clone(), late.clone()]).await.unwrap();
    // A tag, and an option, of a newer version.
    do_as_newer(
        &mut raw,
        r#"UPDATE jobs SET bound = 77; UPDATE jobs SET options = '{"retry":{"newer":1}}' WHERE options IS NOT NULL"#,
    )
    .await;
    let mut other = io_job();
    other.submission.concurrency = limited.submission.concurrency.clone();
    store.accept(vec![other.clone(), io_job()]).await.unwrap();
    run(&store, 2).await;
    assert_eq!(state_by(&mut raw).await, [(0, 3)]);
    let depth = store.depth(Queue::Async);
    assert_eq!((depth.scheduled, depth.queued, depth.running), (3, 0, 0));

    // What this version can't end by itself, others have to. Meanwhile it goes on with all else.
    place.clock().advance(Duration::from_secs(3_600));
    store.accept(vec![io_job(), io_job()]).await.unwrap();
    run(&store, 2).await;
    assert_eq!(state_by(&mut raw).await.iter().map(|(_, count)| count).sum::<i64>(), 3);

    // Once it can be read, it is run, and counted as it was.
    do_as_newer(&mut raw, "UPDATE jobs SET bound = 0, options = NULL; UPDATE work SET expires_at = NULL").await;
    place.clock().advance(Duration::from_secs(60));
    run(&store, 3).await;
    for job in [&plain, &limited, &late] {
        assert_eq!(state(&store, job).await, "succeeded");
    }
    store.check().await.unwrap();
    assert_eq!(store.depth(Queue::Async), Depth::default());
    store.close().await;
}

/// How many of the jobs that have not ended are in each state.
async fn state_by(raw: &mut PgConnection) -> Vec<(i16, i64)> {
    sqlx::query_as("SELECT state, count(*) FROM work GROUP BY state ORDER BY state").fetch_all(raw).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_in_a_queue_of_a_newer_version_are_left_to_it() {
    let place = Schema::new();
    let store = Arc::new(PostgresStore::open(place.options()).await.unwrap());
    let mut raw = place.raw().await;
    store.accept(vec![io_job(), limited("k", 1)]).await.unwrap();
    store.close().await;
    let elsewhere = "UPDATE jobs SET queue = 40; UPDATE work SET queue = 40; UPDATE lanes SET queue = 40, gate = 1; \
                     UPDATE shared SET state = '{}'";
    do_as_newer(&mut raw, elsewhere).await;
    let store = Arc::new(PostgresStore::open(place.options()).await.unwrap());
    store.accept(vec![io_job(), limited("k", 1)]).await.unwrap();
    run(&store, 2).await;
    let counted =
        "SELECT (state::JSON -> 'counts' -> 40 ->> 1)::BIGINT + (state::JSON -> 'counts' -> 40 ->> 4)::BIGINT FROM shared";
    assert_eq!(number(&mut raw, counted).await, 2);
    assert_eq!(number(&mut raw, "SELECT count(*) FROM work WHERE queue = 40 AND state <> 2").await, 2);
    // One that becomes due by itself.
    do_as_newer(&mut raw, "UPDATE work SET state = 0, due_at = 1 WHERE lane IS NULL").await;
    do_as_newer(&mut raw, "UPDATE shared SET state = (state::JSONB || '{\"next_due\": 1}')::TEXT").await;
    store.accept(vec![io_job(), io_job()]).await.unwrap();
    run(&store, 2).await;
    assert_eq!(number(&mut raw, "SELECT count(*) FROM work").await, 2);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_newer_version_says_of_deliveries_and_counts_stays() {
    let place = Schema::new();
    let store = Arc::new(PostgresStore::open(place.options()).await.unwrap());
    let mut raw = place.raw().await;
    store.accept(vec![told("example.com")]).await.unwrap();
    run(&store, 1).await;
    do_as_newer(&mut raw, r#"UPDATE deliveries SET log = '[{"at":"2026-01-01T00:00:00Z","took_us":5,"status":500,"added":1}]'"#)
        .await;
    let delivery = store.deliveries(DeliveryFilter::default(), None, 1).await.unwrap().remove(0);
    assert_eq!(delivery.attempts.len(), 1);
    let attempt = DeliveryAttempt { at: Timestamp::now(), took_us: 3, status: Some(200), error: None };
    store.note_delivery(&delivery, attempt, Verdict::Delivered).await.unwrap();
    assert_eq!(store.deliveries(DeliveryFilter::default(), None, 1).await.unwrap()[0].attempts.len(), 2);
    assert_eq!(number(&mut raw, "SELECT (log::JSON -> 0 ->> 'added')::BIGINT FROM deliveries").await, 1);

    // What is counted of results in a way of its own is left to it; all else goes on.
    do_as_newer(&mut raw, "INSERT INTO counted (results) VALUES ('[[\"sleep\",77,0,0,false,[null],null]]')").await;
    store.accept(vec![io_job()]).await.unwrap();
    run(&store, 1).await;
    store.close().await;
    assert_eq!(number(&mut raw, "SELECT count(*) FROM counted WHERE results LIKE '%,77,%'").await, 1);
    assert_eq!(number(&mut raw, "SELECT count(*) FROM nodes").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_cannot_be_read_or_written_is_left_to_other_nodes() {
    let place = Schema::new();
    let (store, other) = (place.node("here").await, place.node("other").await);
    let mut raw = place.raw().await;
    let jobs: Vec<NewJob> = (0..3).map(|_| told("127.0.0.1:9")).collect();
    store.accept(jobs.clone()).await.unwrap();
    run(&store, 3).await;
    // An end of a newer version, and a job.
    do_as_newer(&mut raw, "UPDATE deliveries SET ending = 77 WHERE place = (SELECT min(place) FROM deliveries)").await;
    do_as_newer(
        &mut raw,
        "UPDATE jobs SET bound = 77 WHERE id = (SELECT job FROM deliveries WHERE ending <> 77 ORDER BY place LIMIT 1)",
    )
    .await;
    let due = store.due_deliveries(store.now(), (64, 8), &[]).await.unwrap();
    assert_eq!(due.len(), 2);
    let outbound = Arc::new(Outbound::new(&OutboundSettings::default()).unwrap());
    let rules = Rules { attempts: 1, backoff: Duration::from_secs(1) };
    let settings = DeliverySettings { secrets: vec![Secret::of([7; 32])], rules, timeout: Duration::from_secs(1) };
    let deliverer = Deliverer::new(Arc::<PostgresStore>::clone(&store), outbound, settings, |_, _| Vec::new());
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let keep = tokio::spawn(deliverer.keep(async move { drop(ended.await) }));
    let left = "SELECT count(*) FROM deliveries WHERE state = 0 AND taken_by IS NULL AND due_at > finished_at";
    until("both are left", async || (number(&mut raw, left).await >= 2).then_some(())).await;
    drop(end);
    keep.await.unwrap();
    // The one that can be written has been tried.
    assert_eq!(number(&mut raw, "SELECT count(*) FROM deliveries WHERE state = 2").await, 1);
    do_as_newer(&mut raw, "UPDATE deliveries SET ending = 0; UPDATE jobs SET bound = 0").await;
    let later = store.now().after(Duration::from_secs(60));
    assert_eq!(other.due_deliveries(later, (64, 8), &[]).await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whose_the_messages_are_that_an_older_version_has_left_is_found_out() {
    let place = Schema::new();
    let store = Arc::new(PostgresStore::open(place.options()).await.unwrap());
    let mut raw = place.raw().await;
    let [mine, theirs] = [1, 2].map(|code| Owner::from_code(code).unwrap());
    let jobs = [Some(mine), Some(theirs), None].map(|owner| {
        let mut job = told("example.com");
        job.submission.owner = owner;
        job
    });
    store.accept(jobs.to_vec()).await.unwrap();
    run(&store, 3).await;
    let of = async |owner| {
        let filter = DeliveryFilter { owner: Some(owner), ..DeliveryFilter::default() };
        let jobs = store.deliveries(filter, None, 10).await.unwrap().into_iter().map(|delivery| delivery.job);
        jobs.collect::<Vec<_>>()
    };
    let noted = "SELECT sum(owner)::BIGINT FROM deliveries";
    assert_eq!(number(&mut raw, noted).await, 2);
    do_as_newer(&mut raw, "UPDATE deliveries SET owner = NULL").await;
    assert_eq!((of(mine).await, of(theirs).await), (vec![jobs[0].id], vec![jobs[1].id]));
    let id =
        &store.deliveries(DeliveryFilter { job: Some(jobs[0].id), ..DeliveryFilter::default() }, None, 1).await.unwrap()[0].id;
    assert!(store.redeliver(id, Some(theirs)).await.unwrap().is_none());
    assert!(store.redeliver(id, Some(mine)).await.unwrap().is_some());
    store.look_ahead().await.unwrap();
    assert_eq!(number(&mut raw, noted).await, 2);
    assert_eq!((of(mine).await, of(theirs).await), (vec![jobs[0].id], vec![jobs[1].id]));
}
