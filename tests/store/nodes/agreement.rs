//! What nodes that share a database do once, or only so often, all together.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use trine::clock::Timestamp;
use trine::job::{ComparisonId, JobId, Owner, Queue};
use trine::schedule::{CatchUp, Fire, FireOutcome, Overlap, Schedule, Timetable};
use trine::store::postgres::PostgresStore;
use trine::store::{
    Answered, ComparisonStore, DeliveryFilter, Firing, MINUTE, Once, OnceStore, OwnerStore, RetentionStore, ScheduleStore, Store,
    StoreError, Unique, WebhookStore,
};
use trine::webhook::{DeliveryAttempt, DeliveryState, Verdict};

use crate::limits::limited;
use crate::postgres::Schema;
use crate::webhooks::told;
use crate::{PATIENCE, end_one, io_job, settle, succeeded, until};

crate::on_postgres!(
    a_limit_holds_for_all_nodes_together,
    a_request_with_a_key_is_accepted_by_one_node,
    a_schedule_that_is_due_fires_on_one_node,
);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

async fn a_limit_holds_for_all_nodes_together(place: Schema) {
    const JOBS: usize = 60;
    let nodes = [place.node("a").await, place.node("b").await];
    nodes[0].accept((0..JOBS).map(|_| limited("k", 3)).collect()).await.unwrap();
    let running = Arc::new(AtomicUsize::new(0));
    let left = Arc::new(AtomicUsize::new(JOBS));
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
                    settle(&node, claimed.lease, succeeded()).await.unwrap();
                }
            }
        })
    });
    for claimer in claimers {
        tokio::time::timeout(PATIENCE * 2, claimer).await.expect("all jobs to end").unwrap();
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
    for spent in [spent(0), spent(1)] {
        tokio::time::timeout(PATIENCE, spent).await.expect("all jobs to be submitted").unwrap();
    }
    let jobs = jobs.load(Ordering::SeqCst);
    assert!((60..=60 + began.elapsed().as_secs() + 1).contains(&jobs), "{jobs}");
    // What a clock counted that was an hour ahead is not held against anybody.
    let mut database = place.raw().await;
    sqlx::query("UPDATE paces SET clear_at = clear_at + 3600000000").execute(&mut database).await.unwrap();
    assert_eq!(nodes[1].spend(owner, MINUTE).await.unwrap(), None);
}

async fn a_request_with_a_key_is_accepted_by_one_node(place: Schema) {
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
    end_one(&there).await;
    assert!(matches!(accept(&here, Some(Duration::from_secs(3_600))).await, Err(StoreError::Taken)));
    accept(&here, Some(Duration::ZERO)).await.unwrap();
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

async fn a_schedule_that_is_due_fires_on_one_node(place: Schema) {
    let nodes = [place.node("a").await, place.node("b").await];
    assert!(nodes[0].add_schedule(minutely(Overlap::Allow)).await.unwrap());
    for minute in 1..=10 {
        let fired = nodes.each_ref().map(|node| async move {
            let job = io_job();
            let fire = Fire { due_at: at(minute * 60), at: at(0), by_hand: false, outcome: FireOutcome::Submitted(job.id) };
            let next_at = Some(Some(at(minute * 60 + 60)));
            let firing = Firing { schedule: "s".into(), fires: vec![fire], jobs: vec![job], next_at, ..Firing::default() };
            node.fire(firing).await.unwrap().iter().map(|job| job.id).collect::<Vec<JobId>>()
        });
        let fired = futures_util::future::join_all(fired).await;
        assert_eq!(fired.iter().flatten().count(), 1, "minute {minute}");
    }
    assert_eq!(nodes[0].fires("s", 100).await.unwrap().len(), 10);
}

/// Pauses the schedule, or resumes it with the moment at which it is due.
async fn pause(store: &PostgresStore, next_at: Option<Timestamp>) -> bool {
    let there = store.schedule("s").await.unwrap().unwrap();
    store.pause_schedule(Schedule { paused: next_at.is_none(), next_at, ..there }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_that_another_node_has_changed_since_it_was_read_is_read_again() {
    let place = Schema::new();
    let (here, there) = (place.node("a").await, place.node("b").await);
    assert!(here.add_schedule(Schedule { paused: true, next_at: None, ..minutely(Overlap::Allow) }).await.unwrap());
    // One node is about to replace it, paused as it is, as the other one resumes it.
    let hourly = Timetable::parse("0 * * * *", "UTC").unwrap();
    let read = here.schedule("s").await.unwrap().unwrap();
    let replaced = Schedule { timetable: hourly, changed_at: at(7), ..read.clone() };
    assert!(pause(&there, Some(at(60))).await);
    assert!(!here.replace_schedule(replaced.clone()).await.unwrap());
    assert_eq!(there.schedule("s").await.unwrap().unwrap().next_at, Some(at(60)));
    // Or one is about to resume it by its timetable as the other one gives it another.
    assert!(pause(&there, None).await);
    assert!(there.replace_schedule(replaced).await.unwrap());
    assert!(!here.pause_schedule(Schedule { paused: false, next_at: Some(at(60)), ..read }).await.unwrap());
    assert!(here.schedule("s").await.unwrap().unwrap().paused);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_that_waits_is_fired_once_and_one_of_a_schedule_that_is_paused_or_gone_is_not() {
    let place = Schema::new();
    let store = place.node("a").await;
    assert!(store.add_schedule(minutely(Overlap::Queue)).await.unwrap());
    let waiting = [60, 120].map(|due| Fire { due_at: at(due), at: at(0), by_hand: false, outcome: FireOutcome::Waiting });
    let wait = Firing { schedule: "s".into(), fires: waiting.into(), next_at: Some(Some(at(180))), ..Firing::default() };
    store.fire(wait).await.unwrap();
    let of = async |made_of: Option<Timestamp>, due: i64, waited: usize| {
        let job = io_job();
        let fires = vec![Fire { due_at: at(due), at: at(0), by_hand: false, outcome: FireOutcome::Submitted(job.id) }];
        let next_at = (waited == 0).then(|| Some(at(due + 60)));
        let firing = Firing { schedule: "s".into(), fires, jobs: vec![job], waited, next_at, made_of };
        store.fire(firing).await.unwrap().len()
    };
    let submit = async |due, waited| of(None, due, waited).await;
    // Another node has read it before this one changed it.
    assert!(store.replace_schedule(Schedule { changed_at: at(7), ..minutely(Overlap::Queue) }).await.unwrap());
    assert_eq!((of(Some(at(0)), 60, 1).await, of(Some(at(0)), 180, 0).await), (0, 0));
    assert_eq!(store.schedule("s").await.unwrap().unwrap().next_at, Some(at(180)));
    assert_eq!(of(Some(at(7)), 60, 1).await, 1);
    // Another node has seen the first one wait as well; and its job has not ended, so the second one has to wait on.
    assert_eq!((submit(60, 1).await, submit(120, 1).await), (0, 0));
    end_one(&store).await;
    // Or it has seen the second one wait, before this one paused the schedule.
    assert!(pause(&store, None).await);
    assert_eq!(submit(120, 1).await, 0);
    assert!(pause(&store, Some(at(180))).await);
    assert_eq!((submit(60, 1).await, submit(120, 1).await), (0, 1));
    // Another node has seen that it is due, before this one paused it.
    assert!(pause(&store, None).await);
    assert_eq!(submit(180, 0).await, 0);
    assert_eq!(store.schedule("s").await.unwrap().unwrap().next_at, None);
    assert!(store.remove_schedule("s").await.unwrap());
    assert_eq!(submit(180, 0).await, 0);
    assert!(store.fires("s", 10).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_another_node_has_just_delivered_is_not_sent_again() {
    let place = Schema::new();
    let store = place.node("here").await;
    store.accept(vec![told("a")]).await.unwrap();
    end_one(&store).await;
    // Another one has it in hand as this one looks for what is due.
    let mut other = place.raw().await;
    sqlx::raw_sql("BEGIN; SELECT 1 FROM deliveries FOR UPDATE").execute(&mut other).await.unwrap();
    let due = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.due_deliveries(Timestamp::now(), (10, 10), &[]).await.unwrap().len() }
    });
    let waits = "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid)))";
    let waiting = async || {
        assert!(!due.is_finished());
        sqlx::query_scalar::<_, bool>(waits).fetch_one(&mut other).await.unwrap().then_some(())
    };
    until("it waits for the other one", waiting).await;
    sqlx::raw_sql("UPDATE deliveries SET state = 1, taken_by = NULL; COMMIT").execute(&mut other).await.unwrap();
    assert_eq!(tokio::time::timeout(PATIENCE, due).await.expect("an answer").unwrap(), 0);
    // What this one says late of an attempt of its own is kept, and changes nothing: also while the other one still has it in hand.
    let late = DeliveryAttempt { at: Timestamp::now(), took_us: 1, status: Some(500), error: None };
    let all = async || store.deliveries(DeliveryFilter::default(), None, 10).await.unwrap().remove(0);
    store.note_delivery(&all().await, late.clone(), Verdict::Again(Timestamp::now())).await.unwrap();
    assert_eq!((all().await.state, all().await.attempts.len()), (DeliveryState::Delivered, 1));
    sqlx::query("UPDATE deliveries SET state = 0, taken_by = 999").execute(&mut other).await.unwrap();
    store.note_delivery(&all().await, late, Verdict::GivenUp).await.unwrap();
    assert_eq!((all().await.state, all().await.attempts.len()), (DeliveryState::Pending, 2));
}

/// Its beginning was committed, but nobody heard of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_comparison_that_a_node_never_heard_that_it_began_is_begun_again() {
    let place = Schema::new();
    let (here, there) = (place.node("here").await, place.node("there").await);
    let request = || serde_json::value::RawValue::from_string("{}".into()).unwrap();
    let first = here.add_comparison(ComparisonId::new(), None, request()).await.unwrap().id;
    let second = here.add_comparison(ComparisonId::new(), None, request()).await.unwrap().id;
    let begun = async |store: &PostgresStore| {
        let waiting = store.waiting_comparison(None).await.unwrap()?;
        store.begin_comparison(waiting.id).await.unwrap().map(|comparison| comparison.id)
    };
    assert_eq!([begun(&here).await, begun(&here).await], [Some(first), Some(first)]);
    assert_eq!([begun(&there).await, begun(&there).await], [Some(second), Some(second)]);
    // Each is begun by one node.
    assert!(here.begin_comparison(second).await.unwrap().is_none());
}

/// Each takes away what is too much as it was counted, and only that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_nodes_remove_no_more_results_than_there_are_too_many() {
    let place = Schema::new();
    let nodes = [place.node("a").await, place.node("b").await, place.node("c").await];
    for _ in 0..60 {
        nodes[0].accept(vec![io_job()]).await.unwrap();
        end_one(&nodes[0]).await;
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
async fn a_node_that_comes_with_a_higher_quota_opens_what_a_lower_one_has_shut() {
    let place = Schema::new();
    let owner: Owner = "00000000000a".parse().unwrap();
    let confined = |n: usize| {
        let mut job = limited(&n.to_string(), 1);
        (job.submission.owner, job.submission.confined) = (Some(owner), true);
        job
    };
    let before = place.node("before").await;
    before.allow(HashMap::from([(owner, 1)])).await.unwrap();
    before.accept((0..4).map(confined).collect()).await.unwrap();
    assert_eq!(before.claim(Queue::Async, 10).await.unwrap().len(), 1);
    // All lanes have been looked at, and are shut, before this one's turn has come.
    let mut last = io_job();
    last.submission.priority = -100;
    before.accept(vec![last]).await.unwrap();
    assert_eq!(before.claim(Queue::Async, 10).await.unwrap().len(), 1);
    let later = place.node("later").await;
    later.allow(HashMap::from([(owner, 3)])).await.unwrap();
    let mut claimed = 0;
    while claimed < 2 {
        claimed += tokio::time::timeout(PATIENCE, later.claim(Queue::Async, 10)).await.expect("the lanes to open").unwrap().len();
    }
    assert_eq!(claimed, 2);
}
