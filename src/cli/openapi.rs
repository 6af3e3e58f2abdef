use super::error::CliError;
use super::print;
use crate::api;
use crate::app::AppError;
use crate::command::Commands;
use crate::outbound::OutboundSettings;
use crate::workload::{Environment, PythonRules, Registry, WorkloadSettings};

/// Prints the document that a server has at `/openapi.json`.
pub(super) fn run() -> Result<(), CliError> {
    // Workloads are described without being run; the folder that they would work in stays empty.
    let folder = tempfile::tempdir().map_err(|error| CliError::Prepare("make a temporary folder", error))?;
    let settings = WorkloadSettings {
        outbound: OutboundSettings::default(),
        http_max_bytes: 0,
        workspace: folder.path().to_owned(),
        python: PythonRules::default(),
        commands: Commands::default(),
    };
    let registry = Registry::native(Environment::open(&settings).map_err(AppError::from)?);
    print::raw(&api::openapi(&registry).to_pretty_json().map_err(CliError::Json)?)
}
