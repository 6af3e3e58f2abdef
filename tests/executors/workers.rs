//! Worker processes: kept warm, replaced, and no harm to others when they die.

use std::collections::HashSet;
use std::time::Duration;

use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use trine::job::{Executor, FailureKind, Queue};
use trine::workload::{Stop, StopReason};

use crate::{failure, output, patience, trial};

pub(crate) async fn until(done: &(dyn Fn() -> bool + Sync)) {
    patience::until("what the test waits for", async || done().then_some(())).await;
}

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
                let busy = async || bench.executors.workers(Queue::Processes).into_iter().find(|worker| worker.busy);
                let pid = patience::until("a worker is busy", busy).await.pid;
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
        trial("a_worker_that_does_not_even_read_its_job_is_killed", |bench| async move {
            let workers = || bench.executors.workers(Queue::Processes);
            until(&|| workers().len() == 2).await;
            for worker in workers() {
                kill(Pid::from_raw(worker.pid.try_into().unwrap()), Signal::SIGSTOP).unwrap();
            }
            let stop = Stop::default();
            // More than goes into a socket.
            let job = json!({"type": "panics", "message": "x".repeat(4 << 20)});
            let (measured, ()) = tokio::join!(bench.run_with(Executor::Processes, job, None, stop.clone()), async {
                until(&|| workers().iter().any(|worker| worker.busy)).await;
                stop.stop(StopReason::Cancelled);
            });
            assert_eq!(failure(&measured).kind, FailureKind::Cancelled);
            assert!(workers().iter().all(|worker| !worker.busy), "its place is another's");
        }),
        trial("a_python_host_starts_though_every_job_has_less_time_than_that_takes", |bench| async move {
            let bench = bench.with_python().await;
            // Nobody else wants a host with the network, which is started when it is first wanted.
            let job = json!({"type": "python", "source": "async def main():\n    return 7\n", "network": true});
            let deadline = Some(Duration::from_millis(1));
            // Beside the usual one, or in place of one of the two usual ones.
            for (queue, usual) in [(Queue::PythonAsync, 1), (Queue::PythonProcesses, 2)] {
                let pids = || bench.executors.workers(queue).into_iter().map(|worker| worker.pid).collect::<HashSet<_>>();
                until(&|| pids().len() == usual).await;
                let before = pids();
                let measured = bench.run_on(queue, job.clone(), deadline, Stop::default()).await;
                assert_eq!(failure(&measured).kind, FailureKind::Timeout);
                until(&|| !pids().is_subset(&before)).await;
                assert_eq!(output(&bench.run_on(queue, job.clone(), None, Stop::default()).await), json!(7));
            }
        }),
        trial("workers_are_started_ahead_of_need", |bench| async move {
            let workers = || bench.executors.workers(Queue::Processes);
            until(&|| workers().len() >= bench.executors.slots(Queue::Processes)).await;
            let pids: HashSet<_> = workers().iter().map(|worker| worker.pid).collect();
            let pid = output(&bench.run(Executor::Processes, json!({"type": "pid"})).await).as_u64().unwrap();
            assert!(pids.contains(&u32::try_from(pid).unwrap()));
            assert!(!bench.executors.can_not_start());
        }),
    ]
}
