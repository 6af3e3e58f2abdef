//! The store against a plain model of it: the same steps, drawn at random, have to come to the same end, whatever happens in between.
//!
//! Each case is a life of a few jobs: they come, are claimed, end in every way, are cancelled and run again, time passes, and the store
//! goes down in the middle of it. A case that fails says its seed; `TRINE_MODEL_SEED=n` runs just that one.

mod life;
mod random;

use std::sync::Arc;
use std::time::Duration;

use trine::clock::Clock;
use trine::job::{Ending, Failure, JobId, NewJob, Queue, State};
use trine::store::{Cancellation, Claimed, Filter, Lease, Requeue, Settled, Settlement, StateFilter, Store};

use self::life::{Life, Model};
use self::random::Random;
use crate::{PATIENCE, Place, TestClock, accept, failed, io_job, settle, succeeded, timing};

crate::for_every_driver!(the_first_lives, the_second_lives, lives_in_other_processes);

/// Steps of a case.
const STEPS: u64 = 30;

async fn the_first_lives<P: Place>(place: P) {
    lives(place, io_job, 0).await;
}

async fn the_second_lives<P: Place>(place: P) {
    lives(place, io_job, P::CASES).await;
}

/// Where the store may have the next jobs at hand.
async fn lives_in_other_processes<P: Place>(place: P) {
    lives(place, || crate::backlog::job(0), 2 * P::CASES).await;
}

async fn lives<P: Place>(place: P, job: fn() -> NewJob, from: u64) {
    let place = place.light();
    place.clock().stop();
    let seeds = match std::env::var("TRINE_MODEL_SEED").ok().and_then(|seed| seed.parse::<u64>().ok()) {
        Some(seed) => seed..seed + 1,
        None => from..from + P::CASES,
    };
    let mut store = Some(place.open().await);
    for seed in seeds {
        let mut case = Case {
            place: &place,
            job,
            queue: job().route.queue,
            store: store.take(),
            model: Model::new(place.clock().now()),
            random: Random::new(seed),
            seed,
            // Leases that were given, also those that are no longer valid.
            leases: Vec::new(),
        };
        for _ in 0..STEPS {
            case.step().await;
        }
        case.check_all().await;
        store = Some(case.end().await);
    }
}

struct Case<'a, P> {
    place: &'a P,
    job: fn() -> NewJob,
    queue: Queue,
    /// It is open, but for a moment.
    store: Option<Arc<dyn Store>>,
    model: Model,
    random: Random,
    seed: u64,
    leases: Vec<Lease>,
}

impl<P: Place> Case<'_, P> {
    async fn step(&mut self) {
        match self.random.below(16) {
            0..4 => self.submit().await,
            4..7 => self.claim().await,
            7..10 => self.settle().await,
            10 => self.cancel().await,
            11 => self.requeue().await,
            12 => self.many().await,
            13 => self.reopen().await,
            _ => self.pass_time().await,
        }
        if self.random.below(4) == 0 {
            self.check_all().await;
        }
    }

    fn store(&self) -> &Arc<dyn Store> {
        self.store.as_ref().unwrap()
    }

    fn clock(&self) -> &TestClock {
        self.place.clock()
    }

    fn tag(&self) -> (String, String) {
        ("case".into(), self.seed.to_string())
    }

    async fn submit(&mut self) {
        let jobs: Vec<NewJob> = (0..=self.random.below(3)).map(|_| self.new_job()).collect();
        // At times a claim is there before the jobs.
        let ready = jobs.iter().filter(|job| self.is_ready(job)).count();
        let claimer = (ready > 0 && self.model.ready() == 0 && self.random.below(2) == 0).then(|| {
            let (store, queue, most) = (Arc::clone(self.store()), self.queue, 1 + self.random.below(3));
            (most, tokio::spawn(async move { store.claim(queue, usize::try_from(most).unwrap()).await.unwrap() }))
        });
        for job in accept(self.store(), &jobs).await {
            self.model.accept(&job);
        }
        self.model.tick(self.clock().now());
        if let Some((most, claimer)) = claimer {
            let claimed = tokio::time::timeout(PATIENCE, claimer).await.expect("a claim").unwrap();
            self.claimed(usize::try_from(most).unwrap(), &claimed).await;
        }
    }

    fn new_job(&mut self) -> NewJob {
        let mut job = (self.job)();
        let submission = &mut job.submission;
        let (name, value) = self.tag();
        submission.tags.insert(name, value);
        submission.priority = i16::try_from(self.random.below(3)).unwrap() - 1;
        let now = self.place.clock().now();
        if self.random.below(4) == 0 {
            submission.run_at = Some(now.after(self.random.millis(90_000)));
        }
        if self.random.below(4) == 0 {
            submission.expires_at = Some(now.after(self.random.millis(180_000)));
        }
        if self.random.below(4) == 0 {
            submission.retry = Some(crate::not_after_a_loss());
        }
        job
    }

    fn is_ready(&self, job: &NewJob) -> bool {
        let now = self.clock().now();
        let after = |at: Option<trine::clock::Timestamp>| at.is_none_or(|at| at > now);
        job.submission.run_at.is_none_or(|at| at <= now) && after(job.submission.expires_at)
    }

    async fn claim(&mut self) {
        if self.model.ready() == 0 {
            return;
        }
        let most = usize::try_from(1 + self.random.below(3)).unwrap();
        let claimed = self.store().claim(self.queue, most);
        let claimed = tokio::time::timeout(PATIENCE, claimed).await.unwrap_or_else(|_| panic!("seed {}: no claim", self.seed));
        self.claimed(most, &claimed.unwrap()).await;
    }

    /// Who is claimed, in which order, and what is said of them.
    async fn claimed(&mut self, most: usize, claimed: &[Claimed]) {
        let ready = self.model.ready().min(most);
        // Those at hand are handed over without looking for more.
        let enough = if self.queue == Queue::Async { ready..=ready } else { 1..=ready };
        assert!(enough.contains(&claimed.len()), "seed {}: {} of {ready}", self.seed, claimed.len());
        let seen: Vec<_> = claimed.iter().map(|one| (one.lease.id, one.attempt, one.losses, one.earlier)).collect();
        assert_eq!(seen, self.model.claim(claimed), "seed {}", self.seed);
        self.leases.extend(claimed.iter().map(|one| one.lease));
        // Whoever looks sees that they run, so that is written.
        self.check(claimed[0].lease.id).await;
    }

    async fn settle(&mut self) {
        let Some(&lease) = self.random.pick(&self.leases) else { return };
        let settlement = match self.random.below(6) {
            0 | 1 => succeeded(),
            2 => failed("no luck"),
            3 => Settlement::Release { begun: true },
            n => Settlement::Again {
                due_at: self.clock().now().after(self.random.millis(60_000)),
                lost: n == 4,
                error: Failure::error("not yet"),
                timing: Some(timing(1)),
            },
        };
        let settled = settle(self.store(), lease, settlement.clone()).await.unwrap();
        let valid = self.model.settle(lease, &settlement);
        let as_told = match settled {
            Settled::Ended { .. } => valid && matches!(settlement, Settlement::Finish(_)),
            Settled::Recorded => valid && !matches!(settlement, Settlement::Finish(_)),
            Settled::Stale => !valid,
        };
        assert!(as_told, "seed {}: {settled:?} of {settlement:?}", self.seed);
        self.model.tick(self.clock().now());
        self.check(lease.id).await;
    }

    async fn cancel(&mut self) {
        let Some(id) = self.random.pick(&self.model.ids()).copied() else { return };
        let cancellation = self.store().cancel(id, &[]).await.unwrap();
        let expected = match self.model.cancel(id) {
            Life::Running { lease, .. } => Cancellation::Stopping(lease),
            Life::Ended(ending) => Cancellation::Finished(ending),
            Life::Waiting => Cancellation::Cancelled,
        };
        assert_eq!(cancellation, expected, "seed {}", self.seed);
        self.check(id).await;
    }

    async fn requeue(&mut self) {
        let Some(id) = self.random.pick(&self.model.ids()).copied() else { return };
        let requeued = self.store().requeue(id).await.unwrap();
        let expected = if self.model.requeue(id, self.clock().now()) { Requeue::Queued } else { Requeue::Unfinished };
        assert_eq!(requeued, expected, "seed {}", self.seed);
        self.check(id).await;
    }

    /// What is done to all that pass a filter.
    async fn many(&mut self) {
        let states = match self.random.below(6) {
            0 => vec![StateFilter::Queued],
            1 => vec![StateFilter::Scheduled],
            2 => vec![StateFilter::Running],
            3 => vec![StateFilter::Running, StateFilter::Scheduled],
            4 => Vec::new(),
            _ => {
                let ending = *self.random.pick(&Ending::ALL).unwrap();
                let filter = Filter { tags: vec![self.tag()], states: vec![StateFilter::Ended(ending)], ..Filter::default() };
                let requeued = self.store().requeue_page(&filter, None, None, usize::MAX).await.unwrap().done;
                let mut expected = self.model.ids();
                expected.retain(|id| matches!(self.model.life(*id), Life::Ended(seen) if seen == ending));
                expected.retain(|id| self.model.requeue(*id, self.place.clock().now()));
                assert_eq!(requeued, expected, "seed {}", self.seed);
                return;
            }
        };
        let filter = Filter { tags: vec![self.tag()], states, ..Filter::default() };
        let done = self.store().cancel_page(&filter, None).await.unwrap().done;
        let (ended, stopping) = self.model.cancel_all(&filter.states);
        assert_eq!((done.ended, done.stopping), (ended, stopping), "seed {}", self.seed);
    }

    /// Goes down, well or badly, and comes back.
    async fn reopen(&mut self) {
        if self.random.below(3) == 0 {
            self.store().close().await;
            self.model.close();
        } else {
            self.model.crash(self.clock().now());
        }
        drop(self.store.take());
        self.store = Some(self.place.open().await);
        self.pass(Duration::from_millis(1)).await;
    }

    async fn pass_time(&mut self) {
        let by = self.random.millis(60_000);
        self.pass(by).await;
    }

    async fn pass(&mut self, by: Duration) {
        self.clock().advance(by);
        self.store().check().await.unwrap();
        self.model.tick(self.clock().now());
    }

    /// Whether the store says of a job what the model says.
    async fn check(&self, id: JobId) {
        let job = self.store().job(id).await.unwrap().unwrap_or_else(|| panic!("seed {}: {id} is gone", self.seed));
        let stopping = matches!(job.state, State::Running { stopping: true, .. });
        let seen = (job.state.as_str(), stopping, job.attempt, job.losses);
        assert_eq!(seen, self.model.seen(id), "seed {}: {id}", self.seed);
    }

    async fn check_all(&self) {
        for id in self.model.ids() {
            self.check(id).await;
        }
        let depth = self.store().depth(self.queue);
        assert_eq!((depth.queued, depth.scheduled, depth.running), self.model.depth(), "seed {}", self.seed);
    }

    /// Leaves nothing behind that is not finished.
    async fn end(self) -> Arc<dyn Store> {
        let filter = Filter { tags: vec![self.tag()], ..Filter::default() };
        for lease in self.store().cancel_page(&filter, None).await.unwrap().done.stopping {
            settle(self.store(), lease, Settlement::Release { begun: true }).await.unwrap();
        }
        let idle = self.store().depth(self.queue);
        assert_eq!(idle, trine::store::Depth::default(), "seed {}", self.seed);
        self.store.unwrap()
    }
}
