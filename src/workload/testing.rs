//! What the tests of workloads share: a registry on a folder of its own.

use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use serde_json::Value;
use serde_json::value::RawValue;
use tempfile::TempDir;

use super::{
    Context, Environment, InterpreterRule, Invalid, PythonRules, Registry, Reporter, Sink, Stop, Task, Work, WorkloadSettings,
};
use crate::job::{Failure, Note, Spec};
use crate::outbound::{OutboundSettings, Room, Rules};

/// Keeps what it is told, and what outputs take up.
#[derive(Default)]
pub(super) struct Told {
    notes: Mutex<Vec<Note>>,
    rooms: Mutex<Vec<Room>>,
}

impl Told {
    /// The outputs are recorded.
    pub(super) fn record(&self) -> usize {
        std::mem::take(&mut *self.rooms.lock().unwrap()).len()
    }
}

impl Sink for Told {
    fn offer(&self, note: Note) {
        self.notes.lock().unwrap().push(note);
    }

    fn keep(&self, room: Room) {
        self.rooms.lock().unwrap().push(room);
    }

    fn note(&self, note: Note) -> BoxFuture<'_, ()> {
        self.offer(note);
        Box::pin(std::future::ready(()))
    }
}

/// One for the example.
const COMMANDS: &str = "
    [word-count]
    path = '/bin/sh'
    arguments = ['{what}']
    parameters.what = { type = 'choice', choices = ['words', 'lines'] }";

pub(super) struct Bench {
    pub(super) folder: TempDir,
    pub(super) registry: Registry,
}

impl Bench {
    /// A fresh workspace, and the public network only.
    pub(super) fn new() -> Self {
        Self::allowing(&[])
    }

    /// A fresh workspace, and these networks besides the public one.
    pub(super) fn allowing(networks: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let settings = WorkloadSettings {
            outbound: OutboundSettings {
                rules: Rules { allow: networks.iter().map(|network| network.parse().unwrap()).collect(), ..Rules::default() },
                ..OutboundSettings::default()
            },
            http_max_bytes: 1 << 20,
            workspace: folder.path().join("workspace"),
            python: PythonRules {
                interpreters: vec![InterpreterRule { name: "python3".into(), gil: true }],
                ..PythonRules::default()
            },
            commands: COMMANDS.parse().unwrap(),
        };
        let registry = Registry::native(Environment::open(&settings).unwrap());
        Self { folder, registry }
    }

    /// Runs a workload, be it a future or a blocking call.
    pub(super) async fn run(&self, workload: Value) -> Result<Value, Failure> {
        self.run_until(workload, Stop::default()).await
    }

    /// The same, with a signal to end early.
    pub(super) async fn run_until(&self, workload: Value, stop: Stop) -> Result<Value, Failure> {
        self.run_with(workload, stop, Reporter::default()).await
    }

    /// What a workload that succeeds says while it runs.
    pub(super) async fn told(&self, workload: Value) -> Vec<Note> {
        let told = Arc::new(Told::default());
        let sink: Arc<dyn Sink> = Arc::<Told>::clone(&told);
        self.run_with(workload, Stop::default(), Reporter::new(sink)).await.unwrap();
        std::mem::take(&mut told.notes.lock().unwrap())
    }

    /// The same, and tells somebody.
    pub(super) async fn run_with(&self, workload: Value, stop: Stop, reporter: Reporter) -> Result<Value, Failure> {
        let prepared = self.registry.prepare(&spec(&workload)).unwrap();
        let context = Context { environment: Arc::clone(self.registry.environment()), stop, reporter };
        let Task::Native(work) = prepared.task else { panic!("{workload} is not native") };
        let output = match work(context) {
            Work::Future(future) => future.await,
            Work::Blocking(call) => call(),
        };
        output.map(|output| serde_json::from_str(output.get()).unwrap())
    }

    /// What is wrong with a workload.
    pub(super) fn invalid(&self, workload: &Value) -> Invalid {
        match self.registry.prepare(&spec(workload)) {
            Ok(_) => panic!("{workload} was accepted"),
            Err(invalid) => invalid,
        }
    }
}

fn spec(workload: &Value) -> Spec {
    let kind = workload["type"].as_str().unwrap().to_owned();
    Spec { kind, json: RawValue::from_string(workload.to_string()).unwrap() }
}
