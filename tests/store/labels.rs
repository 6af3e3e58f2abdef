//! Jobs that not every node may run.

use std::sync::Arc;

use trine::job::{Concurrency, JobId, Labels, NewJob, Queue};
use trine::store::postgres::PostgresStore;
use trine::store::{NodeStore, Requeue, Settled, Settlement, Store, StoreError};

use crate::postgres::Schema;
use crate::{Place, accept, claim, claim_one, io_job, settle, succeeded};

crate::for_every_driver!(what_is_required_is_kept_and_handed_on);

fn requiring(name: &str, value: &str) -> NewJob {
    let mut job = io_job();
    job.submission.requires = Some(Box::new(Labels::from([(name.to_owned(), value.to_owned())])));
    job
}

async fn what_is_required_is_kept_and_handed_on(place: impl Place) {
    let store = place.open().await;
    let (job, plain) = (requiring("node", "one"), io_job());
    accept(&store, &[job.clone(), plain.clone()]).await;
    let kept = store.job(job.id).await.unwrap().unwrap().submission.requires;
    assert_eq!(kept, job.submission.requires);
    let claimed = [claim_one(&store).await, claim_one(&store).await];
    let of = |id| claimed.iter().find(|claimed| claimed.lease.id == id).unwrap();
    assert_eq!((&of(job.id).requires, &of(plain.id).requires), (&job.submission.requires, &None));
    for claimed in &claimed {
        settle(&store, claimed.lease, succeeded()).await.unwrap();
    }
    // Run again by hand, it still requires that.
    assert_eq!(store.requeue(job.id).await.unwrap(), Requeue::Queued);
    assert_eq!(claim_one(&store).await.requires, job.submission.requires);
}

async fn end(store: &Arc<PostgresStore>, claimed: Vec<trine::store::Claimed>) {
    for claimed in claimed {
        let settled = settle(store, claimed.lease, succeeded()).await.unwrap();
        assert!(matches!(settled, Settled::Ended { .. }));
    }
}

/// Gives a node time to do what it should not: it looks, and writes.
async fn look(store: &PostgresStore) {
    for _ in 0..3 {
        store.check().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_runs_where_its_requirements_are_met_and_nowhere_else() {
    let place = Schema::new();
    let (plain, gpu) = (place.node("plain").await, place.node_labelled("gpu", ("gpu", "a100")).await);
    // The plain one has a claim that waits before, and after.
    let waiting = {
        let plain = Arc::clone(&plain);
        tokio::spawn(async move { claim(&plain, Queue::Async, 10).await })
    };
    look(&plain).await;
    let jobs = [requiring("gpu", "a100"), requiring("gpu", "a100"), requiring("gpu", "h100")];
    plain.accept(jobs.to_vec()).await.unwrap();
    look(&plain).await;
    assert!(!waiting.is_finished());
    let mut here = Vec::new();
    while here.len() < 2 {
        here.extend(claim(&gpu, Queue::Async, 10).await);
    }
    here.sort_by_key(|claimed| claimed.lease.id);
    assert_eq!(here.iter().map(|claimed| claimed.lease.id).collect::<Vec<_>>(), [jobs[0].id, jobs[1].id]);
    // What requires nothing goes on beside it, on either.
    let free = io_job();
    gpu.accept(vec![free.clone()]).await.unwrap();
    let claimed = waiting.await.unwrap();
    assert_eq!(claimed.iter().map(|claimed| claimed.lease.id).collect::<Vec<_>>(), [free.id]);
    // What ran on a node that gives it back waits for such a node again.
    let back = here.remove(0);
    settle(&gpu, back.lease, Settlement::Release { begun: true }).await.unwrap();
    look(&plain).await;
    here.extend(claim(&gpu, Queue::Async, 10).await);
    assert_eq!(here[1].lease.id, back.lease.id);
    end(&gpu, here).await;
    end(&plain, claimed).await;
    // The third one waits until there is a node for it.
    let nodes = plain.nodes().await.unwrap();
    let required = jobs[2].submission.requires.as_ref().unwrap();
    assert!(!nodes.iter().any(|node| node.may_run(required)));
    let late = place.node_labelled("late", ("gpu", "h100")).await;
    let claimed = claim(&late, Queue::Async, 10).await;
    assert_eq!(claimed[0].lease.id, jobs[2].id);
    assert!(plain.nodes().await.unwrap().iter().any(|node| node.may_run(required)));
    end(&late, claimed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_holds_whatever_its_jobs_require() {
    let place = Schema::new();
    let plain = place.node("plain").await;
    let limited = |mut job: NewJob| {
        job.submission.concurrency = Some(Box::new(Concurrency { key: "k".into(), limit: 1 }));
        job
    };
    // That which nobody can run comes first, and must not take the place of the others.
    let jobs = [limited(requiring("gpu", "a100")), limited(io_job()), limited(io_job()), limited(requiring("node", "plain"))];
    for job in &jobs {
        plain.accept(vec![job.clone()]).await.unwrap();
    }
    for _ in 0..3 {
        let claimed = claim(&plain, Queue::Async, 10).await;
        assert_eq!(claimed.len(), 1);
        assert_ne!(claimed[0].lease.id, jobs[0].id);
        end(&plain, claimed).await;
    }
    let gpu = place.node_labelled("gpu", ("gpu", "a100")).await;
    assert_eq!(claim(&gpu, Queue::Async, 10).await[0].lease.id, jobs[0].id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_different_requirements_are_refused_until_there_is_room() {
    let place = Schema::new();
    let store = place.node("plain").await;
    let jobs: Vec<NewJob> = (0..65).map(|n| requiring("rack", &n.to_string())).collect();
    let refused = store.accept(jobs.clone()).await;
    assert!(matches!(refused, Err(StoreError::TooManyPlaces)), "{refused:?}");
    // Those that come together count together; one that is refused does not.
    store.accept(jobs[..62].to_vec()).await.unwrap();
    let (most, fewer) = ([&jobs[..3], &jobs[62..]].concat(), jobs[62..64].to_vec());
    let fresh = |jobs: Vec<NewJob>| jobs.into_iter().map(|job| NewJob { id: JobId::new(), ..job }).collect();
    let (refused, taken) = tokio::join!(store.accept(fresh(most)), store.accept(fresh(fewer)));
    assert!(matches!(refused, Err(StoreError::TooManyPlaces)), "{refused:?}");
    taken.unwrap();
    let refused = store.accept(vec![requiring("rack", "more")]).await;
    assert!(matches!(refused, Err(StoreError::TooManyPlaces)), "{refused:?}");
    store.accept(vec![requiring("rack", "7"), io_job()]).await.unwrap();
    // What a node meets is taken all the same, wherever it comes.
    let gpu = place.node_labelled("gpu", ("gpu", "a100")).await;
    store.accept(vec![requiring("gpu", "a100")]).await.unwrap();
    gpu.accept(vec![requiring("node", "plain"), requiring("node", "gpu")]).await.unwrap();
    let refused = gpu.accept(vec![requiring("node", "another")]).await;
    assert!(matches!(refused, Err(StoreError::TooManyPlaces)), "{refused:?}");
    store.cancel(jobs[0].id, &[]).await.unwrap();
    store.accept(vec![requiring("rack", "more")]).await.unwrap();
}
