//! Limits that jobs share by a key.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use trine::clock::Timestamp;
use trine::job::{Bound, Concurrency, Dependency, Failure, JobId, NewJob, OnFailure, Queue, Rate, State};
use trine::store::{Claimed, Gate, LimitKey, LimitStatus, Settled, Settlement, Store};

use crate::quotas::{confined, owner};
use crate::rates::{assert_rate, rated, starts};
use crate::sqlite::Folder;
use crate::{PATIENCE, Place, accept, apart, claim_one, failed, io_job, new_job, settle, state, succeeded};

crate::for_every_driver!(
    at_most_so_many_of_a_key_run_at_once,
    jobs_of_a_key_that_end_together_let_as_many_others_start,
    a_limit_holds_for_all_queues_together,
    those_without_a_limit_are_not_held_up,
    keys_take_turns,
    keys_take_turns_with_what_stands_at_the_front_of_a_queue,
    keys_take_turns_with_what_comes_just_now,
    many_of_one_key_do_not_hold_up_a_few_of_another,
    wherever_a_job_comes_from_it_waits_in_its_lane,
    a_restart_forgets_no_start_and_frees_what_ran,
    an_empty_lane_passes_its_place_on,
    a_place_is_offered_to_every_queue,
    a_lane_that_is_shut_for_a_lower_limit_opens_for_a_higher_one,
    a_lane_that_nobody_waits_in_any_more_opens_as_well,
    a_place_that_a_lane_can_not_take_goes_to_another_one,
    what_a_limit_blocks_is_told,
    limits_are_listed_page_by_page,
    limits_of_which_nobody_waits_hide_no_others,
    no_limit_is_exceeded_under_random_load,
);

pub(crate) fn limited(key: &str, limit: u32) -> NewJob {
    let mut job = io_job();
    job.submission.concurrency = Some(Box::new(Concurrency { key: key.into(), limit }));
    job
}

pub(crate) fn ids(claimed: &[Claimed]) -> Vec<JobId> {
    claimed.iter().map(|claimed| claimed.lease.id).collect()
}

/// What a claim gets that can't be served in full: a job that goes last stands for the rest.
pub(crate) async fn claim_all(store: &Arc<dyn Store>, most: usize) -> Vec<Claimed> {
    let mut last = io_job();
    last.submission.priority = -100;
    accept(store, std::slice::from_ref(&last)).await;
    let mut all = Vec::new();
    loop {
        let claimed = tokio::time::timeout(PATIENCE, store.claim(Queue::Async, most)).await.unwrap().unwrap();
        let (own, others): (Vec<_>, Vec<_>) = claimed.into_iter().partition(|claimed| claimed.lease.id == last.id);
        all.extend(others);
        if let Some(last) = own.into_iter().next() {
            settle(store, last.lease, succeeded()).await.unwrap();
            return all;
        }
    }
}

async fn at_most_so_many_of_a_key_run_at_once(place: impl Place) {
    let store = place.open().await;
    let jobs: Vec<NewJob> = (0..5).map(|_| limited("a", 2)).collect();
    accept(&store, &jobs).await;
    let first = claim_all(&store, 100).await;
    assert_eq!(ids(&first), [jobs[0].id, jobs[1].id]);
    assert_eq!((store.depth(Queue::Async).queued, store.depth(Queue::Async).running), (3, 2));
    assert!(claim_all(&store, 100).await.is_empty());
    settle(&store, first[1].lease, failed("no luck")).await.unwrap();
    let second = claim_all(&store, 100).await;
    assert_eq!(ids(&second), [jobs[2].id]);
    // A claim that waits is served by the end of a job.
    let (claimed, _) = tokio::join!(claim_one(&store), settle(&store, first[0].lease, Settlement::Release { begun: true }));
    assert!([jobs[0].id, jobs[3].id].contains(&claimed.lease.id));
    assert_eq!(store.depth(Queue::Async).running, 2);
}

async fn jobs_of_a_key_that_end_together_let_as_many_others_start(place: impl Place) {
    let store = place.open().await;
    let jobs: Vec<NewJob> = (0..20).map(|_| limited("a", 2)).collect();
    accept(&store, &jobs).await;
    let mut running = claim_all(&store, 100).await;
    let mut left = jobs.len() - running.len();
    while left > 0 {
        // A claim waits that could take more than become free.
        let ends = running.iter().map(|claimed| settle(&store, claimed.lease, succeeded()));
        let claim = tokio::time::timeout(PATIENCE, store.claim(Queue::Async, 100));
        let (claimed, ended) = tokio::join!(claim, join_all(ends));
        assert!(ended.into_iter().all(|ended| ended.unwrap() != Settled::Stale));
        running = claimed.expect("a place that became free to be taken").unwrap();
        left -= running.len();
    }
}

async fn a_limit_holds_for_all_queues_together(place: impl Place) {
    let store = place.open().await;
    let (io, mut cpu) = (limited("a", 1), new_job(Bound::Cpu));
    cpu.submission.concurrency.clone_from(&io.submission.concurrency);
    accept(&store, std::slice::from_ref(&io)).await;
    let running = claim_one(&store).await;
    accept(&store, std::slice::from_ref(&cpu)).await;
    let other = new_job(Bound::Cpu);
    accept(&store, std::slice::from_ref(&other)).await;
    let claimed = store.claim(Queue::ThreadsCpu, 5).await.unwrap();
    assert_eq!(ids(&claimed), [other.id]);
    let (claimed, _) = tokio::join!(store.claim(Queue::ThreadsCpu, 5), settle(&store, running.lease, succeeded()));
    assert_eq!(ids(&claimed.unwrap()), [cpu.id]);
}

async fn those_without_a_limit_are_not_held_up(place: impl Place) {
    let store = place.open().await;
    accept(&store, &[limited("a", 1), limited("a", 1)]).await;
    let running = claim_one(&store).await;
    // Both when a claim waits, and when it comes later.
    let job = io_job();
    let (claimed, _) = tokio::join!(claim_one(&store), accept(&store, std::slice::from_ref(&job)));
    assert_eq!(claimed.lease.id, job.id);
    let job = io_job();
    accept(&store, std::slice::from_ref(&job)).await;
    assert_eq!(claim_one(&store).await.lease.id, job.id);
    settle(&store, running.lease, succeeded()).await.unwrap();
    claim_one(&store).await;
}

async fn keys_take_turns(place: impl Place) {
    let store = place.open().await;
    let mut jobs: Vec<NewJob> = (0..30).map(|_| limited("a", 100)).collect();
    jobs.extend((0..30).map(|_| io_job()));
    jobs.extend((0..3).map(|_| limited("b", 100)));
    jobs.extend((0..3).map(|_| rated("c", 100, 1_000)));
    accept(&store, &jobs).await;
    let kind = |id: JobId| match jobs.iter().position(|job| job.id == id).unwrap() {
        0..30 => 'a',
        30..60 => '-',
        60..63 => 'b',
        _ => 'c',
    };
    // One by one, and many at once.
    let mut order: Vec<char> = Vec::new();
    for most in [1, 1, 1, 1, 4, 6] {
        order.extend(ids(&store.claim(Queue::Async, most).await.unwrap()).into_iter().map(kind));
    }
    let count = |kind| order.iter().filter(|other| **other == kind).count();
    assert_eq!((count('b'), count('c')), (3, 3), "{order:?}");
    assert!((3..=5).contains(&count('a')) && (3..=5).contains(&count('-')), "{order:?}");
    for round in [&order[..4], &order[4..8]] {
        assert_eq!("ab-c".chars().filter(|kind| round.contains(kind)).count(), 4, "{order:?}");
    }
}

async fn keys_take_turns_with_what_stands_at_the_front_of_a_queue(place: impl Place) {
    let store = place.open().await;
    let jobs: Vec<NewJob> = (0..100).map(|_| apart(io_job())).collect();
    accept(&store, &jobs).await;
    store.claim(Queue::Processes, 1).await.unwrap();
    let few: Vec<NewJob> = (0..3).map(|_| apart(limited("few", 3))).collect();
    accept(&store, &few).await;
    let mut claimed = Vec::new();
    for _ in 0..7 {
        claimed.extend(ids(&store.claim(Queue::Processes, 1).await.unwrap()));
    }
    assert!(few.iter().all(|job| claimed.contains(&job.id)), "{claimed:?}");
}

async fn many_of_one_key_do_not_hold_up_a_few_of_another(place: impl Place) {
    let store = place.open().await;
    let many: Vec<NewJob> = (0..20_000).map(|_| limited("many", 5)).collect();
    for chunk in many.chunks(5_000) {
        accept(&store, chunk).await;
    }
    let running = claim_all(&store, 10).await;
    assert_eq!(running.len(), 5);
    let few: Vec<NewJob> = (0..10).map(|_| limited("few", 10)).collect();
    accept(&store, &few).await;
    let mut claimed = Vec::new();
    while claimed.len() < few.len() {
        claimed.extend(ids(&tokio::time::timeout(PATIENCE, store.claim(Queue::Async, 10)).await.unwrap().unwrap()));
    }
    assert_eq!(claimed, few.iter().map(|job| job.id).collect::<Vec<_>>());
}

async fn wherever_a_job_comes_from_it_waits_in_its_lane(place: impl Place) {
    let store = place.open().await;
    let first = limited("a", 1);
    accept(&store, std::slice::from_ref(&first)).await;
    let running = claim_one(&store).await;
    // One that comes after another job, one that fails and runs again, one that is run again by hand.
    let (parent, failing) = (io_job(), io_job());
    let dependency = Dependency { parent: parent.id, name: None, on_failure: OnFailure::Cancel };
    let child = NewJob { after: vec![dependency], ..limited("a", 1) };
    accept(&store, &[parent.clone(), child.clone()]).await;
    let claimed = claim_one(&store).await;
    settle(&store, claimed.lease, succeeded()).await.unwrap();
    assert_eq!(state(&store, child.id).await, "queued");
    assert!(claim_all(&store, 10).await.is_empty());
    settle(&store, running.lease, again()).await.unwrap();
    let claimed = claim_one(&store).await;
    settle(&store, claimed.lease, failed("no luck")).await.unwrap();
    let other = claim_one(&store).await;
    assert_ne!(other.lease.id, claimed.lease.id);
    store.requeue(claimed.lease.id).await.unwrap();
    assert!(claim_all(&store, 10).await.is_empty());
    settle(&store, other.lease, succeeded()).await.unwrap();
    assert_eq!(claim_one(&store).await.lease.id, claimed.lease.id);
    drop(failing);
}

fn again() -> Settlement {
    Settlement::Again { due_at: Timestamp::now(), lost: false, error: Failure::error("not yet"), timing: None }
}

async fn a_restart_forgets_no_start_and_frees_what_ran(place: impl Place) {
    let store = place.open().await;
    let hour = 3_600_000;
    let jobs = [rated("r", 2, hour), rated("r", 2, hour), rated("r", 2, hour), limited("c", 1), limited("c", 1)];
    accept(&store, &jobs).await;
    let running = claim_all(&store, 10).await;
    assert_eq!(ids(&running).len(), 3);
    for claimed in running.iter().filter(|claimed| claimed.lease.id < jobs[2].id) {
        settle(&store, claimed.lease, succeeded()).await.unwrap();
    }
    drop(store);
    let store = place.open().await;
    // What ran with the key has been lost and runs again, or the other one does: one of them, and none of the others.
    let claimed = claim_all(&store, 10).await;
    assert_eq!(claimed.len(), 1);
    assert!(ids(&[claimed[0].clone()])[0] >= jobs[3].id);
    assert!(matches!(store.gate(jobs[2].id).await.unwrap(), Some(Gate::Until(_))));
}

async fn an_empty_lane_passes_its_place_on(place: impl Place) {
    let store = place.open().await;
    // Three lanes with the same key of concurrency.
    let mut jobs = Vec::new();
    for rate in ["x", "y", "z"] {
        let mut job = limited("a", 1);
        job.submission.rate = Some(Box::new(Rate { key: rate.into(), limit: 10, per_ms: 1 }));
        jobs.push(job);
    }
    accept(&store, &jobs).await;
    let running = claim_one(&store).await;
    assert!(claim_all(&store, 10).await.is_empty());
    let waiting: Vec<JobId> = jobs.iter().map(|job| job.id).filter(|id| *id != running.lease.id).collect();
    store.cancel(waiting[0], &[]).await.unwrap();
    settle(&store, running.lease, succeeded()).await.unwrap();
    assert_eq!(claim_one(&store).await.lease.id, waiting[1]);
}

/// A queue that nobody serves, or whose jobs are gone, does not keep a place from another one.
async fn a_place_is_offered_to_every_queue(place: impl Place) {
    let store = place.open().await;
    for is_cancelled in [false, true] {
        let on_threads = || {
            let mut job = new_job(Bound::Cpu);
            job.submission.concurrency = Some(Box::new(Concurrency { key: "a".into(), limit: 1 }));
            job
        };
        let (running, first, second) = (limited("a", 1), on_threads(), limited("a", 1));
        accept(&store, std::slice::from_ref(&running)).await;
        let lease = claim_one(&store).await.lease;
        accept(&store, &[first.clone(), second.clone()]).await;
        // Both lanes are looked at, and shut.
        let mut plain = new_job(Bound::Cpu);
        plain.submission.priority = -100;
        accept(&store, std::slice::from_ref(&plain)).await;
        let claimed = tokio::time::timeout(PATIENCE, store.claim(Queue::ThreadsCpu, 10)).await.unwrap().unwrap();
        assert_eq!(ids(&claimed), [plain.id]);
        settle(&store, claimed[0].lease, succeeded()).await.unwrap();
        assert!(claim_all(&store, 10).await.is_empty());
        if is_cancelled {
            store.cancel(first.id, &[]).await.unwrap();
        }
        settle(&store, lease, succeeded()).await.unwrap();
        let next = claim_one(&store).await;
        assert_eq!(next.lease.id, second.id);
        settle(&store, next.lease, succeeded()).await.unwrap();
        if !is_cancelled {
            let claimed = tokio::time::timeout(PATIENCE, store.claim(Queue::ThreadsCpu, 10)).await.unwrap().unwrap();
            assert_eq!(ids(&claimed), [first.id]);
            settle(&store, claimed[0].lease, succeeded()).await.unwrap();
        }
    }
}

/// Of its key or of its owner: whoever comes later must not find it shut.
async fn a_lane_that_nobody_waits_in_any_more_opens_as_well(place: impl Place) {
    let store = place.open().await;
    store.allow(HashMap::from([(owner(), 1)])).await.unwrap();
    let of_key = || limited("a", 1);
    let of_owner = || confined(owner());
    for new in [&of_key as &dyn Fn() -> NewJob, &of_owner] {
        let (waits, later) = (new(), new());
        accept(&store, &[new()]).await;
        let lease = claim_one(&store).await.lease;
        accept(&store, std::slice::from_ref(&waits)).await;
        assert!(claim_all(&store, 10).await.is_empty());
        store.cancel(waits.id, &[]).await.unwrap();
        settle(&store, lease, succeeded()).await.unwrap();
        accept(&store, std::slice::from_ref(&later)).await;
        let next = claim_one(&store).await;
        assert_eq!(next.lease.id, later.id);
        settle(&store, next.lease, succeeded()).await.unwrap();
    }
}

/// Of its key or of its owner.
async fn a_place_that_a_lane_can_not_take_goes_to_another_one(place: impl Place) {
    let store = place.open().await;
    store.allow(HashMap::from([(owner(), 1)])).await.unwrap();
    let both = |key: &str| {
        let mut job = confined(owner());
        job.submission.concurrency = Some(Box::new(Concurrency { key: key.into(), limit: 1 }));
        job
    };
    // One of the owner and one with the key run; the place with the key becomes free first, and then the owner's.
    for of_key in [true, false] {
        let (own, keyed) = (confined(owner()), limited("a", 1));
        accept(&store, &[own.clone(), keyed.clone()]).await;
        let running = claim_all(&store, 10).await;
        assert_eq!(running.len(), 2);
        let lease = |id| running.iter().find(|claimed| claimed.lease.id == id).unwrap().lease;
        let first = both("a");
        let second = if of_key { limited("a", 1) } else { confined(owner()) };
        accept(&store, std::slice::from_ref(&first)).await;
        assert!(claim_all(&store, 10).await.is_empty());
        accept(&store, std::slice::from_ref(&second)).await;
        assert!(claim_all(&store, 10).await.is_empty());
        let (ending, other) = if of_key { (keyed.id, own.id) } else { (own.id, keyed.id) };
        settle(&store, lease(ending), succeeded()).await.unwrap();
        let next = claim_one(&store).await;
        assert_eq!(next.lease.id, second.id);
        settle(&store, next.lease, succeeded()).await.unwrap();
        settle(&store, lease(other), succeeded()).await.unwrap();
        let last = claim_one(&store).await;
        assert_eq!(last.lease.id, first.id);
        settle(&store, last.lease, succeeded()).await.unwrap();
    }
}

async fn limits_of_which_nobody_waits_hide_no_others(place: impl Place) {
    let store = place.open().await;
    let running: Vec<NewJob> = ["a", "b", "c", "d"].map(|key| limited(key, 1)).into();
    accept(&store, &running).await;
    let claimed = claim_all(&store, 10).await;
    let waiting: Vec<NewJob> = ["a", "b", "c", "z"].map(|key| limited(key, 1)).into();
    accept(&store, &waiting).await;
    assert_eq!(claim_all(&store, 10).await.len(), 1);
    for (job, claimed) in waiting.iter().zip(&claimed).take(3) {
        store.cancel(job.id, &[]).await.unwrap();
        settle(&store, claimed.lease, succeeded()).await.unwrap();
    }
    let page = store.limits(None, 1).await.unwrap();
    assert_eq!(page.iter().map(LimitStatus::key).collect::<Vec<_>>(), [LimitKey::Concurrency("d".into())]);
    let page = store.limits(Some(&page[0].key()), 2).await.unwrap();
    assert_eq!(page.iter().map(LimitStatus::key).collect::<Vec<_>>(), [LimitKey::Concurrency("z".into())]);
}

async fn what_a_limit_blocks_is_told(place: impl Place) {
    let store = place.open().await;
    let jobs = [limited("a", 1), limited("a", 1), rated("b", 1, 3_600_000), rated("b", 1, 3_600_000), io_job()];
    accept(&store, &jobs).await;
    assert_eq!(store.gate(jobs[0].id).await.unwrap(), Some(Gate::Open));
    claim_all(&store, 10).await;
    assert_eq!(store.gate(jobs[0].id).await.unwrap(), None);
    assert_eq!(store.gate(jobs[1].id).await.unwrap(), Some(Gate::Full { running: 1 }));
    let Some(Gate::Until(opens)) = store.gate(jobs[3].id).await.unwrap() else { panic!("it is not told") };
    let State::Running { claimed_at, .. } = store.job(jobs[2].id).await.unwrap().unwrap().state else { panic!("not running") };
    assert_eq!(opens, claimed_at.after(Duration::from_secs(3_600)));
    assert_eq!(store.gate(jobs[4].id).await.unwrap(), None);
}

async fn limits_are_listed_page_by_page(place: impl Place) {
    let store = place.open().await;
    let mut jobs: Vec<NewJob> = ["b", "a", "c"].into_iter().flat_map(|key| [limited(key, 1), limited(key, 1)]).collect();
    jobs.extend(["a", "d"].into_iter().flat_map(|key| [rated(key, 1, 3_600_000), rated(key, 1, 3_600_000)]));
    accept(&store, &jobs).await;
    claim_all(&store, 100).await;
    let mut seen = Vec::new();
    loop {
        let after = seen.last().map(LimitStatus::key);
        let page = store.limits(after.as_ref(), 2).await.unwrap();
        assert!(page.len() <= 2);
        if page.is_empty() {
            break;
        }
        seen.extend(page);
    }
    let keys: Vec<LimitKey> = seen.iter().map(LimitStatus::key).collect();
    let of = |kind: fn(String) -> LimitKey, keys: &[&str]| keys.iter().map(|key| kind((*key).into())).collect::<Vec<_>>();
    assert_eq!(keys, [of(LimitKey::Concurrency, &["a", "b", "c"]), of(LimitKey::Rate, &["a", "d"])].concat());
    let first = LimitStatus::Concurrency { limit: Concurrency { key: "a".into(), limit: 1 }, running: 1, waiting: 1 };
    assert_eq!(seen[0], first);
    let LimitStatus::Rate { limit, started: 1, waiting: 1, opens_at: Some(_) } = &seen[4] else { panic!("{:?}", seen[4]) };
    assert_eq!(*limit, Rate { key: "d".into(), limit: 1, per_ms: 3_600_000 });
}

async fn no_limit_is_exceeded_under_random_load(place: impl Place) {
    for seed in 0..10 {
        random_load(place.another(), seed).await;
    }
}

/// A job with random limits: each key always has the same.
fn random_job(random: &mut fastrand::Rng) -> NewJob {
    let mut job = if random.u32(0..4) == 0 { new_job(Bound::Cpu) } else { io_job() };
    if random.bool() {
        let key = random.u32(1..4);
        job.submission.concurrency = Some(Box::new(Concurrency { key: key.to_string(), limit: key }));
    }
    if random.bool() {
        let key = random.u32(1..4);
        job.submission.rate = Some(Box::new(Rate { key: key.to_string(), limit: key, per_ms: 5 }));
    }
    job.submission.priority = random.i16(-2..=2);
    job
}

async fn random_load(place: impl Place, seed: u64) {
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut store = place.open().await;
    let mut jobs: HashMap<JobId, NewJob> = HashMap::new();
    let mut running: Vec<Claimed> = Vec::new();
    let mut ended = 0;
    while jobs.len() < 80 || ended < jobs.len() {
        match random.u32(0..10) {
            0..=2 if jobs.len() < 80 => {
                let batch: Vec<NewJob> = (0..random.usize(1..30)).map(|_| random_job(&mut random)).collect();
                accept(&store, &batch).await;
                jobs.extend(batch.into_iter().map(|job| (job.id, job)));
            }
            3..=6 => {
                let queue = if random.bool() { Queue::Async } else { Queue::ThreadsCpu };
                if store.depth(queue).queued == 0 {
                    continue;
                }
                // A claim that can't be served at once is taken back: what comes behind it is answered before.
                let claim = store.claim(queue, random.usize(1..10));
                let behind = async {
                    for _ in 0..2 {
                        store.check().await.unwrap();
                    }
                };
                tokio::select! {
                    biased;
                    claimed = claim => running.extend(claimed.unwrap()),
                    () = behind => {}
                }
            }
            7..=8 if !running.is_empty() => {
                let claimed = running.swap_remove(random.usize(0..running.len()));
                let settlement = if random.u32(0..5) == 0 { Settlement::Release { begun: true } } else { succeeded() };
                ended += usize::from(matches!(settlement, Settlement::Finish(_)));
                settle(&store, claimed.lease, settlement).await.unwrap();
            }
            9 if random.u32(0..10) == 0 => {
                // In good order, so that nothing counts as lost.
                store.close().await;
                drop(store);
                running.clear();
                store = place.open().await;
            }
            _ => {}
        }
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        for claimed in &running {
            let Some(limit) = &jobs[&claimed.lease.id].submission.concurrency else { continue };
            let count = counts.entry(&limit.key).or_default();
            *count += 1;
            assert!(*count <= limit.limit, "seed {seed}: {count} jobs of {} run", limit.key);
        }
    }
    assert_eq!(store.depth(Queue::Async), trine::store::Depth::default());
    for key in 1..4_u32 {
        let with = |job: &&NewJob| job.submission.rate.as_ref().is_some_and(|rate| rate.limit == key);
        let those: Vec<NewJob> = jobs.values().filter(with).cloned().collect();
        assert_rate(&starts(&store, &those).await, key as usize, Duration::from_millis(5));
    }
    assert!(store.limits(None, 100).await.unwrap().iter().all(|limit| matches!(limit, LimitStatus::Rate { waiting: 0, .. })));
}

async fn keys_take_turns_with_what_comes_just_now(place: impl Place) {
    let store = place.open().await;
    let (plain, keyed) = (io_job(), [limited("a", 9), limited("a", 9)]);
    accept(&store, &[plain.clone(), keyed[0].clone(), keyed[1].clone()]).await;
    assert_eq!(claim_one(&store).await.lease.id, plain.id);
    assert_eq!(claim_one(&store).await.lease.id, keyed[0].id);
    let plain = io_job();
    accept(&store, std::slice::from_ref(&plain)).await;
    assert_eq!(claim_one(&store).await.lease.id, plain.id);
    // While the store writes something else, a claim and a job come together.
    let (checked, claimed, accepted) = tokio::join!(store.check(), claim_one(&store), store.accept(vec![io_job()]));
    checked.unwrap();
    accepted.unwrap();
    assert_eq!(claimed.lease.id, keyed[1].id);
}

/// The lane of a key is shut for a job that is gone, or not first there any more; whoever is first starts if its own limit has room.
async fn a_lane_that_is_shut_for_a_lower_limit_opens_for_a_higher_one(place: impl Place) {
    let store = place.open().await;
    accept(&store, &[limited("a", 1)]).await;
    claim_one(&store).await;
    for comes in ["instead", "behind", "before"] {
        let (low, mut high) = (limited("a", 1), limited("a", 10));
        accept(&store, std::slice::from_ref(&low)).await;
        if comes == "behind" {
            accept(&store, std::slice::from_ref(&high)).await;
        }
        // It is looked at, and shut.
        assert!(claim_all(&store, 10).await.is_empty());
        if comes == "before" {
            high.submission.priority = 50;
        } else {
            store.cancel(low.id, &[]).await.unwrap();
        }
        if comes != "behind" {
            accept(&store, std::slice::from_ref(&high)).await;
        }
        assert_eq!(claim_one(&store).await.lease.id, high.id, "{comes}");
    }
}

/// Of the lanes of a key, only one has a job whose limit has room once one of those that run has ended.
#[tokio::test]
async fn a_place_that_many_lanes_have_too_low_a_limit_for_goes_to_another_one_on_sqlite() {
    let store = Folder::new().open().await;
    accept(&store, &[limited("a", 3), limited("a", 3), limited("a", 3)]).await;
    let running = claim_all(&store, 10).await;
    assert_eq!(running.len(), 3);
    // More than are looked at together.
    let low = |n: usize| {
        let mut job = limited("a", 1);
        job.submission.rate = Some(Box::new(Rate { key: n.to_string(), limit: 1, per_ms: 1 }));
        job
    };
    let (many, high) = ((0..200).map(low).collect::<Vec<_>>(), limited("a", 3));
    accept(&store, &many).await;
    accept(&store, std::slice::from_ref(&high)).await;
    // Until all of them have been looked at, and are shut.
    for _ in 0..6 {
        assert!(claim_all(&store, 10).await.is_empty());
    }
    settle(&store, running[0].lease, succeeded()).await.unwrap();
    assert_eq!(claim_one(&store).await.lease.id, high.id);
    // The others have a limit that nothing else may run with.
    assert!(claim_all(&store, 10).await.is_empty());
    for lease in [running[1].lease, running[2].lease] {
        settle(&store, lease, succeeded()).await.unwrap();
    }
    assert!(claim_all(&store, 10).await.is_empty());
}
