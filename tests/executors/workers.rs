//! Worker processes: kept warm, replaced, and no harm to others when they die.

use std::collections::HashSet;

use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use trine::job::{Executor, FailureKind, Queue};

use crate::{PATIENCE, failure, output, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("workers_are_warm_and_replaced_after_their_number", |bench| async move {
            let mut jobs_of = std::collections::HashMap::new();
            for _ in 0..12 {
                let pid = output(&bench.run(Executor::Processes, json!({"type": "pid"})).await).as_u64().unwrap();
                assert_ne!(pid, u64::from(std::process::id()));
                *jobs_of.entry(pid).or_insert(0) += 1;
            }
            assert!(jobs_of.values().all(|jobs| *jobs <= 3), "{jobs_of:?}");
            assert!(jobs_of.values().any(|jobs| *jobs > 1), "no worker was used twice: {jobs_of:?}");
        }),
        trial("a_worker_that_dies_loses_its_own_job_only", |bench| async move {
            for (how, said) in [("exit", "exit status 7"), ("abort", "SIGABRT")] {
                let (lost, fine) = tokio::join!(
                    bench.run(Executor::Processes, json!({"type": "dies", "how": how})),
                    bench.run(Executor::Processes, json!({"type": "primes", "below": 50_000})),
                );
                assert_eq!(failure(&lost).kind, FailureKind::Lost);
                assert!(failure(&lost).message.contains(said), "{}", failure(&lost).message);
                assert_eq!(output(&fine), json!({"count": 5_133}));
            }
        }),
        trial("a_worker_that_is_killed_in_mid_job_is_named_and_replaced", |bench| async move {
            let napping = bench.run(Executor::Processes, json!({"type": "nap", "ms": 600_000}));
            let killing = async {
                let busy = async {
                    loop {
                        if let Some(worker) = bench.executors.workers(Queue::Processes).into_iter().find(|worker| worker.busy) {
                            break worker.pid;
                        }
                        tokio::task::yield_now().await;
                    }
                };
                let pid = tokio::time::timeout(PATIENCE, busy).await.expect("a busy worker");
                kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGKILL).unwrap();
                pid
            };
            let (measured, pid) = tokio::join!(napping, killing);
            let failure = failure(&measured);
            assert_eq!(failure.kind, FailureKind::Lost);
            assert!(failure.message.contains(&pid.to_string()) && failure.message.contains("SIGKILL"), "{}", failure.message);
            let next = output(&bench.run(Executor::Processes, json!({"type": "pid"})).await);
            assert_ne!(next.as_u64(), Some(pid.into()));
        }),
        trial("workers_are_started_ahead_of_need", |bench| async move {
            let warm = async {
                while bench.executors.workers(Queue::Processes).len() < bench.executors.slots(Queue::Processes) {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(PATIENCE, warm).await.expect("idle workers");
            let pids: HashSet<_> = bench.executors.workers(Queue::Processes).iter().map(|worker| worker.pid).collect();
            let pid = output(&bench.run(Executor::Processes, json!({"type": "pid"})).await).as_u64().unwrap();
            assert!(pids.contains(&u32::try_from(pid).unwrap()));
            assert!(bench.executors.trouble().is_none());
        }),
    ]
}
