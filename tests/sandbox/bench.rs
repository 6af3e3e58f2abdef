//! Runs Python in a sandbox and tells what came of it.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use trine::sandbox::{Ended, Group, Limits, Mode, Policy, Sandbox, Scratch, ScratchSpace, probe};

/// Long enough for anything that happens at all on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A sandbox in a folder of its own, beside a file that is none of its business.
pub(crate) struct Bench {
    pub(crate) folder: TempDir,
    pub(crate) scratch: Scratch,
    pub(crate) policy: Policy,
    sandbox: Sandbox,
}

/// What came of a program.
pub(crate) struct Ran {
    pub(crate) ended: Ended,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Where the interpreter is, and the folders that it reads.
pub(crate) struct Python {
    pub(crate) program: PathBuf,
    folders: Vec<PathBuf>,
}

pub(crate) fn python() -> &'static Python {
    static PYTHON: OnceLock<Python> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let ask = "import json, os, sys; print(json.dumps([os.path.realpath(sys.executable), sys.prefix, sys.base_prefix]))";
        let output = Command::new("python3").args(["-I", "-c", ask]).output().expect("python3, which these tests need");
        let found: Vec<PathBuf> = serde_json::from_slice(&output.stdout).unwrap();
        Python { program: found[0].clone(), folders: found[1..].to_vec() }
    })
}

/// Whether the kernel has Landlock. A test that needs it ends here without it, and says so.
pub(crate) fn landlock(abi: u32) -> bool {
    let there = probe().landlock_abi >= abi;
    if !there {
        eprintln!("skipped: this kernel has no Landlock of version {abi}");
    }
    there
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(Mode::On)
    }

    pub(crate) fn with(mode: Mode) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("trine.db"), "the server's").unwrap();
        let scratch = ScratchSpace::open(&folder.path().join("scratch")).unwrap().folder().unwrap();
        let policy = Policy {
            read: python().folders.clone(),
            unlisted: Vec::new(),
            scratch: scratch.path().to_owned(),
            network: false,
            environment: [("NAME".into(), "value".into())].into(),
            limits: Limits::default(),
        };
        let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_trine").into(), mode).unwrap();
        Self { folder, scratch, policy, sandbox }
    }

    pub(crate) fn command(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = self.sandbox.command(&self.policy, program, arguments).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Starts a script.
    pub(crate) fn start(&self, script: &str) -> Group {
        self.spawn(&mut self.command(&python().program, &["-I", "-c", script]))
    }

    pub(crate) fn spawn(&self, command: &mut Command) -> Group {
        self.sandbox.spawn(command, &self.policy).unwrap()
    }

    /// Runs a script to its end.
    pub(crate) async fn run(&self, script: &str) -> Ran {
        finish(self.start(script)).await
    }

    /// What a script says on its standard output, as JSON; it has to end well.
    pub(crate) async fn answer(&self, script: &str) -> Value {
        let ran = self.run(&format!("import ctypes, json, os, sys\n{ATTEMPT}\n{script}")).await;
        assert!(ran.ended.status.success(), "{}: {}", ran.ended.status, ran.stderr);
        serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("no JSON: {:?} {}", ran.stdout, ran.stderr))
    }
}

/// `tell` prints what a call gives, or the name of the error that it ends with.
const ATTEMPT: &str = r"
import errno
libc = ctypes.CDLL(None, use_errno=True)

def name(number):
    return errno.errorcode.get(number, number)

def syscall(*args):
    result = libc.syscall(*[ctypes.c_long(arg) for arg in args])
    return name(ctypes.get_errno()) if result < 0 else result

def attempt(call, *args):
    try:
        return call(*args)
    except OSError as error:
        return name(error.errno)

def tell(value):
    print(json.dumps(value))
";

/// Waits for the end of a program and takes in what it says.
pub(crate) async fn finish(mut group: Group) -> Ran {
    let (stdout, stderr) = (said(group.stdout.take()), said(group.stderr.take()));
    let ended = tokio::time::timeout(PATIENCE, group.wait()).await.expect("the program to end").unwrap();
    Ran { ended, stdout: stdout.await.unwrap(), stderr: stderr.await.unwrap() }
}

fn said(pipe: Option<impl Read + Send + 'static>) -> tokio::task::JoinHandle<String> {
    tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        pipe.unwrap().read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
