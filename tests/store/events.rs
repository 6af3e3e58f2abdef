//! What happened, told exactly once and in order.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use trine::clock::Timestamp;
use trine::job::{Bound, Ending, Event, EventKind, Executor, Failure, JobId, LogStream, NewJob, Note, Queue, What};
use trine::store::{EventFilter, Follower, Removal, Settlement, StateFilter, Store};

use crate::{PATIENCE, Place, accept, apart, claim_one, end_one, failed, io_job, new_job, settle, succeeded};

crate::for_every_form!(
    a_job_is_told_of_from_its_beginning_to_its_end,
    the_past_is_kept_when_a_job_is_run_again,
    every_event_has_an_id_of_its_own,
    whoever_comes_in_between_sees_every_event_once,
    a_slow_listener_misses_nothing,
    what_is_accepted_beside_beginnings_is_told_of,
    events_survive_a_restart,
    filters_select_the_past_and_the_present_alike,
    a_large_output_is_told_whole,
    who_follows_a_job_that_is_removed_does_not_wait_for_its_end,
    what_a_stale_attempt_says_is_not_heard,
    a_job_that_says_too_much_is_cut_off,
);

fn log(line: &str) -> Note {
    Note::log(LogStream::Stdout, line)
}

fn of(job: JobId) -> EventFilter {
    EventFilter { job: Some(job), ..EventFilter::default() }
}

const BEGINNING: Timestamp = Timestamp::from_micros(0);

/// What has been recorded, page by page.
async fn past(store: &Arc<dyn Store>, filter: &EventFilter, after: Timestamp) -> Vec<Event> {
    let (mut all, mut next) = (Vec::new(), Some(after));
    while let Some(after) = next {
        let page = store.events(filter, after).await.unwrap();
        all.extend(page.events);
        next = page.more;
    }
    all
}

async fn next(follower: &mut Follower) -> Option<Event> {
    tokio::time::timeout(PATIENCE, follower.next()).await.expect("an event").unwrap()
}

fn in_words(events: &[Event]) -> Vec<String> {
    let word = |event: &Event| match &event.what {
        What::Accepted | What::Requeued => event.kind().to_string(),
        What::Running { attempt } => format!("running {attempt}"),
        What::Progress { attempt, value } => format!("progress {attempt} {value}"),
        What::Log { attempt, line, .. } => format!("log {attempt} {line}"),
        What::Retrying { attempt, error, .. } => format!("retrying {attempt} {error}"),
        What::Finished { attempt, finished } => format!("{} {attempt}", finished.ending),
    };
    events.iter().map(word).collect()
}

async fn a_job_is_told_of_from_its_beginning_to_its_end(place: impl Place) {
    let store = place.open().await;
    let job = io_job();
    let mut live = Follower::new(Arc::clone(&store), of(job.id), Some(BEGINNING));
    accept(&store, std::slice::from_ref(&job)).await;
    let first = claim_one(&store).await.lease;
    store.note(first, log("one")).await;
    store.offer(first, Note::progress(&json!({"done": 1})).unwrap());
    let again = Settlement::Again { due_at: Timestamp::now(), lost: false, error: Failure::error("no luck"), timing: None };
    settle(&store, first, again).await.unwrap();
    let second = claim_one(&store).await.lease;
    store.offer(second, log("two"));
    settle(&store, second, succeeded()).await.unwrap();

    let expected = [
        "accepted",
        "running 1",
        "log 1 one",
        "progress 1 {\"done\":1}",
        "retrying 1 error: no luck",
        "running 2",
        "log 2 two",
        "succeeded 2",
    ];
    let mut seen = Vec::new();
    while let Some(event) = next(&mut live).await {
        seen.push(event);
    }
    assert_eq!(in_words(&seen), expected);
    let replayed = past(&store, &of(job.id), BEGINNING).await;
    assert_eq!(in_words(&replayed), expected);
    let ids = |events: &[Event]| events.iter().map(|event| event.at).collect::<Vec<_>>();
    assert_eq!(ids(&seen), ids(&replayed));
    // The moments of the job are those of its events.
    let stored = store.job(job.id).await.unwrap().unwrap();
    let trine::job::State::Finished(finished) = stored.state else { panic!("not finished") };
    assert_eq!((stored.accepted_at, finished.started_at, finished.finished_at), (seen[0].at, Some(seen[5].at), seen[7].at));
    let What::Finished { finished: told, .. } = &seen[7].what else { panic!("not the end") };
    assert_eq!((told.timing, told.started_at, told.finished_at), (finished.timing, finished.started_at, finished.finished_at));
}

async fn the_past_is_kept_when_a_job_is_run_again(place: impl Place) {
    let store = place.open().await;
    let job = io_job();
    accept(&store, std::slice::from_ref(&job)).await;
    let lease = claim_one(&store).await.lease;
    settle(&store, lease, failed("once")).await.unwrap();
    let before = past(&store, &of(job.id), BEGINNING).await;
    store.requeue(job.id).await.unwrap();
    let lease = claim_one(&store).await.lease;
    settle(&store, lease, Settlement::Release { begun: true }).await.unwrap();
    end_one(&store).await;
    let after = past(&store, &of(job.id), BEGINNING).await;
    assert_eq!(in_words(&after), ["accepted", "running 1", "failed 1", "requeued", "running 2", "running 2", "succeeded 2"]);
    for (before, after) in before.iter().zip(&after) {
        assert_eq!((before.at, in_words(std::slice::from_ref(before))), (after.at, in_words(std::slice::from_ref(after))));
    }
    let (What::Finished { finished: before, .. }, What::Finished { finished: after, .. }) = (&before[2].what, &after[2].what)
    else {
        panic!("not the end")
    };
    assert_eq!(format!("{before:?}"), format!("{after:?}"));
    // A follower goes on behind the first end.
    let mut follower = Follower::new(Arc::clone(&store), of(job.id), Some(BEGINNING));
    for _ in 0..7 {
        assert!(next(&mut follower).await.is_some());
    }
    assert!(next(&mut follower).await.is_none());
}

async fn every_event_has_an_id_of_its_own(place: impl Place) {
    let store = place.open().await;
    let claims = [5, 300, 1].map(|most| store.claim(Queue::Async, most));
    let jobs: Vec<NewJob> = (0..500).map(|_| io_job()).collect();
    let (accepted, claimed) = tokio::join!(accept(&store, &jobs), futures_util::future::join_all(claims));
    assert_eq!(accepted.len(), 500);
    let mut claimed: Vec<_> = claimed.into_iter().flat_map(Result::unwrap).collect();
    while claimed.len() < 500 {
        claimed.extend(store.claim(Queue::Async, 500).await.unwrap());
    }
    let settled = claimed.iter().map(|claimed| settle(&store, claimed.lease, succeeded()));
    futures_util::future::join_all(settled).await;
    let events = past(&store, &EventFilter::default(), BEGINNING).await;
    assert_eq!(events.len(), 1_500);
    assert!(events.windows(2).all(|pair| pair[0].at < pair[1].at));
    assert_eq!(events.last().unwrap().at, store.latest_event());
}

/// Jobs that come, say something and end, until all have ended.
fn bustle(store: &Arc<dyn Store>, jobs: usize) -> tokio::task::JoinHandle<()> {
    let store = Arc::clone(store);
    tokio::spawn(async move {
        for n in 0..jobs {
            accept(&store, &[io_job()]).await;
            let lease = claim_one(&store).await.lease;
            for line in 0..3 {
                store.note(lease, log(&format!("{n} {line}"))).await;
            }
            settle(&store, lease, succeeded()).await.unwrap();
        }
    })
}

async fn whoever_comes_in_between_sees_every_event_once(place: impl Place) {
    let store = place.open().await;
    let bustle = bustle(&store, 100);
    let (mut seen, mut after) = (Vec::new(), BEGINNING);
    while seen.len() < 600 {
        // Comes, takes a few events, and goes: mostly in the middle of something.
        let mut follower = Follower::new(Arc::clone(&store), EventFilter::default(), Some(after));
        for _ in 0..(seen.len() % 11 + 1).min(600 - seen.len()) {
            let event = next(&mut follower).await.unwrap();
            after = event.at;
            seen.push(event);
        }
    }
    bustle.await.unwrap();
    let all = past(&store, &EventFilter::default(), BEGINNING).await;
    assert_eq!(seen.iter().map(|event| event.at).collect::<Vec<_>>(), all.iter().map(|event| event.at).collect::<Vec<_>>());
    assert_eq!(in_words(&seen), in_words(&all));
}

async fn a_slow_listener_misses_nothing(place: impl Place) {
    const JOBS: usize = 6_000;
    let store = place.open().await;
    let mut follower = Follower::new(Arc::clone(&store), EventFilter::default(), None);
    for _ in 0..JOBS / 500 {
        accept(&store, &(0..500).map(|_| io_job()).collect::<Vec<_>>()).await;
        let claimed = store.claim(Queue::Async, 500).await.unwrap();
        let settled = claimed.iter().map(|claimed| settle(&store, claimed.lease, succeeded()));
        futures_util::future::join_all(settled).await;
    }
    // More than is kept for it by now.
    let mut last = BEGINNING;
    for _ in 0..JOBS * 3 {
        let event = next(&mut follower).await.unwrap();
        assert!(event.at > last);
        last = event.at;
    }
    assert_eq!(last, store.latest_event());
}

/// What was claimed from what stands ready in memory is told of with the next transaction, and so is what that accepts.
async fn what_is_accepted_beside_beginnings_is_told_of(place: impl Place) {
    let store = place.open().await;
    accept(&store, &(0..20).map(|_| apart(io_job())).collect::<Vec<_>>()).await;
    store.claim(Queue::Processes, 1).await.unwrap();
    let mut follower = Follower::new(Arc::clone(&store), EventFilter::default(), None);
    for _ in 0..10 {
        store.claim(Queue::Processes, 1).await.unwrap();
        let job = accept(&store, &[io_job()]).await.remove(0).id;
        while next(&mut follower).await.map(|event| (event.job, event.kind())) != Some((job, EventKind::Accepted)) {}
    }
}

async fn events_survive_a_restart(place: impl Place) {
    let store = place.open().await;
    let job = io_job();
    accept(&store, std::slice::from_ref(&job)).await;
    let lease = claim_one(&store).await.lease;
    store.note(lease, log("before")).await;
    while past(&store, &of(job.id), BEGINNING).await.len() < 3 {
        tokio::task::yield_now().await;
    }
    let before = past(&store, &of(job.id), BEGINNING).await;
    drop(store);
    let store = place.open().await;
    assert!(store.latest_event() > before.last().unwrap().at);
    end_one(&store).await;
    let after = past(&store, &of(job.id), BEGINNING).await;
    let lost = "retrying 1 lost: the server went down while this attempt ran";
    assert_eq!(in_words(&after), ["accepted", "running 1", "log 1 before", lost, "running 2", "succeeded 2"]);
    assert!(before.iter().zip(&after).all(|(before, after)| before.at == after.at));
    let missed = past(&store, &EventFilter::default(), before.last().unwrap().at).await;
    assert_eq!(in_words(&missed), in_words(&after[3..]));
}

async fn filters_select_the_past_and_the_present_alike(place: impl Place) {
    let store = place.open().await;
    let all = EventFilter::default;
    let tag = |value: &str| ("team".to_owned(), value.to_owned());
    let filters = [
        (all(), 12),
        (EventFilter { kinds: vec![EventKind::Finished, EventKind::Log], ..all() }, 4),
        (EventFilter { bound: Some(Bound::Cpu), ..all() }, 4),
        (EventFilter { executor: Some(Executor::Threads), ..all() }, 4),
        (EventFilter { executor: Some(Executor::Processes), ..all() }, 0),
        (EventFilter { workload: Some("primes".into()), ..all() }, 4),
        (EventFilter { tags: vec![tag("search")], ..all() }, 8),
        (EventFilter { tags: vec![tag("search"), ("level".into(), "1".into())], ..all() }, 4),
        (EventFilter { tags: vec![tag("other")], ..all() }, 0),
        (EventFilter { states: vec![StateFilter::Ended(Ending::Failed)], ..all() }, 1),
        (EventFilter { states: vec![StateFilter::Running], ..all() }, 6),
        (EventFilter { states: vec![StateFilter::Queued], kinds: vec![EventKind::Accepted], ..all() }, 3),
    ];
    let mut followers: Vec<_> =
        filters.iter().map(|(filter, _)| Follower::new(Arc::clone(&store), filter.clone(), None)).collect();
    let (mut io, mut cpu, plain) = (io_job(), new_job(Bound::Cpu), io_job());
    cpu.submission.workload.kind = "primes".into();
    io.submission.tags.extend([tag("search"), ("level".to_owned(), "1".to_owned())]);
    cpu.submission.tags.extend([tag("search")]);
    for (job, queue, settlement) in
        [(io, Queue::Async, succeeded()), (cpu, Queue::ThreadsCpu, failed("no luck")), (plain, Queue::Async, succeeded())]
    {
        accept(&store, &[job]).await;
        let lease = store.claim(queue, 1).await.unwrap()[0].lease;
        store.note(lease, Note::progress(&0.5).unwrap()).await;
        settle(&store, lease, settlement).await.unwrap();
    }
    for ((filter, count), follower) in filters.iter().zip(&mut followers) {
        let count = if filter.kinds.contains(&EventKind::Log) { 3 } else { *count };
        let recorded = past(&store, filter, BEGINNING).await;
        assert_eq!(recorded.len(), count, "{filter:?}: {:?}", in_words(&recorded));
        for expected in recorded {
            assert_eq!(next(follower).await.unwrap().at, expected.at, "{filter:?}");
        }
        let further = tokio::time::timeout(Duration::from_millis(20), follower.next()).await;
        assert!(further.is_err(), "{filter:?}: {further:?}");
    }
}

async fn a_large_output_is_told_whole(place: impl Place) {
    let store = place.open().await;
    let job = io_job();
    let mut live = Follower::new(Arc::clone(&store), EventFilter::default(), None);
    accept(&store, std::slice::from_ref(&job)).await;
    let lease = claim_one(&store).await.lease;
    let large = "x".repeat(300_000);
    settle(&store, lease, failed(&large)).await.unwrap();
    next(&mut live).await;
    next(&mut live).await;
    let What::Finished { finished, .. } = next(&mut live).await.unwrap().what else { panic!("not the end") };
    let trine::job::Outcome::Error(failure) = finished.outcome else { panic!("no error") };
    assert_eq!(failure.message.len(), large.len());
}

async fn who_follows_a_job_that_is_removed_does_not_wait_for_its_end(place: impl Place) {
    let store = place.open().await;
    let job = io_job();
    accept(&store, std::slice::from_ref(&job)).await;
    let mut live = Follower::new(Arc::clone(&store), of(job.id), None);
    let lease = claim_one(&store).await.lease;
    settle(&store, lease, failed(&"x".repeat(300_000))).await.unwrap();
    assert_eq!(store.remove_result(job.id).await.unwrap(), Removal::Removed);
    while next(&mut live).await.is_some() {}
}

async fn what_a_stale_attempt_says_is_not_heard(place: impl Place) {
    let store = place.open().await;
    let job = io_job();
    accept(&store, std::slice::from_ref(&job)).await;
    let first = claim_one(&store).await.lease;
    settle(&store, first, Settlement::Release { begun: true }).await.unwrap();
    let second = claim_one(&store).await.lease;
    store.note(first, log("too late")).await;
    settle(&store, second, succeeded()).await.unwrap();
    store.note(second, log("too late as well")).await;
    store.check().await.unwrap();
    let events = past(&store, &of(job.id), BEGINNING).await;
    assert_eq!(in_words(&events), ["accepted", "running 1", "running 1", "succeeded 1"]);
}

async fn a_job_that_says_too_much_is_cut_off(place: impl Place) {
    let store = place.open().await;
    let logs = |job| EventFilter { kinds: vec![EventKind::Log], ..of(job) };
    // By its lines, also over several attempts.
    let job = io_job();
    accept(&store, std::slice::from_ref(&job)).await;
    let first = claim_one(&store).await.lease;
    for n in 0..30 {
        store.note(first, log(&n.to_string())).await;
    }
    let again = Settlement::Again { due_at: Timestamp::now(), lost: false, error: Failure::error("no luck"), timing: None };
    settle(&store, first, again).await.unwrap();
    let second = claim_one(&store).await.lease;
    for n in 30..100 {
        store.note(second, log(&n.to_string())).await;
    }
    settle(&store, second, succeeded()).await.unwrap();
    let lines = past(&store, &logs(job.id), BEGINNING).await;
    assert_eq!(lines.len(), 50);
    let What::Log { line, stream: LogStream::Stderr, .. } = &lines[49].what else { panic!("not a line") };
    assert!(line.contains("dropped"), "{line}");
    // By its bytes.
    let job = io_job();
    accept(&store, std::slice::from_ref(&job)).await;
    let lease = claim_one(&store).await.lease;
    for _ in 0..5 {
        store.note(lease, log(&"x".repeat(3_000))).await;
    }
    settle(&store, lease, succeeded()).await.unwrap();
    assert_eq!(past(&store, &logs(job.id), BEGINNING).await.len(), 4);
}
