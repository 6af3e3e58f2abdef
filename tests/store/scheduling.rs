//! Schedules that fire on a real store, at moments of the test's choice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use serde_json::value::to_raw_value;
use sqlx::Executor as _;
use trine::auth::Quota;
use trine::clock::Timestamp;
use trine::dispatch::{MakeJob, NotMade, Quotas, RunError, Schedules};
use trine::job::{JobId, Labels, NewJob, Owner};
use trine::schedule::{CatchUp, Fire, FireOutcome, Overlap, Schedule, Timetable};
use trine::store::{Firing, Store, StoreError};

use crate::postgres::Schema;
use crate::sqlite::Folder;
use crate::{Place, end_one, io_job, state};

crate::for_every_driver!(
    a_schedule_fires_once_at_each_time,
    a_crash_neither_loses_nor_repeats_a_time,
    a_clock_that_jumps_neither_loses_nor_repeats_a_time,
    a_clock_that_was_wrong_for_long_holds_up_nothing,
    queued_times_start_one_after_the_other,
    what_is_paused_does_not_start,
    a_schedule_that_is_replaced_keeps_what_it_may,
    a_job_that_can_not_be_made_is_noted_and_the_next_time_tries_again,
    a_server_that_goes_down_leaves_the_time_to_the_next_one,
    a_run_by_hand_knows_no_rules,
    thousands_of_schedules_fire_together,
    an_owner_has_a_thousand_schedules_at_most,
);

fn at(text: &str) -> Timestamp {
    format!("2026-06-01T{text}Z").parse().unwrap()
}

/// Due each minute, next at noon.
fn each_minute(name: &str, catch_up: CatchUp, overlap: Overlap) -> Schedule {
    Schedule {
        name: name.into(),
        timetable: Timetable::parse("* * * * *", "UTC").unwrap(),
        catch_up,
        overlap,
        job: to_raw_value(&json!("good")).unwrap(),
        paused: false,
        created_at: at("11:00:00"),
        changed_at: at("11:00:00"),
        next_at: Some(at("12:00:00")),
    }
}

/// Makes jobs of `"good"`, none of `"bad"`, and none of `"later"` as a server that goes down.
fn schedules(store: &Arc<dyn Store>) -> Schedules {
    let make: MakeJob = Arc::new(|schedule: &Schedule| {
        let made = match schedule.job.get() {
            r#""good""# => Ok(io_job()),
            r#""later""# => Err(NotMade::Later),
            other => Err(NotMade::Invalid(format!("{other} is no job"))),
        };
        Box::pin(std::future::ready(made))
    });
    Schedules::new(Arc::clone(store), make, Arc::new(Quotas::new(Arc::clone(store), Quota::default())))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_that_another_node_has_fired_takes_nothing_of_the_quota() {
    let place = Schema::new();
    let (here, there): (Arc<dyn Store>, Arc<dyn Store>) = (place.node("a").await, place.node("b").await);
    // It may be another node that makes a schedule, so this one looks for it.
    assert_eq!(schedules(&here).round(at("11:59:00")).await.unwrap(), Duration::from_secs(1));
    let owner = Owner::from_code(1).unwrap();
    add(&here, each_minute("a", CatchUp::All, Overlap::Allow)).await;
    let quotas = Arc::new(Quotas::new(Arc::clone(&here), Quota::default()));
    let minutely = Quota { per_minute: Some(10), ..Quota::default() };
    quotas.set([(owner, minutely)].into_iter()).await.unwrap();
    let other = Arc::clone(&there);
    let make: MakeJob = Arc::new(move |_: &Schedule| {
        let other = Arc::clone(&other);
        Box::pin(async move {
            // It comes first while this one makes its job.
            round(&other, "12:00:00").await;
            let mut job = io_job();
            job.submission.owner = Some(owner);
            Ok(job)
        })
    });
    Schedules::new(Arc::clone(&here), make, quotas).round(at("12:00:00")).await.unwrap();
    assert_eq!(submitted(&here, "a").await, ["12:00"]);
    assert_eq!(here.spent(owner).await.unwrap(), Duration::ZERO);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_whose_job_requires_what_too_many_others_do_not_holds_up_no_other() {
    let place = Schema::new();
    let store = add_some(&place).await;
    store.accept((0..64).map(|n| requiring(&n.to_string())).collect()).await.unwrap();
    let make: MakeJob = Arc::new(|schedule: &Schedule| {
        let job = if schedule.name == "c" { requiring("more") } else { io_job() };
        Box::pin(std::future::ready(Ok(job)))
    });
    let schedules = Schedules::new(Arc::clone(&store), make, Arc::new(Quotas::new(Arc::clone(&store), Quota::default())));
    schedules.round(at("12:00:00")).await.unwrap();
    for (name, times) in [("a", &["12:00"][..]), ("b", &["11:59"]), ("c", &[]), ("d", &["12:00"])] {
        assert_eq!(submitted(&store, name).await, times);
    }
    // It is noted, and the next time tries again.
    let fires = store.fires("c", 10).await.unwrap();
    assert!(matches!(&fires[..], [Fire { outcome: FireOutcome::Failed(why), .. }] if why.contains("labels")), "{fires:?}");
    assert_eq!(store.schedule("c").await.unwrap().unwrap().next_at, Some(at("12:01:00")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_lacks_is_left_to_another_that_has_it_or_may_come() {
    let place = Schema::new();
    let store: Arc<dyn Store> = place.node("a").await;
    add(&store, each_minute("a", CatchUp::Skip, Overlap::Allow)).await;
    let others = Arc::new(AtomicBool::new(true));
    let make: MakeJob = Arc::new({
        let others = Arc::clone(&others);
        move |_: &Schedule| {
            let lacking = NotMade::Lacking { reason: "no interpreter".into(), others: others.load(Ordering::SeqCst) };
            Box::pin(std::future::ready(Err(lacking)))
        }
    });
    let lacking = Schedules::new(Arc::clone(&store), make, Arc::new(Quotas::new(Arc::clone(&store), Quota::default())));
    // It is looked at again before long: from when it was found due for the first time, which may be late.
    let mut told = 0;
    for (there, left, over) in [(true, ["12:00:01", "12:00:08"], "12:00:09"), (false, ["12:01:00", "12:01:04"], "12:01:05")] {
        others.store(there, Ordering::SeqCst);
        for now in left {
            assert_eq!(lacking.round(at(now)).await.unwrap(), Duration::from_secs(1));
            assert_eq!(store.fires("a", 10).await.unwrap().len(), told);
        }
        lacking.round(at(over)).await.unwrap();
        told += 1;
        let fires = store.fires("a", 10).await.unwrap();
        assert!(matches!(&fires[0].outcome, FireOutcome::Failed(reason) if reason == "no interpreter"), "{fires:?}");
        assert_eq!(fires.len(), told);
    }
    round(&store, "12:02:00").await;
    assert_eq!(submitted(&store, "a").await, ["12:02"]);
}

fn requiring(rack: &str) -> NewJob {
    let mut job = io_job();
    job.submission.requires = Some(Box::new(Labels::from([("rack".to_owned(), rack.to_owned())])));
    job
}

/// What a newer version may have written.
const UNREADABLE: &str =
    "UPDATE schedules SET overlap = 99 WHERE name = 'b'; UPDATE schedules SET cron = '? 5 1' WHERE name = 'c'";

#[tokio::test]
async fn a_schedule_that_can_not_be_read_holds_up_no_other_on_sqlite() {
    let place = Folder::new();
    let store = add_some(&place).await;
    place.raw().await.execute(UNREADABLE).await.unwrap();
    the_others_fire(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_that_can_not_be_read_holds_up_no_other_on_postgres() {
    let place = Schema::new();
    let store = add_some(&place).await;
    place.raw().await.execute(UNREADABLE).await.unwrap();
    the_others_fire(&store).await;
}

#[tokio::test]
async fn a_schedule_that_can_not_be_recorded_holds_up_no_other_on_sqlite() {
    let place = Folder::new();
    let store = add_some(&place).await;
    let refuse =
        "CREATE TRIGGER refuse BEFORE INSERT ON fires WHEN NEW.schedule IN ('b', 'c') BEGIN SELECT RAISE(ABORT, 'no'); END";
    place.raw().await.execute(refuse).await.unwrap();
    those_that_are_recorded_fire(&store).await;

    // What it had taken of the quota is given back.
    let owner = Owner::from_code(1).unwrap();
    let quotas = Arc::new(Quotas::new(Arc::clone(&store), Quota::default()));
    let minutely = Quota { per_minute: Some(10), ..Quota::default() };
    quotas.set([(owner, minutely)].into_iter()).await.unwrap();
    let make: MakeJob = Arc::new(move |_: &Schedule| {
        let mut job = io_job();
        job.submission.owner = Some(owner);
        Box::pin(std::future::ready(Ok(job)))
    });
    let schedules = Schedules::new(Arc::clone(&store), make, quotas);
    assert!(matches!(schedules.run("c").await, Err(RunError::Store(StoreError::Refused(_)))));
    assert_eq!(store.spent(owner).await.unwrap(), Duration::ZERO);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_that_can_not_be_recorded_holds_up_no_other_on_postgres() {
    let place = Schema::new();
    let store = add_some(&place).await;
    let refuse = "ALTER TABLE fires ADD CONSTRAINT refuse CHECK (schedule NOT IN ('b', 'c')) NOT VALID";
    place.raw().await.execute(refuse).await.unwrap();
    those_that_are_recorded_fire(&store).await;
}

async fn those_that_are_recorded_fire(store: &Arc<dyn Store>) {
    // It is tried again before long.
    assert!(schedules(store).round(at("12:00:00")).await.unwrap() <= Duration::from_secs(1));
    for (name, times) in [("a", &["12:00"][..]), ("c", &[]), ("d", &["12:00"])] {
        assert_eq!(submitted(store, name).await, times);
    }
}

/// Four of them, of which one has a time that waits for a job that has ended.
async fn add_some(place: &impl Place) -> Arc<dyn Store> {
    let store = place.open().await;
    for name in ["a", "b", "c", "d"] {
        let next_at = at(if name == "b" { "11:59:00" } else { "12:00:00" });
        add(&store, Schedule { next_at: Some(next_at), ..each_minute(name, CatchUp::All, Overlap::Queue) }).await;
    }
    let waits = Fire { due_at: at("11:59:00"), at: at("11:59:00"), by_hand: false, outcome: FireOutcome::Waiting };
    let next_at = Some(Some(at("11:59:30")));
    store.fire(Firing { schedule: "b".into(), fires: vec![waits], next_at, ..Firing::default() }).await.unwrap();
    store
}

async fn the_others_fire(store: &Arc<dyn Store>) {
    let schedules = schedules(store);
    schedules.correct(at("12:00:00")).await.unwrap();
    // It is not looked at again before something else is due.
    assert!(schedules.round(at("12:00:00")).await.unwrap() > Duration::ZERO);
    for (name, times) in [("a", &["12:00"][..]), ("b", &[]), ("c", &[]), ("d", &["12:00"])] {
        assert_eq!(submitted(store, name).await, times);
    }
    assert!(matches!(store.schedule("b").await, Err(StoreError::Corrupt(_))));
    assert_eq!(store.next_schedule_due(at("12:00:00")).await.unwrap(), Some(at("12:01:00")));
    let names = async |after, limit| {
        let page = store.schedules(after, limit).await.unwrap();
        page.into_iter().map(|schedule| schedule.name).collect::<Vec<_>>()
    };
    assert_eq!(names(None, 2).await, ["a", "d"]);
    assert_eq!(names(None, 1).await, ["a"]);
    assert_eq!(names(Some("a"), 1).await, ["d"]);
    assert_eq!(names(Some("d"), 1).await, [""; 0]);
}

async fn add(store: &Arc<dyn Store>, schedule: Schedule) {
    assert!(schedules(store).add(schedule).await.unwrap());
}

async fn round(store: &Arc<dyn Store>, now: &str) {
    schedules(store).round(at(now)).await.unwrap();
}

/// The minutes for which a job was submitted, in the order of the submissions.
async fn submitted(store: &Arc<dyn Store>, name: &str) -> Vec<String> {
    let mut fires = store.fires(name, 1_000).await.unwrap();
    fires.reverse();
    fires.retain(|fire| matches!(fire.outcome, FireOutcome::Submitted(_)));
    fires.iter().map(|fire| fire.due_at.to_string()[11..16].to_owned()).collect()
}

/// The jobs in the order of the submissions, each of which is in the store.
async fn jobs(store: &Arc<dyn Store>, name: &str) -> Vec<JobId> {
    let mut jobs = Vec::new();
    for fire in store.fires(name, 1_000).await.unwrap().into_iter().rev() {
        if let FireOutcome::Submitted(id) = fire.outcome {
            assert_ne!(state(store, id).await, "unknown");
            jobs.push(id);
        }
    }
    jobs
}

async fn a_schedule_fires_once_at_each_time(place: impl Place) {
    let store = place.open().await;
    add(&store, each_minute("a", CatchUp::Skip, Overlap::Allow)).await;
    let schedules = schedules(&store);
    let second = Duration::from_secs(1);
    assert_eq!(schedules.round(at("11:59:59.5")).await.unwrap(), second / 2);
    assert_eq!(submitted(&store, "a").await, [""; 0]);
    assert_eq!(schedules.round(at("12:00:00")).await.unwrap(), second);
    for now in ["12:00:00", "12:00:30", "12:01:00.002", "12:01:00.002"] {
        schedules.round(at(now)).await.unwrap();
    }
    assert_eq!(submitted(&store, "a").await, ["12:00", "12:01"]);
    assert_eq!(jobs(&store, "a").await.len(), 2);
}

async fn a_crash_neither_loses_nor_repeats_a_time(place: impl Place) {
    let mut store = place.open().await;
    for (name, catch_up) in [("all", CatchUp::All), ("once", CatchUp::Once), ("skip", CatchUp::Skip)] {
        add(&store, each_minute(name, catch_up, Overlap::Allow)).await;
    }
    for now in ["12:00:01", "12:00:30", "12:04:30", "12:05:01"] {
        round(&store, now).await;
        drop(store);
        store = place.open().await;
        round(&store, now).await;
    }
    assert_eq!(submitted(&store, "all").await, ["12:00", "12:01", "12:02", "12:03", "12:04", "12:05"]);
    assert_eq!(submitted(&store, "once").await, ["12:00", "12:04", "12:05"]);
    assert_eq!(submitted(&store, "skip").await, ["12:00", "12:05"]);
    assert_eq!(jobs(&store, "all").await.len(), 6);
}

async fn a_clock_that_jumps_neither_loses_nor_repeats_a_time(place: impl Place) {
    let store = place.open().await;
    add(&store, each_minute("a", CatchUp::All, Overlap::Allow)).await;
    for now in ["12:00:00", "12:03:00", "11:30:00", "12:02:59", "12:03:59", "12:04:00", "09:30:00", "12:04:00", "12:05:00"] {
        schedules(&store).correct(at(now)).await.unwrap();
        round(&store, now).await;
    }
    assert_eq!(submitted(&store, "a").await, ["12:00", "12:01", "12:02", "12:03", "12:04", "12:05"]);
}

async fn a_clock_that_was_wrong_for_long_holds_up_nothing(place: impl Place) {
    let store = place.open().await;
    add(&store, each_minute("a", CatchUp::Once, Overlap::Allow)).await;
    round(&store, "22:00:00").await;
    schedules(&store).correct(at("12:10:30")).await.unwrap();
    round(&store, "12:11:00").await;
    assert_eq!(submitted(&store, "a").await, ["21:59", "22:00", "12:11"]);
    assert_eq!(store.next_schedule_due(at("00:00:00")).await.unwrap(), Some(at("12:12:00")));
}

async fn queued_times_start_one_after_the_other(place: impl Place) {
    let store = place.open().await;
    add(&store, each_minute("a", CatchUp::All, Overlap::Queue)).await;
    round(&store, "12:02:00").await;
    assert_eq!(submitted(&store, "a").await, ["12:00"]);
    let sleep = schedules(&store).round(at("12:02:30")).await.unwrap();
    assert!(sleep <= Duration::from_millis(100), "{sleep:?}");
    assert_eq!(submitted(&store, "a").await.len(), 1);
    for (ended, now) in [(1, "12:02:31"), (2, "12:02:32"), (3, "12:02:33")] {
        end_one(&store).await;
        round(&store, now).await;
        assert_eq!(submitted(&store, "a").await.len(), (ended + 1).min(3));
    }
    assert_eq!(submitted(&store, "a").await, ["12:00", "12:01", "12:02"]);
    assert_eq!(jobs(&store, "a").await.len(), 3);
    assert!(store.waiting_schedules().await.unwrap().is_empty());
}

async fn what_is_paused_does_not_start(place: impl Place) {
    let store = place.open().await;
    add(&store, each_minute("a", CatchUp::All, Overlap::Queue)).await;
    round(&store, "12:01:00").await;
    let schedules = schedules(&store);
    assert!(schedules.pause("a", true).await.unwrap().unwrap().next_at.is_none());
    end_one(&store).await;
    schedules.round(at("12:05:00")).await.unwrap();
    assert_eq!(submitted(&store, "a").await, ["12:00"]);
    let resumed = schedules.pause("a", false).await.unwrap().unwrap();
    // What it was due for in between was not missed.
    assert!(resumed.next_at.unwrap() >= Timestamp::now().before(Duration::from_secs(60)));
    schedules.round(at("12:05:00")).await.unwrap();
    assert_eq!(submitted(&store, "a").await, ["12:00", "12:01"]);
    assert!(schedules.pause("nobody", true).await.unwrap().is_none());
}

async fn a_schedule_that_is_replaced_keeps_what_it_may(place: impl Place) {
    let store = place.open().await;
    let schedules = schedules(&store);
    let new = || Schedule {
        created_at: at("13:00:00"),
        next_at: Some(at("13:01:00")),
        ..each_minute("a", CatchUp::Once, Overlap::Skip)
    };
    assert!(schedules.put(each_minute("a", CatchUp::All, Overlap::Allow)).await.unwrap().0);
    let (is_new, kept) = schedules.put(new()).await.unwrap();
    assert!(!is_new && kept.created_at == at("11:00:00") && kept.next_at == Some(at("12:00:00")));
    assert_eq!(store.schedule("a").await.unwrap().unwrap().catch_up, CatchUp::Once);
    let other = Schedule { timetable: Timetable::parse("*/2 * * * *", "UTC").unwrap(), ..new() };
    assert_eq!(schedules.put(other).await.unwrap().1.next_at, Some(at("13:01:00")));
    schedules.pause("a", true).await.unwrap();
    let (_, kept) = schedules.put(new()).await.unwrap();
    assert!(kept.paused && kept.next_at.is_none() && store.next_schedule_due(at("00:00:00")).await.unwrap().is_none());
}

async fn a_job_that_can_not_be_made_is_noted_and_the_next_time_tries_again(place: impl Place) {
    let store = place.open().await;
    let bad = Schedule { job: to_raw_value("bad").unwrap(), ..each_minute("a", CatchUp::All, Overlap::Allow) };
    add(&store, bad).await;
    round(&store, "12:00:00").await;
    let fires = store.fires("a", 10).await.unwrap();
    assert!(matches!(&fires[..], [fire] if fire.outcome == FireOutcome::Failed(r#""bad" is no job"#.into())), "{fires:?}");
    assert!(matches!(schedules(&store).run("a").await, Err(RunError::NotMade(NotMade::Invalid(_)))));
    schedules(&store).put(each_minute("a", CatchUp::All, Overlap::Allow)).await.unwrap();
    round(&store, "12:01:00").await;
    assert_eq!(submitted(&store, "a").await, ["12:01"]);
}

async fn a_server_that_goes_down_leaves_the_time_to_the_next_one(place: impl Place) {
    let store = place.open().await;
    let later = Schedule { job: to_raw_value("later").unwrap(), ..each_minute("a", CatchUp::All, Overlap::Allow) };
    add(&store, later).await;
    assert!(matches!(schedules(&store).round(at("12:00:00")).await, Err(StoreError::Closed)));
    assert!(store.fires("a", 10).await.unwrap().is_empty());
    assert_eq!(store.next_schedule_due(at("00:00:00")).await.unwrap(), Some(at("12:00:00")));
}

async fn a_run_by_hand_knows_no_rules(place: impl Place) {
    let store = place.open().await;
    add(&store, each_minute("a", CatchUp::All, Overlap::Skip)).await;
    let schedules = schedules(&store);
    schedules.pause("a", true).await.unwrap();
    let (first, second) = (schedules.run("a").await.unwrap(), schedules.run("a").await.unwrap());
    assert_eq!(jobs(&store, "a").await, [first, second]);
    assert!(store.fires("a", 10).await.unwrap().iter().all(|fire| fire.by_hand));
    assert!(matches!(schedules.run("nobody").await, Err(RunError::Unknown)));
}

async fn thousands_of_schedules_fire_together(place: impl Place) {
    let store = place.open().await;
    let names: Vec<_> = (0..2_000).map(|n| format!("s{n}")).collect();
    let adding = names.iter().map(|name| add(&store, each_minute(name, CatchUp::Skip, Overlap::Skip)));
    futures_util::future::join_all(adding).await;
    round(&store, "12:00:00").await;
    round(&store, "12:00:01").await;
    for name in &names {
        assert_eq!(submitted(&store, name).await, ["12:00"]);
    }
}

async fn an_owner_has_a_thousand_schedules_at_most(place: impl Place) {
    let store = place.open().await;
    let [mine, theirs] = [1, 2].map(Owner::from_code);
    let named = |owner, name: &str| each_minute(&Schedule::full_name(owner, name), CatchUp::All, Overlap::Allow);
    let many = (0..999).map(|n| store.add_schedule(named(mine, &format!("s{n}"))));
    futures_util::future::try_join_all(many).await.unwrap();
    let schedules = schedules(&store);
    assert!(schedules.put(named(mine, "last")).await.unwrap().0);
    let refused = [
        schedules.put(named(mine, "more")).await.map(drop).unwrap_err().to_string(),
        schedules.add(named(mine, "more")).await.map(drop).unwrap_err().to_string(),
    ];
    assert!(refused.iter().all(|said| said.contains("`schedules` is 1000")), "{refused:?}");
    // Others have their own, what is there may be replaced, and what nobody owns has no such limit.
    assert!(schedules.add(named(theirs, "more")).await.unwrap());
    assert!(!schedules.put(named(mine, "last")).await.unwrap().0);
    assert!(schedules.add(named(None, "more")).await.unwrap());
    // There is room for as many as are removed.
    assert!(schedules.remove(&Schedule::full_name(mine, "s7")).await.unwrap());
    assert!(schedules.add(named(mine, "more")).await.unwrap());
}
