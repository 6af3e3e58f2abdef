//! Pages of lists.

use std::collections::HashMap;
use std::sync::Arc;

use trine::clock::Timestamp;
use trine::job::{Bound, Ending, Executor, FailureKind, Job, JobId, NewJob, Queue, State, What};
use trine::store::{EventFilter, Filter, Order, Page, StateFilter, Store};

use crate::{Place, accept, claim_one, failed, finish_all, gave, io_job, new_job, settle};

crate::for_every_form!(
    pages_cover_a_list_without_gap_or_overlap,
    every_filter_selects,
    a_list_of_results_holds_finished_jobs_only,
    times_select_by_acceptance,
    an_outcome_is_whole_however_long_it_is,
);

fn page(order: Order, limit: usize) -> Page {
    Page { order, after: None, limit }
}

fn ids(jobs: &[Job]) -> Vec<JobId> {
    jobs.iter().map(|job| job.id).collect()
}

async fn select(store: &Arc<dyn Store>, filter: Filter) -> Vec<JobId> {
    ids(&store.jobs(&filter, page(Order::OldestFirst, 1_000)).await.unwrap())
}

async fn pages_cover_a_list_without_gap_or_overlap(place: impl Place) {
    let store = place.open().await;
    let jobs: Vec<NewJob> = (0..25).map(|_| io_job()).collect();
    // Some have ended, some wait: a list holds both, in one order.
    finish_all(&store, &jobs[..10]).await;
    accept(&store, &jobs[10..]).await;
    for order in [Order::OldestFirst, Order::NewestFirst] {
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let page = store.jobs(&Filter::default(), Page { order, after, limit: 4 }).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            seen.extend(ids(&page));
        }
        if order == Order::NewestFirst {
            seen.reverse();
        }
        assert_eq!(seen, jobs.iter().map(|job| job.id).collect::<Vec<_>>());
    }
}

async fn every_filter_selects(place: impl Place) {
    let store = place.open().await;
    let (io, mut cpu, bad, running) = (io_job(), new_job(Bound::Cpu), io_job(), io_job());
    cpu.submission.workload.kind = "primes".into();
    cpu.submission.tags.extend([("team", "search"), ("run", "7")].map(|(name, value)| (name.into(), value.into())));
    accept(&store, std::slice::from_ref(&bad)).await;
    let lease = crate::claim_one(&store).await.lease;
    settle(&store, lease, failed("no luck")).await.unwrap();
    accept(&store, std::slice::from_ref(&running)).await;
    crate::claim_one(&store).await;
    accept(&store, &[io.clone(), cpu.clone()]).await;
    let gone = io_job();
    accept(&store, std::slice::from_ref(&gone)).await;
    store.cancel(gone.id, &[]).await.unwrap();

    let all = Filter::default;
    let ended = StateFilter::Ended;
    for (filter, expected) in [
        (Filter { states: vec![StateFilter::Queued], ..all() }, vec![io.id, cpu.id]),
        (Filter { states: vec![StateFilter::Running], ..all() }, vec![running.id]),
        (Filter { states: vec![StateFilter::Scheduled], ..all() }, vec![]),
        (Filter { states: vec![ended(Ending::Failed)], ..all() }, vec![bad.id]),
        (Filter { states: vec![ended(Ending::Succeeded)], ..all() }, vec![]),
        (Filter { states: vec![StateFilter::Queued, StateFilter::Running], ..all() }, vec![io.id, cpu.id, running.id]),
        (Filter { states: vec![ended(Ending::Cancelled), ended(Ending::Failed)], ..all() }, vec![bad.id, gone.id]),
        (Filter { states: vec![ended(Ending::Succeeded), ended(Ending::Failed)], ..all() }, vec![bad.id]),
        (
            Filter { states: vec![ended(Ending::Failed), StateFilter::Queued, ended(Ending::Cancelled)], ..all() },
            vec![bad.id, io.id, cpu.id, gone.id],
        ),
        (
            Filter { error: Some(FailureKind::Cancelled), states: vec![StateFilter::Queued, ended(Ending::Cancelled)], ..all() },
            vec![gone.id],
        ),
        (Filter { bound: Some(Bound::Cpu), ..all() }, vec![cpu.id]),
        (Filter { executor: Some(Executor::Threads), ..all() }, vec![cpu.id]),
        (Filter { executor: Some(Executor::Processes), ..all() }, vec![]),
        (Filter { workload: Some("primes".into()), ..all() }, vec![cpu.id]),
        (Filter { workload: Some("primes\0".into()), ..all() }, vec![]),
        (Filter { tags: vec![("team".into(), "search".into())], ..all() }, vec![cpu.id]),
        (Filter { tags: vec![("team".into(), "other".into())], ..all() }, vec![]),
        (Filter { tags: vec![("team\0".into(), "search\0".into())], ..all() }, vec![]),
        (Filter { tags: vec![("team".into(), "search".into()), ("run".into(), "7".into())], ..all() }, vec![cpu.id]),
        (Filter { tags: vec![("team".into(), "search".into()), ("run".into(), "8".into())], ..all() }, vec![]),
        (Filter { bound: Some(Bound::Io), states: vec![StateFilter::Queued], ..all() }, vec![io.id]),
    ] {
        let mut expected = expected;
        expected.sort();
        assert_eq!(select(&store, filter.clone()).await, expected, "{filter:?}");
        expected.reverse();
        let mut seen = Vec::new();
        while let [job] =
            &store.jobs(&filter, Page { order: Order::NewestFirst, after: seen.last().copied(), limit: 1 }).await.unwrap()[..]
        {
            seen.push(job.id);
        }
        assert_eq!(seen, expected, "{filter:?}");
    }
    let states = store.states(&[io.id, bad.id, running.id, gone.id, JobId::new()]).await.unwrap();
    let expected = [
        (io.id, StateFilter::Queued),
        (bad.id, ended(Ending::Failed)),
        (running.id, StateFilter::Running),
        (gone.id, ended(Ending::Cancelled)),
    ];
    assert_eq!(states, HashMap::from(expected));
    assert_eq!(store.depth(Queue::ThreadsCpu).queued, 1);
}

async fn a_list_of_results_holds_finished_jobs_only(place: impl Place) {
    let store = place.open().await;
    let mut done = io_job();
    done.submission.tags.insert("team".into(), "search".into());
    finish_all(&store, std::slice::from_ref(&done)).await;
    accept(&store, &[io_job()]).await;
    let results = store.results(&Filter::default(), page(Order::NewestFirst, 10)).await.unwrap();
    assert_eq!(ids(&results), [done.id]);
    let tagged = Filter { tags: vec![("team".into(), "search".into())], ..Filter::default() };
    assert_eq!(ids(&store.results(&tagged, page(Order::NewestFirst, 10)).await.unwrap()), [done.id]);
    let queued = Filter { states: vec![StateFilter::Queued], ..Filter::default() };
    assert!(store.results(&queued, page(Order::NewestFirst, 10)).await.unwrap().is_empty());
}

async fn times_select_by_acceptance(place: impl Place) {
    let store = place.open().await;
    let jobs = [io_job(), io_job(), io_job()];
    let jobs = accept(&store, &jobs).await;
    let at = jobs[1].accepted_at;
    let since = select(&store, Filter { since: Some(at), ..Filter::default() }).await;
    let until = select(&store, Filter { until: Some(at), ..Filter::default() }).await;
    assert!(since.contains(&jobs[1].id) && since.contains(&jobs[2].id), "{since:?}");
    assert!(!until.contains(&jobs[1].id) && !until.contains(&jobs[2].id), "{until:?}");
    assert_eq!(since.len() + until.len(), 3);
}

/// A long one may stand elsewhere than a short one.
async fn an_outcome_is_whole_however_long_it_is(place: impl Place) {
    let store = place.open().await;
    let outputs = [1, 510, 511, 512, 5_000, 200_000, 3].map(|length| "y".repeat(length));
    let jobs: Vec<NewJob> = outputs.iter().map(|_| io_job()).collect();
    for (job, output) in jobs.iter().zip(&outputs) {
        accept(&store, std::slice::from_ref(job)).await;
        settle(&store, claim_one(&store).await.lease, gave(&output.as_str().into())).await.unwrap();
    }
    // Two of them give something else when they run again.
    for (job, length) in [(&jobs[5], 2), (&jobs[6], 7_000)] {
        store.requeue(job.id).await.unwrap();
        settle(&store, claim_one(&store).await.lease, gave(&"z".repeat(length).into())).await.unwrap();
    }
    let lasts = [&outputs[..5], &["z".repeat(2), "z".repeat(7_000)]].concat();
    let output = |job: &Job| match &job.state {
        State::Finished(finished) => serde_json::from_str::<String>(finished.outcome.output().unwrap().get()).unwrap(),
        other => panic!("{other:?}"),
    };
    let listed = store.results(&Filter::default(), page(Order::OldestFirst, 100)).await.unwrap();
    assert_eq!(listed.iter().map(output).collect::<Vec<_>>(), lasts);
    for ((job, first), last) in jobs.iter().zip(&outputs).zip(&lasts) {
        assert_eq!(output(&store.job(job.id).await.unwrap().unwrap()), *last);
        let of_the_job = EventFilter { job: Some(job.id), ..EventFilter::default() };
        let told = store.events(&of_the_job, Timestamp::from_micros(0)).await.unwrap().events;
        let told = told.iter().filter_map(|event| match &event.what {
            What::Finished { finished, .. } => finished.outcome.output().map(|output| output.get().trim_matches('"').to_owned()),
            _ => None,
        });
        let expected = if first == last { vec![last.clone()] } else { vec![first.clone(), last.clone()] };
        assert_eq!(told.collect::<Vec<_>>(), expected);
    }
    let (job, long) = (io_job(), "e".repeat(9_000));
    accept(&store, std::slice::from_ref(&job)).await;
    settle(&store, claim_one(&store).await.lease, failed(&long)).await.unwrap();
    let filter = Filter { error: Some(FailureKind::Error), ..Filter::default() };
    let found = store.results(&filter, page(Order::NewestFirst, 100)).await.unwrap();
    let [Job { id, state: State::Finished(finished), .. }] = &found[..] else { panic!("{found:?}") };
    assert_eq!((*id, &finished.outcome.failure().unwrap().message), (job.id, &long));
}
