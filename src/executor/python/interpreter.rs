//! The interpreters that the operator configured: what they are and where they live.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Command;

use crate::workload::InterpreterRule;

/// How long an interpreter may take to say what it is.
const PATIENCE: Duration = Duration::from_secs(30);
/// The oldest version that the host runs on.
const OLDEST: (u32, u32) = (3, 9);

/// What an interpreter is asked.
const QUESTION: &str = "\
import importlib.util, json, os, re, site, sys, sysconfig
# To import it would take longer than all else here.
try:
    found = re.search(b'__version__ = .([0-9.]+)', open(importlib.util.find_spec('cloudpickle').origin, 'rb').read())
except Exception:
    found = None
paths = [sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, *sysconfig.get_paths().values(), *sys.path]
print(json.dumps({
    'version': list(sys.version_info[:3]),
    'implementation': sys.implementation.name,
    'gil': getattr(sys, '_is_gil_enabled', lambda: sys.implementation.name == 'cpython')(),
    'cloudpickle': found and found[1].decode(),
    'executable': os.path.abspath(sys.executable),
    'folders': sorted({os.path.realpath(path) for path in paths if path and os.path.exists(path)}),
}))";

/// An interpreter of Python that answers.
#[derive(Clone, Debug)]
pub struct Interpreter {
    /// By what jobs name it.
    pub name: String,
    /// The program: in a virtual environment, the one there.
    pub path: PathBuf,
    /// Such as 3.13.0.
    pub version: String,
    /// Such as `cpython`.
    pub implementation: String,
    /// Whether it has a global lock.
    pub gil: bool,
    /// The version of the package `cloudpickle` that it has.
    pub cloudpickle: Option<String>,
    /// What it needs to read: itself, its standard library, its packages.
    pub folders: Vec<PathBuf>,
}

/// An interpreter can't be used.
#[derive(Debug, thiserror::Error)]
#[error("the Python interpreter {name:?} ({}) can't be used: {reason}", path.display())]
pub struct InterpreterError {
    name: String,
    path: PathBuf,
    reason: String,
}

#[derive(Deserialize)]
struct Answer {
    version: [u32; 3],
    implementation: String,
    gil: bool,
    cloudpickle: Option<String>,
    executable: PathBuf,
    folders: Vec<PathBuf>,
}

impl Interpreter {
    /// Asks the program what it is. A name without a slash is looked for on the `PATH`.
    pub async fn find(name: String, path: PathBuf) -> Result<Self, InterpreterError> {
        match ask(&path).await {
            Ok(Answer { version: [major, minor, patch], implementation, gil, cloudpickle, executable, folders }) => {
                if (major, minor) < OLDEST {
                    let reason = format!("it is Python {major}.{minor}; {}.{} is the oldest that works", OLDEST.0, OLDEST.1);
                    return Err(InterpreterError { name, path, reason });
                }
                let version = format!("{major}.{minor}.{patch}");
                Ok(Self { name, path: executable, version, implementation, gil, cloudpickle, folders })
            }
            Err(reason) => Err(InterpreterError { name, path, reason }),
        }
    }

    /// What is to be known of it to accept jobs.
    pub fn rule(&self) -> InterpreterRule {
        InterpreterRule { name: self.name.clone(), gil: self.gil }
    }
}

async fn ask(path: &Path) -> Result<Answer, String> {
    let mut command = Command::new(path);
    command.args(["-I", "-c", QUESTION]).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.map_err(|_| "it does not answer".to_owned())?;
    let output = output.map_err(|error| error.to_string())?;
    serde_json::from_slice(&output.stdout).map_err(|_| {
        let said = String::from_utf8_lossy(&output.stderr);
        format!("it does not answer as Python would: {}", said.trim().lines().last().unwrap_or("it says nothing"))
    })
}
