//! The labels that a node must have to run a job.

use std::borrow::Cow;

use serde::Deserialize;

use super::Catalogue;
use crate::job::{Labels, Spec, Submission, meets};
use crate::store::NodeStore;
use crate::workload::{Invalid, is_function};

/// What a node says of itself that has an interpreter of this name.
pub fn interpreter_label(name: &str) -> (String, String) {
    (format!("python:{name}"), "yes".into())
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
        if let Some(name) = interpreter(&submission.workload, functions) {
            submission.requires.get_or_insert_default().extend([interpreter_label(&name)]);
        }
        return Ok(());
    }
    let Some(required) = &submission.requires else { return Ok(()) };
    let missing = |name: &str, value: &str| !meets(store.labels(), &Labels::from([(name.to_owned(), value.to_owned())]));
    match required.iter().find(|(name, value)| missing(name, value)) {
        Some((name, value)) => {
            let message = format!("this server does not have the label {name}={value}, and there is no other one");
            Err(Invalid::new(format!("/requires/{}", name.replace('/', "~1")), message))
        }
        None => Ok(()),
    }
}

/// The interpreter that a workload names.
fn interpreter(workload: &Spec, functions: &Catalogue) -> Option<String> {
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
