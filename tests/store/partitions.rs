//! Jobs and results in partitions by day.

use std::sync::Arc;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use trine::clock::{Clock, Timestamp};
use trine::dispatch::Retention;
use trine::job::{Concurrency, Dependency, JobId, LogStream, NewJob, Note, OnFailure};
use trine::store::postgres::{PostgresOptions, PostgresStore};
use trine::store::{Cancellation, DeliveryFilter, Filter, Order, Page, Removal, Removed, Requeue, Store};
use trine::webhook::{DeliveryAttempt, Verdict};

use crate::postgres::Schema;
use crate::webhooks::webhook;
use crate::{PATIENCE, Place, accept, claim_one, end_one, finish_all, io_job, settle, state, succeeded, until};

const DAY: Duration = Duration::from_secs(86_400);
const HOUR: Duration = Duration::from_secs(3_600);

async fn open(place: &Schema, node: &str, partitions: bool) -> Arc<dyn Store> {
    let options = PostgresOptions { node: node.into(), partitions, ..place.options() };
    Arc::new(PostgresStore::open(options).await.unwrap())
}

/// A schema whose clock stands still, ten days ago at noon.
fn long_ago() -> Schema {
    let place = Schema::divided();
    place.clock().stop();
    let noon = place.clock().now().as_micros() / 86_400_000_000 * 86_400_000_000 - 9_500_000 * 86_400;
    place.clock().set_back(place.clock().now().since(Timestamp::from_micros(noon)));
    place
}

/// A job that is submitted at the moment at which the clock stands.
fn job_of(place: &Schema) -> NewJob {
    let mut job = io_job();
    job.id = id_of(place.clock().now(), job.id);
    job
}

fn id_of(at: Timestamp, id: JobId) -> JobId {
    let mut bytes = *id.as_bytes();
    bytes[..6].copy_from_slice(&(at.as_micros() / 1_000).to_be_bytes()[2..]);
    JobId::from_bytes(bytes)
}

async fn finished(place: &Schema, store: &Arc<dyn Store>, count: usize) -> Vec<JobId> {
    let mut jobs: Vec<NewJob> = (0..count).map(|_| job_of(place)).collect();
    // With the place's time in place of their own, ids are in no order.
    jobs.sort_unstable_by_key(|job| job.id);
    finish_all(store, &jobs).await;
    jobs.into_iter().map(|job| job.id).collect()
}

async fn number(raw: &mut PgConnection, text: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(text.to_owned())).fetch_one(raw).await.unwrap()
}

/// How many bounds there are that a division puts up and takes back: here, not in what other tests divide meanwhile.
const BOUNDS: &str =
    "SELECT count(*) FROM pg_constraint WHERE conname = 'only_before' AND connamespace = current_schema()::regnamespace";

/// What the partitions of results are called, behind the name of the table.
async fn partitions(raw: &mut PgConnection) -> Vec<String> {
    let text = "SELECT substr(c.relname, 9) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
                WHERE i.inhparent = to_regclass('results') ORDER BY 1";
    sqlx::query_scalar(text).fetch_all(raw).await.unwrap()
}

async fn results(store: &Arc<dyn Store>) -> Vec<JobId> {
    let page = Page { order: Order::OldestFirst, after: None, limit: 1_000 };
    store.results(&Filter::default(), page).await.unwrap().into_iter().map(|job| job.id).collect()
}

fn gone(results: u64) -> Removed {
    Removed { results, any: true }
}

/// Takes steps of retention until there is nothing to do; how many results went with each.
async fn remove_before(store: &Arc<dyn Store>, moment: Timestamp) -> Vec<u64> {
    let mut steps = Vec::new();
    loop {
        let step = store.remove_results(Some(moment), 500).await.unwrap();
        if !step.any {
            return steps;
        }
        steps.push(step.results);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_tables_are_divided_under_a_node_that_goes_on() {
    let place = Schema::new();
    let old = open(&place, "old", false).await;
    let before: Vec<NewJob> = (0..6).map(|_| io_job()).collect();
    finish_all(&old, &before).await;
    let mut waiting = io_job();
    waiting.submission.tags = [("team".into(), "search".into())].into();
    accept(&old, std::slice::from_ref(&waiting)).await;
    let running = claim_one(&old).await;
    let mut raw = place.raw().await;
    let indexes = "SELECT string_agg(indexname, ' ' ORDER BY indexname) FROM pg_indexes WHERE schemaname = current_schema() AND tablename = ";
    let indexes_of = async |raw: &mut PgConnection, table: &str| -> String {
        sqlx::query_scalar(AssertSqlSafe(format!("{indexes}'{table}'"))).fetch_one(raw).await.unwrap()
    };
    let filenodes = "SELECT sum(relfilenode::BIGINT)::BIGINT FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'i') \
                     AND (relname ~ '^(jobs|results)_before_' OR relname ~ '^(jobs|results)(_[a-z]+)?$' AND relname !~ '_rest$')";
    let (names, files) = (indexes_of(&mut raw, "results").await, number(&mut raw, filenodes).await);

    let new = open(&place, "new", true).await;
    assert_eq!(partitions(&mut raw).await.len(), 4);
    assert_eq!(indexes_of(&mut raw, "results").await, names);
    // Nothing was copied and no index built.
    assert_eq!(number(&mut raw, filenodes).await, files);
    let odd = "SELECT count(*) FROM pg_index WHERE NOT indisvalid AND indrelid IN (to_regclass('jobs'), to_regclass('results'))";
    assert_eq!(number(&mut raw, odd).await, 0);
    assert_eq!(number(&mut raw, BOUNDS).await, 0);

    settle(&old, running.lease, succeeded()).await.unwrap();
    for (one, other) in [(&old, &new), (&new, &old)] {
        assert_eq!(results(one).await.len(), 7);
        assert_eq!(one.requeue(before[0].id).await.unwrap(), Requeue::Queued);
        settle(other, claim_one(other).await.lease, succeeded()).await.unwrap();
        let job = io_job();
        accept(one, std::slice::from_ref(&job)).await;
        let lease = claim_one(other).await.lease;
        assert_eq!(lease.id, job.id);
        settle(other, lease, succeeded()).await.unwrap();
        assert_eq!(one.remove_result(job.id).await.unwrap(), Removal::Removed);
        assert_eq!(other.kept().await.unwrap(), 7);
    }
    let search = Filter { tags: vec![("team".into(), "search".into())], ..Filter::default() };
    assert_eq!(new.results(&search, Page { order: Order::NewestFirst, after: None, limit: 5 }).await.unwrap().len(), 1);
    // Whoever starts without the setting finds them as they are.
    let late = open(&place, "late", false).await;
    assert_eq!(late.remove_results(None, 4).await.unwrap(), gone(4));
    assert_eq!((results(&new).await.len(), new.kept().await.unwrap()), (3, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_start_that_went_down_left_behind_is_taken_back() {
    let place = Schema::new();
    open(&place, "one", false).await.close().await;
    let mut raw = place.raw().await;
    let left = "ALTER TABLE jobs ADD CONSTRAINT only_before CHECK (id < '00000000-0000-0000-0000-000000000001') NOT VALID";
    for partitions in [false, true] {
        sqlx::query(left).execute(&mut raw).await.unwrap();
        let store = open(&place, "one", partitions).await;
        finish_all(&store, &[io_job()]).await;
        store.close().await;
        assert_eq!(number(&mut raw, BOUNDS).await, 0);
    }
    assert_eq!(partitions(&mut raw).await.len(), 5 - 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_runs_takes_back_what_another_one_left_behind() {
    let place = Schema::new();
    let store = open(&place, "one", false).await;
    let (mut raw, mut other) = (place.raw().await, place.raw().await);
    let left = "ALTER TABLE jobs ADD CONSTRAINT only_before CHECK (id < '00000000-0000-0000-0000-000000000001') NOT VALID";
    sqlx::query(left).execute(&mut raw).await.unwrap();
    // Not as long as somebody is at it.
    let lock = "SELECT pg_advisory_lock(to_regclass('shared')::OID::BIGINT)";
    sqlx::query(lock).execute(&mut other).await.unwrap();
    store.look_ahead().await.unwrap();
    assert_eq!(number(&mut raw, BOUNDS).await, 1);
    other.close().await.unwrap();
    let taken = async {
        while number(&mut raw, BOUNDS).await > 0 {
            store.look_ahead().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, taken).await.expect("what was left to be taken back");
    finish_all(&store, &[io_job()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodes_that_come_at_once_divide_tables_once() {
    let place = Schema::new();
    let old = open(&place, "old", false).await;
    finish_all(&old, &[io_job(), io_job()]).await;
    let names = ["a", "b", "c"];
    let nodes = futures_util::future::join_all(names.map(|name| open(&place, name, true))).await;
    for node in nodes.iter().chain([&old]) {
        finish_all(node, &[io_job()]).await;
        node.look_ahead().await.unwrap();
    }
    assert_eq!((results(&old).await.len(), partitions(&mut place.raw().await).await.len()), (6, 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_are_partitions_for_the_next_days_and_one_for_the_rest() {
    let place = long_ago();
    let store = place.open().await;
    let mut raw = place.raw().await;
    let first = partitions(&mut raw).await;
    assert_eq!(first.len(), 4 + 2);
    // Of a day that has no partition yet.
    let far = NewJob { id: id_of(place.clock().now().after(5 * DAY), JobId::new()), ..io_job() };
    finish_all(&store, std::slice::from_ref(&far)).await;
    assert_eq!(number(&mut raw, "SELECT count(*) FROM results_rest").await, 1);
    place.clock().advance(2 * DAY);
    for _ in 0..2 {
        store.look_ahead().await.unwrap();
        // The fifth day has a job in the rest, and stays there.
        assert_eq!(partitions(&mut raw).await.len(), first.len() + 1);
    }
    place.clock().advance(4 * DAY);
    store.look_ahead().await.unwrap();
    assert_eq!(partitions(&mut raw).await.len(), first.len() + 1 + 4);
    assert_eq!(state(&store, far.id).await, "succeeded");
    let after = finished(&place, &store, 3).await;
    assert_eq!(number(&mut raw, "SELECT count(*) FROM results_rest").await, 1);
    let removed = remove_before(&store, place.clock().now().after(Duration::from_secs(1))).await;
    assert_eq!(removed.iter().sum::<u64>(), 1);
    assert_eq!(results(&store).await, after);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_goes_as_a_whole_with_all_that_belongs_to_it() {
    let place = long_ago();
    let store = place.open().await;
    let mut raw = place.raw().await;
    let mut parent = job_of(&place);
    parent.submission.tags = [("team".into(), "search".into())].into();
    let mut child = job_of(&place);
    child.after = vec![Dependency { parent: parent.id, name: None, on_failure: OnFailure::Cancel }];
    accept(&store, &[parent.clone(), child.clone()]).await;
    for _ in 0..2 {
        let lease = claim_one(&store).await.lease;
        store.note(lease, Note::log(LogStream::Stdout, "line")).await;
        settle(&store, lease, succeeded()).await.unwrap();
    }
    let noon = place.clock().now();
    finished(&place, &store, 20).await;
    place.clock().advance(DAY);
    let next = finished(&place, &store, 5).await;

    // Until the day is over, and a little longer, all of it stays. Of before that day there was nothing.
    assert_eq!(remove_before(&store, noon.after(12 * HOUR)).await, [0]);
    let days = partitions(&mut raw).await.len();
    assert_eq!((store.kept().await.unwrap(), results(&store).await.len()), (27, 27));
    let steps = remove_before(&store, noon.after(13 * HOUR)).await;
    assert_eq!(steps.iter().filter(|results| **results > 0).collect::<Vec<_>>(), [&22]);
    assert_eq!((store.kept().await.unwrap(), results(&store).await), (5, next.clone()));
    assert_eq!(partitions(&mut raw).await.len(), days - 1);
    let rest = "SELECT (SELECT count(*) FROM tags) + (SELECT count(*) FROM edges) + (SELECT count(*) FROM events) + (SELECT count(*) FROM jobs)";
    assert_eq!(number(&mut raw, rest).await, 5);
    assert_eq!(state(&store, parent.id).await, "unknown");
    // The rest goes one by one, since it is more than is to be kept.
    let retention = Retention { age: Some(DAY), count: Some(2) };
    while retention.step(&*store, place.clock().now()).await.unwrap() {}
    assert_eq!(results(&store).await, next[3..]);
    // A day of which nothing is left goes when there is something else to remove.
    place.clock().advance(2 * DAY);
    store.look_ahead().await.unwrap();
    assert_eq!(store.remove_results(None, 2).await.unwrap(), gone(2));
    let days = partitions(&mut raw).await.len();
    finished(&place, &store, 3).await;
    assert_eq!(store.remove_results(None, 1).await.unwrap(), gone(1));
    assert_eq!((partitions(&mut raw).await.len(), store.kept().await.unwrap()), (days - 2, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_go_from_some_days_to_the_next() {
    let place = long_ago();
    place.clock().set_back(40 * DAY);
    let store = place.open().await;
    let mut ids = Vec::new();
    for day in 0..40 {
        if day % 8 == 0 {
            ids.extend(finished(&place, &store, 3).await);
        }
        place.clock().advance(DAY);
        store.look_ahead().await.unwrap();
    }
    let waiting = job_of(&place);
    accept(&store, std::slice::from_ref(&waiting)).await;
    ids.push(waiting.id);
    let all = async |filter: Filter, order: Order| {
        let (mut page, mut found) = (Page { order, after: None, limit: 4 }, Vec::new());
        loop {
            let jobs = store.jobs(&filter, page).await.unwrap();
            found.extend(jobs.iter().map(|job| job.id));
            match jobs.last() {
                Some(last) if jobs.len() == page.limit => page.after = Some(last.id),
                _ => return found,
            }
        }
    };
    assert_eq!(all(Filter::default(), Order::OldestFirst).await, ids);
    let failed = Filter { workload: Some("none".into()), ..Filter::default() };
    assert!(all(failed, Order::NewestFirst).await.is_empty());
    let until = Filter { until: Some(place.clock().now().before(20 * DAY)), ..Filter::default() };
    assert_eq!(all(until, Order::OldestFirst).await, ids[..9]);
    ids.reverse();
    assert_eq!(all(Filter::default(), Order::NewestFirst).await, ids);
}

/// Two days of results, and a moment at which the first one is over.
async fn two_days(place: &Schema, store: &Arc<dyn Store>) -> (Vec<JobId>, Timestamp) {
    // There was nothing before.
    assert_eq!(remove_before(store, place.clock().now()).await, [0]);
    let first = finished(place, store, 6).await;
    let moment = place.clock().now().after(14 * HOUR);
    place.clock().advance(DAY);
    finished(place, store, 2).await;
    (first, moment)
}

async fn has_day(raw: &mut PgConnection, moment: Timestamp) -> bool {
    let day = moment.before(DAY).to_string()[..10].replace('-', "");
    partitions(raw).await.contains(&day)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_with_a_job_that_has_not_ended_goes_one_by_one() {
    let place = long_ago();
    let store = place.open().await;
    let mut raw = place.raw().await;
    let slow = job_of(&place);
    accept(&store, std::slice::from_ref(&slow)).await;
    let lease = claim_one(&store).await.lease;
    let (_, moment) = two_days(&place, &store).await;
    assert_eq!(remove_before(&store, moment).await.iter().sum::<u64>(), 6);
    assert!(has_day(&mut raw, moment).await);
    assert_eq!((store.kept().await.unwrap(), state(&store, slow.id).await), (2, "running"));
    // It has ended now, but not before that moment.
    settle(&store, lease, succeeded()).await.unwrap();
    assert_eq!(remove_before(&store, moment).await, [0; 0]);
    assert_eq!((store.kept().await.unwrap(), state(&store, slow.id).await), (3, "succeeded"));
    let later = place.clock().now().after(HOUR);
    assert_eq!(remove_before(&store, later).await.iter().sum::<u64>(), 1);
    assert!(!has_day(&mut raw, moment).await);
    assert_eq!(store.kept().await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_whose_output_may_be_asked_for_stays() {
    let place = long_ago();
    let store = place.open().await;
    let mut raw = place.raw().await;
    let (first, moment) = two_days(&place, &store).await;
    let mut child = job_of(&place);
    child.after = vec![Dependency { parent: first[2], name: None, on_failure: OnFailure::Cancel }];
    accept(&store, std::slice::from_ref(&child)).await;
    assert_eq!(remove_before(&store, moment).await.iter().sum::<u64>(), 5);
    assert!(has_day(&mut raw, moment).await);
    assert_eq!(state(&store, first[2]).await, "succeeded");
    assert!(matches!(store.cancel(child.id, &[]).await.unwrap(), Cancellation::Cancelled));
    assert_eq!(remove_before(&store, moment).await.iter().sum::<u64>(), 1);
    assert!(!has_day(&mut raw, moment).await);
    assert_eq!(store.kept().await.unwrap(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_of_which_a_webhook_is_to_tell_stays() {
    let place = long_ago();
    let store = place.open().await;
    let mut raw = place.raw().await;
    let mut job = job_of(&place);
    job.submission.webhook = Some(Box::new(webhook("a")));
    finish_all(&store, std::slice::from_ref(&job)).await;
    let (_, moment) = two_days(&place, &store).await;
    assert_eq!(remove_before(&store, moment).await.iter().sum::<u64>(), 6);
    assert!(has_day(&mut raw, moment).await);
    let delivery = store.deliveries(DeliveryFilter::default(), None, 1).await.unwrap().remove(0);
    let attempt = DeliveryAttempt { at: Timestamp::now(), took_us: 1, status: Some(200), error: None };
    store.note_delivery(&delivery, attempt, Verdict::Delivered).await.unwrap();
    assert_eq!(remove_before(&store, moment).await.iter().sum::<u64>(), 1);
    assert!(!has_day(&mut raw, moment).await && store.deliveries(DeliveryFilter::default(), None, 1).await.unwrap().is_empty());
    assert_eq!(store.kept().await.unwrap(), 2);
}

/// A step of retention that has looked at a day and waits for the lock of all nodes while somebody else changes this.
async fn overtaken(place: &Schema, store: &Arc<dyn Store>, moment: Option<Timestamp>, change: &str) -> Removed {
    let (mut raw, mut holder) = (place.raw().await, place.raw().await);
    let pid = number(&mut holder, "SELECT pg_backend_pid()::BIGINT").await;
    let mut held = holder.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM shared FOR UPDATE").execute(&mut *held).await.unwrap();
    let removing = {
        let store = Arc::clone(store);
        tokio::spawn(async move { store.remove_results(moment, 500).await })
    };
    let waits = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE {pid} = ANY(pg_blocking_pids(pid)) AND query LIKE '%oldest FROM shared%'"
    );
    until("the drop waits", async || (number(&mut raw, &waits).await > 0).then_some(())).await;
    sqlx::raw_sql(AssertSqlSafe(change.to_owned())).execute(&mut *held).await.unwrap();
    held.commit().await.unwrap();
    removing.await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_is_run_again_in_between_keeps_its_day() {
    let place = long_ago();
    let store = place.open().await;
    let mut raw = place.raw().await;
    let (first, moment) = two_days(&place, &store).await;
    let id = first[0];
    let again = format!(
        "INSERT INTO work (id, state, queue, priority, due_at) VALUES ('{id}', 1, 0, 0, 1); DELETE FROM results WHERE id = '{id}'"
    );
    assert_eq!(overtaken(&place, &store, Some(moment), &again).await, Removed::default());
    assert!(has_day(&mut raw, moment).await);
    assert_eq!((state(&store, id).await, number(&mut raw, "SELECT removed FROM retention").await), ("queued", 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_that_is_removed_in_between_is_not_counted_twice() {
    let place = long_ago();
    let store = place.open().await;
    let mut raw = place.raw().await;
    let (first, moment) = two_days(&place, &store).await;
    let id = first[0];
    let remove = format!(
        "DELETE FROM results WHERE id = '{id}'; DELETE FROM jobs WHERE id = '{id}'; UPDATE retention SET removed = removed + 1"
    );
    assert_eq!(overtaken(&place, &store, Some(moment), &remove).await, gone(5));
    assert_eq!((store.kept().await.unwrap(), results(&store).await.len(), has_day(&mut raw, moment).await), (2, 2, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_that_was_empty_and_is_not_any_more_stays() {
    let place = long_ago();
    let store = place.open().await;
    let mut raw = place.raw().await;
    let (first, moment) = two_days(&place, &store).await;
    assert_eq!(store.remove_results(None, 6).await.unwrap(), gone(6));
    let id = first[0];
    let late = format!(
        "INSERT INTO jobs (id, queue, rule, bound, choice, priority, accepted_at, type, workload) VALUES ('{id}', 0, 0, 0, 0, 0, 1, 'x', '{{}}'); \
         INSERT INTO results (id, ending, attempt, losses, finished_at, output) VALUES ('{id}', 0, 1, 0, 1, '1')"
    );
    // It goes on with what else there is to remove.
    assert_eq!(overtaken(&place, &store, None, &late).await, gone(2));
    assert_eq!((results(&store).await, has_day(&mut raw, moment).await), (vec![id], true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_that_can_not_be_dropped_goes_one_by_one() {
    let place = long_ago();
    let store = place.open().await;
    let mut raw = place.raw().await;
    let (_, moment) = two_days(&place, &store).await;
    let day = moment.before(DAY).to_string()[..10].replace('-', "");
    sqlx::query(AssertSqlSafe(format!("CREATE VIEW seen AS SELECT id FROM results_{day}"))).execute(&mut raw).await.unwrap();
    assert_eq!(remove_before(&store, moment).await, [6]);
    assert!(has_day(&mut raw, moment).await);
    assert_eq!((store.kept().await.unwrap(), results(&store).await.len()), (2, 2));
}

/// Whoever reads a table for long holds up its drop, and nobody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_that_somebody_reads_is_dropped_later() {
    let place = long_ago();
    let store = place.open().await;
    let (mut raw, mut reader) = (place.raw().await, place.raw().await);
    let (_, moment) = two_days(&place, &store).await;
    let mut reading = reader.begin().await.unwrap();
    sqlx::query("SELECT count(*) FROM results").execute(&mut *reading).await.unwrap();
    assert_eq!(store.remove_results(Some(moment), 500).await.unwrap(), Removed::default());
    finished(&place, &store, 1).await;
    assert!(has_day(&mut raw, moment).await);
    reading.commit().await.unwrap();
    assert_eq!(remove_before(&store, moment).await, [6]);
    assert_eq!(store.kept().await.unwrap(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_nodes_that_remove_at_once_count_each_result_once() {
    let place = long_ago();
    let (one, other) = (place.open().await, open(&place, "other", true).await);
    let (_, moment) = two_days(&place, &one).await;
    let (a, b) = tokio::join!(remove_before(&one, moment), remove_before(&other, moment));
    // One that found the other at it has left it to that.
    let rest = remove_before(&one, moment).await;
    assert_eq!(a.iter().chain(&b).chain(&rest).sum::<u64>(), 6);
    assert_eq!((one.kept().await.unwrap(), results(&other).await.len()), (2, 2));
}

/// Whoever locks the other days would hold up a statement that is planned for all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_path_of_a_job_goes_through_the_partitions_of_its_jobs_alone() {
    let place = long_ago();
    let store = place.open().await;
    let jobs: Vec<NewJob> = (0..3).map(|_| job_of(&place)).collect();
    finish_all(&store, &jobs).await;
    let mut raw = place.raw().await;
    let text = "SELECT string_agg(c.relname, ', ') FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
                WHERE i.inhparent IN ('jobs'::regclass, 'results'::regclass) \
                AND c.oid NOT IN (SELECT tableoid FROM jobs UNION SELECT tableoid FROM results)";
    let others: String = sqlx::query_scalar(text).fetch_one(&mut raw).await.unwrap();
    assert_eq!(others.split(',').count(), 10, "{others}");
    let mut held = raw.begin().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(format!("LOCK TABLE {others} IN ACCESS EXCLUSIVE MODE"))).execute(&mut *held).await.unwrap();
    let path = async {
        finish_all(&store, &[job_of(&place)]).await;
        // Late, again, limited, dependent on what has ended and on what has not; cancelled; removed.
        assert_eq!(store.requeue(jobs[0].id).await.unwrap(), Requeue::Queued);
        end_one(&store).await;
        let mut limited = job_of(&place);
        limited.submission.concurrency = Some(Box::new(Concurrency { key: "k".into(), limit: 1 }));
        let mut parent = job_of(&place);
        parent.submission.priority = 9;
        let mut child = job_of(&place);
        let after = |parent| Dependency { parent, name: None, on_failure: OnFailure::Cancel };
        child.after = vec![after(parent.id), after(jobs[1].id)];
        accept(&store, &[limited, parent, child]).await;
        for _ in 0..3 {
            let lease = claim_one(&store).await.lease;
            settle(&store, lease, succeeded()).await.unwrap();
            settle(&store, lease, succeeded()).await.unwrap();
        }
        let unwanted = job_of(&place);
        accept(&store, std::slice::from_ref(&unwanted)).await;
        assert!(matches!(store.cancel(unwanted.id, &[]).await.unwrap(), Cancellation::Cancelled));
        assert_eq!(state(&store, unwanted.id).await, "cancelled");
        assert_eq!(store.remove_result(jobs[2].id).await.unwrap(), Removal::Removed);
    };
    tokio::time::timeout(PATIENCE, path).await.expect("a path past the other partitions");
    held.rollback().await.unwrap();
}
