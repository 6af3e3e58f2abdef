//! A number of tasks on one executor, so many at once; and a bystander beside them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};

use crate::clock::{Monotonic, micros};
use crate::executor::{Attempt, Executors, Measured, Slot, Stack};
use crate::job::{Outcome, Queue, Spec, Timing};
use crate::workload::{Stop, StopReason};

/// How often the bystander wants something.
const PACE: Duration = Duration::from_millis(10);
/// How many of its wishes may be open; on an event loop that is held for longer, the rest would tell nothing new.
pub(super) const MOST_OPEN: usize = 500;
/// How long to wait for what was told to stop, and for the bystander's last wishes. On an event loop that a job holds they do not end; they
/// are left, and do when it is free.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// Where tasks go.
#[derive(Clone)]
pub(super) struct Place {
    stack: Stack,
    home: Handle,
    slots: usize,
}

/// What one task has shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// From asking until the answer, the wait for a slot included.
    pub(super) latency_us: u64,
    /// The way there and back, without the work itself.
    pub(super) handover_us: u64,
    pub(super) timing: Timing,
}

/// What a number of tasks have shown.
#[derive(Clone, Debug, Default)]
pub(super) struct Batch {
    /// From the first task until the last.
    pub(super) elapsed: Duration,
    /// Of those that ended well.
    pub(super) samples: Vec<Sample>,
    pub(super) failures: u32,
    /// Why one of them failed.
    pub(super) failure: Option<String>,
    /// Of one that had no more time, how long nobody else kept it from running, in microseconds: 0 where that is not known.
    pub(super) late_us: Option<u64>,
    /// How long the bystander's short waits took.
    pub(super) bystanders: Vec<u64>,
    /// What the processes that served it hold in memory, and how many they are.
    pub(super) runners: (Option<u64>, u32),
}

impl Place {
    /// Where the tasks of a queue go.
    pub(super) fn of(executors: &Executors, queue: Queue) -> Self {
        Self { stack: executors.stack(queue), home: executors.home(queue).clone(), slots: executors.slots(queue) }
    }

    /// A stack whose tasks run on this runtime, so many at once. Must be called on a tokio runtime.
    pub(super) fn inline(stack: Stack, slots: usize) -> Self {
        Self { stack, home: Handle::current(), slots }
    }

    /// Where tasks of a queue go, so that one of them runs at a time.
    pub(super) fn one_at_a_time(executors: &Executors, queue: Queue) -> Self {
        Self { slots: 1, ..Self::of(executors, queue) }
    }

    /// How many tasks run at once.
    pub(super) const fn slots(&self) -> usize {
        self.slots
    }

    /// Runs one task and waits for it; for one that is told to stop no longer than it should take to.
    async fn run(&self, spec: &Spec, deadline: Option<Duration>, stop: &Stop, slot: Slot) -> Option<Measured> {
        // A stop of its own: that it has run for too long is said to this one alone.
        let own = Stop::default();
        // Its files would be of no job; and keeping them is no part of the work.
        let attempt = Attempt { deadline, stop: own.clone(), slot, ..Attempt::alone(spec.clone()) };
        let mut stack = self.stack.clone();
        let mut running = self.home.spawn(async move {
            match stack.ready().await {
                Ok(ready) => ready.call(attempt).await.ok(),
                Err(never) => match never {},
            }
        });
        // It ends early only if the runtime does.
        tokio::select! {
            measured = &mut running => return measured.ok().flatten(),
            reason = stop.stopped() => own.stop(reason),
        }
        tokio::time::timeout(LAST_WAIT, running).await.ok()?.ok().flatten()
    }
}

impl Batch {
    /// How long a task took from one end of the batch to the other, in microseconds.
    pub(super) fn per_task_us(&self) -> Option<f64> {
        self.shared(self.elapsed.as_secs_f64() * 1e6)
    }

    /// How long a task takes if nothing but the work itself is done, one after the other, in microseconds.
    pub(super) fn serial_us(&self) -> Option<f64> {
        // A duration is cut to whole microseconds, so it is half of one too short on average.
        #[expect(clippy::cast_precision_loss, reason = "microseconds stay far below 2^53")]
        let walls: f64 = self.samples.iter().map(|sample| sample.timing.wall_us as f64 + 0.5).sum();
        self.shared(walls)
    }

    fn shared(&self, us: f64) -> Option<f64> {
        let tasks = u32::try_from(self.samples.len()).ok().filter(|tasks| *tasks > 0)?;
        // What fails ends sooner or later than what does not: its share of the time is not the others'.
        (self.failures * 10 <= tasks).then(|| us / f64::from(tasks))
    }
}

/// Runs `tasks` of them, up to `concurrency` under way at once.
pub(super) async fn run(place: &Place, spec: &Arc<Spec>, tasks: u32, concurrency: u32, deadline: Duration, stop: &Stop) -> Batch {
    let (next, slots) = (Arc::new(AtomicU32::new(0)), Arc::new(Semaphore::new(place.slots)));
    let client = || {
        let (place, spec, stop) = (place.clone(), Arc::clone(spec), stop.clone());
        let (next, slots) = (Arc::clone(&next), Arc::clone(&slots));
        tokio::spawn(async move {
            let mut own = Batch::default();
            while next.fetch_add(1, Ordering::Relaxed) < tasks && !stop.is_stopped() {
                let asked = Monotonic::now();
                // What has not stopped keeps its slot: there may be none any more.
                let permit = tokio::select! {
                    permit = Arc::clone(&slots).acquire_owned() => permit.ok(),
                    _ = stop.stopped() => break,
                };
                let slot = Slot { permit, place: None };
                let began = Monotonic::now();
                let measured = place.run(&spec, Some(deadline), &stop, slot).await;
                own.take(measured, asked, began);
            }
            own
        })
    };
    let began = Monotonic::now();
    let clients: Vec<_> = (0..concurrency.min(tasks)).map(|_| client()).collect();
    let batches = join_all(clients).await;
    let mut all = Batch { elapsed: began.elapsed(), ..Batch::default() };
    for batch in batches.into_iter().flatten() {
        all.samples.extend(batch.samples);
        all.failures += batch.failures;
        all.failure = all.failure.or(batch.failure);
        all.late_us = all.late_us.max(batch.late_us);
    }
    all
}

impl Batch {
    fn take(&mut self, measured: Option<Measured>, asked: Monotonic, began: Monotonic) {
        let now = Monotonic::now();
        match measured {
            Some(Measured { outcome: Outcome::Output(_), timing: Some(timing), .. }) => {
                let handover_us = micros(now.since(began)).saturating_sub(timing.wall_us);
                self.samples.push(Sample { latency_us: micros(now.since(asked)), handover_us, timing });
            }
            Some(Measured { outcome: Outcome::Error(failure), stopped, timing, .. }) => {
                self.failures += 1;
                self.failure.get_or_insert_with(|| failure.to_string());
                if stopped == Some(StopReason::Deadline) {
                    let own = timing.filter(|timing| timing.core_wait_us.is_some()).map_or(0, |timing| timing.own_us());
                    self.late_us = self.late_us.max(Some(own));
                }
            }
            Some(Measured { outcome: Outcome::Output(_), .. }) | None => self.failures += 1,
        }
    }
}

/// Wants something short at a steady pace until it is told to end; how long each wish took, from when it should have begun. One that is not
/// fulfilled soon after the end, or when all of it is to stop, has taken until then.
pub(super) async fn bystand(place: Place, spec: Spec, room: Arc<Semaphore>, end: CancellationToken, stop: Stop) -> Vec<u64> {
    let (mut open, mut took) = (JoinSet::new(), Vec::new());
    let mut pace = interval_at(tokio::time::Instant::now() + PACE / 2, PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = end.cancelled() => break,
            _ = pace.tick() => {}
        }
        if let Ok(permit) = Arc::clone(&room).try_acquire_owned() {
            let (place, spec, end, stop) = (place.clone(), spec.clone(), end.clone(), stop.clone());
            let wanted = Monotonic::now();
            open.spawn(async move {
                // It is not told to stop itself: a Python host whose loop is held would be killed, and the job with it that holds it.
                let (own, slot) = (Stop::default(), Slot { permit: Some(permit), place: None });
                let counts = tokio::select! {
                    measured = place.run(&spec, None, &own, slot) => measured?.outcome.is_success(),
                    () = async { end.cancelled().await; tokio::time::sleep(LAST_WAIT).await } => true,
                    _ = stop.stopped() => true,
                };
                counts.then(|| micros(wanted.elapsed()))
            });
        }
        while let Some(ended) = open.try_join_next() {
            took.extend(ended.ok().flatten());
        }
    }
    took.extend(open.join_all().await.into_iter().flatten());
    took
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::{DeadlineLayer, MeasureLayer, Ran};
    use crate::job::Failure;
    use serde_json::value::RawValue;
    use std::convert::Infallible;
    use tokio::sync::Notify;
    use tower::{ServiceBuilder, service_fn};

    /// Two at once, of which none ends before it is told to.
    fn endless() -> Place {
        let executor = service_fn(|attempt: Attempt| {
            Box::pin(async move {
                attempt.stop.stopped().await;
                Ok::<_, Infallible>(Ran::failed(Failure::error("stopped")))
            })
        });
        let layers = ServiceBuilder::new().layer(MeasureLayer).layer(DeadlineLayer::new(Duration::from_secs(60)));
        Place::inline(Stack::new(layers.service(executor)), 2)
    }

    fn spec() -> Spec {
        Spec { kind: "endless".into(), json: RawValue::from_string("{}".into()).unwrap() }
    }

    #[tokio::test]
    async fn one_that_runs_too_long_fails_and_the_others_are_run() {
        let stop = Stop::default();
        let batch = run(&endless(), &Arc::new(spec()), 4, 2, Duration::from_millis(10), &stop).await;
        assert_eq!((batch.failures, stop.reason()), (4, None));
        assert!(batch.failure.unwrap().contains("longer than its deadline"));
    }

    /// One at a time, which does not listen, once it has begun.
    fn deaf(begun: Arc<Notify>) -> Place {
        let executor = service_fn(move |attempt: Attempt| {
            begun.notify_one();
            Box::pin(async move {
                let _held = attempt;
                std::future::pending::<Result<Ran, Infallible>>().await
            })
        });
        Place::inline(Stack::new(ServiceBuilder::new().layer(MeasureLayer).service(executor)), 1)
    }

    #[tokio::test]
    async fn what_does_not_listen_is_left() {
        let (begun, room) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(3)));
        let (end, stop) = (CancellationToken::new(), Stop::default());
        let bystander = bystand(deaf(Arc::default()), spec(), Arc::clone(&room), end.clone(), stop.clone());
        let bystander = tokio::spawn(bystander);
        while room.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        // The second task waits for the slot of the first one.
        let (place, spec) = (deaf(Arc::clone(&begun)), Arc::new(spec()));
        let tasks = run(&place, &spec, 4, 2, Duration::from_secs(60), &stop);
        let (batch, ()) = tokio::join!(tasks, async {
            begun.notified().await;
            end.cancel();
            stop.stop(StopReason::Cancelled);
        });
        assert!(batch.samples.is_empty());
        assert_eq!(bystander.await.unwrap().len(), 3, "each has taken at least so long");
    }

    #[tokio::test]
    async fn a_task_hears_that_all_of_it_is_to_stop() {
        let (place, spec, stop) = (endless(), spec(), Stop::default());
        let running = place.run(&spec, None, &stop, Slot::default());
        let (measured, ()) = tokio::join!(running, async { stop.stop(StopReason::HandBack) });
        assert_eq!(measured.unwrap().stopped, Some(StopReason::HandBack));
    }
}
