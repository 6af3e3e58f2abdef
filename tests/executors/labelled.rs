//! A labelled set of workloads: what they turn out to be must be what they are, on an idle machine and on a loaded one.
//!
//! The label follows from how each is made, by the part of its time in which it computes: from 0.85 on it clearly computes, up to
//! 0.15 it clearly waits, and in between it does both. The borders of [`Observed`] were not fitted to these.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use async_trait::async_trait;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use trine::executor::python::{CodeSource, Interpreter, PythonSettings};
use trine::function::Function;
use trine::job::{Bound, Executor, Observed, Queue, Runtime, Timing};
use trine::sandbox::{Limits, Mode, Sandbox};
use trine::workload::Stop;

use crate::{Bench, output, trial};

/// What a workload is by its making.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Label {
    /// It computes in at least 85 of 100 of its time.
    Cpu,
    /// It computes in at most 15 of 100 of its time.
    Io,
    /// Half and half.
    Even,
    /// It computes in 60 of 100 of its time.
    RatherCpu,
    /// It computes in 40 of 100 of its time.
    RatherIo,
}

impl Label {
    /// Clear ones have to be found out; of those that do both, the even ones, and of the others nobody may say that they only do the one
    /// that they do less.
    fn allows(self, observed: Option<Observed>) -> bool {
        match self {
            Self::Cpu => observed == Some(Observed::Cpu),
            Self::Io => observed == Some(Observed::Io),
            Self::Even => observed == Some(Observed::Mixed),
            Self::RatherCpu => matches!(observed, Some(Observed::Mixed | Observed::Cpu)),
            Self::RatherIo => matches!(observed, Some(Observed::Mixed | Observed::Io)),
        }
    }
}

struct Labelled {
    name: &'static str,
    label: Label,
    runtime: Runtime,
    executors: &'static [Executor],
    workload: Value,
}

const ALL: &[Executor] = &Executor::ALL;
const OFF_LOOP: &[Executor] = &[Executor::Threads, Executor::Processes];
const ALONE: &[Executor] = &[Executor::Processes];

fn native(name: &'static str, label: Label, executors: &'static [Executor], workload: Value) -> Labelled {
    Labelled { name, label, runtime: Runtime::Native, executors, workload }
}

fn python(name: &'static str, label: Label, executors: &'static [Executor], body: &str) -> Labelled {
    let workload = json!({ "type": "python", "source": format!("{PRELUDE}{body}") });
    Labelled { name, label, runtime: Runtime::Python, executors, workload }
}

/// `spin` computes until its thread has used so much CPU time.
const PRELUDE: &str = "
import asyncio, hashlib, json, os, threading, time

def spin(ms):
    end = time.thread_time() + ms / 1000
    while time.thread_time() < end: pass

";

/// So many turns of computing and waiting, each so many milliseconds.
fn turns(kind: &str, compute: u64, wait: u64) -> Value {
    json!({ "type": kind, "compute_ms": compute, "wait_ms": wait, "times": 5 })
}

fn set(slow_server: &str) -> Vec<Labelled> {
    use Label::{Cpu, Even, Io, RatherCpu, RatherIo};
    let async_turns = |compute: u32, wait: u32| {
        format!(
            "async def main():\n    for _ in range(5):\n        spin({compute})\n        await asyncio.sleep({wait} / 1000)\n"
        )
    };
    let turns_of = |compute: u32, wait: u32| {
        format!("def main():\n    for _ in range(5):\n        spin({compute})\n        time.sleep({wait} / 1000)\n")
    };
    vec![
        native("spin", Cpu, ALL, json!({ "type": "spin", "cpu_ms": 60 })),
        native("primes", Cpu, ALL, json!({ "type": "primes", "below": 300_000 })),
        native("page faults", Cpu, ALL, json!({ "type": "faults", "mib": 32, "times": 3 })),
        native("yields", Cpu, ALL, json!({ "type": "yields", "compute_ms": 2, "times": 30 })),
        native("two cores", Cpu, ALONE, json!({ "type": "cores", "cpu_ms": 60, "cores": 2 })),
        native("dense bursts", Cpu, ALL, turns("turns", 18, 2)),
        native("dense bursts, awaited", Cpu, ALL, turns("turns_async", 18, 2)),
        native("even bursts", Even, ALL, turns("turns", 10, 10)),
        native("even bursts, awaited", Even, ALL, turns("turns_async", 10, 10)),
        native("rather computing", RatherCpu, ALL, turns("turns", 12, 8)),
        native("rather waiting", RatherIo, ALL, turns("turns_async", 8, 12)),
        native("sparse bursts", Io, ALL, turns("turns", 2, 18)),
        native("sparse bursts, awaited", Io, ALL, turns("turns_async", 2, 18)),
        native("sleep", Io, ALL, json!({ "type": "sleep", "ms": 100 })),
        native("blocking sleep", Io, ALL, json!({ "type": "nap", "ms": 100 })),
        native("blocking reads", Io, ALL, json!({ "type": "reads", "times": 5, "ms": 18 })),
        native("lock held by another", Io, ALL, json!({ "type": "locked", "ms": 100 })),
        native("http", Io, ALL, json!({ "type": "http", "url": slow_server })),
        python("py loop", Cpu, ALL, "def main():\n    spin(60)\n"),
        python("py async that never awaits", Cpu, ALL, "async def main():\n    spin(60)\n"),
        python("py sum", Cpu, ALL, "def main():\n    return sum(i * i for i in range(1_000_000))\n"),
        python(
            "py json",
            Cpu,
            ALL,
            "def main():\n    data = [{'a': i, 'b': str(i)} for i in range(10_000)]\n    for _ in range(4): json.loads(json.dumps(data))\n",
        ),
        python(
            "py two cores",
            Cpu,
            ALONE,
            "def main():\n    def work():\n        for _ in range(3): hashlib.sha256(bytes(32 << 20)).digest()\n    threads = [threading.Thread(target=work) for _ in range(2)]\n    for thread in threads: thread.start()\n    for thread in threads: thread.join()\n",
        ),
        python("py dense bursts", Cpu, ALL, &turns_of(18, 2)),
        python("py dense bursts, awaited", Cpu, ALL, &async_turns(18, 2)),
        python("py even bursts", Even, ALL, &turns_of(10, 10)),
        python("py even bursts, awaited", Even, ALL, &async_turns(10, 10)),
        python("py rather computing", RatherCpu, ALL, &turns_of(12, 8)),
        python("py rather waiting", RatherIo, ALL, &async_turns(8, 12)),
        python("py sparse bursts", Io, OFF_LOOP, &turns_of(2, 18)),
        python("py sparse bursts, awaited", Io, ALL, &async_turns(2, 18)),
        python("py sleep", Io, ALL, "def main():\n    time.sleep(0.1)\n"),
        python("py asyncio.sleep", Io, ALL, "async def main():\n    for _ in range(10): await asyncio.sleep(0.015)\n"),
        python("py gather", Io, ALL, "async def main():\n    await asyncio.gather(*(asyncio.sleep(0.1) for _ in range(50)))\n"),
        python("py to_thread", Io, ALL, "async def main():\n    await asyncio.to_thread(time.sleep, 0.1)\n"),
        python(
            "py blocking reads",
            Io,
            ALL,
            "def main():\n    r, w = os.pipe()\n    def feed():\n        for _ in range(5):\n            time.sleep(0.018)\n            os.write(w, b'x')\n    thread = threading.Thread(target=feed)\n    thread.start()\n    for _ in range(5): os.read(r, 1)\n    thread.join()\n    os.close(r)\n    os.close(w)\n",
        ),
    ]
}

/// Processes that take as much of the machine as they get, as long as this lives.
struct Burners(Vec<Child>);

impl Burners {
    /// Two for each core, so that whoever wants to compute gets a third of one.
    fn light() -> Self {
        let cores = std::thread::available_parallelism().unwrap().get();
        let burn = || {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.arg("burn").stdin(Stdio::piped()).spawn().unwrap()
        };
        Self((0..2 * cores).map(|_| burn()).collect())
    }
}

impl Drop for Burners {
    fn drop(&mut self) {
        for burner in &mut self.0 {
            let _ = burner.kill();
            let _ = burner.wait();
        }
    }
}

/// Computes until it is killed, or whoever started it is gone.
pub(crate) fn burn() -> ! {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    loop {
        std::hint::spin_loop();
    }
}

/// Answers each request after 100 ms.
fn slow_server() -> String {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                std::thread::sleep(std::time::Duration::from_millis(100));
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
            });
        }
    });
    format!("http://{address}/")
}

/// No functions are registered here.
#[derive(Debug)]
struct NoFunctions;

#[async_trait]
impl CodeSource for NoFunctions {
    async fn find(&self, name: &str, _version: Option<&str>) -> Result<Arc<Function>, String> {
        Err(name.into())
    }

    async fn content(&self, _function: &Function) -> Result<Option<Vec<u8>>, String> {
        Ok(None)
    }
}

/// Python as the service runs it.
pub(crate) async fn python_settings(folder: &std::path::Path) -> PythonSettings {
    let interpreter = Interpreter::find("python3".into(), "python3".into()).await.expect("python3 is installed");
    PythonSettings {
        interpreters: vec![interpreter],
        folder: folder.join("python"),
        sandbox: Sandbox::new(env!("CARGO_BIN_EXE_trine").into(), Mode::On).unwrap(),
        limits: Limits::default(),
        async_slots: 8,
        threads: 4,
        processes: 2,
        max_jobs: 1_000,
        functions: Arc::new(NoFunctions),
    }
}

async fn once(bench: &Bench, labelled: &Labelled, executor: Executor) -> Timing {
    let queue: Queue = executor.queue(labelled.runtime, Bound::Cpu);
    let measured = bench.run_on(queue, labelled.workload.clone(), None, Stop::default()).await;
    output(&measured);
    measured.timing.unwrap()
}

/// Runs all of them, each on each of its executors; what is not as it has to be.
async fn wrong(bench: &Bench, set: &[Labelled]) -> Vec<String> {
    let mut wrong = Vec::new();
    for labelled in set {
        for &executor in labelled.executors {
            let timing = once(bench, labelled, executor).await;
            let observed = timing.observed();
            if std::env::var_os("SHOW").is_some() {
                println!(
                    "{:>28} {executor:>9} {:?} {:?} {:?}",
                    labelled.name,
                    labelled.label,
                    timing.demand(),
                    timing.cpu_share()
                );
            }
            // Of what had a core for less than a third of the time, it is no shame not to tell: a twentieth of the rest lies between 0.6 and 0.7.
            let kept = timing.core_wait_us.unwrap_or(0) + timing.loop_wait_us.unwrap_or(0);
            let untold = observed.is_none() && kept > timing.wall_us / 3 * 2;
            if !labelled.label.allows(observed) && !untold {
                wrong.push(format!(
                    "{} ({:?}) on {executor} is taken for {observed:?}: {timing:?}",
                    labelled.name, labelled.label
                ));
            }
        }
    }
    wrong
}

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("work_is_taken_for_what_it_is_by_itself", |bench| async move {
            let bench = bench.with_python().await;
            let set = set(&slow_server());
            assert!(set.len() >= 24);
            let wrong = wrong(&bench, &set).await;
            assert!(wrong.is_empty(), "{wrong:#?}");
        }),
        trial("work_is_taken_for_what_it_is_on_a_loaded_machine", |bench| async move {
            let bench = bench.with_python().await;
            let set = set(&slow_server());
            // Whatever there is to start and to load is so by then.
            for executor in Executor::ALL {
                once(&bench, &python("warm up", Label::Cpu, ALL, "def main(): pass\n"), executor).await;
            }
            let burners = Burners::light();
            let wrong = wrong(&bench, &set).await;
            drop(burners);
            assert!(wrong.is_empty(), "{wrong:#?}");
        }),
    ]
}
