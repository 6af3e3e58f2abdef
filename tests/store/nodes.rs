//! Several nodes on one PostgreSQL.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sqlx::postgres::PgListener;
use sqlx::{Connection as _, PgConnection};
use trine::clock::{Clock as _, Timestamp};
use trine::job::{ComparisonId, Concurrency, JobId, NewJob, Outcome, Queue, State, Webhook};
use trine::schedule::{CatchUp, Fire, FireOutcome, Overlap, Schedule, Timetable};
use trine::store::postgres::PostgresStore;
use trine::store::{
    Answered, BloatStore, Cancellation, Claimed, ComparisonStore, DeliveryFilter, EventFilter, Firing, Follower, Lease, MINUTE,
    NodeStore, Once, OnceStore, OwnerStore, RetentionStore, Revocation, ScheduleStore, Settled, Settlement, Store, StoreError,
    Unique, Urgency, WebhookStore,
};

use trine::webhook::{DeliveryAttempt, DeliveryState, Verdict};

use crate::postgres::Schema;
use crate::{PATIENCE, Place as _, io_job, succeeded};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

/// Due every minute, from the first one on.
fn minutely(overlap: Overlap) -> Schedule {
    Schedule {
        name: "s".into(),
        timetable: Timetable::parse("* * * * *", "UTC").unwrap(),
        catch_up: CatchUp::All,
        overlap,
        job: serde_json::value::RawValue::from_string("{}".into()).unwrap(),
        paused: false,
        created_at: at(0),
        changed_at: at(0),
        next_at: Some(at(60)),
    }
}

/// As if it had not been heard of for longer than its lease.
async fn expire(node: &str, raw: &mut PgConnection) {
    let text = "UPDATE nodes SET expires_at = clock_timestamp() - INTERVAL '1 second' WHERE name = $1";
    sqlx::query(text).bind(node).execute(raw).await.unwrap();
}

async fn claim_one(store: &PostgresStore) -> Claimed {
    let claimed = tokio::time::timeout(PATIENCE, store.claim(Queue::Async, 1)).await.expect("a job to claim").unwrap();
    claimed.into_iter().next().unwrap()
}

async fn settle(store: &PostgresStore, lease: Lease, settlement: Settlement) -> Settled {
    store.settle(lease, Arc::new(settlement), Urgency::Awaited).await.unwrap()
}

async fn revoked(store: &PostgresStore) -> Vec<(Lease, Revocation)> {
    tokio::time::timeout(PATIENCE, store.revoked()).await.expect("attempts to stop")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_knows_which_attempts_are_its_own() {
    let place = Schema::new();
    let (front, back) = (place.node("front").await, place.node("back").await);
    front.accept(vec![io_job()]).await.unwrap();
    let claimed = claim_one(&back).await;
    assert!(back.may_run_here(claimed.lease) && !front.may_run_here(claimed.lease));
    settle(&back, claimed.lease, succeeded()).await;
    assert!(!back.may_run_here(claimed.lease));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_node_takes_another_runs_and_both_hear_of_it() {
    const JOBS: usize = 40;
    let place = Schema::new();
    let (front, back) = (place.node("front").await, place.node("back").await);
    front.somebody_waits().store(true, Ordering::SeqCst);
    let store: Arc<dyn Store> = Arc::<PostgresStore>::clone(&front);
    let mut follower = Follower::new(store, EventFilter::default(), Some(Timestamp::from_micros(0)));
    let worker = tokio::spawn(async move {
        for _ in 0..JOBS {
            let claimed = claim_one(&back).await;
            assert!(matches!(settle(&back, claimed.lease, succeeded()).await, Settled::Ended { .. }));
        }
        back
    });
    let mut ids = HashSet::new();
    for _ in 0..JOBS {
        let job = io_job();
        ids.insert(job.id);
        front.accept(vec![job]).await.unwrap();
    }
    let mut ended = HashSet::new();
    while ended.len() < JOBS {
        for id in tokio::time::timeout(PATIENCE, front.ended_unasked()).await.expect("an end") {
            assert!(ended.insert(id), "{id} has ended twice");
        }
    }
    assert_eq!(ended, ids);
    let mut last = Timestamp::from_micros(0);
    for _ in 0..3 * JOBS {
        let event = tokio::time::timeout(PATIENCE, follower.next()).await.expect("an event").unwrap().unwrap();
        assert!(event.at > last);
        last = event.at;
    }
    let back = worker.await.unwrap();
    let depth = async |store: &PostgresStore| {
        store.check().await.unwrap();
        store.depth(Queue::Async)
    };
    assert_eq!((depth(&front).await, depth(&back).await), Default::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_are_told_of_what_a_node_leaves_to_them() {
    let place = Schema::new();
    let node = place.node("one").await;
    let mut told = PgListener::connect(&place.url()).await.unwrap();
    told.listen(&format!("trine_{}", place.options().schema)).await.unwrap();
    let mut hear = async || tokio::time::timeout(PATIENCE, told.recv()).await.expect("a hint").unwrap();
    let waiting = {
        let node = Arc::clone(&node);
        tokio::spawn(async move { claim_one(&node).await })
    };
    // So that the claim is there when the jobs come.
    for _ in 0..3 {
        node.check().await.unwrap();
    }
    node.accept(vec![io_job(), io_job()]).await.unwrap();
    hear().await;
    waiting.await.unwrap();
    // Those with a limit wait as well.
    let mut job = io_job();
    job.submission.concurrency = Some(Box::new(Concurrency { key: "k".into(), limit: 1 }));
    node.accept(vec![job]).await.unwrap();
    hear().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ran_on_a_node_that_is_gone_runs_elsewhere_and_its_result_is_refused() {
    let place = Schema::new();
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
        assert_eq!(settle(&lives, old.lease, succeeded()).await, Settled::Stale);
        assert!(matches!(settle(&lives, claimed.lease, succeeded()).await, Settled::Ended { .. }));
        assert_eq!(settle(&lives, old.lease, succeeded()).await, Settled::Stale);
    }
    assert_eq!(lives.stale_results(), 20);
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
    let again = claim_one(&*place.node("comes").await).await;
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

/// What is counted has to be read for every summary, so it must not wait for a pause; and whoever is busy must not keep all others from it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_counted_is_rolled_up_though_there_is_always_more_to_write() {
    let place = Schema::new();
    let nodes = [place.node("a").await, place.node("b").await, place.node("c").await];
    let mut raw = place.raw().await;
    let busy = (0..24).map(|at| {
        let store = Arc::clone(&nodes[at % nodes.len()]);
        tokio::spawn(async move {
            loop {
                store.accept(vec![io_job()]).await.unwrap();
                settle(&store, claim_one(&store).await.lease, succeeded()).await;
            }
        })
    });
    let busy: Vec<_> = busy.collect();
    // Several times what one turn takes in has been counted, and most of it is in the rollups.
    let text = "SELECT coalesce(max(n), 0) > 1500 AND count(*) < 500 FROM counted";
    let rolled_up = async {
        while !sqlx::query_scalar::<_, bool>(text).fetch_one(&mut raw).await.unwrap() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, rolled_up).await.expect("rollups");
    busy.iter().for_each(tokio::task::JoinHandle::abort);
}

/// Its beginning was committed, but nobody heard of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_comparison_that_a_node_never_heard_that_it_began_is_begun_again() {
    let place = Schema::new();
    let (here, there) = (place.node("here").await, place.node("there").await);
    let request = || serde_json::value::RawValue::from_string("{}".into()).unwrap();
    let first = here.add_comparison(ComparisonId::new(), None, request()).await.unwrap().id;
    let second = here.add_comparison(ComparisonId::new(), None, request()).await.unwrap().id;
    let begun = async |store: &PostgresStore| store.begin_comparison().await.unwrap().map(|comparison| comparison.id);
    assert_eq!([begun(&here).await, begun(&here).await], [Some(first), Some(first)]);
    assert_eq!([begun(&there).await, begun(&there).await], [Some(second), Some(second)]);
}

/// Each takes away what is too much as it was counted, and only that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_nodes_remove_no_more_results_than_there_are_too_many() {
    let place = Schema::new();
    let nodes = [place.node("a").await, place.node("b").await, place.node("c").await];
    for _ in 0..60 {
        nodes[0].accept(vec![io_job()]).await.unwrap();
        settle(&nodes[0], claim_one(&nodes[0]).await.lease, succeeded()).await;
    }
    for kept in [50, 30, 10] {
        while nodes[0].kept().await.unwrap() > kept {
            let all = nodes.iter().map(|node| node.remove_beyond(kept, 500));
            futures_util::future::try_join_all(all).await.unwrap();
        }
        assert_eq!(nodes[0].kept().await.unwrap(), kept);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_taken_for_dead_stops_what_it_runs_and_goes_on() {
    let place = Schema::new();
    let (slow, other) = (place.node("slow").await, place.node("other").await);
    slow.accept(vec![io_job()]).await.unwrap();
    let old = claim_one(&slow).await.lease;
    // As if it had been stopped for longer than its lease.
    let mut raw = place.raw().await;
    // It says that it is there all the time, so the other one may have to look more than once.
    let again = loop {
        expire("slow", &mut raw).await;
        if let Ok(claimed) = tokio::time::timeout(Duration::from_millis(300), other.claim(Queue::Async, 1)).await {
            break claimed.unwrap().remove(0);
        }
    };
    assert_eq!((again.lease.id, again.losses), (old.id, 1));
    assert_eq!(revoked(&slow).await, [(old, Revocation::Lost)]);
    assert_eq!(settle(&slow, old, succeeded()).await, Settled::Stale);
    assert_eq!(slow.stale_results(), 1);
    assert!(matches!(settle(&other, again.lease, succeeded()).await, Settled::Ended { .. }));
    // It has another place among the nodes, and claims as before.
    slow.accept(vec![io_job()]).await.unwrap();
    assert!(matches!(settle(&slow, claim_one(&slow).await.lease, succeeded()).await, Settled::Ended { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_cannot_say_that_it_is_there_stops_what_it_runs_in_time() {
    let place = Schema::new();
    let store = place.node_with("alone", Duration::from_secs(5)).await;
    store.accept(vec![io_job()]).await.unwrap();
    let lease = claim_one(&store).await.lease;
    sqlx::query("ALTER TABLE nodes RENAME TO nodes_away").execute(&mut place.raw().await).await.unwrap();
    assert_eq!(revoked(&store).await, [(lease, Revocation::Lost)]);
    // It claims nothing that would be taken from it, and says that it can't, until it can.
    assert!(matches!(store.check().await, Err(StoreError::Unavailable(_))));
    store.accept(vec![io_job()]).await.unwrap_err();
    sqlx::query("ALTER TABLE nodes_away RENAME TO nodes").execute(&mut place.raw().await).await.unwrap();
    let back = async {
        while store.check().await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, back).await.expect("it to be there again");
    // What it gave up, it hands back.
    settle(&store, lease, Settlement::Release).await;
    assert_eq!(claim_one(&store).await.lease.id, lease.id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_hang_take_no_node_its_leases() {
    let place = Schema::new();
    let store = place.node_with("busy", Duration::from_secs(3)).await;
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
    let text = "SELECT count(*) > 0 FROM nodes WHERE name = 'busy' AND seen_at > $1::TIMESTAMPTZ + INTERVAL '3.5 seconds'";
    let began: String = sqlx::query_scalar("SELECT clock_timestamp()::TEXT").fetch_one(&mut looking).await.unwrap();
    let seen = async {
        while !sqlx::query_scalar::<_, bool>(text).bind(&began).fetch_one(&mut looking).await.unwrap() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.expect("the node to be heard of");
    locked.rollback().await.unwrap();
    for read in reads {
        read.await.unwrap().unwrap();
    }
    assert!(matches!(settle(&store, lease, succeeded()).await, Settled::Ended { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_runs_on_another_node_can_be_cancelled() {
    let place = Schema::new();
    let (asked, runs) = (place.node("asked").await, place.node("runs").await);
    let job = io_job();
    asked.accept(vec![job.clone()]).await.unwrap();
    let lease = claim_one(&runs).await.lease;
    assert_eq!(asked.cancel(job.id, &[]).await.unwrap(), Cancellation::Stopping(lease));
    assert_eq!(revoked(&runs).await, [(lease, Revocation::Cancelled)]);
    settle(&runs, lease, Settlement::Release).await;
    assert_eq!(asked.job(job.id).await.unwrap().unwrap().state.as_str(), "cancelled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_writes_all_the_time_hears_of_cancellations_all_the_same() {
    const JOBS: usize = 20;
    let place = Schema::new();
    // It says so seldom that it is there that it hears of nothing by that.
    let (asked, runs) = (place.node("asked").await, place.node_with("runs", Duration::from_secs(3_600)).await);
    let jobs: Vec<NewJob> = (0..JOBS).map(|_| io_job()).collect();
    asked.accept(jobs.clone()).await.unwrap();
    let mut leases = Vec::new();
    while leases.len() < JOBS {
        leases.extend(runs.claim(Queue::Async, JOBS).await.unwrap().into_iter().map(|claimed| claimed.lease));
    }
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let runs = Arc::clone(&runs);
        writers.spawn(async move {
            loop {
                runs.check().await.unwrap();
            }
        });
    }
    let mut revoked_here = HashSet::new();
    for job in jobs {
        asked.cancel(job.id, &[]).await.unwrap();
        while !revoked_here.contains(&job.id) {
            revoked_here.extend(revoked(&runs).await.into_iter().map(|(lease, _)| lease.id));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_another_node_has_just_delivered_is_not_sent_again() {
    let place = Schema::new();
    let store = place.node("here").await;
    let mut job = io_job();
    job.submission.webhook =
        Some(Box::new(Webhook { url: "http://a/hook".into(), host: "a".into(), secret: None, events: Vec::new() }));
    store.accept(vec![job]).await.unwrap();
    settle(&store, claim_one(&store).await.lease, succeeded()).await;
    // Another one has it in hand as this one looks for what is due.
    let mut other = place.raw().await;
    sqlx::raw_sql("BEGIN; SELECT 1 FROM deliveries FOR UPDATE").execute(&mut other).await.unwrap();
    let due = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.due_deliveries(Timestamp::now(), (10, 10), &[]).await.unwrap().len() }
    });
    let waits = "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid)))";
    while !sqlx::query_scalar::<_, bool>(waits).fetch_one(&mut other).await.unwrap() {
        assert!(!due.is_finished());
    }
    sqlx::raw_sql("UPDATE deliveries SET state = 1, taken_by = NULL; COMMIT").execute(&mut other).await.unwrap();
    assert_eq!(tokio::time::timeout(PATIENCE, due).await.expect("an answer").unwrap(), 0);
    // What this one says late of an attempt of its own is kept, and changes nothing: also while the other one still has it in hand.
    let id: String = sqlx::query_scalar("SELECT id FROM deliveries").fetch_one(&mut other).await.unwrap();
    let late = DeliveryAttempt { at: Timestamp::now(), took_us: 1, status: Some(500), error: None };
    store.note_delivery(&id, late.clone(), Verdict::Again(Timestamp::now())).await.unwrap();
    let all = async || store.deliveries(DeliveryFilter::default(), None, 10).await.unwrap().remove(0);
    assert_eq!((all().await.state, all().await.attempts.len()), (DeliveryState::Delivered, 1));
    sqlx::query("UPDATE deliveries SET state = 0, taken_by = 999").execute(&mut other).await.unwrap();
    store.note_delivery(&id, late, Verdict::GivenUp).await.unwrap();
    assert_eq!((all().await.state, all().await.attempts.len()), (DeliveryState::Pending, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ends_on_other_nodes_are_heard_of_however_many_there_are() {
    const JOBS: usize = 25_000;
    let place = Schema::new();
    let store = place.node("here").await;
    store.somebody_waits().store(true, Ordering::SeqCst);
    let mut raw = place.raw().await;
    // As if another one had recorded them while this one looked away.
    let text = "BEGIN; \
        INSERT INTO results (id, ending, attempt, losses, finished_at) \
            SELECT gen_random_uuid(), 0, 1, 0, s.latest + n \
            FROM (SELECT (state::JSONB ->> 'latest')::BIGINT AS latest FROM shared FOR UPDATE) AS s, generate_series(1, 25000) AS n; \
        UPDATE shared SET state = jsonb_set(state::JSONB, '{latest}', to_jsonb((state::JSONB ->> 'latest')::BIGINT + 25000))::TEXT; \
        COMMIT";
    sqlx::raw_sql(text).execute(&mut raw).await.unwrap();
    let mut ended = HashSet::new();
    while ended.len() < JOBS {
        ended.extend(tokio::time::timeout(PATIENCE, store.ended_unasked()).await.expect("the rest of them"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_submitted_in_a_minute_counts_on_all_nodes_together() {
    let place = Schema::new();
    let nodes = [place.node("a").await, place.node("b").await];
    let owner = "00000000000a".parse().unwrap();
    let second = MINUTE / 60;
    let jobs = Arc::new(AtomicU64::new(0));
    let spent = |node: usize| {
        let (store, jobs) = (Arc::clone(&nodes[node]), Arc::clone(&jobs));
        tokio::spawn(async move {
            // All at once, then whatever comes back: each tries as often as it can.
            let began = Instant::now();
            while began.elapsed() < 3 * second || jobs.load(Ordering::SeqCst) < 60 {
                jobs.fetch_add(u64::from(store.spend(owner, second).await.unwrap().is_none()), Ordering::SeqCst);
            }
        })
    };
    let began = Instant::now();
    let (here, there) = (spent(0), spent(1));
    here.await.unwrap();
    there.await.unwrap();
    let jobs = jobs.load(Ordering::SeqCst);
    assert!((60..=60 + began.elapsed().as_secs() + 1).contains(&jobs), "{jobs}");
    // What a clock counted that was an hour ahead is not held against anybody.
    let mut database = place.raw().await;
    sqlx::query("UPDATE paces SET clear_at = clear_at + 3600000000").execute(&mut database).await.unwrap();
    assert_eq!(nodes[1].spend(owner, MINUTE).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_holds_for_all_nodes_together() {
    const JOBS: usize = 60;
    let place = Schema::new();
    let nodes = [place.node("a").await, place.node("b").await];
    let jobs: Vec<NewJob> = (0..JOBS)
        .map(|_| {
            let mut job = io_job();
            job.submission.concurrency = Some(Box::new(Concurrency { key: "k".into(), limit: 3 }));
            job
        })
        .collect();
    nodes[0].accept(jobs).await.unwrap();
    let running = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let left = Arc::new(std::sync::atomic::AtomicUsize::new(JOBS));
    let claimers = nodes.map(|node| {
        let (running, left) = (Arc::clone(&running), Arc::clone(&left));
        tokio::spawn(async move {
            use std::sync::atomic::Ordering::SeqCst;
            while left.load(SeqCst) > 0 {
                let claim = tokio::time::timeout(Duration::from_millis(500), node.claim(Queue::Async, 5)).await;
                let Ok(claimed) = claim else { continue };
                let claimed = claimed.unwrap();
                assert!(running.fetch_add(claimed.len(), SeqCst) + claimed.len() <= 3, "more run than may");
                for claimed in claimed {
                    running.fetch_sub(1, SeqCst);
                    left.fetch_sub(1, SeqCst);
                    settle(&node, claimed.lease, succeeded()).await;
                }
            }
        })
    });
    for claimer in claimers {
        tokio::time::timeout(PATIENCE * 2, claimer).await.expect("all jobs to end").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_with_a_key_is_accepted_by_one_node() {
    let place = Schema::new();
    let nodes = [place.node("a").await, place.node("b").await];
    for n in 0..20 {
        let accepted = nodes.each_ref().map(|node| async move {
            let job = io_job();
            let until = Timestamp::now().after(Duration::from_secs(3_600));
            let request = Answered { key: n.to_string(), digest: [7; 32], jobs: vec![(job.id, false)], until };
            let unique = vec![Unique { digest: [n; 32], job: job.id, beside: None, within: None }];
            let once = Once { request: (n % 2 == 0).then_some(request), unique: if n % 2 == 0 { Vec::new() } else { unique } };
            node.accept_once(vec![job], once).await
        });
        let accepted = futures_util::future::join_all(accepted).await;
        let taken = accepted.iter().filter(|accepted| matches!(accepted, Err(StoreError::Taken))).count();
        assert_eq!((accepted.iter().filter(|accepted| accepted.is_ok()).count(), taken), (1, 1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_that_is_due_fires_on_one_node() {
    let place = Schema::new();
    let nodes = [place.node("a").await, place.node("b").await];
    assert!(nodes[0].add_schedule(minutely(Overlap::Allow)).await.unwrap());
    for minute in 1..=10 {
        let fired = nodes.each_ref().map(|node| async move {
            let job = io_job();
            let fire = Fire { due_at: at(minute * 60), at: at(0), by_hand: false, outcome: FireOutcome::Submitted(job.id) };
            let next_at = Some(Some(at(minute * 60 + 60)));
            let firing = Firing { schedule: "s".into(), fires: vec![fire], jobs: vec![job], waited: 0, next_at };
            node.fire(firing).await.unwrap().iter().map(|job| job.id).collect::<Vec<JobId>>()
        });
        let fired = futures_util::future::join_all(fired).await;
        assert_eq!(fired.iter().flatten().count(), 1, "minute {minute}");
    }
    assert_eq!(nodes[0].fires("s", 100).await.unwrap().len(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unique_job_is_accepted_beside_one_that_is_too_old_to_count() {
    let place = Schema::new();
    let store = place.node("a").await;
    let accept = async |beside: Option<JobId>| {
        let job = io_job();
        let unique = vec![Unique { digest: [1; 32], job: job.id, beside, within: None }];
        store.accept_once(vec![job.clone()], Once { request: None, unique }).await.map(|_| job.id)
    };
    let first = accept(None).await.unwrap();
    assert!(matches!(accept(None).await, Err(StoreError::Taken)));
    let second = accept(Some(first)).await.unwrap();
    // That is the one that counts from here on.
    assert!(matches!(accept(Some(first)).await, Err(StoreError::Taken)));
    accept(Some(second)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unique_job_that_another_node_has_run_meanwhile_counts_for_its_time() {
    let place = Schema::new();
    let (here, there) = (place.node("a").await, place.node("b").await);
    let accept = async |node: &Arc<PostgresStore>, within: Option<Duration>| {
        let job = io_job();
        let unique = vec![Unique { digest: [1; 32], job: job.id, beside: None, within }];
        node.accept_once(vec![job.clone()], Once { request: None, unique }).await.map(|_| job.id)
    };
    accept(&there, None).await.unwrap();
    settle(&there, claim_one(&there).await.lease, succeeded()).await;
    assert!(matches!(accept(&here, Some(Duration::from_secs(3_600))).await, Err(StoreError::Taken)));
    accept(&here, Some(Duration::ZERO)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_that_waits_is_fired_once_and_one_of_a_schedule_that_is_paused_or_gone_is_not() {
    let place = Schema::new();
    let store = place.node("a").await;
    assert!(store.add_schedule(minutely(Overlap::Queue)).await.unwrap());
    let waiting = [60, 120].map(|due| Fire { due_at: at(due), at: at(0), by_hand: false, outcome: FireOutcome::Waiting });
    let wait = Firing { schedule: "s".into(), fires: waiting.into(), next_at: Some(Some(at(180))), ..Firing::default() };
    store.fire(wait).await.unwrap();
    let submit = async |due: i64, waited: usize| {
        let job = io_job();
        let fires = vec![Fire { due_at: at(due), at: at(0), by_hand: false, outcome: FireOutcome::Submitted(job.id) }];
        let next_at = (waited == 0).then(|| Some(at(due + 60)));
        let firing = Firing { schedule: "s".into(), fires, jobs: vec![job], waited, next_at };
        store.fire(firing).await.unwrap().len()
    };
    assert_eq!(submit(60, 1).await, 1);
    // Another node has seen the first one wait as well; and its job has not ended, so the second one has to wait on.
    assert_eq!((submit(60, 1).await, submit(120, 1).await), (0, 0));
    assert!(matches!(settle(&store, claim_one(&store).await.lease, succeeded()).await, Settled::Ended { .. }));
    // Or it has seen the second one wait, before this one paused the schedule.
    assert!(store.pause_schedule("s", true, None).await.unwrap());
    assert_eq!(submit(120, 1).await, 0);
    assert!(store.pause_schedule("s", false, Some(at(180))).await.unwrap());
    assert_eq!((submit(60, 1).await, submit(120, 1).await), (0, 1));
    // Another node has seen that it is due, before this one paused it.
    assert!(store.pause_schedule("s", true, None).await.unwrap());
    assert_eq!(submit(180, 0).await, 0);
    assert_eq!(store.schedule("s").await.unwrap().unwrap().next_at, None);
    assert!(store.remove_schedule("s").await.unwrap());
    assert_eq!(submit(180, 0).await, 0);
    assert!(store.fires("s", 10).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_there_is_no_room_for_a_job_nothing_can_be_written_though_who_looks_finds_room() {
    let place = Schema::new();
    let store = place.node("full").await;
    let mut raw = place.raw().await;
    let full = "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'full' USING ERRCODE = '53100'; END $$; \
                CREATE TRIGGER full_disk BEFORE INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION full_disk()";
    sqlx::raw_sql(full).execute(&mut raw).await.unwrap();
    store.check().await.unwrap();
    assert!(matches!(store.accept(vec![io_job()]).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.check().await, Err(StoreError::Unavailable(_))));
    sqlx::raw_sql("DROP FUNCTION full_disk CASCADE").execute(&mut raw).await.unwrap();
    store.accept(vec![io_job()]).await.unwrap();
    store.check().await.unwrap();
}

/// Has the database refuse what nobody asks for, as an index does with what is too long for it.
const REFUSE: &str = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no' USING ERRCODE = '54000'; END $$; \
    CREATE TRIGGER promote BEFORE UPDATE ON work FOR EACH ROW WHEN (OLD.state = 0 AND NEW.state = 4) EXECUTE FUNCTION refuse(); \
    CREATE TRIGGER expire BEFORE INSERT ON results FOR EACH ROW WHEN (NEW.error LIKE '%before its time%') EXECUTE FUNCTION refuse()";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_asked_for_costs_no_command_its_answer() {
    let place = Schema::new();
    place.clock().stop();
    let store = PostgresStore::open(place.options()).await.unwrap();
    let webhook = |url: String| Some(Box::new(Webhook { url, host: "a".into(), secret: None, events: Vec::new() }));
    let [again, mut limited, mut untold, mut told, mut late] = [io_job(), io_job(), io_job(), io_job(), io_job()];
    limited.submission.concurrency = Some(Box::new(Concurrency { key: "k".into(), limit: 1 }));
    // Longer than an index takes, as an older version took it.
    untold.submission.webhook = webhook((0..400).map(|_| JobId::new().to_string()).collect());
    told.submission.webhook = webhook("http://a/".into());
    late.submission.expires_at = Some(place.clock().now().after(Duration::from_secs(60)));
    let mut leases = Vec::new();
    for job in [&untold, &told, &again, &limited] {
        store.accept(vec![job.clone()]).await.unwrap();
        leases.push(claim_one(&store).await.lease);
    }
    store.accept(vec![late.clone()]).await.unwrap();
    for lease in &leases[2..] {
        settle(&store, *lease, Settlement::Later { due_at: place.clock().now().after(Duration::from_secs(60)) }).await;
    }
    let mut raw = place.raw().await;
    sqlx::raw_sql(REFUSE).execute(&mut raw).await.unwrap();
    place.clock().advance(Duration::from_secs(60));
    let (one, other) = tokio::join!(settle(&store, leases[0], succeeded()), settle(&store, leases[1], succeeded()));
    assert!(matches!((one, other), (Settled::Ended { .. }, Settled::Ended { .. })), "{one:?}, {other:?}");
    let deliveries = store.deliveries(DeliveryFilter::default(), None, 10).await.unwrap();
    assert_eq!(deliveries.iter().map(|delivery| delivery.job).collect::<Vec<_>>(), [told.id]);
    // All else goes on.
    assert_eq!(claim_one(&store).await.lease.id, again.id);
    let State::Finished(ended) = store.job(limited.id).await.unwrap().unwrap().state else { panic!("not ended") };
    assert!(
        matches!(&ended.outcome, Outcome::Error(failure) if failure.message.starts_with("it can't be queued: ")),
        "{ended:?}"
    );
    store.close().await;

    // A node that starts does so all the same, and does what was left as soon as that can be done.
    let store = PostgresStore::open(place.options()).await.unwrap();
    sqlx::raw_sql("DROP FUNCTION refuse CASCADE").execute(&mut raw).await.unwrap();
    let expired = async {
        while !matches!(store.job(late.id).await.unwrap().unwrap().state, State::Finished(_)) {
            store.check().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, expired).await.expect("its time to be over");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_drained_from_another_one_and_stays_so_if_it_loses_its_place() {
    let place = Schema::new();
    let (asked, drained) = (place.node("asked").await, place.node("drained").await);
    assert!(asked.set_draining("drained", true).await.unwrap());
    let hears = async |draining| {
        while drained.is_draining() != draining {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, hears(true)).await.expect("it to hear of it");
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
async fn what_is_not_cleaned_up_and_a_transaction_that_is_left_open_are_seen() {
    let place = Schema::new();
    let store = place.node("one").await;
    let jobs: Vec<NewJob> = (0..100).map(|_| io_job()).collect();
    store.accept(jobs).await.unwrap();
    let mut left_open = place.raw().await;
    sqlx::query("BEGIN").execute(&mut left_open).await.unwrap();
    sqlx::query("SELECT count(*) FROM work").execute(&mut left_open).await.unwrap();
    let seen = async {
        loop {
            let bloat = store.bloat().await.unwrap().unwrap();
            // Sessions tell what they did now and then.
            let counted = bloat.tables.iter().any(|table| table.name == "work" && table.live >= 100);
            if counted && bloat.oldest_transaction.is_some_and(|age| age >= Duration::from_millis(100)) {
                return bloat;
            }
            store.check().await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let bloat = tokio::time::timeout(PATIENCE, seen).await.expect("the database to tell");
    let names: Vec<_> = bloat.tables.iter().map(|table| table.name.as_str()).collect();
    assert_eq!(names, ["events", "jobs", "results", "shared", "work"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_has_left_is_counted_as_lost_without_reading_workloads() {
    let place = Schema::new();
    let store = place.open().await;
    store.accept(vec![io_job()]).await.unwrap();
    crate::claim_one(&store).await;
    drop(store);
    let mut raw = place.raw().await;
    sqlx::query("UPDATE jobs SET workload = 'no JSON' || workload").execute(&mut raw).await.unwrap();
    let store = place.open().await;
    assert_eq!(store.depth(Queue::Async).running, 0);
    sqlx::query("UPDATE jobs SET workload = substr(workload, 8)").execute(&mut raw).await.unwrap();
    let claimed = crate::claim_one(&store).await;
    assert_eq!((claimed.attempt, claimed.losses), (2, 1));
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
    assert!(matches!(settle(&second, claimed.lease, succeeded()).await, Settled::Ended { .. }));
    // Once the other one is gone, there is a place again.
    second.close().await;
    first.check().await.unwrap();
    first.accept(vec![io_job()]).await.unwrap();
    let claimed = tokio::time::timeout(PATIENCE, claim).await.expect("a job to claim").unwrap().remove(0);
    assert!(matches!(settle(&first, claimed.lease, succeeded()).await, Settled::Ended { .. }));
}
