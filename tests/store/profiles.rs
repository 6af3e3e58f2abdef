//! Profiles, their days, and results by what their figures speak against.

use trine::clock::Timestamp;
use trine::job::{Bound, Evidence, Executor, FindingKind, Observed, Outcome, ProfileKey, Routing, Timing};
use trine::store::postgres::PostgresStore;
use trine::store::{DayRow, DayTotals, Filter, Order, Page, ProfileChanges, ProfileRow, ProfileStore, Settlement, StateFilter};

use crate::postgres::Schema;
use crate::{Place, accept, claim_one, end_one, finish_all, io_job, settle, succeeded};

crate::for_every_driver!(
    what_changed_is_written_over,
    what_made_way_is_gone,
    results_are_found_by_their_findings,
    a_job_that_is_run_again_has_no_findings,
    the_evidence_of_a_route_survives,
    a_claim_at_once_knows_the_profile,
);

fn key(text: &str) -> ProfileKey {
    ProfileKey::from(text.to_owned())
}

fn row(text: &str, changed_at: i64) -> ProfileRow {
    let changed_at = Timestamp::from_micros(changed_at);
    ProfileRow { key: key(text), version: 0, changed_at, figures: r#"{"a":1}"#.into(), sketches: vec![0, 255, 7] }
}

/// Without what a driver counts.
fn plain(mut rows: Vec<ProfileRow>) -> Vec<ProfileRow> {
    for row in &mut rows {
        row.version = 0;
    }
    rows.sort_by(|a, b| a.key.cmp(&b.key));
    rows
}

fn day(day: i64, executor: Executor, runs: u64) -> DayRow {
    let totals = DayTotals { runs, wall_us: 70 * runs, longest_us: 9, held_jobs: 3 * runs, ..DayTotals::default() };
    DayRow { day, key: key("a"), executor, bound: Bound::Io, totals }
}

async fn what_changed_is_written_over(place: impl Place) {
    let store = place.open().await;
    let first = ProfileChanges {
        profiles: vec![row("a", 1), row("b", 1)],
        days: vec![day(3, Executor::Async, 1), day(4, Executor::Async, 1), day(4, Executor::Threads, 1)],
        ..ProfileChanges::default()
    };
    assert_eq!(store.keep_profiles(first).await.unwrap(), []);
    let known = store.profiles().await.unwrap().into_iter().find(|row| row.key == key("b")).unwrap().version;
    let newer = ProfileRow { version: known, ..row("b", 2) };
    let second = ProfileChanges { profiles: vec![newer], days: vec![day(4, Executor::Threads, 5)], ..ProfileChanges::default() };
    assert_eq!(store.keep_profiles(second).await.unwrap(), []);
    store.close().await;
    drop(store);
    let store = place.open().await;
    assert_eq!(plain(store.profiles().await.unwrap()), [row("a", 1), row("b", 2)]);
    let mut days = store.profile_days(4, 9).await.unwrap();
    days.sort_by_key(|day| day.executor as u8);
    assert_eq!(days, [day(4, Executor::Async, 1), day(4, Executor::Threads, 6)]);
    assert_eq!(store.profile_days(0, 3).await.unwrap(), [day(3, Executor::Async, 1)]);
}

async fn what_made_way_is_gone(place: impl Place) {
    let store = place.open().await;
    let days = vec![day(3, Executor::Async, 1), day(4, Executor::Async, 1)];
    store
        .keep_profiles(ProfileChanges { profiles: vec![row("a", 1), row("b", 1)], days, ..ProfileChanges::default() })
        .await
        .unwrap();
    let changes = ProfileChanges { gone: vec![key("a"), key("never there")], first_day: 4, ..ProfileChanges::default() };
    store.keep_profiles(changes).await.unwrap();
    assert_eq!(plain(store.profiles().await.unwrap()), [row("b", 1)]);
    assert_eq!(store.profile_days(0, 9).await.unwrap(), [day(4, Executor::Async, 1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_node_writes_over_what_another_has_learned() {
    let place = Schema::new();
    let (here, there) = (place.node("here").await, place.node("there").await);
    let keep = async |store: &PostgresStore, row: &ProfileRow| {
        let changes =
            ProfileChanges { profiles: vec![row.clone()], days: vec![day(4, Executor::Async, 2)], ..Default::default() };
        store.keep_profiles(changes).await.unwrap()
    };
    let mine = row("a", 1);
    assert_eq!(keep(&here, &mine).await, []);
    // The other one has not read it.
    assert_eq!(keep(&there, &row("a", 2)).await, [key("a")]);
    let mut known = vec![(key("a"), 0)];
    let mut read = there.newer_profiles(known.clone()).await.unwrap().remove(0);
    assert_eq!((read.changed_at, read.version), (mine.changed_at, mine.next_version()));
    known[0].1 = read.version;
    assert_eq!(there.newer_profiles(known.clone()).await.unwrap(), []);
    read.changed_at = Timestamp::from_micros(3);
    assert_eq!(keep(&there, &read).await, []);
    let newer = here.newer_profiles(known).await.unwrap();
    assert_eq!((newer.len(), newer[0].version, newer[0].changed_at), (1, read.next_version(), read.changed_at));
    assert_eq!(keep(&here, &read).await, [key("a")]);
    // What was learned is there once, what the days came to altogether; and what one forgets, another writes again.
    assert_eq!(here.profile_days(4, 4).await.unwrap(), [day(4, Executor::Async, 8)]);
    let gone = ProfileChanges { gone: vec![key("a")], ..ProfileChanges::default() };
    here.keep_profiles(gone).await.unwrap();
    assert_eq!(keep(&there, &newer[0]).await, []);
    assert_eq!(here.profiles().await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_write_the_same_profiles_at_once_lose_nothing() {
    let place = Schema::new();
    let nodes = [place.node("a").await, place.node("b").await, place.node("c").await];
    let keys: Vec<String> = (0..20).map(|n| format!("k{n:02}")).collect();
    let writers = nodes.each_ref().map(|store| async {
        for _ in 0..10 {
            let mut left: Vec<ProfileKey> = keys.iter().map(|text| key(text)).collect();
            while !left.is_empty() {
                let kept = store.profiles().await.unwrap();
                let more = |key: &ProfileKey| {
                    let kept = kept.iter().find(|row| row.key == *key).cloned();
                    let mut row = kept.unwrap_or_else(|| ProfileRow { sketches: Vec::new(), ..row(key.as_str(), 1) });
                    row.sketches.push(1);
                    row
                };
                let changes = ProfileChanges { profiles: left.iter().map(more).collect(), ..ProfileChanges::default() };
                left = store.keep_profiles(changes).await.unwrap();
            }
        }
    });
    futures_util::future::join_all(writers).await;
    let kept = nodes[0].profiles().await.unwrap();
    assert_eq!(kept.iter().map(|row| row.sketches.len()).collect::<Vec<_>>(), [30; 20]);
}

/// A settlement of work that computed, or held the loop as well.
fn computed(held: bool) -> Settlement {
    let Settlement::Finish(mut conclusion) = succeeded() else { unreachable!("it has ended well") };
    conclusion.timing = Some(Timing {
        wall_us: 90_000,
        cpu_user_us: Some(90_000),
        cpu_system_us: Some(0),
        longest_poll_us: held.then_some(90_000),
        core_wait_us: Some(0),
        ..Timing::default()
    });
    Settlement::Finish(conclusion)
}

fn advised(kind: Option<FindingKind>) -> Filter {
    let findings = kind.map_or_else(|| FindingKind::ALL.into_iter().collect(), Into::into);
    Filter { findings: Some(findings), ..Filter::default() }
}

async fn results_are_found_by_their_findings(place: impl Place) {
    let store = place.open().await;
    finish_all(&store, &[io_job()]).await;
    let mut ids = Vec::new();
    for held in [false, true, false] {
        let job = io_job();
        accept(&store, std::slice::from_ref(&job)).await;
        settle(&store, claim_one(&store).await.lease, computed(held)).await.unwrap();
        ids.push(job.id);
    }
    accept(&store, &[io_job()]).await;
    let all = Page { order: Order::OldestFirst, after: None, limit: 10 };
    let found = async |filter: Filter, page: Page| {
        let results: Vec<_> = store.results(&filter, page).await.unwrap().into_iter().map(|job| job.id).collect();
        let jobs: Vec<_> = store.jobs(&filter, page).await.unwrap().into_iter().map(|job| job.id).collect();
        assert_eq!(results, jobs);
        results
    };
    assert_eq!(found(advised(None), all).await, ids);
    assert_eq!(found(advised(Some(FindingKind::HeldLoop)), all).await, ids[1..2]);
    assert_eq!(found(advised(Some(FindingKind::Computes)), Page { after: Some(ids[0]), limit: 1, ..all }).await, ids[1..2]);
    assert!(found(advised(Some(FindingKind::Waits)), all).await.is_empty());
    let failed = Filter { states: vec![StateFilter::Ended(trine::job::Ending::Failed)], ..advised(None) };
    assert!(found(failed, all).await.is_empty());
}

async fn a_job_that_is_run_again_has_no_findings(place: impl Place) {
    let store = place.open().await;
    let job = io_job();
    accept(&store, std::slice::from_ref(&job)).await;
    settle(&store, claim_one(&store).await.lease, computed(true)).await.unwrap();
    store.requeue(job.id).await.unwrap();
    let page = Page { order: Order::OldestFirst, after: None, limit: 10 };
    assert!(store.jobs(&advised(None), page).await.unwrap().is_empty());
    end_one(&store).await;
    assert!(store.results(&advised(None), page).await.unwrap().is_empty());
}

async fn the_evidence_of_a_route_survives(place: impl Place) {
    let store = place.open().await;
    let mut job = io_job();
    let evidence = Evidence {
        runs: 120,
        observed: Some(Observed::Cpu),
        cpu_percent: 97,
        wall_us: 23_000,
        held_us: Some(412_000),
        executor: Executor::Processes,
        failing: true,
    };
    job.route.evidence = Some(evidence);
    job.submission.routing = Some(Routing::Advise);
    accept(&store, std::slice::from_ref(&job)).await;
    let waiting = store.job(job.id).await.unwrap().unwrap();
    assert_eq!((waiting.route, waiting.submission.routing), (job.route, Some(Routing::Advise)));
    end_one(&store).await;
    store.close().await;
    drop(store);
    let ended = place.open().await.job(job.id).await.unwrap().unwrap();
    assert_eq!((ended.route, ended.submission.routing), (job.route, Some(Routing::Advise)));
    let trine::job::State::Finished(finished) = ended.state else { panic!("it has ended") };
    assert!(matches!(finished.outcome, Outcome::Output(_)));
}

async fn a_claim_at_once_knows_the_profile(place: impl Place) {
    let store = place.open().await;
    let mut job = io_job();
    job.profile = Some(key("sleep:ms~2^2"));
    let claim = tokio::spawn({
        let store = std::sync::Arc::clone(&store);
        async move { claim_one(&store).await }
    });
    accept(&store, std::slice::from_ref(&job)).await;
    // From a backlog it is not known; the dispatcher finds it out then.
    let profile = claim.await.unwrap().profile;
    assert!(profile.is_none() || profile == job.profile, "{profile:?}");
}
