//! Schedules: what is due, and that a firing is all or nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use serde_json::value::to_raw_value;
use trine::clock::Timestamp;
use trine::job::{JobId, NewJob};
use trine::schedule::{CatchUp, Fire, FireOutcome, Overlap, Schedule, Seen, Skip, Timetable};
use trine::store::{Firing, Store, StoreError};

use crate::{Place, claim_one, end_one, io_job, settle, state, succeeded};

crate::for_every_driver!(
    a_schedule_is_kept_as_it_is,
    names_are_unique_and_lists_have_pages,
    a_schedule_is_due_by_its_time_unless_it_is_paused,
    a_firing_is_one_transaction,
    a_firing_that_fails_leaves_nothing_behind,
    jobs_that_have_not_ended_are_known,
    times_that_wait_are_replaced_in_their_order,
    only_the_latest_times_are_kept_and_those_of_unfinished_jobs,
    schedules_and_their_times_survive_a_crash,
    what_is_removed_is_gone,
);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

fn schedule(name: &str, next_at: Option<i64>) -> Schedule {
    Schedule {
        name: name.into(),
        timetable: Timetable::parse("*/5 * * * *", "Europe/Paris").unwrap(),
        catch_up: CatchUp::Once,
        overlap: Overlap::Queue,
        job: to_raw_value(&json!({ "bound": "io", "workload": { "type": "sleep", "ms": 5 } })).unwrap(),
        paused: false,
        created_at: at(1),
        changed_at: at(2),
        next_at: next_at.map(at),
    }
}

async fn add(store: &Arc<dyn Store>, name: &str, next_at: Option<i64>) {
    assert!(store.add_schedule(schedule(name, next_at)).await.unwrap());
}

/// Pauses a schedule, or resumes it with the moment at which it is due.
async fn pause(store: &Arc<dyn Store>, name: &str, next_at: Option<i64>) -> bool {
    let there = store.schedule(name).await.unwrap().unwrap();
    store.pause_schedule(Schedule { paused: next_at.is_none(), next_at: next_at.map(at), ..there }).await.unwrap()
}

fn fire(due_at: i64, outcome: FireOutcome) -> Fire {
    Fire { due_at: at(due_at), at: at(due_at + 1), by_hand: false, outcome }
}

/// A job of the schedule, submitted for this time.
fn submitted(name: &str, due_at: i64) -> (JobId, Firing) {
    let job: NewJob = io_job();
    let fires = vec![fire(due_at, FireOutcome::Submitted(job.id))];
    (job.id, Firing { schedule: name.into(), fires, jobs: vec![job], next_at: Some(Some(at(due_at + 300))), ..Firing::default() })
}

async fn due(store: &Arc<dyn Store>, now: i64) -> Vec<String> {
    store.due_schedules(at(now), 10).await.unwrap().into_iter().map(|schedule| schedule.name).collect()
}

async fn a_schedule_is_kept_as_it_is(place: impl Place) {
    let store = place.open().await;
    let kept = async |wanted: &Schedule| {
        let kept = store.schedule(&wanted.name).await.unwrap().unwrap();
        assert_eq!(kept.job.get(), wanted.job.get());
        assert_eq!((kept.timetable.expression(), kept.timetable.zone()), (wanted.timetable.expression(), "Europe/Paris"));
        assert_eq!((kept.catch_up, kept.overlap, kept.paused), (wanted.catch_up, wanted.overlap, wanted.paused));
        assert_eq!((kept.created_at, kept.changed_at, kept.next_at), (at(1), wanted.changed_at, wanted.next_at));
    };
    add(&store, "a", Some(300)).await;
    kept(&schedule("a", Some(300))).await;
    let other = Schedule {
        timetable: Timetable::parse("0 0 * * *", "Europe/Paris").unwrap(),
        catch_up: CatchUp::All,
        overlap: Overlap::Allow,
        job: to_raw_value(&json!({})).unwrap(),
        created_at: at(7),
        changed_at: at(8),
        ..schedule("a", Some(400))
    };
    assert!(store.replace_schedule(other.clone()).await.unwrap());
    kept(&other).await;
    // When it is due changes with the timetable alone, and whether it is paused by itself.
    let same = Schedule { overlap: Overlap::Queue, next_at: Some(at(500)), ..other.clone() };
    assert!(store.replace_schedule(same.clone()).await.unwrap());
    kept(&Schedule { next_at: other.next_at, ..same.clone() }).await;
    assert!(!store.replace_schedule(Schedule { paused: true, ..same.clone() }).await.unwrap());
    assert!(pause(&store, "a", None).await);
    let timetable = Timetable::parse("1 0 * * *", "Europe/Paris").unwrap();
    let changed = Schedule { timetable, paused: true, ..same };
    assert!(store.replace_schedule(changed.clone()).await.unwrap());
    kept(&Schedule { next_at: None, ..changed }).await;
    assert!(!store.replace_schedule(schedule("b", None)).await.unwrap());
    assert!(store.schedule("b").await.unwrap().is_none());
}

async fn names_are_unique_and_lists_have_pages(place: impl Place) {
    let store = place.open().await;
    for name in ["c", "a", "b"] {
        add(&store, name, Some(300)).await;
    }
    assert!(!store.add_schedule(Schedule { paused: true, ..schedule("b", None) }).await.unwrap());
    assert!(!store.schedule("b").await.unwrap().unwrap().paused);
    let names = async |after, limit| {
        let page = store.schedules(after, limit).await.unwrap();
        page.into_iter().map(|schedule| schedule.name).collect::<Vec<_>>()
    };
    assert_eq!(names(None, 2).await, ["a", "b"]);
    assert_eq!(names(Some("b"), 2).await, ["c"]);
}

async fn a_schedule_is_due_by_its_time_unless_it_is_paused(place: impl Place) {
    let store = place.open().await;
    assert_eq!(store.next_schedule_due(at(0)).await.unwrap(), None);
    for (name, next_at) in [("late", Some(300)), ("later", Some(400)), ("never", None), ("first", Some(200))] {
        add(&store, name, next_at).await;
    }
    assert_eq!(store.next_schedule_due(at(0)).await.unwrap(), Some(at(200)));
    assert_eq!(due(&store, 199).await, [""; 0]);
    assert_eq!(due(&store, 300).await, ["first", "late"]);
    assert!(pause(&store, "first", None).await);
    assert_eq!(due(&store, 400).await, ["late", "later"]);
    assert!(pause(&store, "first", Some(350)).await);
    assert_eq!(due(&store, 400).await, ["late", "first", "later"]);
    assert!(!store.pause_schedule(schedule("nobody", None)).await.unwrap());
}

async fn a_firing_is_one_transaction(place: impl Place) {
    let store = place.open().await;
    add(&store, "a", Some(300)).await;
    let (id, firing) = submitted("a", 300);
    let jobs = store.fire(firing.clone()).await.unwrap();
    assert!(jobs.len() == 1 && jobs[0].id == id);
    assert_eq!(state(&store, id).await, "queued");
    assert_eq!(store.fires("a", 10).await.unwrap(), firing.fires);
    assert_eq!(store.next_schedule_due(at(0)).await.unwrap(), Some(at(600)));
    let skips = [FireOutcome::Skipped(Skip::Overlap), FireOutcome::Failed("no such function".into()), FireOutcome::Waiting];
    let fires: Vec<_> = (2..).zip(skips).map(|(n, outcome)| fire(n * 300, outcome)).collect();
    let further = Firing { schedule: "a".into(), fires: fires.clone(), next_at: Some(None), ..Firing::default() };
    assert!(store.fire(further).await.unwrap().is_empty());
    let mut all: Vec<_> = firing.fires.into_iter().chain(fires).collect();
    all.reverse();
    assert_eq!(store.fires("a", 10).await.unwrap(), all);
    add(&store, "b", None).await;
    let latest = async |after, last| store.latest_fires(after, last).await.unwrap();
    assert_eq!(latest("", "b").await, HashMap::from([("a".to_owned(), all[0].clone())]));
    assert!(latest("a", "b").await.is_empty() && latest("", "").await.is_empty());
    assert_eq!(store.count_schedules().await.unwrap(), (2, 0));
    assert_eq!(store.pending_deliveries().await.unwrap(), 0);
    assert_eq!(store.next_schedule_due(at(0)).await.unwrap(), None);
    // The jobs are as any others are.
    end_one(&store).await;
    assert_eq!(state(&store, id).await, "succeeded");
}

async fn a_firing_that_fails_leaves_nothing_behind(place: impl Place) {
    let store = place.open().await;
    add(&store, "a", Some(300)).await;
    let (id, mut firing) = submitted("a", 300);
    let twin = firing.jobs[0].clone();
    firing.jobs.push(twin);
    // What else is in the same transaction gets through.
    let (refused, accepted) = tokio::join!(store.fire(firing), store.accept(vec![io_job()]));
    assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
    accepted.unwrap();
    assert_eq!(state(&store, id).await, "unknown");
    assert_eq!(store.fires("a", 10).await.unwrap(), []);
    assert_eq!(due(&store, 300).await, ["a"]);
}

async fn jobs_that_have_not_ended_are_known(place: impl Place) {
    let store = place.open().await;
    add(&store, "a", Some(300)).await;
    let seen = async || store.schedule_seen("a").await.unwrap();
    assert_eq!(seen().await, Seen::default());
    let (_, firing) = submitted("a", 300);
    store.fire(firing).await.unwrap();
    assert_eq!(seen().await, Seen { busy: true, waiting: 0, latest: Some(at(300)) });
    let claimed = claim_one(&store).await;
    assert!(seen().await.busy);
    let waits = Firing { schedule: "a".into(), fires: vec![fire(600, FireOutcome::Waiting)], ..Firing::default() };
    store.fire(waits).await.unwrap();
    assert_eq!(seen().await, Seen { busy: true, waiting: 1, latest: Some(at(600)) });
    assert_eq!(store.waiting_schedules().await.unwrap(), [("a".to_owned(), false)]);
    settle(&store, claimed.lease, succeeded()).await.unwrap();
    assert_eq!(seen().await, Seen { busy: false, waiting: 1, latest: Some(at(600)) });
    assert_eq!(store.waiting_schedules().await.unwrap(), [("a".to_owned(), true)]);
    pause(&store, "a", None).await;
    assert_eq!(store.waiting_schedules().await.unwrap(), []);
    // What somebody wanted says nothing about the clock.
    let by_hand = Fire { by_hand: true, ..fire(9_000, FireOutcome::Skipped(Skip::Overlap)) };
    store.fire(Firing { schedule: "a".into(), fires: vec![by_hand], ..Firing::default() }).await.unwrap();
    assert_eq!(seen().await.latest, Some(at(600)));
}

async fn times_that_wait_are_replaced_in_their_order(place: impl Place) {
    let store = place.open().await;
    add(&store, "a", Some(300)).await;
    let fires = vec![fire(300, FireOutcome::Waiting), fire(600, FireOutcome::Waiting)];
    store.fire(Firing { schedule: "a".into(), fires, ..Firing::default() }).await.unwrap();
    assert_eq!(store.first_waiting_fire("a").await.unwrap().unwrap().due_at, at(300));
    let (id, mut firing) = submitted("a", 300);
    (firing.waited, firing.next_at) = (1, None);
    store.fire(firing).await.unwrap();
    let fires = store.fires("a", 10).await.unwrap();
    assert_eq!(fires, [fire(300, FireOutcome::Submitted(id)), fire(600, FireOutcome::Waiting)]);
    assert_eq!(store.first_waiting_fire("a").await.unwrap().unwrap().due_at, at(600));
    assert_eq!(store.next_schedule_due(at(0)).await.unwrap(), Some(at(300)));
}

async fn only_the_latest_times_are_kept_and_those_of_unfinished_jobs(place: impl Place) {
    let store = place.open().await;
    add(&store, "a", Some(300)).await;
    let (_, firing) = submitted("a", 300);
    store.fire(firing).await.unwrap();
    let waits = Firing { schedule: "a".into(), fires: vec![fire(301, FireOutcome::Waiting)], ..Firing::default() };
    store.fire(waits).await.unwrap();
    let skip = |n| fire(n, FireOutcome::Skipped(Skip::Overlap));
    store.fire(Firing { schedule: "a".into(), fires: (400..550).map(skip).collect(), ..Firing::default() }).await.unwrap();
    let kept = async || store.fires("a", 1_000).await.unwrap().into_iter().map(|fire| fire.due_at).collect::<Vec<_>>();
    let latest: Vec<_> = (450..550).rev().map(at).collect();
    assert_eq!(kept().await, [latest.clone(), vec![at(301), at(300)]].concat());
    end_one(&store).await;
    store.fire(Firing { schedule: "a".into(), ..Firing::default() }).await.unwrap();
    assert_eq!(kept().await, [latest, vec![at(301)]].concat());
}

async fn schedules_and_their_times_survive_a_crash(place: impl Place) {
    let store = place.open().await;
    add(&store, "a", Some(300)).await;
    let (id, firing) = submitted("a", 300);
    let fires = firing.fires.clone();
    store.fire(firing).await.unwrap();
    drop(store);
    let store = place.open().await;
    assert_eq!(store.fires("a", 10).await.unwrap(), fires);
    assert_eq!(store.next_schedule_due(at(0)).await.unwrap(), Some(at(600)));
    assert_eq!(state(&store, id).await, "queued");
    assert!(store.schedule_seen("a").await.unwrap().busy);
}

async fn what_is_removed_is_gone(place: impl Place) {
    let store = place.open().await;
    add(&store, "a", Some(300)).await;
    let (id, firing) = submitted("a", 300);
    store.fire(firing).await.unwrap();
    assert!(store.remove_schedule("a").await.unwrap());
    assert!(!store.remove_schedule("a").await.unwrap());
    assert_eq!(store.fires("a", 10).await.unwrap(), []);
    assert_eq!(store.next_schedule_due(at(0)).await.unwrap(), None);
    // Its jobs go on.
    let claimed = tokio::time::timeout(Duration::from_secs(30), claim_one(&store)).await.unwrap();
    assert_eq!(claimed.lease.id, id);
}
