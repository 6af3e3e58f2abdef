//! Deadlines and cancellation, on work that listens and on work that does not.

use std::path::{Path, PathBuf};
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use trine::executor::{Attempt, Slot};
use trine::job::{Executor, FailureKind, Queue, Runtime};
use trine::workload::{Stop, StopReason};

use crate::workers::until;
use crate::{Bench, PATIENCE, failure, output, spec, trial};

/// A primes count that takes minutes, but listens.
fn long() -> Value {
    json!({"type": "primes", "below": 200_000_000})
}

/// Waits until somebody has made this file.
async fn made(path: &Path) {
    until(&|| path.exists()).await;
}

/// Work that does not listen, and ends when there is a file.
struct Deaf {
    until: PathBuf,
    began: PathBuf,
}

impl Deaf {
    fn new(bench: &Bench) -> Self {
        Self::named(bench, "")
    }

    fn named(bench: &Bench, name: &str) -> Self {
        let path = |what| bench.folder.path().join(format!("{what}{name}"));
        Self { until: path("until"), began: path("began") }
    }

    fn end(&self) {
        std::fs::write(&self.until, "").unwrap();
    }

    fn workload(&self) -> Value {
        json!({"type": "deaf", "until": self.until, "began": self.began})
    }
}

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_deadline_ends_work_that_listens", |bench| async move {
            // On the way to a worker that has yet to start, the time would be over.
            until(&|| bench.executors.workers(Queue::Processes).len() == 2).await;
            for (queue, workload) in [
                (Queue::Async, json!({"type": "sleep", "ms": 600_000})),
                (Queue::ThreadsIo, json!({"type": "sleep", "ms": 600_000})),
                (Queue::ThreadsCpu, long()),
                (Queue::Processes, long()),
            ] {
                let deadline = Some(Duration::from_millis(300));
                let measured = bench.run_on(queue, workload, deadline, Stop::default()).await;
                assert_eq!(failure(&measured).kind, FailureKind::Timeout, "{queue}");
                assert!(failure(&measured).message.contains("300 ms"), "{queue}");
                assert_eq!(measured.stopped, Some(StopReason::Deadline), "{queue}");
                // The way to a busy worker is a part of that time.
                let enough = measured.timing.is_some_and(|timing| timing.dispatch_us + timing.wall_us >= 120_000);
                assert!(enough, "{queue}: {:?}", measured.timing);
            }
        }),
        trial("a_deadline_inline_counts_from_when_the_thread_comes_to_it", |bench| async move {
            let inline = bench.executors.inline().unwrap();
            let run = || {
                let sleep = Attempt::alone(spec(&json!({"type": "sleep", "ms": 600_000})));
                let attempt = Attempt { deadline: Some(Duration::from_millis(50)), ..sleep };
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
            let (stop, deaf) = (Stop::default(), Deaf::new(&bench));
            let (measured, ()) = tokio::join!(bench.run_with(Executor::Threads, deaf.workload(), None, stop.clone()), async {
                made(&deaf.began).await;
                stop.stop(StopReason::Cancelled);
                deaf.end();
            });
            assert_eq!((output(&measured), measured.stopped), (json!(null), None));
        }),
        trial("a_thread_that_does_not_listen_is_left_behind_and_keeps_its_slot", |bench| async move {
            let deaf = Deaf::new(&bench);
            let slots = std::sync::Arc::new(tokio::sync::Semaphore::new(1));
            let slot = Slot { permit: slots.clone().try_acquire_owned().ok(), place: None };
            let deadline = Some(Duration::from_millis(20));
            let attempt = Attempt { deadline, slot, ..Attempt::alone(spec(&deaf.workload())) };
            let mut stack = bench.executors.stack(Queue::ThreadsCpu);
            let measured = tower::Service::call(&mut stack, attempt).await.unwrap();
            assert_eq!(failure(&measured).kind, FailureKind::Timeout);
            assert!(measured.timing.is_none(), "what was left behind was not measured");
            assert_eq!(slots.available_permits(), 0, "the thread is not free");
            deaf.end();
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

/// Of work that holds the event loop.
pub(crate) fn trials_on_the_loop() -> Vec<Trial> {
    vec![trial("work_that_holds_the_event_loop_has_a_deadline_all_the_same", |bench| async move {
        let deadline = Some(Duration::from_millis(50));
        // One looks at the clock, the other is told of nothing.
        for workload in [long(), json!({"type": "nap", "ms": 1_000})] {
            let measured = bench.run_on(Queue::Async, workload, deadline, Stop::default()).await;
            assert_eq!((failure(&measured).kind, measured.stopped), (FailureKind::Timeout, Some(StopReason::Deadline)));
            assert_eq!(measured.timing.map(|timing| timing.polls), Some(Some(1)), "its figures are known");
        }
        // In time, by the grace that there is: the longest of such a job.
        let (nap, deadline) = (json!({"type": "nap", "ms": 60}), Some(Duration::from_secs(5)));
        let measured = bench.run_on(Queue::Async, nap, deadline, Stop::default()).await;
        assert_eq!((output(&measured), measured.stopped), (json!(60), None));
    })]
}

/// Of attempts in the line before the threads.
pub(crate) fn trials_in_line() -> Vec<Trial> {
    vec![
        trial("a_deadline_does_not_count_what_an_attempt_waits_in_the_line_of_threads", |bench| async move {
            let busy = [Deaf::named(&bench, "1"), Deaf::named(&bench, "2")];
            let run = |workload, deadline| bench.run_on(Queue::ThreadsCpu, workload, deadline, Stop::default());
            let third = async {
                made(&busy[0].began).await;
                made(&busy[1].began).await;
                let deadline = Duration::from_millis(50);
                let run = run(json!({"type": "primes", "below": 100}), Some(deadline));
                let end = async {
                    tokio::time::sleep(2 * deadline).await;
                    busy.iter().for_each(Deaf::end);
                };
                tokio::join!(run, end).0
            };
            let (_, _, measured) = tokio::join!(run(busy[0].workload(), None), run(busy[1].workload(), None), third);
            assert_eq!(output(&measured), json!({"count": 25}));
        }),
        trial("an_attempt_in_the_line_of_threads_that_is_to_stop_leaves_it", |bench| async move {
            let busy = [Deaf::named(&bench, "1"), Deaf::named(&bench, "2")];
            let run = |workload| bench.run_on(Queue::ThreadsCpu, workload, None, Stop::default());
            let third = async {
                made(&busy[0].began).await;
                made(&busy[1].began).await;
                let (stop, slots) = (Stop::default(), std::sync::Arc::new(tokio::sync::Semaphore::new(1)));
                let slot = Slot { permit: slots.clone().try_acquire_owned().ok(), place: None };
                let attempt = Attempt { stop: stop.clone(), slot, ..Attempt::alone(spec(&long())) };
                let running = tower::Service::call(&mut bench.executors.stack(Queue::ThreadsCpu), attempt);
                stop.stop(StopReason::Cancelled);
                let measured = running.await.unwrap();
                assert_eq!(slots.available_permits(), 1, "its slot is free at once");
                busy.iter().for_each(Deaf::end);
                measured
            };
            let (_, _, measured) = tokio::join!(run(busy[0].workload()), run(busy[1].workload()), third);
            assert_eq!((failure(&measured).kind, measured.stopped), (FailureKind::Cancelled, Some(StopReason::Cancelled)));
            assert!(measured.timing.is_none(), "it never began");
        }),
    ]
}
