//! What is asked, and whether it can be run here.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::run::RunError;
use super::service::CompareError;
use crate::dispatch::{Catalogue, Dispatcher, named_interpreter};
use crate::executor::{Executors, MOST_BYTES};
use crate::job::{Bound, Executor, Form, Runtime, Spec, Written};
use crate::store::{NodeStatus, StoreError};
use crate::workload::{Invalid, fill, is_function, may_have_placeholders};

/// The most tasks in a cell, the most tasks under way at once, and the most levels of that.
const MOST: (u32, u32, usize) = (10_000, 1_024, 8);
/// How long a comparison may take, in milliseconds: at least, by default, and at the most.
const BUDGET_MS: (u64, u64, u64) = (1_000, 30_000, 3_600_000);
/// Tasks in a cell if it is not said.
const TASKS: u32 = 64;

/// What is asked, as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// The tag that threads are chosen by.
    pub bound: Bound,
    /// The workload object.
    pub workload: Box<RawValue>,
    /// How many tasks a cell of the matrix has each time, at the most.
    pub tasks: u32,
    /// How many of them are under way at once; one column each.
    pub concurrency: Vec<u32>,
    /// Where.
    pub executors: Vec<Executor>,
    /// The interpreters of Python; none for others.
    pub interpreters: Vec<String>,
    /// How long all of it may take, in milliseconds.
    pub budget_ms: u64,
}

/// What is asked, as a client says it: what is left out is chosen by what there is.
#[derive(Clone, Debug)]
pub struct Asked {
    /// See [`Request::bound`]. What a function declares, if it is not said.
    pub bound: Option<Bound>,
    /// What to run.
    pub workload: Spec,
    /// See [`Request::tasks`].
    pub tasks: Option<u32>,
    /// See [`Request::concurrency`].
    pub concurrency: Option<Vec<u32>>,
    /// See [`Request::executors`].
    pub executors: Option<Vec<Executor>>,
    /// See [`Request::interpreters`].
    pub interpreters: Option<Vec<String>>,
    /// See [`Request::budget_ms`].
    pub budget_ms: Option<u64>,
}

/// A workload that is to be run by one interpreter, or by none.
#[derive(Clone, Debug)]
pub(super) struct Variant {
    pub(super) interpreter: Option<String>,
    /// Whether the interpreter has a global lock.
    pub(super) gil: bool,
    pub(super) network: bool,
    pub(super) spec: Arc<Spec>,
}

/// What is to be run, known to be possible here.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) runtime: Runtime,
    pub(super) form: Form,
    pub(super) variants: Vec<Variant>,
    /// How many tasks each executor works on at once.
    pub(super) slots: BTreeMap<Executor, u32>,
}

impl Asked {
    /// Checks it, and chooses what was left out.
    pub(super) async fn complete(self, dispatcher: &Dispatcher) -> Result<Request, CompareError> {
        dispatcher.functions().read(|functions| Ok(self.clone().complete_by(dispatcher, functions)?)).await
    }

    fn complete_by(self, dispatcher: &Dispatcher, functions: &Catalogue) -> Result<Request, Invalid> {
        let Self { bound, workload, tasks, concurrency, executors, interpreters, budget_ms } = self;
        let tasks = tasks.unwrap_or(TASKS);
        if !(1..=MOST.0).contains(&tasks) {
            return Err(Invalid::new("/tasks", format!("must be 1 to {}", MOST.0)));
        }
        let budget_ms = budget_ms.unwrap_or(BUDGET_MS.1);
        if !(BUDGET_MS.0..=BUDGET_MS.2).contains(&budget_ms) {
            return Err(Invalid::new("/budget_ms", format!("must be {} to {}", BUDGET_MS.0, BUDGET_MS.2)));
        }
        let concurrency = levels(concurrency, tasks, workload.json.get().len())?;
        check_places(&workload).map_err(|invalid| invalid.within("/workload"))?;
        let mut workload = workload;
        let declared = if is_function(&workload) {
            let pinned = functions.pin(&mut workload);
            pinned.map_err(|invalid| invalid.within("/workload"))?.defaults.bound
        } else {
            None
        };
        let bound = bound.or(declared).ok_or_else(|| Invalid::new("", "missing field `bound`"))?;
        let (written, _) = dispatcher.written(&mut workload).map_err(|invalid| invalid.within("/workload"))?;
        let executors = places(executors, dispatcher.executors(), written, bound)?;
        let interpreters = interpreters.unwrap_or_default();
        check_interpreters(&interpreters, &workload, dispatcher)?;
        Ok(Request { bound, workload: workload.json, tasks, concurrency, executors, interpreters, budget_ms })
    }
}

impl Request {
    /// The time that it may take.
    pub const fn budget(&self) -> Duration {
        Duration::from_millis(self.budget_ms)
    }

    /// Looks up again what is to be run: it may have waited through a restart.
    pub(super) async fn subject(&self, dispatcher: &Dispatcher) -> Result<Subject, RunError> {
        dispatcher.functions().read(|functions| Ok(self.subject_by(dispatcher, functions)?)).await
    }

    /// The other nodes that have the interpreters that it takes and this one has not. `None` if nothing of that is missing here.
    pub(super) async fn elsewhere(&self, dispatcher: &Dispatcher) -> Result<Option<Vec<NodeStatus>>, StoreError> {
        dispatcher.elsewhere(&spec(self.workload.clone()), &self.interpreters).await
    }

    fn subject_by(&self, dispatcher: &Dispatcher, functions: &Catalogue) -> Result<Subject, Invalid> {
        let mut workload = spec(self.workload.clone());
        let (Written { runtime, form, gil, .. }, _) = dispatcher.written(&mut workload)?;
        let network = field(&workload, "network").and_then(|value| value.as_bool()).unwrap_or(false);
        let rules = dispatcher.registry().environment().python();
        let variants = match runtime {
            Runtime::Native | Runtime::Command => {
                vec![Variant { interpreter: None, gil: false, network: false, spec: Arc::new(workload) }]
            }
            Runtime::Python if self.interpreters.is_empty() => {
                let named = named_interpreter(&workload, functions);
                let name = rules.interpreter(named.as_deref())?.name.clone();
                vec![Variant { interpreter: Some(name), gil, network, spec: Arc::new(workload) }]
            }
            Runtime::Python => {
                let variant = |name: &String| {
                    let rule = rules.interpreter(Some(name))?;
                    Ok(Variant {
                        interpreter: Some(rule.name.clone()),
                        gil: rule.gil,
                        network,
                        spec: Arc::new(with_interpreter(&workload, name)),
                    })
                };
                self.interpreters.iter().map(variant).collect::<Result<_, Invalid>>()?
            }
        };
        let slots = |executor: Executor| {
            let slots = dispatcher.executors().slots(executor.queue(runtime, self.bound));
            (executor, u32::try_from(slots).unwrap_or(u32::MAX))
        };
        Ok(Subject { runtime, form, variants, slots: Executor::ALL.map(slots).into() })
    }

    /// The workload's `type`.
    pub fn kind(&self) -> String {
        spec(self.workload.clone()).kind
    }
}

/// A workload object with its type.
pub(super) fn spec(json: Box<RawValue>) -> Spec {
    #[derive(Deserialize)]
    struct Head<'a> {
        #[serde(borrow)]
        r#type: Cow<'a, str>,
    }
    let kind = serde_json::from_str::<Head<'_>>(json.get()).map_or_else(|_| String::new(), |head| head.r#type.into_owned());
    Spec { kind, json }
}

fn field(workload: &Spec, name: &str) -> Option<Value> {
    let fields: Map<String, Value> = serde_json::from_str(workload.json.get()).ok()?;
    fields.get(name).cloned()
}

fn with_interpreter(workload: &Spec, name: &str) -> Spec {
    let mut fields: Map<String, Value> = serde_json::from_str(workload.json.get()).unwrap_or_default();
    fields.insert("interpreter".into(), name.into());
    let json = serde_json::value::to_raw_value(&fields).unwrap_or_else(|_| workload.json.clone());
    Spec { kind: workload.kind.clone(), json }
}

/// How many tasks are under way at once. Each of those has a copy of the workload, of so many bytes; together they may be as long as what runs
/// of a queue.
fn levels(concurrency: Option<Vec<u32>>, tasks: u32, bytes: usize) -> Result<Vec<u32>, Invalid> {
    let fit = u32::try_from(MOST_BYTES / bytes.max(1)).unwrap_or(u32::MAX).max(1);
    let Some(asked) = concurrency else {
        let cores = super::cores();
        let usual = BTreeSet::from([1, cores, 4 * cores].map(|level| level.min(tasks).min(fit)));
        return Ok(usual.into_iter().collect());
    };
    if asked.is_empty() || asked.len() > MOST.2 {
        return Err(Invalid::new("/concurrency", format!("must have 1 to {} values", MOST.2)));
    }
    for (at, level) in asked.iter().enumerate() {
        if !(1..=MOST.1.min(tasks)).contains(level) {
            let (most, why) = if tasks < MOST.1 { (tasks, ", as many as there are `tasks`") } else { (MOST.1, "") };
            return Err(Invalid::new(format!("/concurrency/{at}"), format!("must be 1 to {most}{why}")));
        }
        if *level > fit {
            let message = format!("must be {fit} at most: of so long a workload there is no memory for more at once");
            return Err(Invalid::new(format!("/concurrency/{at}"), message));
        }
    }
    Ok(asked.into_iter().collect::<BTreeSet<_>>().into_iter().collect())
}

fn places(asked: Option<Vec<Executor>>, executors: &Executors, written: Written, bound: Bound) -> Result<Vec<Executor>, Invalid> {
    let able = |executor: &Executor| executors.slots(executor.queue(written.runtime, bound)) > 0 && runs(*executor, written);
    let Some(asked) = asked else { return Ok(Executor::ALL.into_iter().filter(able).collect()) };
    if asked.is_empty() {
        return Err(Invalid::new("/executors", "must name one at least"));
    }
    if asked.len() > Executor::ALL.len() {
        return Err(Invalid::new("/executors", "names one more than once"));
    }
    if let Some(at) = asked.iter().position(|executor| !able(executor)) {
        let why = if written.needs_a_process {
            "can't keep a call of this function within its limits: only a process can"
        } else {
            "a program runs in a process of its own, and nowhere else"
        };
        return Err(Invalid::new(format!("/executors/{at}"), why));
    }
    Ok(asked.into_iter().collect::<BTreeSet<_>>().into_iter().collect())
}

/// Whether what is written like this may run there at all.
fn runs(executor: Executor, written: Written) -> bool {
    executor == Executor::Processes || written.runtime != Runtime::Command && !written.needs_a_process
}

/// An object with the key `$output` is always a place for the output of a job, and a comparison comes after none.
fn check_places(workload: &Spec) -> Result<(), Invalid> {
    if !may_have_placeholders(workload.json.get()) {
        return Ok(());
    }
    let refused =
        |at: &str| Invalid::new(format!("{at}/$output"), "a comparison comes after no job whose output could stand here");
    fill(&workload.json, &mut |at, _| Err(refused(at))).map(drop)
}

fn check_interpreters(names: &[String], workload: &Spec, dispatcher: &Dispatcher) -> Result<(), Invalid> {
    if !names.is_empty() && workload.kind != "python" {
        return Err(Invalid::new("/interpreters", "only for a workload of the type python"));
    }
    for (at, name) in names.iter().enumerate() {
        let known = dispatcher.registry().environment().python().interpreter(Some(name));
        known.map_err(|Invalid { message, .. }| Invalid::new(format!("/interpreters/{at}"), message))?;
        if names[..at].contains(name) {
            return Err(Invalid::new(format!("/interpreters/{at}"), "is named twice"));
        }
    }
    Ok(())
}
