//! Looks at the source of a function before it is kept, with the interpreter that will run it: what that can't compile is found here.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::to_raw_value;

use super::run::{Wanted, not_begun, on_host, ran};
use super::{Key, Python};
use crate::executor::attempt::{Attempt, Ran};
use crate::function::Limits;
use crate::job::{Failure, Outcome, Spec};
use crate::workload::{PythonCode, PythonContent, PythonFunction, Stop, StopReason, sha256};

/// It runs in a host, as users' code does: a compiler may be made to take very long, or to crash.
const SOURCE: &str = include_str!("check.py");
/// How long it may take, with the start of a host.
const LONGEST: Duration = Duration::from_secs(20);

/// What is wrong with a source.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct SourceFault {
    /// In this line, from 1, if it is in one.
    pub line: Option<u32>,
    /// At this character of the line, from 1.
    pub column: Option<u32>,
    /// What.
    pub message: String,
}

impl Python {
    /// What is wrong with the source of a module that is to be called by this entry point.
    ///
    /// # Errors
    /// It could not be looked at, for this reason.
    pub(in crate::executor) async fn check(
        &self,
        interpreter: &str,
        source: &str,
        entrypoint: &str,
    ) -> Result<Option<SourceFault>, String> {
        let args = to_raw_value(&[source, entrypoint]).map_err(|error| error.to_string())?;
        let kwargs = to_raw_value(&serde_json::json!({})).map_err(|error| error.to_string())?;
        let content = PythonContent::Source(SOURCE.into());
        let code = PythonCode { sha: sha256(SOURCE.as_bytes()), content, entrypoint: "check".into() };
        let function = PythonFunction::Code { code, args, kwargs };
        let key = Key { interpreter: interpreter.to_owned(), network: false, memory_bytes: None };
        let call = Wanted { function: &function, limits: Limits::default(), artifacts: &self.artifacts };
        let stop = Stop::default();
        let attempt = Attempt { stop: stop.clone(), ..Attempt::alone(Spec::default()) };
        // One at a time: it may take a process more than there are for jobs.
        let _turn = self.checking.lock().await;
        let mut looking = Box::pin(self.look(&key, &call, &attempt));
        let ran = tokio::select! {
            ran = &mut looking => ran,
            () = tokio::time::sleep(LONGEST) => {
                stop.stop(StopReason::Deadline);
                looking.await
            }
        };
        match ran.outcome {
            Outcome::Output(output) => serde_json::from_str(output.get()).map_err(|error| error.to_string()),
            Outcome::Error(failure) => Err(failure.message),
        }
    }

    async fn look(&self, key: &Key, call: &Wanted<'_>, attempt: &Attempt) -> Ran {
        let slot = Arc::default();
        let taken = tokio::select! {
            taken = self.processes.take(key, &slot) => taken,
            _ = attempt.stop.stopped() => return not_begun(),
        };
        match on_host(&taken.worker, call, attempt, &slot, Duration::ZERO, None).await {
            Some(Ok(ran)) => {
                taken.give_back();
                ran
            }
            Some(ended) => ran(ended, &taken.worker, "that looks at sources"),
            None => Ran::failed(Failure::error("it took too long")),
        }
    }
}
