//! The labels that a node must have to run a job.

use std::borrow::Cow;

use serde::Deserialize;

use super::{Catalogue, Dispatcher};
use crate::job::{Labels, Runtime, Spec, Submission, meets};
use crate::store::{NodeStatus, NodeStore, StoreError};
use crate::workload::{Invalid, is_function, pointer_token};

/// How labels begin that say what interpreters there are.
const INTERPRETER: &str = "python:";

/// What a node says of itself that has an interpreter of this name.
pub fn interpreter_label(name: &str) -> (String, String) {
    (format!("{INTERPRETER}{name}"), "yes".into())
}

/// Whether a node with these labels has the interpreter of this name; without one, whether it has any.
fn has_interpreter(labels: &Labels, name: Option<&str>) -> bool {
    match name {
        Some(name) => meets(labels, &[interpreter_label(name)].into()),
        None => labels.keys().any(|label| label.starts_with(INTERPRETER)),
    }
}

/// Whether a node with these labels claims what runs like that: without an interpreter, nothing of Python's queues.
pub fn has_runtime(labels: &Labels, runtime: Runtime) -> bool {
    runtime != Runtime::Python || has_interpreter(labels, None)
}

impl Dispatcher {
    /// The other nodes that have what a workload, or all of these interpreters, take and this one has not. `None` if nothing of that is missing here.
    pub async fn elsewhere(&self, workload: &Spec, interpreters: &[String]) -> Result<Option<Vec<NodeStatus>>, StoreError> {
        let is_python = self.registry().get(&workload.kind).is_some_and(|kind| kind.runtime == Runtime::Python);
        if !is_python || !self.store().is_shared() {
            return Ok(None);
        }
        let own = if interpreters.is_empty() { named_interpreter(workload, self.functions().catalogue()) } else { None };
        let have = |labels: &Labels| match interpreters {
            [] => has_interpreter(labels, own.as_deref()),
            names => names.iter().all(|name| has_interpreter(labels, Some(name))),
        };
        if have(self.store().labels()) {
            return Ok(None);
        }
        let mut nodes = self.store().nodes().await?;
        nodes.retain(|node| !node.is_this && !node.has_expired && have(&node.labels));
        Ok(Some(nodes))
    }
}

/// Has a job require of a node what the client says, and the interpreter that the workload names. One that no node could ever run is
/// refused.
pub(super) fn require<S: NodeStore + ?Sized>(
    submission: &mut Submission,
    store: &S,
    functions: &Catalogue,
) -> Result<(), Invalid> {
    if store.is_shared() {
        // An interpreter of this name was found here; elsewhere there may be none.
        if let Some(name) = named_interpreter(&submission.workload, functions) {
            submission.requires.get_or_insert_default().extend([interpreter_label(&name)]);
        }
        return Ok(());
    }
    let Some(required) = &submission.requires else { return Ok(()) };
    let missing = |name: &str, value: &str| !meets(store.labels(), &Labels::from([(name.to_owned(), value.to_owned())]));
    match required.iter().find(|(name, value)| missing(name, value)) {
        Some((name, value)) => {
            let message = format!("this server does not have the label {name}={value}, and there is no other one");
            Err(Invalid::new(format!("/requires/{}", pointer_token(name)), message))
        }
        None => Ok(()),
    }
}

/// The interpreter that a workload names, or that its function was deployed with.
pub fn named_interpreter(workload: &Spec, functions: &Catalogue) -> Option<String> {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        interpreter: Option<Cow<'a, str>>,
    }
    if is_function(workload) {
        return functions.pin(&mut workload.clone()).ok()?.interpreter.clone();
    }
    if workload.kind != "python" {
        return None;
    }
    // Where the output of another job is to say it, it is not known yet.
    serde_json::from_str::<Named<'_>>(workload.json.get()).ok()?.interpreter.map(Cow::into_owned)
}
