//! How far programs that are not trusted are confined here, and which of the server's own files they can read all the same.

use std::path::{Path, PathBuf};

use super::AppError;
use crate::artifact::ArtifactPlace;
use crate::command::Command;
use crate::config::Config;
use crate::executor::python::Interpreter;
use crate::sandbox;

/// What programs can be confined with. What is missing is said in the log, or ends the start where all of it is required.
pub(super) fn check_sandbox(config: &Config, interpreters: &[Interpreter]) -> Result<sandbox::Report, AppError> {
    let mut report = sandbox::probe();
    report.missing.extend(open_secrets(config, interpreters));
    match config.sandbox {
        sandbox::Mode::Required if !report.missing.is_empty() => return Err(AppError::Sandbox(report.missing.join("; "))),
        sandbox::Mode::Off => tracing::warn!("the sandbox is off: users' programs may do what the server may"),
        sandbox::Mode::On | sandbox::Mode::Required => {
            for gap in &report.missing {
                tracing::warn!("the sandbox has a gap: {gap}");
            }
        }
    }
    Ok(report)
}

/// A sentence for each of the server's own files and folders that sandboxed programs can read, because of where it is.
fn open_secrets(config: &Config, interpreters: &[Interpreter]) -> Vec<String> {
    let artifacts = match config.artifacts() {
        ArtifactPlace::Folder(path) => Some(path),
        ArtifactPlace::S3 { .. } => None,
    };
    // An operator may well want a command to read the last ones, and names them.
    let own = [
        ("data folder", Some(config.data_dir.clone()), false),
        ("database", config.database().into_file(), false),
        ("settings file", config.file.clone(), false),
        ("TLS key", config.tls_key.clone(), false),
        ("folder of artifacts", artifacts, true),
        ("workspace", Some(config.workspace()), true),
    ];
    let told = |(what, path, may_be_named): (&str, Option<PathBuf>, bool)| {
        let path = path?;
        let place = open_place(&path, config, interpreters, may_be_named)?;
        Some(format!("the {what} {} is {place}", path.display()))
    };
    own.into_iter().filter_map(told).collect()
}

/// Where a path is, if some program can read it there.
fn open_place(path: &Path, config: &Config, interpreters: &[Interpreter], may_be_named: bool) -> Option<String> {
    if sandbox::is_open_to_all(path) {
        return Some("in a folder of the system, which every sandboxed program can read".to_owned());
    }
    let is_read = |interpreter: &&Interpreter| interpreter.folders.iter().any(|folder| sandbox::is_below(path, folder));
    if let Some(Interpreter { name, .. }) = interpreters.iter().find(is_read) {
        return Some(format!("in a folder that the Python interpreter {name:?} reads, as every job in it can"));
    }
    let holds = |read: &PathBuf| sandbox::is_below(path, read) && !(may_be_named && sandbox::is_below(read, path));
    let is_read = |command: &Command| command.read.iter().chain(&command.folder).chain([&command.path]).any(holds);
    let (name, _) = config.commands.0.iter().find(|(_, command)| is_read(command))?;
    Some(format!("among what the command {name:?} reads"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_folder_that_an_interpreter_reads_is_told_of() {
        let project = tempfile::tempdir().unwrap();
        let interpreter = |folder: std::path::PathBuf| Interpreter {
            name: "python3".into(),
            path: "/usr/bin/python3".into(),
            version: "3.11.2".into(),
            implementation: "cpython".into(),
            gil: true,
            cloudpickle: None,
            folders: vec![folder],
        };
        // As an editable install has it.
        let (editable, other) = (interpreter(project.path().into()), interpreter(project.path().join("packages")));
        let config = Config { data_dir: project.path().join("trine-data"), ..Config::default() };
        let told = open_secrets(&config, &[other.clone(), editable]);
        assert!(told[0].contains("the data folder") && told[0].contains("interpreter \"python3\""), "{told:?}");
        // What is in it by default is told of as well.
        assert!(
            ["database", "artifacts", "workspace"].iter().all(|what| told.iter().any(|told| told.contains(what))),
            "{told:?}"
        );
        assert!(open_secrets(&config, &[other]).is_empty());
    }

    #[test]
    fn what_a_command_reads_of_the_server_is_told_of() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().display();
        let told = |reads: &str| {
            let commands = format!("[c]\npath = '/bin/true'\n{reads}").parse().unwrap();
            let workspace = Some(folder.path().join("work"));
            let tls_key = Some(folder.path().join("keys/key.pem"));
            for made in ["work", "keys", "data"] {
                std::fs::create_dir_all(folder.path().join(made)).unwrap();
            }
            let data_dir = folder.path().join("data");
            open_secrets(&Config { tls_key, data_dir, workspace, commands, ..Config::default() }, &[])
        };
        let all = told(&format!("folder = '{place}'"));
        assert_eq!(all.len(), 5, "{all:?}");
        assert!(all.iter().all(|told| told.ends_with("is among what the command \"c\" reads")), "{all:?}");
        let key = told(&format!("read = ['{place}/keys']"));
        assert!(key.len() == 1 && key[0].starts_with("the TLS key"), "{key:?}");
        // Whoever names the workspace itself wants it to be read.
        assert_eq!(told(&format!("read = ['{place}/work']")), [""; 0]);
    }
}
