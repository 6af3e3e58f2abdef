//! Jobs that come after other jobs.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use trine::clock::Timestamp;
use trine::job::{Dependency, Ending, FailureKind, JobId, NewJob, OnFailure, Outcome, Owner, Queue, State};
use trine::store::{Cancellation, Child, Claimed, ParentEdge, Requeue, Settlement, Sketches, StateFilter, Store, StoreError};

use crate::{PATIENCE, Place, accept, apart, claim_one, failed, io_job, settle, state, succeeded};

crate::for_every_form!(
    a_job_waits_for_all_that_it_comes_after,
    a_parent_that_has_ended_is_not_waited_for,
    what_becomes_of_the_children_of_a_failed_job_is_said_beforehand,
    a_job_after_an_unknown_one_is_refused_alone,
    a_job_after_one_that_is_refused_is_refused_as_well,
    a_parent_and_its_child_can_come_and_go_in_one_breath,
    a_blocked_job_can_be_cancelled_and_takes_its_children_along,
    a_job_at_the_front_of_its_queue_learns_that_others_come_after_it,
    a_retried_job_waits_again_for_what_has_not_ended,
    a_long_chain_falls_like_a_row_of_dominoes,
    many_come_after_one_and_one_after_many,
    a_crash_in_between_leaves_nobody_blocked,
    the_graph_can_be_seen,
    an_owner_sees_its_own_children_alone,
    fifty_random_graphs_end_as_a_model_says,
);

/// A job that comes after others.
fn after(parents: &[(JobId, OnFailure)]) -> NewJob {
    let dependency = |&(parent, on_failure): &(JobId, OnFailure)| Dependency { parent, name: None, on_failure };
    NewJob { after: parents.iter().map(dependency).collect(), ..io_job() }
}

fn child_of(parent: &NewJob) -> NewJob {
    after(&[(parent.id, OnFailure::Cancel)])
}

async fn end(store: &Arc<dyn Store>, claimed: Claimed, settlement: Settlement) {
    settle(store, claimed.lease, settlement).await.unwrap();
}

async fn until_all_have_ended(store: &Arc<dyn Store>) {
    let ended = async {
        loop {
            let depth = store.depth(Queue::Async);
            if depth.blocked + depth.queued + depth.running + depth.scheduled == 0 {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, ended).await;
    assert!(in_time.is_ok(), "not all jobs have ended: {:?}", store.depth(Queue::Async));
}

async fn a_job_waits_for_all_that_it_comes_after(place: impl Place) {
    let store = place.open().await;
    let (first, second) = (io_job(), io_job());
    let child = after(&[(first.id, OnFailure::Cancel), (second.id, OnFailure::Cancel)]);
    // The child stands before its parents.
    accept(&store, &[child.clone(), first.clone(), second.clone()]).await;
    assert_eq!(state(&store, child.id).await, "blocked");
    assert_eq!((store.depth(Queue::Async).blocked, store.depth(Queue::Async).queued), (1, 2));
    let one = claim_one(&store).await;
    end(&store, one, succeeded()).await;
    assert_eq!(state(&store, child.id).await, "blocked");
    let two = claim_one(&store).await;
    let ended_at = Timestamp::now();
    end(&store, two, succeeded()).await;
    let claimed = claim_one(&store).await;
    assert_eq!((claimed.lease.id, claimed.attempt), (child.id, 1));
    // It was blocked, not queued, until then.
    assert!(claimed.queued_for <= Timestamp::now().since(ended_at), "{:?}", claimed.queued_for);
    assert_eq!(store.depth(Queue::Async).blocked, 0);
}

async fn a_parent_that_has_ended_is_not_waited_for(place: impl Place) {
    let store = place.open().await;
    let (good, bad) = (io_job(), io_job());
    accept(&store, &[good.clone(), bad.clone()]).await;
    for settlement in [succeeded(), failed("no luck")] {
        let claimed = claim_one(&store).await;
        end(&store, claimed, settlement).await;
    }
    let ready = after(&[(good.id, OnFailure::Cancel), (bad.id, OnFailure::Run)]);
    let cancelled = after(&[(good.id, OnFailure::Cancel), (bad.id, OnFailure::Cancel)]);
    let grandchild = after(&[(cancelled.id, OnFailure::Fail)]);
    accept(&store, &[ready.clone(), cancelled.clone(), grandchild.clone()]).await;
    let states = [state(&store, ready.id).await, state(&store, cancelled.id).await, state(&store, grandchild.id).await];
    assert_eq!(states, ["queued", "cancelled", "failed"]);
    assert_eq!(claim_one(&store).await.lease.id, ready.id);
}

async fn what_becomes_of_the_children_of_a_failed_job_is_said_beforehand(place: impl Place) {
    let store = place.open().await;
    let parent = io_job();
    let children = OnFailure::ALL.map(|on_failure| after(&[(parent.id, on_failure)]));
    let grandchildren = [0, 1].map(|at: usize| after(&[(children[at].id, OnFailure::Cancel)]));
    let mut jobs = vec![parent.clone()];
    jobs.extend(children.iter().chain(&grandchildren).cloned());
    accept(&store, &jobs).await;
    let claimed = claim_one(&store).await;
    end(&store, claimed, failed("no luck")).await;
    assert_eq!(claim_one(&store).await.lease.id, children[2].id);
    let mut states = Vec::new();
    for job in children.iter().chain(&grandchildren) {
        states.push(state(&store, job.id).await);
    }
    assert_eq!(states, ["cancelled", "failed", "running", "cancelled", "cancelled"]);
    let State::Finished(finished) = store.job(children[1].id).await.unwrap().unwrap().state else { panic!("not finished") };
    let Outcome::Error(failure) = finished.outcome else { panic!("no error") };
    assert_eq!((failure.kind, finished.started_at, finished.timing), (FailureKind::Dependency, None, None));
    assert!(failure.message.contains(&parent.id.to_string()) && failure.message.contains("failed"), "{}", failure.message);
    let fallen = [children[0].id, children[1].id, grandchildren[0].id, grandchildren[1].id];
    assert_eq!(store.ended_unasked().await.into_iter().collect::<HashSet<_>>(), HashSet::from(fallen));
    assert_eq!(store.summary().await.unwrap().values().map(Sketches::count).sum::<u64>(), 5);
}

async fn a_job_after_an_unknown_one_is_refused_alone(place: impl Place) {
    let store = place.open().await;
    let (nobody, good) = (JobId::new(), io_job());
    let orphan = after(&[(good.id, OnFailure::Cancel), (nobody, OnFailure::Run)]);
    let (refused, fine) = tokio::join!(store.accept(vec![io_job(), orphan.clone()]), store.accept(vec![good.clone()]));
    fine.unwrap();
    // Whether the other batch was there first or not, the first unknown parent is named.
    let Err(StoreError::UnknownParent { job, parent }) = refused else { panic!("{refused:?}") };
    assert!(job == orphan.id && [nobody, good.id].contains(&parent));
    assert_eq!((state(&store, good.id).await, state(&store, orphan.id).await), ("queued", "unknown"));
    assert_eq!(store.depth(Queue::Async).queued, 1);
}

async fn a_job_after_one_that_is_refused_is_refused_as_well(place: impl Place) {
    let store = place.open().await;
    // The two may come to one transaction, in which the parent is there as long as nobody has found it out.
    for _ in 0..50 {
        let orphan = after(&[(JobId::new(), OnFailure::Cancel)]);
        let child = child_of(&orphan);
        let (first, second) = tokio::join!(store.accept(vec![orphan]), store.accept(vec![child.clone()]));
        assert!(matches!(first, Err(StoreError::UnknownParent { .. })), "{first:?}");
        assert!(matches!(second, Err(StoreError::UnknownParent { job, .. }) if job == child.id), "{second:?}");
    }
    assert_eq!(store.depth(Queue::Async).blocked, 0);
}

async fn a_parent_and_its_child_can_come_and_go_in_one_breath(place: impl Place) {
    let store = place.open().await;
    for _ in 0..50 {
        let parent = io_job();
        accept(&store, std::slice::from_ref(&parent)).await;
        let claimed = claim_one(&store).await;
        let child = child_of(&parent);
        let (ended, accepted) = tokio::join!(settle(&store, claimed.lease, succeeded()), store.accept(vec![child.clone()]));
        ended.unwrap();
        accepted.unwrap();
        let claimed = claim_one(&store).await;
        assert_eq!(claimed.lease.id, child.id);
        end(&store, claimed, succeeded()).await;
        // A parent that is claimed as it is accepted, by a claim that waits.
        let (parent, grandchild) = (io_job(), io_job());
        let grandchild = NewJob { after: child_of(&parent).after, ..grandchild };
        let batch = [parent.clone(), grandchild.clone()];
        let (claimed, _) = tokio::join!(claim_one(&store), accept(&store, &batch));
        assert_eq!(claimed.lease.id, parent.id);
        end(&store, claimed, failed("no luck")).await;
        assert_eq!(state(&store, grandchild.id).await, "cancelled");
    }
}

async fn a_blocked_job_can_be_cancelled_and_takes_its_children_along(place: impl Place) {
    let store = place.open().await;
    let parent = io_job();
    let child = child_of(&parent);
    let grandchild = child_of(&child);
    accept(&store, &[parent.clone(), child.clone(), grandchild.clone()]).await;
    assert_eq!(store.cancel(child.id, &[]).await.unwrap(), Cancellation::Cancelled);
    assert_eq!(state(&store, grandchild.id).await, "cancelled");
    let claimed = claim_one(&store).await;
    end(&store, claimed, succeeded()).await;
    assert_eq!(state(&store, child.id).await, "cancelled");
    assert_eq!(store.depth(Queue::Async), trine::store::Depth::default());
    // One that runs, when it has stopped.
    let parent = io_job();
    let child = child_of(&parent);
    accept(&store, &[parent.clone(), child.clone()]).await;
    let claimed = claim_one(&store).await;
    assert_eq!(store.cancel(parent.id, &[]).await.unwrap(), Cancellation::Stopping(claimed.lease));
    assert_eq!(state(&store, child.id).await, "blocked");
    end(&store, claimed, Settlement::Release { begun: true }).await;
    assert_eq!((state(&store, parent.id).await, state(&store, child.id).await), ("cancelled", "cancelled"));
}

async fn a_job_at_the_front_of_its_queue_learns_that_others_come_after_it(place: impl Place) {
    let store = place.open().await;
    for _ in 0..20 {
        let jobs: Vec<NewJob> = (0..10).map(|_| apart(io_job())).collect();
        accept(&store, &jobs).await;
        // From here on, the next ones may stand ready in memory.
        let first = store.claim(Queue::Processes, 1).await.unwrap();
        let child = child_of(&jobs[5]);
        let (rest, accepted) = tokio::join!(store.claim(Queue::Processes, 9), store.accept(vec![child.clone()]));
        accepted.unwrap();
        let mut claimed = [first, rest.unwrap()].concat();
        while claimed.len() < 10 {
            claimed.extend(store.claim(Queue::Processes, 9).await.unwrap());
        }
        for claimed in claimed {
            end(&store, claimed, failed("no luck")).await;
        }
        assert_eq!(state(&store, child.id).await, "cancelled");
    }
}

async fn a_retried_job_waits_again_for_what_has_not_ended(place: impl Place) {
    let store = place.open().await;
    let parent = io_job();
    let child = child_of(&parent);
    accept(&store, &[parent.clone(), child.clone()]).await;
    let claimed = claim_one(&store).await;
    end(&store, claimed, failed("no luck")).await;
    assert_eq!(state(&store, child.id).await, "cancelled");
    // By itself: its parent has ended, and that it failed is known to whoever asks for it.
    assert_eq!(store.requeue(child.id).await.unwrap(), Requeue::Queued);
    let claimed = claim_one(&store).await;
    assert_eq!(claimed.lease.id, child.id);
    end(&store, claimed, failed("no luck")).await;
    // After its parent was retried.
    assert_eq!(store.requeue(parent.id).await.unwrap(), Requeue::Queued);
    assert_eq!(state(&store, child.id).await, "failed");
    assert_eq!(store.requeue(child.id).await.unwrap(), Requeue::Queued);
    assert_eq!(state(&store, child.id).await, "blocked");
    let claimed = claim_one(&store).await;
    assert_eq!(claimed.lease.id, parent.id);
    end(&store, claimed, succeeded()).await;
    let claimed = claim_one(&store).await;
    assert_eq!(claimed.lease.id, child.id);
    // While the child runs, its parent may fail again: that is too late.
    store.requeue(parent.id).await.unwrap();
    let again = claim_one(&store).await;
    end(&store, again, failed("no luck")).await;
    end(&store, claimed, succeeded()).await;
    assert_eq!(state(&store, child.id).await, "succeeded");
}

/// Jobs of which each comes after the one before.
fn chain(length: usize) -> Vec<NewJob> {
    let mut jobs = vec![io_job()];
    while jobs.len() < length {
        jobs.push(child_of(&jobs[jobs.len() - 1]));
    }
    jobs
}

async fn a_long_chain_falls_like_a_row_of_dominoes(place: impl Place) {
    let store = place.open().await;
    let jobs = chain(1_000);
    accept(&store, &jobs).await;
    assert_eq!(store.depth(Queue::Async).blocked, 999);
    let claimed = claim_one(&store).await;
    end(&store, claimed, failed("no luck")).await;
    until_all_have_ended(&store).await;
    assert_eq!(state(&store, jobs[999].id).await, "cancelled");
    // And one in which all succeed.
    let jobs = chain(1_000);
    accept(&store, &jobs).await;
    for job in &jobs {
        let claimed = claim_one(&store).await;
        assert_eq!(claimed.lease.id, job.id);
        end(&store, claimed, succeeded()).await;
    }
    until_all_have_ended(&store).await;
}

/// One, then many, then one.
fn fan(width: usize) -> Vec<NewJob> {
    let first = io_job();
    let mut jobs: Vec<NewJob> = (0..width).map(|_| child_of(&first)).collect();
    let last = after(&jobs.iter().map(|job| (job.id, OnFailure::Cancel)).collect::<Vec<_>>());
    jobs.insert(0, first);
    jobs.push(last);
    jobs
}

async fn many_come_after_one_and_one_after_many(place: impl Place) {
    const WIDTH: usize = 10_000;
    let store = place.open().await;
    let jobs = fan(WIDTH);
    accept(&store, &jobs).await;
    let claimed = claim_one(&store).await;
    assert_eq!(claimed.lease.id, jobs[0].id);
    end(&store, claimed, succeeded()).await;
    let mut left = WIDTH;
    while left > 0 {
        let claimed = tokio::time::timeout(PATIENCE, store.claim(Queue::Async, 512)).await.unwrap().unwrap();
        left -= claimed.len();
        futures_util::future::join_all(claimed.into_iter().map(|claimed| end(&store, claimed, succeeded()))).await;
    }
    let claimed = claim_one(&store).await;
    assert_eq!(claimed.lease.id, jobs[WIDTH + 1].id);
    end(&store, claimed, succeeded()).await;
    assert_eq!(store.depth(Queue::Async), trine::store::Depth::default());
    // And one where the first fails.
    let jobs = fan(WIDTH);
    accept(&store, &jobs).await;
    let claimed = claim_one(&store).await;
    end(&store, claimed, failed("no luck")).await;
    until_all_have_ended(&store).await;
    assert_eq!(state(&store, jobs[WIDTH + 1].id).await, "cancelled");
}

async fn a_crash_in_between_leaves_nobody_blocked(place: impl Place) {
    let store = place.open().await;
    let (wide, long) = (fan(5_000), chain(500));
    accept(&store, &wide).await;
    accept(&store, &long).await;
    for claimed in store.claim(Queue::Async, 2).await.unwrap() {
        end(&store, claimed, failed("no luck")).await;
    }
    // What one transaction can't do is not done when the store goes away right after it.
    assert!(store.depth(Queue::Async).blocked > 0);
    drop(store);
    let store = place.open().await;
    until_all_have_ended(&store).await;
    assert_eq!((state(&store, wide[5_001].id).await, state(&store, long[499].id).await), ("cancelled", "cancelled"));
}

async fn the_graph_can_be_seen(place: impl Place) {
    let store = place.open().await;
    let (first, second) = (io_job(), io_job());
    let name = Some("b".to_owned());
    let mut child = after(&[(first.id, OnFailure::Run)]);
    child.after.push(Dependency { parent: second.id, name: name.clone(), on_failure: OnFailure::Fail });
    let grandchildren: Vec<NewJob> = (0..5).map(|_| child_of(&child)).collect();
    accept(&store, &[first.clone(), second.clone(), child.clone()]).await;
    accept(&store, &grandchildren).await;
    let claimed = claim_one(&store).await;
    end(&store, claimed, failed("no luck")).await;
    let graph = store.graph(child.id, None, 3).await.unwrap();
    assert_eq!((graph.parent_count, graph.open, graph.child_count), (2, 1, 5));
    let parents = [
        ParentEdge { id: second.id, name, on_failure: OnFailure::Fail, state: Some(StateFilter::Queued) },
        ParentEdge { id: first.id, name: None, on_failure: OnFailure::Run, state: Some(StateFilter::Ended(Ending::Failed)) },
    ];
    assert_eq!(graph.parents, parents);
    let children = grandchildren.iter().take(3).map(|job| Child { id: job.id, state: Some(StateFilter::Blocked) });
    assert_eq!(graph.children, children.collect::<Vec<_>>());
    let mut dependencies = store.dependencies(child.id).await.unwrap();
    dependencies.sort_by_key(|dependency| dependency.parent);
    assert_eq!(dependencies, child.after);
    assert_eq!(store.graph(first.id, None, 3).await.unwrap().parents, []);
}

async fn an_owner_sees_its_own_children_alone(place: impl Place) {
    let store = place.open().await;
    let [mine, theirs] = ["00000000000a", "ffffffffffff"].map(|digits| digits.parse::<Owner>().unwrap());
    let of = |mut job: NewJob, owner| {
        job.submission.owner = owner;
        job
    };
    let parent = of(io_job(), Some(mine));
    let children = [Some(mine), None, Some(theirs), Some(mine)].map(|owner| of(child_of(&parent), owner));
    accept(&store, std::slice::from_ref(&parent)).await;
    accept(&store, &children).await;
    let check = async |own: &[(usize, StateFilter)]| {
        let graph = store.graph(parent.id, Some(mine), 3).await.unwrap();
        let own = own.iter().map(|(at, state)| Child { id: children[*at].id, state: Some(*state) });
        assert_eq!((graph.child_count, graph.children), (2, own.collect::<Vec<_>>()));
        assert_eq!(store.graph(parent.id, None, 3).await.unwrap().child_count, 4);
    };
    check(&[(0, StateFilter::Blocked), (3, StateFilter::Blocked)]).await;
    store.cancel(children[3].id, &[]).await.unwrap();
    check(&[(0, StateFilter::Blocked), (3, StateFilter::Ended(Ending::Cancelled))]).await;
}

/// What is known of the jobs of a random graph, kept as simply as can be.
#[derive(Default)]
struct Model {
    jobs: Vec<NewJob>,
    endings: HashMap<JobId, Ending>,
}

impl Model {
    /// Whether a job may run: all before it have ended, and none in a way that ends it too.
    fn may_run(&self, job: &NewJob) -> bool {
        job.after.iter().all(|after| match self.endings.get(&after.parent) {
            Some(Ending::Succeeded) => true,
            Some(_) => after.on_failure == OnFailure::Run,
            None => false,
        })
    }

    /// Ends what can't run any more. Which one of several failed parents was heard of first is not known: all ways that a job may end.
    fn fall(&mut self) -> HashMap<JobId, HashSet<Ending>> {
        let mut ways = HashMap::new();
        loop {
            let mut fallen = Vec::new();
            for job in self.jobs.iter().filter(|job| !self.endings.contains_key(&job.id)) {
                let by = |after: &Dependency| match (self.endings.get(&after.parent)?, after.on_failure) {
                    (Ending::Succeeded, _) | (_, OnFailure::Run) => None,
                    (_, OnFailure::Cancel) => Some(Ending::Cancelled),
                    (_, OnFailure::Fail) => Some(Ending::Failed),
                };
                let endings: HashSet<Ending> = job.after.iter().filter_map(by).collect();
                if let Some(ending) = endings.iter().next() {
                    fallen.push((job.id, *ending));
                    ways.insert(job.id, endings);
                }
            }
            if fallen.is_empty() {
                return ways;
            }
            self.endings.extend(fallen);
        }
    }
}

async fn fifty_random_graphs_end_as_a_model_says(_: impl Place) {
    for seed in 0..50 {
        random_graph(seed).await;
    }
}

async fn random_graph(seed: u64) {
    println!("seed {seed}");
    let place = crate::sqlite::Folder::new();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut store = place.open().await;
    let mut model = Model::default();
    let mut running: Vec<Claimed> = Vec::new();
    let mut ran = HashSet::new();
    let mut crashes = 2;
    let mut to_submit = random.usize(20..120);
    let mut ways: HashMap<JobId, HashSet<Ending>> = HashMap::new();
    loop {
        match random.u32(0..10) {
            0..=2 if to_submit > 0 => {
                let mut batch = Vec::new();
                for _ in 0..random.usize(1..=to_submit.min(30)) {
                    let known: Vec<JobId> = model.jobs.iter().chain(&batch).map(|job: &NewJob| job.id).collect();
                    let wanted = random.usize(0..4).min(known.len());
                    let parents: HashSet<JobId> = (0..wanted).map(|_| known[random.usize(0..known.len())]).collect();
                    let rule = |parent| (parent, OnFailure::ALL[random.usize(0..3)]);
                    batch.push(after(&parents.into_iter().map(rule).collect::<Vec<_>>()));
                    to_submit -= 1;
                }
                // The order in a batch is nobody's business.
                let mut shuffled = batch.clone();
                random.shuffle(&mut shuffled);
                accept(&store, &shuffled).await;
                model.jobs.extend(batch);
            }
            3..=5 if store.depth(Queue::Async).queued > 0 => {
                for claimed in store.claim(Queue::Async, random.usize(1..6)).await.unwrap() {
                    let job = model.jobs.iter().find(|job| job.id == claimed.lease.id).unwrap();
                    assert!(model.may_run(job), "seed {seed}: {} was claimed too early", job.id);
                    ran.insert(job.id);
                    running.push(claimed);
                }
            }
            6..=7 if !running.is_empty() => {
                let claimed = running.swap_remove(random.usize(0..running.len()));
                let (settlement, ending) =
                    if random.u32(0..4) > 0 { (succeeded(), Ending::Succeeded) } else { (failed("no luck"), Ending::Failed) };
                let id = claimed.lease.id;
                end(&store, claimed, settlement).await;
                model.endings.insert(id, ending);
            }
            8 if !model.jobs.is_empty() => {
                let id = model.jobs[random.usize(0..model.jobs.len())].id;
                match store.cancel(id, &[]).await.unwrap() {
                    Cancellation::Cancelled => {
                        assert!(!model.endings.contains_key(&id), "seed {seed}: {id} was cancelled after its end");
                        model.endings.insert(id, Ending::Cancelled);
                    }
                    Cancellation::Stopping(lease) => {
                        let at = running.iter().position(|claimed| claimed.lease == lease).unwrap();
                        end(&store, running.swap_remove(at), Settlement::Release { begun: true }).await;
                        model.endings.insert(id, Ending::Cancelled);
                    }
                    Cancellation::Finished(_) => {}
                    Cancellation::Elsewhere | Cancellation::Unknown => panic!("seed {seed}: {id} is gone"),
                }
            }
            9 if crashes > 0 && random.bool() => {
                crashes -= 1;
                drop(store);
                running.clear();
                store = place.open().await;
            }
            _ => {}
        }
        ways.extend(model.fall());
        if to_submit == 0 && model.endings.len() == model.jobs.len() {
            break;
        }
    }
    until_all_have_ended(&store).await;
    for job in &model.jobs {
        let State::Finished(finished) = store.job(job.id).await.unwrap().unwrap().state else {
            panic!("seed {seed}: not finished")
        };
        let expected = ways.get(&job.id).cloned().unwrap_or_else(|| HashSet::from([model.endings[&job.id]]));
        assert!(expected.contains(&finished.ending), "seed {seed}: {} is {}, not {expected:?}", job.id, finished.ending);
        assert!(ran.contains(&job.id) || finished.ending != Ending::Succeeded, "seed {seed}: {} did not run", job.id);
    }
}
