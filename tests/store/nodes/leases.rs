//! The place of a node among the others, and its leases: what becomes of jobs whose node is gone, or is taken for gone.

use std::sync::Arc;
use std::time::Duration;

use sqlx::Connection as _;
use sqlx::PgConnection;
use trine::clock::Timestamp;
use trine::job::{NewJob, Queue, State};
use trine::store::postgres::PostgresStore;
use trine::store::{DeliveryFilter, NodeStore, Revocation, Settled, Settlement, Store, StoreError, WebhookStore};

use trine::webhook::{DeliveryAttempt, Verdict};

use super::revoked;
use crate::postgres::Schema;
use crate::webhooks::told;
use crate::{PATIENCE, Place as _, claim_one, end_one, io_job, settle, succeeded, until};

crate::on_postgres!(
    what_ran_on_a_node_that_is_gone_runs_elsewhere_and_its_result_is_refused,
    a_node_that_was_taken_for_dead_stops_what_it_runs_and_goes_on,
    a_node_that_cannot_say_that_it_is_there_stops_what_it_runs_in_time,
    a_lock_on_all_jobs_takes_no_node_its_leases,
    what_a_node_was_about_to_send_is_sent_by_others_once_it_is_gone,
);

/// As if it had not been heard of for longer than its lease.
async fn expire(node: &str, raw: &mut PgConnection) {
    let text = "UPDATE nodes SET expires_at = clock_timestamp() - INTERVAL '1 second' WHERE name = $1";
    sqlx::query(text).bind(node).execute(raw).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_knows_which_attempts_are_its_own() {
    let place = Schema::new();
    let (front, back) = (place.node("front").await, place.node("back").await);
    front.accept(vec![io_job()]).await.unwrap();
    let claimed = claim_one(&back).await;
    assert!(back.may_run_here(claimed.lease) && !front.may_run_here(claimed.lease));
    settle(&back, claimed.lease, succeeded()).await.unwrap();
    assert!(!back.may_run_here(claimed.lease));
}

async fn what_ran_on_a_node_that_is_gone_runs_elsewhere_and_its_result_is_refused(place: Schema) {
    let (dies, lives) = (place.node("dies").await, place.node("lives").await);
    let jobs: Vec<NewJob> = (0..10).map(|_| io_job()).collect();
    dies.accept(jobs.clone()).await.unwrap();
    let mut before = Vec::new();
    while before.len() < jobs.len() {
        before.extend(dies.claim(Queue::Async, 10).await.unwrap());
    }
    // As a crash: nobody says any more that it is there.
    drop(dies);
    expire("dies", &mut place.raw().await).await;
    for _ in &jobs {
        let claimed = claim_one(&lives).await;
        assert_eq!((claimed.attempt, claimed.losses), (2, 1));
        let old = before.iter().find(|old| old.lease.id == claimed.lease.id).unwrap();
        assert_ne!(old.lease.token, claimed.lease.token);
        assert_eq!(settle(&lives, old.lease, succeeded()).await.unwrap(), Settled::Stale);
        assert!(matches!(settle(&lives, claimed.lease, succeeded()).await.unwrap(), Settled::Ended { .. }));
        assert_eq!(settle(&lives, old.lease, succeeded()).await.unwrap(), Settled::Stale);
    }
    assert_eq!(lives.stale_results(), 20);
}

async fn a_lock_on_all_jobs_takes_no_node_its_leases(place: Schema) {
    let lease = Duration::from_secs(2);
    let store = place.node_with("here", lease).await;
    store.accept(vec![io_job()]).await.unwrap();
    let claimed = claim_one(&store).await;
    let mut raw = place.raw().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE work IN ACCESS EXCLUSIVE MODE").execute(&mut raw).await.unwrap();
    // It goes on to say that it is there, for longer than its lease.
    let text = "SELECT seen_at > now() + $1 * INTERVAL '1 second' FROM nodes";
    let query = || sqlx::query_scalar::<_, bool>(text).bind(2.0 * lease.as_secs_f64());
    let said = async || query().fetch_one(&mut raw).await.unwrap().then_some(());
    until("the node says that it is there", said).await;
    sqlx::raw_sql("ROLLBACK").execute(&mut raw).await.unwrap();
    assert!(matches!(settle(&store, claimed.lease, succeeded()).await.unwrap(), Settled::Ended { .. }));
    // Nothing was to be stopped meanwhile; and now it hears again of what is.
    store.accept(vec![io_job()]).await.unwrap();
    let next = claim_one(&store).await;
    sqlx::query("UPDATE work SET stopping = true").execute(&mut raw).await.unwrap();
    assert_eq!(revoked(&store).await, [(next.lease, Revocation::Cancelled)]);
}

async fn what_a_node_was_about_to_send_is_sent_by_others_once_it_is_gone(place: Schema) {
    let lives = place.node("lives").await;
    for is_closed in [true, false] {
        let goes = place.node("goes").await;
        let job = told("a");
        goes.accept(vec![job.clone()]).await.unwrap();
        end_one(&goes).await;
        let due = async |store: &PostgresStore| {
            let due = store.due_deliveries(Timestamp::now(), (10, 10), &[]).await.unwrap();
            due.iter().map(|due| due.delivery.job).collect::<Vec<_>>()
        };
        assert_eq!((due(&goes).await, due(&lives).await), (vec![job.id], Vec::new()));
        if is_closed {
            goes.close().await;
        } else {
            drop(goes);
            expire("goes", &mut place.raw().await).await;
        }
        // As soon as what it ran is taken from it.
        let taken = async || Some(due(&lives).await).filter(|due| !due.is_empty());
        assert_eq!(until("the message is due", taken).await, [job.id]);
        let read = lives.deliveries(DeliveryFilter::default(), None, 1).await.unwrap().remove(0);
        let attempt = DeliveryAttempt { at: Timestamp::now(), took_us: 1, status: Some(200), error: None };
        lives.note_delivery(&read, attempt, Verdict::Delivered).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_stop_as_a_node_ends_is_taken_for_lost_when_its_lease_is_over() {
    let place = Schema::new();
    let (ends, lives) = (place.node("ends").await, place.node("lives").await);
    ends.accept(vec![io_job(), io_job()]).await.unwrap();
    let (runs, idles) = (claim_one(&ends).await, claim_one(&ends).await);
    ends.leave_behind(vec![runs.lease]);
    ends.close().await;
    let back = claim_one(&lives).await;
    assert_eq!((back.lease.id, back.attempt, back.losses), (idles.lease.id, 1, 0));
    assert!(matches!(lives.job(runs.lease.id).await.unwrap().unwrap().state, State::Running { .. }));
    expire("ends", &mut place.raw().await).await;
    let again = claim_one(&place.node("comes").await).await;
    assert_eq!((again.lease.id, again.attempt, again.losses), (runs.lease.id, 2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ran_before_a_restart_waits_again_at_once_however_much_it_is() {
    const JOBS: usize = 2_500;
    let place = Schema::new();
    // Nobody says that it is there for longer than this test takes.
    let lease = Duration::from_secs(600);
    let mut store = place.node_with("here", lease).await;
    store.accept((0..JOBS).map(|_| io_job()).collect()).await.unwrap();
    for times in [0, 1] {
        let mut running = 0;
        while running < JOBS {
            let claimed =
                tokio::time::timeout(PATIENCE, store.claim(Queue::Async, JOBS)).await.expect("the rest of them").unwrap();
            assert!(claimed.iter().all(|claimed| claimed.losses == times));
            running += claimed.len();
        }
        // As a crash.
        drop(store);
        store = place.node_with("here", lease).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_has_left_is_counted_as_lost_without_reading_workloads() {
    let place = Schema::new();
    let store = place.open().await;
    store.accept(vec![io_job()]).await.unwrap();
    claim_one(&store).await;
    drop(store);
    let mut raw = place.raw().await;
    sqlx::query("UPDATE jobs SET workload = 'no JSON' || workload").execute(&mut raw).await.unwrap();
    let store = place.open().await;
    assert_eq!(store.depth(Queue::Async).running, 0);
    sqlx::query("UPDATE jobs SET workload = substr(workload, 8)").execute(&mut raw).await.unwrap();
    let claimed = claim_one(&store).await;
    assert_eq!((claimed.attempt, claimed.losses), (2, 1));
}

async fn a_node_that_was_taken_for_dead_stops_what_it_runs_and_goes_on(place: Schema) {
    let (slow, other) = (place.node("slow").await, place.node("other").await);
    slow.accept(vec![io_job()]).await.unwrap();
    let old = claim_one(&slow).await.lease;
    // As if it had been stopped for longer than its lease.
    let mut raw = place.raw().await;
    // It says that it is there all the time, perhaps just before the other one looks.
    let mut claiming = std::pin::pin!(other.claim(Queue::Async, 1));
    let again = loop {
        tokio::select! {
            claimed = &mut claiming => break claimed.unwrap().remove(0),
            () = expire("slow", &mut raw) => {}
        }
    };
    assert_eq!((again.lease.id, again.losses), (old.id, 1));
    assert_eq!(revoked(&slow).await, [(old, Revocation::Lost)]);
    assert_eq!(settle(&slow, old, succeeded()).await.unwrap(), Settled::Stale);
    assert_eq!(slow.stale_results(), 1);
    assert!(matches!(settle(&other, again.lease, succeeded()).await.unwrap(), Settled::Ended { .. }));
    // It has another place among the nodes, and claims as before.
    slow.accept(vec![io_job()]).await.unwrap();
    end_one(&slow).await;
}

async fn a_node_that_cannot_say_that_it_is_there_stops_what_it_runs_in_time(place: Schema) {
    let store = place.node_with("alone", Duration::from_secs(5)).await;
    store.accept(vec![io_job()]).await.unwrap();
    let lease = claim_one(&store).await.lease;
    sqlx::query("ALTER TABLE nodes RENAME TO nodes_away").execute(&mut place.raw().await).await.unwrap();
    assert_eq!(revoked(&store).await, [(lease, Revocation::Lost)]);
    // It claims nothing that would be taken from it, and says that it can't, until it can.
    assert!(matches!(store.check().await, Err(StoreError::Silent(why)) if why.contains("could not say")));
    store.accept(vec![io_job()]).await.unwrap_err();
    sqlx::query("ALTER TABLE nodes_away RENAME TO nodes").execute(&mut place.raw().await).await.unwrap();
    until("it is there again", async || store.check().await.ok()).await;
    // What it gave up, it hands back.
    settle(&store, lease, Settlement::Release { begun: true }).await.unwrap();
    assert_eq!(claim_one(&store).await.lease.id, lease.id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_could_not_say_that_it_is_there_takes_no_other_for_gone_at_once() {
    let place = Schema::new();
    let lease = Duration::from_secs(12);
    // By itself, the other one says that it is there every some minutes.
    let (first, other) = (place.node_with("first", lease).await, place.node_with("other", lease * 100).await);
    first.accept(vec![io_job(), io_job(), io_job()]).await.unwrap();
    let own = claim_one(&first).await.lease;
    let (ended, runs) = (claim_one(&other).await.lease, claim_one(&other).await.lease);
    let mut raw = place.raw().await;
    sqlx::query("ALTER TABLE nodes RENAME TO nodes_away").execute(&mut raw).await.unwrap();
    assert_eq!(revoked(&first).await, [(own, Revocation::Lost)]);
    sqlx::query("ALTER TABLE nodes_away RENAME TO nodes").execute(&mut raw).await.unwrap();
    expire("other", &mut raw).await;
    // It has said that it is there as it claims this.
    settle(&first, own, Settlement::Release { begun: true }).await.unwrap();
    assert_eq!(claim_one(&first).await.lease.id, own.id);
    assert!(matches!(settle(&other, ended, succeeded()).await.unwrap(), Settled::Ended { .. }));
    // One that does not come back within a lease is gone.
    let again = claim_one(&first).await;
    assert_eq!((again.lease.id, again.losses), (runs.id, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_hang_take_no_node_its_leases() {
    let place = Schema::new();
    // So long that a machine that stands still for a while does not take it its leases, either.
    let store = place.node_with("busy", Duration::from_secs(6)).await;
    store.accept(vec![io_job()]).await.unwrap();
    let lease = claim_one(&store).await.lease;
    let (mut raw, mut looking) = (place.raw().await, place.raw().await);
    let mut locked = raw.begin().await.unwrap();
    sqlx::query("LOCK TABLE deliveries IN ACCESS EXCLUSIVE MODE").execute(&mut *locked).await.unwrap();
    // More than there are connections.
    let reads: Vec<_> = (0..8)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.deliveries(DeliveryFilter::default(), None, 1).await.map(drop) })
        })
        .collect();
    // For longer than its lease is, it says that it is there.
    let text = "SELECT count(*) > 0 FROM nodes WHERE name = 'busy' AND seen_at > $1::TIMESTAMPTZ + INTERVAL '6.5 seconds'";
    let began: String = sqlx::query_scalar("SELECT clock_timestamp()::TEXT").fetch_one(&mut looking).await.unwrap();
    let query = || sqlx::query_scalar::<_, bool>(text).bind(&began);
    until("the node is heard of", async || query().fetch_one(&mut looking).await.unwrap().then_some(())).await;
    locked.rollback().await.unwrap();
    for read in reads {
        read.await.unwrap().unwrap();
    }
    assert!(matches!(settle(&store, lease, succeeded()).await.unwrap(), Settled::Ended { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_drained_from_another_one_and_stays_so_if_it_loses_its_place() {
    let place = Schema::new();
    let (asked, drained) = (place.node("asked").await, place.node("drained").await);
    assert!(asked.set_draining("drained", true).await.unwrap());
    until("it hears of it", async || drained.is_draining().then_some(())).await;
    let nodes = asked.nodes().await.unwrap();
    let seen: Vec<_> = nodes.iter().map(|node| (node.name.as_str(), node.is_this, node.is_draining)).collect();
    assert_eq!(seen, [("asked", true, false), ("drained", false, true)]);
    // As if others had taken it for dead.
    let mut raw = place.raw().await;
    sqlx::query("DELETE FROM nodes").execute(&mut raw).await.unwrap();
    let nobody = "UPDATE shared SET state = (state::jsonb || '{\"nodes\": []}'::jsonb)::text";
    sqlx::query(nobody).execute(&mut raw).await.unwrap();
    drained.check().await.unwrap();
    let again = drained.nodes().await.unwrap().remove(0);
    assert_eq!((again.name.as_str(), again.is_this, again.is_draining), ("drained", true, true));
    assert!(again.start > nodes[1].start);
    // One that is started anew takes work.
    let new = place.node("drained").await;
    assert!(!new.is_draining() && !new.nodes().await.unwrap()[0].is_draining);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_nodes_of_one_name_the_later_one_goes_on_alone() {
    let place = Schema::new();
    let (first, second) = (place.node("same").await, place.node("same").await);
    let refused = first.check().await.expect_err("it has no place");
    assert!(refused.to_string().contains("of this name"), "{refused}");
    first.accept(vec![io_job()]).await.unwrap();
    let mut claim = Box::pin(first.claim(Queue::Async, 1));
    assert!(futures_util::poll!(&mut claim).is_pending());
    let claimed = claim_one(&second).await;
    first.check().await.expect_err("it has no place");
    second.check().await.unwrap();
    assert!(matches!(settle(&second, claimed.lease, succeeded()).await.unwrap(), Settled::Ended { .. }));
    // Once the other one is gone, there is a place again.
    second.close().await;
    first.check().await.unwrap();
    first.accept(vec![io_job()]).await.unwrap();
    let claimed = tokio::time::timeout(PATIENCE, claim).await.expect("a job to claim").unwrap().remove(0);
    assert!(matches!(settle(&first, claimed.lease, succeeded()).await.unwrap(), Settled::Ended { .. }));
}
