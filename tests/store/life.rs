//! What a submission says of when its job runs: not before, not after, before others; and what is done to many jobs at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use trine::clock::{Clock, Timestamp};
use trine::job::{Concurrency, Ending, Event, EventKind, FailureKind, Finished, JobId, NewJob, Outcome, Queue, State, What};
use trine::store::{Cancellation, EventFilter, Filter, Lease, Requeue, Settled, Settlement, StateFilter, Store};

use crate::{
    PATIENCE, Place, accept, claim_one, end_one, failed, finish_all, gave, io_job, settle, state, succeeded, timing,
    with_priority,
};

crate::for_every_form!(
    a_job_that_is_to_run_later_waits_for_its_time,
    a_time_that_has_come_is_no_wait,
    a_job_whose_time_is_over_is_not_started,
    a_job_that_runs_does_not_expire_but_its_next_attempt_does,
    whoever_waits_for_a_job_hears_that_its_time_was_over,
    many_expire_at_once,
    the_lowest_priority_has_its_turn,
    a_job_run_again_by_hand_has_all_its_attempts,
    a_retried_attempt_keeps_its_timing,
    many_are_cancelled_by_filter,
    many_are_run_again_by_filter,
    long_outcomes_are_taken_back_a_few_at_a_time,
    what_ended_after_a_moment_is_not_run_again_with_the_rest,
    what_is_kept_of_a_submission_comes_back,
    a_clock_that_is_set_holds_up_no_job_and_keeps_the_order_of_events,
    what_is_due_or_over_goes_by_the_clock_as_it_is,
    a_cancelled_job_that_was_to_be_tried_again_has_ended_for_those_who_wait,
);

const HOUR: Duration = Duration::from_secs(3_600);

async fn finished(store: &Arc<dyn Store>, id: JobId) -> Finished {
    let State::Finished(finished) = store.job(id).await.unwrap().unwrap().state else { panic!("not finished") };
    *finished
}

async fn error(store: &Arc<dyn Store>, id: JobId) -> FailureKind {
    let Outcome::Error(failure) = finished(store, id).await.outcome else { panic!("no error") };
    failure.kind
}

/// Lets time pass, and the store notice.
async fn pass(place: &impl Place, store: &Arc<dyn Store>, by: Duration) {
    place.clock().advance(by);
    store.check().await.unwrap();
}

async fn a_job_that_is_to_run_later_waits_for_its_time(place: impl Place) {
    let store = place.open().await;
    place.clock().stop();
    let (mut later, now) = (io_job(), io_job());
    let due = place.clock().now().after(HOUR);
    later.submission.run_at = Some(due);
    // Whether a claim waits or not, it is not for this job.
    let claimer = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.claim(Queue::Async, 2).await.unwrap() }
    });
    accept(&store, &[later.clone(), now.clone()]).await;
    let claimed = tokio::time::timeout(PATIENCE, claimer).await.unwrap().unwrap();
    assert_eq!(claimed.iter().map(|claimed| claimed.lease.id).collect::<Vec<_>>(), [now.id]);
    let State::Scheduled { due_at } = store.job(later.id).await.unwrap().unwrap().state else { panic!("not scheduled") };
    assert_eq!((due_at, store.depth(Queue::Async).scheduled, store.depth(Queue::Async).queued), (due, 1, 0));

    drop(store);
    let store = place.open().await;
    pass(&place, &store, Duration::from_millis(3_599_999)).await;
    assert_eq!(state(&store, later.id).await, "scheduled");
    pass(&place, &store, Duration::from_millis(1)).await;
    // The other one was interrupted, and is older.
    claim_one(&store).await;
    let claimed = claim_one(&store).await;
    assert_eq!((claimed.lease.id, claimed.attempt), (later.id, 1));
    assert!(claimed.queued_for < Duration::from_secs(1), "it waited for its time, not for a slot");
}

async fn a_time_that_has_come_is_no_wait(place: impl Place) {
    let store = place.open().await;
    let mut job = io_job();
    job.submission.run_at = Some(Timestamp::from_micros(1));
    accept(&store, std::slice::from_ref(&job)).await;
    assert_eq!(state(&store, job.id).await, "queued");
    assert_eq!(claim_one(&store).await.lease.id, job.id);
}

async fn a_job_whose_time_is_over_is_not_started(place: impl Place) {
    let store = place.open().await;
    place.clock().stop();
    let at = |by| place.clock().now().after(by);
    let mut jobs = [(); 4].map(|()| io_job());
    // Over when it comes; in an hour, while it is queued; in an hour, while it is scheduled; never.
    jobs[0].submission.expires_at = Some(at(Duration::ZERO));
    jobs[1].submission.expires_at = Some(at(HOUR));
    jobs[2].submission.expires_at = Some(at(HOUR));
    jobs[2].submission.run_at = Some(at(2 * HOUR));
    accept(&store, &jobs).await;
    let states = async || {
        let mut states = Vec::new();
        for job in &jobs {
            states.push(state(&store, job.id).await);
        }
        states
    };
    assert_eq!(states().await, ["failed", "queued", "scheduled", "queued"]);
    pass(&place, &store, HOUR).await;
    assert_eq!(states().await, ["failed", "failed", "failed", "queued"]);
    for job in &jobs[..3] {
        let ended = finished(&store, job.id).await;
        assert_eq!((ended.ending, ended.timing, ended.started_at), (Ending::Failed, None, None));
        assert_eq!(error(&store, job.id).await, FailureKind::Expired);
    }
    assert_eq!(claim_one(&store).await.lease.id, jobs[3].id);
    assert_eq!((store.depth(Queue::Async).queued, store.depth(Queue::Async).scheduled), (0, 0));
    let page = trine::store::Page { order: trine::store::Order::OldestFirst, after: None, limit: 10 };
    let filter = Filter { error: Some(FailureKind::Expired), ..Filter::default() };
    let ids = |jobs: Vec<trine::job::Job>| jobs.into_iter().map(|job| job.id).collect::<Vec<_>>();
    assert_eq!(ids(store.jobs(&filter, page).await.unwrap()), [jobs[0].id, jobs[1].id, jobs[2].id]);
    let filter = Filter { error: Some(FailureKind::Timeout), ..Filter::default() };
    assert!(store.results(&filter, page).await.unwrap().is_empty());
}

async fn a_job_that_runs_does_not_expire_but_its_next_attempt_does(place: impl Place) {
    let mut store = place.open().await;
    place.clock().stop();
    let mut job = io_job();
    job.submission.expires_at = Some(place.clock().now().after(HOUR));
    accept(&store, std::slice::from_ref(&job)).await;
    let first = claim_one(&store).await;
    pass(&place, &store, HOUR).await;
    assert_eq!(state(&store, job.id).await, "running");
    settle(&store, first.lease, succeeded()).await.unwrap();
    assert_eq!(state(&store, job.id).await, "succeeded");

    // However the attempt comes back: a retry, a hand-over, a crash.
    for how in 0..3 {
        let mut job = io_job();
        job.submission.expires_at = Some(place.clock().now().after(HOUR));
        accept(&store, std::slice::from_ref(&job)).await;
        let lease = claim_one(&store).await.lease;
        pass(&place, &store, HOUR).await;
        match how {
            0 => drop(settle(&store, lease, again(place.clock().now())).await.unwrap()),
            1 => drop(settle(&store, lease, Settlement::Release { begun: true }).await.unwrap()),
            _ => {
                drop(store);
                store = place.open().await;
            }
        }
        store.check().await.unwrap();
        assert_eq!((state(&store, job.id).await, error(&store, job.id).await), ("failed", FailureKind::Expired), "{how}");
        assert_eq!(store.depth(Queue::Async), trine::store::Depth::default());
    }
}

async fn whoever_waits_for_a_job_hears_that_its_time_was_over(place: impl Place) {
    let store = place.open().await;
    let mut job = io_job();
    job.submission.expires_at = Some(Timestamp::now().after(Duration::from_millis(20)));
    accept(&store, std::slice::from_ref(&job)).await;
    let ended = tokio::time::timeout(PATIENCE, store.ended_unasked()).await.unwrap();
    assert_eq!(ended, [job.id]);
    assert_eq!(state(&store, job.id).await, "failed");
}

async fn many_expire_at_once(place: impl Place) {
    let store = place.open().await;
    place.clock().stop();
    let over = place.clock().now().after(HOUR);
    let jobs: Vec<NewJob> = (0..2_500)
        .map(|_| {
            let mut job = io_job();
            job.submission.expires_at = Some(over);
            job
        })
        .collect();
    accept(&store, &jobs).await;
    place.clock().advance(HOUR);
    // None of them is claimed, though it takes several transactions to end them all.
    let claimer = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.claim(Queue::Async, 100).await.unwrap() }
    });
    let mut ended = 0;
    while ended < jobs.len() {
        ended += tokio::time::timeout(PATIENCE, store.ended_unasked()).await.unwrap().len();
    }
    let last = io_job();
    accept(&store, std::slice::from_ref(&last)).await;
    let claimed = tokio::time::timeout(PATIENCE, claimer).await.unwrap().unwrap();
    assert_eq!(claimed.iter().map(|claimed| claimed.lease.id).collect::<Vec<_>>(), [last.id]);
    assert_eq!(store.depth(Queue::Async).queued, 0);
    let sketches = store.summary().await.unwrap();
    assert_eq!(
        sketches.iter().map(|(key, sketches)| (key.ending, sketches.count())).collect::<Vec<_>>(),
        [(Ending::Failed, 2_500)]
    );
}

async fn the_lowest_priority_has_its_turn(place: impl Place) {
    let store = place.open().await;
    place.clock().stop();
    let (lowest, low, high) = (with_priority(-100), with_priority(0), with_priority(5));
    accept(&store, std::slice::from_ref(&lowest)).await;
    pass(&place, &store, Duration::from_secs(60 * 99)).await;
    accept(&store, std::slice::from_ref(&low)).await;
    // Five levels are worth five minutes.
    pass(&place, &store, Duration::from_secs(60 * 5 - 1)).await;
    accept(&store, std::slice::from_ref(&high)).await;
    let later = with_priority(0);
    pass(&place, &store, Duration::from_secs(1)).await;
    accept(&store, std::slice::from_ref(&later)).await;
    let mut order = Vec::new();
    for _ in 0..4 {
        order.push(claim_one(&store).await.lease.id);
    }
    assert_eq!(order, [high.id, low.id, lowest.id, later.id]);
}

fn again(due_at: Timestamp) -> Settlement {
    Settlement::Again { due_at, lost: false, error: trine::job::Failure::error("not yet"), timing: Some(timing(7_000)) }
}

async fn a_job_run_again_by_hand_has_all_its_attempts(place: impl Place) {
    let store = place.open().await;
    place.clock().stop();
    let mut job = io_job();
    job.submission.expires_at = Some(place.clock().now().after(HOUR));
    accept(&store, std::slice::from_ref(&job)).await;
    for attempt in 1..=3 {
        let claimed = claim_one(&store).await;
        assert_eq!((claimed.attempt, claimed.earlier), (attempt, attempt - 1));
        settle(&store, claimed.lease, failed("no luck")).await.unwrap();
        // What asks for it to run wants it to run, however late it is.
        if attempt == 3 {
            pass(&place, &store, HOUR).await;
        }
        assert_eq!(store.requeue(job.id).await.unwrap(), Requeue::Queued);
    }
    let claimed = claim_one(&store).await;
    assert_eq!((claimed.attempt, claimed.earlier, claimed.losses), (4, 3, 0));
}

async fn a_retried_attempt_keeps_its_timing(place: impl Place) {
    let store = place.open().await;
    let job = io_job();
    accept(&store, std::slice::from_ref(&job)).await;
    let lease = claim_one(&store).await.lease;
    settle(&store, lease, again(Timestamp::now())).await.unwrap();
    let filter = EventFilter { job: Some(job.id), kinds: vec![EventKind::Retrying], ..EventFilter::default() };
    let events = store.events(&filter, Timestamp::from_micros(0)).await.unwrap().events;
    let [What::Retrying { attempt: 1, timing: Some(seen), .. }] = events.iter().map(|event| &event.what).collect::<Vec<_>>()[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!(**seen, timing(7_000));
}

async fn many_are_cancelled_by_filter(place: impl Place) {
    let store = place.open().await;
    let mut jobs: Vec<NewJob> = (0..2_300).map(|_| io_job()).collect();
    for job in &mut jobs[100..] {
        job.submission.tags.insert("team".into(), "search".into());
    }
    accept(&store, &jobs).await;
    let running: Vec<Lease> = store.claim(Queue::Async, 150).await.unwrap().into_iter().map(|claimed| claimed.lease).collect();
    let tagged = Filter { tags: vec![("team".into(), "search".into())], ..Filter::default() };
    let cancel = async |filter: &Filter| {
        let (mut ended, mut stopping, mut after, mut steps) = (Vec::new(), Vec::new(), None, 0);
        loop {
            let portion = store.cancel_page(filter, after).await.unwrap();
            ended.extend(portion.done.ended);
            stopping.extend(portion.done.stopping);
            (after, steps) = (portion.last, steps + 1);
            if after.is_none() {
                return (ended, stopping, steps);
            }
        }
    };
    let waiting = Filter { states: vec![StateFilter::Queued], ..tagged.clone() };
    let (ended, stopping, steps) = cancel(&waiting).await;
    assert_eq!((ended.len(), stopping.len(), steps > 1), (2_150, 0, true));
    let (ended, stopping, _) = cancel(&tagged).await;
    assert_eq!((ended.len(), &stopping[..]), (0, &running[100..]));
    assert_eq!((store.depth(Queue::Async).queued, store.depth(Queue::Async).running), (0, 150));
    assert_eq!(state(&store, jobs[2_299].id).await, "cancelled");
    assert_eq!(state(&store, jobs[0].id).await, "running");
    let State::Running { stopping: true, .. } = store.job(jobs[149].id).await.unwrap().unwrap().state else {
        panic!("not marked")
    };
    let sketches = store.summary().await.unwrap();
    assert_eq!(sketches.values().map(trine::store::Sketches::count).sum::<u64>(), 2_150);
}

async fn what_ended_after_a_moment_is_not_run_again_with_the_rest(place: impl Place) {
    let store = place.open().await;
    let jobs: Vec<_> = (0..2).map(|_| io_job()).collect();
    finish_all(&store, &jobs).await;
    let by = store.latest_event().max(store.now());
    // One has been run again by then, as the request that does so may do itself.
    assert_eq!(store.requeue(jobs[0].id).await.unwrap(), Requeue::Queued);
    end_one(&store).await;
    let good = Filter { states: vec![StateFilter::Ended(Ending::Succeeded)], ..Filter::default() };
    let again = store.requeue_page(&good, Some(by), None, usize::MAX).await.unwrap().done;
    assert_eq!(again, [jobs[1].id]);
    assert_eq!(claim_one(&store).await.lease.id, jobs[1].id);
    assert_eq!(store.requeue_page(&good, None, None, usize::MAX).await.unwrap().done, [jobs[0].id]);
}

async fn long_outcomes_are_taken_back_a_few_at_a_time(place: impl Place) {
    let store = place.light().open().await;
    let long = "x".repeat(5 << 20);
    let jobs = [io_job(), io_job(), io_job()];
    accept(&store, &jobs).await;
    for settlement in [failed(&long), gave(&json!(long)), failed(&long)] {
        settle(&store, claim_one(&store).await.lease, settlement).await.unwrap();
    }
    let mut after = None;
    for (at, job) in jobs.iter().enumerate() {
        let portion = store.requeue_page(&Filter::default(), None, after, 10).await.unwrap();
        assert_eq!((portion.done, portion.last), (vec![job.id], (at < 2).then_some(job.id)));
        after = portion.last;
    }
}

async fn many_are_run_again_by_filter(place: impl Place) {
    let store = place.open().await;
    let (good, bad): (Vec<_>, Vec<_>) = ((0..10).map(|_| io_job()).collect(), (0..1_200).map(|_| io_job()).collect());
    finish_all(&store, &good).await;
    accept(&store, &bad).await;
    while store.depth(Queue::Async).queued > 0 {
        let claimed = store.claim(Queue::Async, 500).await.unwrap();
        let settling = claimed.into_iter().map(|claimed| settle(&store, claimed.lease, failed("no luck")));
        for settled in futures_util::future::join_all(settling).await {
            settled.unwrap();
        }
    }
    let dead = Filter { states: vec![StateFilter::Ended(Ending::Failed)], ..Filter::default() };
    let none = Filter { states: vec![StateFilter::Queued], ..Filter::default() };
    assert!(store.requeue_page(&none, None, None, usize::MAX).await.unwrap().done.is_empty(), "none of them has ended");
    let first = store.requeue_page(&dead, None, None, usize::MAX).await.unwrap();
    let second = store.requeue_page(&dead, None, first.last, usize::MAX).await.unwrap();
    assert_eq!((first.done.len(), second.done.len(), second.last), (1_000, 200, None));
    assert_eq!(store.depth(Queue::Async).queued, 1_200);
    assert!(store.requeue_page(&dead, None, None, usize::MAX).await.unwrap().done.is_empty());
    let claimed = store.claim(Queue::Async, 2_000).await.unwrap();
    assert!(claimed.iter().all(|claimed| (claimed.attempt, claimed.earlier) == (2, 1)));
    let kinds = vec![EventKind::Requeued];
    let filter = EventFilter { kinds, ..EventFilter::default() };
    let (mut seen, mut after) = (0, Timestamp::from_micros(0));
    loop {
        let page = store.events(&filter, after).await.unwrap();
        seen += page.events.len();
        let Some(more) = page.more else { break };
        after = more;
    }
    assert_eq!(seen, 1_200);
}

async fn what_is_kept_of_a_submission_comes_back(place: impl Place) {
    let store = place.open().await;
    let mut job = io_job();
    job.submission.run_at = Some(Timestamp::from_micros(1_700_000_000_000_001));
    job.submission.expires_at = Some(Timestamp::from_micros(4_700_000_000_000_002));
    job.submission.unique = Some(trine::job::Unique { within_ms: Some(7) });
    accept(&store, std::slice::from_ref(&job)).await;
    let check = async || {
        let seen = store.job(job.id).await.unwrap().unwrap().submission;
        let expected = &job.submission;
        assert_eq!((seen.run_at, seen.expires_at, seen.unique), (expected.run_at, expected.expires_at, expected.unique));
    };
    check().await;
    let lease = claim_one(&store).await.lease;
    settle(&store, lease, succeeded()).await.unwrap();
    check().await;
}

/// Moments only order what happens: they are ahead of a clock that was set back.
async fn what_is_due_or_over_goes_by_the_clock_as_it_is(place: impl Place) {
    let store = place.open().await;
    place.clock().stop();
    accept(&store, &[io_job()]).await;
    let first = claim_one(&store).await;
    settle(&store, first.lease, succeeded()).await.unwrap();
    place.clock().set_back(24 * HOUR);
    let (mut later, mut hurried) = (io_job(), io_job());
    later.submission.run_at = Some(place.clock().now().after(HOUR));
    hurried.submission.expires_at = Some(place.clock().now().after(HOUR));
    let mut limited = hurried.clone();
    limited.id = JobId::new();
    limited.submission.concurrency = Some(Box::new(Concurrency { key: "a".into(), limit: 1 }));
    accept(&store, &[later.clone(), hurried.clone(), limited.clone()]).await;
    assert_eq!(state(&store, later.id).await, "scheduled");
    let mut attempts = Vec::new();
    for _ in 0..4 {
        let claimed = claim_one(&store).await;
        assert!([hurried.id, limited.id].contains(&claimed.lease.id));
        // So is how long it waited, though moments are a day ahead.
        assert!(claimed.queued_for < HOUR, "{:?}", claimed.queued_for);
        attempts.push(claimed.attempt);
        let settlement = if claimed.attempt == 1 { again(place.clock().now()) } else { succeeded() };
        settle(&store, claimed.lease, settlement).await.unwrap();
    }
    attempts.sort_unstable();
    assert_eq!(attempts, [1, 1, 2, 2]);
    pass(&place, &store, HOUR).await;
    let claimed = claim_one(&store).await;
    assert_eq!(claimed.lease.id, later.id);
    assert!(claimed.queued_for < HOUR, "{:?}", claimed.queued_for);
}

async fn a_cancelled_job_that_was_to_be_tried_again_has_ended_for_those_who_wait(place: impl Place) {
    let store = place.open().await;
    store.somebody_waits().store(true, Ordering::SeqCst);
    let settlements: [fn(Timestamp) -> Settlement; 3] =
        [|_| Settlement::Release { begun: true }, |at| Settlement::Later { due_at: at.after(HOUR) }, |at| again(at.after(HOUR))];
    for settlement in settlements {
        let job = io_job();
        accept(&store, std::slice::from_ref(&job)).await;
        let lease = claim_one(&store).await.lease;
        assert!(matches!(store.cancel(job.id, &[]).await.unwrap(), Cancellation::Stopping(_)));
        assert_eq!(settle(&store, lease, settlement(store.now())).await.unwrap(), Settled::Recorded);
        assert_eq!(state(&store, job.id).await, "cancelled");
        let ended = tokio::time::timeout(PATIENCE, store.ended_unasked()).await.expect("the end of a job");
        assert_eq!(ended, [job.id]);
    }
}

async fn a_clock_that_is_set_holds_up_no_job_and_keeps_the_order_of_events(place: impl Place) {
    let mut store = place.open().await;
    place.clock().stop();
    let mut later = io_job();
    later.submission.run_at = Some(place.clock().now().after(HOUR));
    accept(&store, std::slice::from_ref(&later)).await;
    let mut ended = Vec::new();
    for hours in [-24_i64, 48, -1] {
        let by = u32::try_from(hours.unsigned_abs()).unwrap() * HOUR;
        if hours < 0 {
            place.clock().set_back(by);
        } else {
            place.clock().advance(by);
        }
        let job = io_job();
        accept(&store, std::slice::from_ref(&job)).await;
        // What was to run later is there as well, once its time has come by the clock as it is now.
        loop {
            let claimed = claim_one(&store).await;
            assert!(claimed.queued_for < 48 * HOUR);
            assert!(matches!(settle(&store, claimed.lease, succeeded()).await.unwrap(), Settled::Ended { .. }));
            ended.push(claimed.lease.id);
            if claimed.lease.id == job.id {
                break;
            }
        }
        store.close().await;
        drop(store);
        store = place.open().await;
    }
    assert_eq!((ended.len(), ended.contains(&later.id)), (4, true));
    // What was interrupted is due by the clock as it is.
    let interrupted = io_job();
    accept(&store, std::slice::from_ref(&interrupted)).await;
    claim_one(&store).await;
    drop(store);
    place.clock().set_back(24 * HOUR);
    store = place.open().await;
    assert_eq!(end_one(&store).await.id, interrupted.id);
    let page = store.events(&EventFilter::default(), Timestamp::from_micros(0)).await.unwrap();
    assert!(page.events.is_sorted_by(|a, b| a.at < b.at), "two events at one moment, or out of order");
    for id in &ended {
        let of_job: Vec<_> = page.events.iter().filter(|event| event.job == *id).map(Event::kind).collect();
        assert_eq!(of_job, [EventKind::Accepted, EventKind::Running, EventKind::Finished]);
    }
}
