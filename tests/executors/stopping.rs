//! Deadlines and cancellation, on work that listens and on work that does not.

use std::path::{Path, PathBuf};
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use trine::job::{Executor, FailureKind, Queue, Runtime};
use trine::workload::{Stop, StopReason};

use crate::{Bench, PATIENCE, failure, output, trial};

/// A primes count that takes minutes, but listens.
fn long() -> Value {
    json!({"type": "primes", "below": 200_000_000})
}

/// Waits until somebody has made this file.
async fn made(path: &Path) {
    let looked = async {
        while !path.exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, looked).await.expect("the work to begin");
}

struct Deaf {
    until: PathBuf,
    began: PathBuf,
}

impl Deaf {
    fn new(bench: &Bench) -> Self {
        Self { until: bench.folder.path().join("until"), began: bench.folder.path().join("began") }
    }

    fn workload(&self) -> Value {
        json!({"type": "deaf", "until": self.until, "began": self.began})
    }
}

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_deadline_ends_work_that_listens", |bench| async move {
            for (queue, workload) in [
                (Queue::Async, json!({"type": "sleep", "ms": 600_000})),
                (Queue::ThreadsIo, json!({"type": "sleep", "ms": 600_000})),
                (Queue::ThreadsCpu, long()),
                (Queue::Processes, long()),
            ] {
                let deadline = Some(Duration::from_millis(50));
                let measured = bench.run_on(queue, workload, deadline, Stop::default()).await;
                assert_eq!(failure(&measured).kind, FailureKind::Timeout, "{queue}");
                assert!(failure(&measured).message.contains("50 ms"), "{queue}");
                assert_eq!(measured.stopped, Some(StopReason::Deadline), "{queue}");
                // The way to a busy worker is a part of that time.
                let enough = measured.timing.is_some_and(|timing| timing.dispatch_us + timing.wall_us >= 20_000);
                assert!(enough, "{queue}: {:?}", measured.timing);
            }
        }),
        trial("a_deadline_inline_counts_from_when_the_thread_comes_to_it", |bench| async move {
            let inline = bench.executors.inline().unwrap();
            let run = || {
                let attempt = trine::executor::Attempt {
                    job: trine::job::JobId::new(),
                    number: 1,
                    reporter: trine::workload::Reporter::default(),
                    workload: crate::spec(&json!({"type": "sleep", "ms": 600_000})),
                    deadline: Some(Duration::from_millis(50)),
                    queued_for: Duration::ZERO,
                    claimed: trine::clock::Monotonic::now(),
                    stop: Stop::default(),
                    slot: trine::executor::Slot::default(),
                };
                tower::Service::call(&mut inline.clone(), attempt)
            };
            let (first, second) = tokio::join!(run(), run());
            for measured in [first.unwrap(), second.unwrap()] {
                assert_eq!(failure(&measured).kind, FailureKind::Timeout);
                assert!(measured.timing.is_some_and(|timing| timing.wall_us >= 45_000), "{:?}", measured.timing);
            }
        }),
        trial("a_cancelled_attempt_ends_as_cancelled", |bench| async move {
            for queue in Queue::of(Runtime::Native) {
                let stop = Stop::default();
                stop.stop(StopReason::Cancelled);
                // A second reason does not replace the first.
                stop.stop(StopReason::Deadline);
                let workload = if queue == Queue::ThreadsCpu { long() } else { json!({"type": "sleep", "ms": 600_000}) };
                let measured = bench.run_on(queue, workload, None, stop).await;
                assert_eq!(failure(&measured).kind, FailureKind::Cancelled, "{queue}");
            }
        }),
        trial("a_result_that_comes_in_time_counts_though_a_stop_was_asked_for", |bench| async move {
            let stop = Stop::default();
            stop.stop(StopReason::Cancelled);
            let measured = bench.run_with(Executor::Threads, json!({"type": "nap", "ms": 1}), None, stop).await;
            assert_eq!((output(&measured), measured.stopped), (json!(1), None));
        }),
        trial("a_thread_that_does_not_listen_is_left_behind_and_keeps_its_slot", |bench| async move {
            let deaf = Deaf::new(&bench);
            let slots = std::sync::Arc::new(tokio::sync::Semaphore::new(1));
            let attempt = trine::executor::Attempt {
                job: trine::job::JobId::new(),
                number: 1,
                reporter: trine::workload::Reporter::default(),
                workload: crate::spec(&deaf.workload()),
                deadline: Some(Duration::from_millis(20)),
                queued_for: Duration::ZERO,
                claimed: trine::clock::Monotonic::now(),
                stop: Stop::default(),
                slot: trine::executor::Slot { permit: slots.clone().try_acquire_owned().ok(), place: None },
            };
            let mut stack = bench.executors.stack(Queue::ThreadsCpu);
            let measured = tower::Service::call(&mut stack, attempt).await.unwrap();
            assert_eq!(failure(&measured).kind, FailureKind::Timeout);
            assert!(measured.timing.is_none(), "what was left behind was not measured");
            assert_eq!(slots.available_permits(), 0, "the thread is not free");
            std::fs::write(&deaf.until, "").unwrap();
            let free = tokio::time::timeout(PATIENCE, slots.acquire()).await;
            assert!(free.is_ok(), "the slot comes back with the thread");
        }),
        trial("a_process_that_does_not_listen_is_killed", |bench| async move {
            let deaf = Deaf::new(&bench);
            let stop = Stop::default();
            let (measured, ()) = tokio::join!(bench.run_with(Executor::Processes, deaf.workload(), None, stop.clone()), async {
                made(&deaf.began).await;
                stop.stop(StopReason::Cancelled);
            });
            assert_eq!(failure(&measured).kind, FailureKind::Cancelled);
            let next = bench.run(Executor::Processes, json!({"type": "primes", "below": 100})).await;
            assert_eq!(output(&next), json!({"count": 25}));
        }),
    ]
}
