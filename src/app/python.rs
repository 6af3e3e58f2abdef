//! The interpreters that there are, how jobs run on them, and what is published of that.

use std::sync::Arc;

use super::AppError;
use crate::api::{InterpreterView, ProgramsView, PythonView, SandboxView};
use crate::config::{Config, NamedProgram, Permission};
use crate::dispatch::Functions;
use crate::executor::python::{Interpreter, PythonSettings};
use crate::sandbox::{self, Sandbox};
use crate::workload::PythonRules;

/// The interpreters that the operator names, or else the usual one, if there is one.
pub(super) async fn interpreters(config: &Config) -> Result<Vec<Interpreter>, AppError> {
    let named = &config.python_interpreters;
    if named.is_empty() {
        return match Interpreter::find("python3".into(), "python3".into()).await {
            Ok(interpreter) => Ok(vec![interpreter]),
            Err(error) => {
                tracing::info!("no jobs in Python: {error}");
                Ok(Vec::new())
            }
        };
    }
    let named = named.iter().filter(|interpreter| interpreter.name != "none");
    let found = named.map(|NamedProgram { name, program }| Interpreter::find(name.clone(), program.clone()));
    Ok(futures_util::future::try_join_all(found).await?)
}

/// What jobs in Python may do.
pub(super) fn rules(config: &Config, interpreters: &[Interpreter]) -> PythonRules {
    PythonRules {
        interpreters: interpreters.iter().map(Interpreter::rule).collect(),
        network: config.python_network == Permission::Allow,
        pickles: config.takes_pickles(),
    }
}

/// What is published of users' own programs.
pub(super) fn programs(
    config: &Config,
    kernel: sandbox::Report,
    interpreters: &[Interpreter],
    rules: &PythonRules,
) -> ProgramsView {
    let view = |interpreter: &Interpreter| InterpreterView {
        name: interpreter.name.clone(),
        version: interpreter.version.clone(),
        implementation: interpreter.implementation.clone(),
        gil: interpreter.gil,
        cloudpickle: interpreter.cloudpickle.clone(),
    };
    ProgramsView {
        sandbox: SandboxView { mode: config.sandbox, kernel },
        python: PythonView {
            interpreters: interpreters.iter().map(view).collect(),
            network: rules.network,
            pickles: rules.pickles,
        },
    }
}

/// How the hosts are run, if there is any interpreter.
pub(super) fn settings(
    config: &Config,
    sandbox: &Sandbox,
    interpreters: Vec<Interpreter>,
    functions: &Arc<Functions>,
) -> Result<Option<PythonSettings>, AppError> {
    if interpreters.is_empty() {
        return Ok(None);
    }
    let folder = std::path::absolute(config.data_dir.join("python"))
        .map_err(|error| AppError::DataFolder { path: config.data_dir.clone(), error })?;
    let memory_bytes = config.python_memory_bytes;
    Ok(Some(PythonSettings {
        interpreters,
        folder,
        sandbox: sandbox.clone(),
        limits: sandbox::Limits {
            memory_bytes,
            // What it may address is more than what it may use: threads reserve far more than they touch.
            address_space_bytes: Some(memory_bytes.saturating_mul(4)),
            scratch_bytes: config.python_scratch_bytes,
            file_bytes: config.python_scratch_bytes,
            ..sandbox::Limits::default()
        },
        async_slots: config.python_async_slots,
        threads: config.python_threads,
        processes: config.python_processes,
        max_jobs: config.worker_max_jobs,
        functions: Arc::<Functions>::clone(functions),
    }))
}
