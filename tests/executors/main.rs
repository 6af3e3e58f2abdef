//! The executors, with work whose cost is known. This program is also the worker program of the processes that it tests.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on fails")]

mod labelled;
mod measuring;
#[path = "../patience/mod.rs"]
mod patience;
mod running;
mod stopping;
mod workers;
mod workloads;

use std::process::ExitCode;
use std::time::Duration;

use libtest_mimic::{Arguments, Trial};
use serde_json::Value;
use tower::{Service, ServiceExt};
use trine::artifact::{ArtifactPlace, Artifacts};
use trine::executor::processes::{ProcessSettings, child};
use trine::executor::python::{Interpreter, PythonSettings};
use trine::executor::{Attempt, CommandSettings, ExecutorSettings, Executors, Measured};
use trine::job::{Bound, Executor, Outcome, Queue, Runtime, Spec};
use trine::outbound::{OutboundSettings, Rules};
use trine::sandbox::{Mode, Sandbox};
use trine::workload::{PythonRules, Reporter, Stop, WorkloadSettings};

use crate::patience::PATIENCE;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("worker") {
        return child::main(workloads::registry);
    }
    if std::env::args().nth(1).as_deref() == Some("burn") {
        labelled::burn();
    }
    let mut arguments = Arguments::from_args();
    // One after the other: what is measured here must not be another test's.
    arguments.test_threads.get_or_insert(1);
    let trials = [
        running::trials(),
        labelled::trials(),
        measuring::trials(),
        stopping::trials(),
        stopping::trials_in_line(),
        stopping::trials_on_the_loop(),
        workers::trials(),
    ];
    let trials = trials.into_iter().flatten().collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A test that runs on a set of executors of its own.
fn trial<F: Future<Output = ()>>(name: &'static str, test: impl FnOnce(Bench) -> F + Send + 'static) -> Trial {
    Trial::test(name, move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(async { test(Bench::start()).await });
        runtime.shutdown_background();
        Ok(())
    })
}

/// How long a stopped attempt may take before it is left behind or killed.
const GRACE: Duration = Duration::from_millis(300);

/// All executors, with the test's workloads.
struct Bench {
    executors: Executors,
    folder: tempfile::TempDir,
}

impl Bench {
    fn start() -> Self {
        Self::start_with(tempfile::tempdir().unwrap(), None)
    }

    /// The same with Python, which takes longer to start.
    async fn with_python(self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let python = labelled::python_settings(folder.path()).await;
        Self::start_with(folder, Some(python))
    }

    fn start_with(folder: tempfile::TempDir, python: Option<PythonSettings>) -> Self {
        // Few, so that workers are replaced while a test looks on; or many, so that what they use can be added up.
        let max_jobs = if python.is_some() { 1_000 } else { 3 };
        let rules = |python: &PythonSettings| PythonRules {
            interpreters: python.interpreters.iter().map(Interpreter::rule).collect(),
            network: true,
            ..PythonRules::default()
        };
        let workloads = WorkloadSettings {
            outbound: OutboundSettings {
                rules: Rules { allow: vec!["127.0.0.1/32".parse().unwrap()], ..Rules::default() },
                ..OutboundSettings::default()
            },
            http_max_bytes: 1 << 20,
            workspace: folder.path().join("workspace"),
            python: python.as_ref().map(rules).unwrap_or_default(),
            commands: trine::command::Commands::default(),
        };
        let artifacts = ArtifactPlace::Folder(folder.path().join("artifacts"));
        let settings = ExecutorSettings {
            artifacts: Artifacts::open(&artifacts, "store", 1 << 20).unwrap(),
            async_slots: 64,
            async_threads: 1,
            threads_io: 8,
            threads_cpu: 2,
            stop_grace: GRACE,
            python,
            commands: CommandSettings {
                sandbox: Sandbox::new("/nowhere".into(), Mode::On).unwrap(),
                folder: folder.path().join("commands"),
                slots: 1,
            },
            processes: ProcessSettings { program: std::env::current_exe().unwrap(), size: 2, max_jobs, workloads },
        };
        Self { executors: Executors::start(&settings, workloads::registry).unwrap(), folder }
    }

    /// Runs a workload on an executor to its end.
    async fn run(&self, executor: Executor, workload: Value) -> Measured {
        self.run_with(executor, workload, None, Stop::default()).await
    }

    async fn run_with(&self, executor: Executor, workload: Value, deadline: Option<Duration>, stop: Stop) -> Measured {
        self.run_on(executor.queue(Runtime::Native, Bound::Cpu), workload, deadline, stop).await
    }

    async fn run_on(&self, queue: Queue, workload: Value, deadline: Option<Duration>, stop: Stop) -> Measured {
        self.run_heard(queue, workload, deadline, stop, Reporter::default()).await
    }

    async fn run_heard(
        &self,
        queue: Queue,
        workload: Value,
        deadline: Option<Duration>,
        stop: Stop,
        reporter: Reporter,
    ) -> Measured {
        let queued_for = Duration::from_micros(17);
        let attempt = Attempt { deadline, queued_for, keeps_files: true, stop, reporter, ..Attempt::alone(spec(&workload)) };
        let mut stack = self.executors.stack(queue);
        let running = self.executors.home(queue).spawn(async move { stack.ready().await.unwrap().call(attempt).await.unwrap() });
        tokio::time::timeout(PATIENCE, running).await.expect("the attempt to end").unwrap()
    }
}

fn spec(workload: &Value) -> Spec {
    let kind = workload["type"].as_str().unwrap().to_owned();
    Spec { kind, json: serde_json::value::to_raw_value(workload).unwrap() }
}

/// The output of an attempt that has to have one.
fn output(measured: &Measured) -> Value {
    match &measured.outcome {
        Outcome::Output(output) => serde_json::from_str(output.get()).unwrap(),
        Outcome::Error(failure) => panic!("{failure}"),
    }
}

/// The failure of an attempt that has to have one.
fn failure(measured: &Measured) -> &trine::job::Failure {
    match &measured.outcome {
        Outcome::Error(failure) => failure,
        Outcome::Output(output) => panic!("it ended well: {output}"),
    }
}
