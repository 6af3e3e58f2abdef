//! The figures, against work of known cost. Lower bounds are exact; upper ones leave room for a busy machine.

use libtest_mimic::Trial;
use serde_json::json;
use trine::job::{Executor, Observed, Queue, Runtime, Timing};
use trine::workload::Stop;

use crate::{Bench, output, trial};

async fn timing(bench: &Bench, queue: Queue, workload: serde_json::Value) -> Timing {
    let measured = bench.run_on(queue, workload, None, Stop::default()).await;
    output(&measured);
    measured.timing.unwrap()
}

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("cpu_time_of_a_spin_is_found_on_every_executor", |bench| async move {
            for queue in Queue::of(Runtime::Native) {
                let timing = timing(&bench, queue, json!({"type": "spin", "cpu_ms": 200})).await;
                let cpu = timing.cpu_us().unwrap();
                // The spin stops at the first look at the clock after 200 ms; a worker process also counts its own bookkeeping.
                assert!((199_990..215_000).contains(&cpu), "{queue}: {timing:?}");
                assert!(timing.wall_us >= 199_000, "{queue}: {timing:?}");
                assert_eq!(timing.queue_us, 17);
            }
        }),
        trial("a_sleep_costs_wall_time_only", |bench| async move {
            for queue in Queue::of(Runtime::Native) {
                let timing = timing(&bench, queue, json!({"type": "sleep", "ms": 200})).await;
                assert!(timing.wall_us >= 200_000, "{queue}: {timing:?}");
                assert!(timing.cpu_us().unwrap() < 20_000, "{queue}: {timing:?}");
                assert_eq!(timing.observed(), Some(Observed::Io), "{queue}");
                assert!(timing.ctx_voluntary.is_some(), "{queue}");
            }
        }),
        trial("holding_the_loop_shows_in_the_longest_poll", |bench| async move {
            let timing = timing(&bench, Queue::Async, json!({"type": "hold", "hold_ms": 150})).await;
            let (polls, longest) = (timing.polls.unwrap(), timing.longest_poll_us.unwrap());
            assert!(polls >= 3, "{timing:?}");
            assert!(longest >= 150_000 && longest <= timing.wall_us, "{timing:?}");
            assert!(timing.wall_us >= 190_000, "{timing:?}");
        }),
        trial("a_blocking_wait_on_the_loop_holds_it_without_cpu_time", |bench| async move {
            let timing = timing(&bench, Queue::Async, json!({"type": "nap", "ms": 100})).await;
            assert_eq!(timing.polls, Some(1));
            assert!(timing.longest_poll_us.unwrap() >= 100_000, "{timing:?}");
            assert!(timing.cpu_us().unwrap() < 20_000, "{timing:?}");
            assert!(timing.ctx_voluntary.unwrap() >= 1, "{timing:?}");
        }),
        trial("what_an_executor_cannot_measure_is_absent", |bench| async move {
            let nap = json!({"type": "sleep", "ms": 1});
            let on_loop = timing(&bench, Queue::Async, nap.clone()).await;
            let thread = timing(&bench, Queue::ThreadsIo, nap.clone()).await;
            let process = timing(&bench, Queue::Processes, nap).await;
            assert!(on_loop.max_rss_bytes.is_none() && thread.max_rss_bytes.is_none());
            assert!(thread.polls.is_none() && process.longest_poll_us.is_none());
            assert!(process.max_rss_bytes.unwrap() > 1 << 20, "{process:?}");
        }),
        trial("a_neighbour_on_the_loop_is_not_billed", |bench| async move {
            let (spin, sleep) = tokio::join!(
                timing(&bench, Queue::Async, json!({"type": "spin", "cpu_ms": 150})),
                timing(&bench, Queue::Async, json!({"type": "sleep", "ms": 50})),
            );
            assert!(spin.cpu_us().unwrap() >= 149_990, "{spin:?}");
            assert!(sleep.cpu_us().unwrap() < 20_000, "{sleep:?}");
        }),
        trial("the_hop_to_a_process_is_in_the_dispatch_time", |bench| async move {
            let measured = bench.run(Executor::Processes, json!({"type": "sleep", "ms": 0})).await;
            let timing = measured.timing.unwrap();
            assert!(timing.dispatch_us > 0, "{timing:?}");
        }),
        trial("cpu_time_agrees_with_what_is_seen_from_outside", |bench| async move {
            let bench = bench.with_python().await;
            for queue in [
                Queue::Async,
                Queue::ThreadsIo,
                Queue::ThreadsCpu,
                Queue::Processes,
                Queue::PythonAsync,
                Queue::PythonThreads,
                Queue::PythonProcesses,
            ] {
                // What there is to start and to load is so by then.
                let [computes, does_both, waits] = mixed(queue.runtime());
                timing(&bench, queue, computes.clone()).await;
                // What else the machine does can add to what is seen from outside, but not each time.
                let mut tries = Vec::new();
                while tries.last().is_none_or(|(told, seen): &(u64, u64)| told.abs_diff(*seen) * 50 > *seen) {
                    assert!(
                        tries.len() < 3,
                        "{queue}: what the attempts tell of and what is seen from outside, in µs: {tries:?}"
                    );
                    let (mut told, before) = (0, seen_from_outside(&bench, queue));
                    for workload in [[&computes; 5], [&does_both; 5], [&waits; 5]].concat() {
                        told += timing(&bench, queue, workload.clone()).await.cpu_us().unwrap();
                    }
                    tries.push((told, seen_from_outside(&bench, queue) - before));
                }
            }
        }),
    ]
}

/// Work that computes, that does both and that waits: long enough that what an interpreter does around a job, up to 1 ms, counts little.
fn mixed(runtime: Runtime) -> [serde_json::Value; 3] {
    if runtime == Runtime::Native {
        return [
            json!({"type": "spin", "cpu_ms": 200}),
            json!({"type": "turns", "compute_ms": 20, "wait_ms": 5, "times": 5}),
            json!({"type": "sleep", "ms": 20}),
        ];
    }
    let spin = "import time\ndef spin(ms):\n    end = time.thread_time() + ms / 1000\n    while time.thread_time() < end: pass\n";
    let python = |main: &str| json!({ "type": "python", "source": format!("{spin}{main}") });
    [
        python("def main(): spin(200)\n"),
        python("def main():\n    for _ in range(5):\n        spin(20)\n        time.sleep(0.005)\n"),
        python("import asyncio\nasync def main(): await asyncio.sleep(0.02)\n"),
    ]
}

/// The CPU time of the threads that do the work of a queue, by the kernel's account of each, in microseconds.
fn seen_from_outside(bench: &Bench, queue: Queue) -> u64 {
    let name = match queue {
        Queue::Async => "trine-async",
        Queue::ThreadsIo => "trine-threads",
        Queue::ThreadsCpu => "trine-cpu-",
        _ => "",
    };
    let processes: Vec<_> = if name.is_empty() {
        bench.executors.workers(queue).iter().map(|worker| worker.pid).collect()
    } else {
        vec![std::process::id()]
    };
    let threads = processes.iter().flat_map(|pid| std::fs::read_dir(format!("/proc/{pid}/task")).unwrap());
    let nanos = threads.map(|thread| {
        let folder = thread.unwrap().path();
        let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap_or_default();
        let counts = read("comm").starts_with(name);
        let used = read("schedstat").split_ascii_whitespace().next().and_then(|nanos| nanos.parse::<u64>().ok());
        used.filter(|_| counts).unwrap_or(0)
    });
    nanos.sum::<u64>() / 1_000
}
