//! Runs programs that are not trusted: users' functions and operators' commands.
//!
//! [`Sandbox::command`] starts Trine once more as `trine sandbox`, which confines itself and then becomes the program. So all of it
//! happens in a process of its own, before the first instruction of the program, and without a fork of the server's threads.
//! [`Group`] is the running program with all that it starts. A thread watches over what no limit of the kernel covers.
//!
//! What it protects from and what not is in `docs/security.md`.

mod calls;
mod confine;
mod files;
mod group;
mod probe;
mod scratch;
mod watch;

pub use confine::main;
pub use files::{is_below, is_open_to_all};
pub use group::{Cost, Ended, Group};
pub use probe::{Report, probe};
pub use scratch::{Scratch, ScratchSpace};
pub use watch::{Violation, is_short, open_files};

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use landlock::PathFd;
use serde::{Deserialize, Serialize};

use self::watch::Watch;

/// How `trine sandbox` is told what to do: as JSON in this variable, which nobody but this user can read and which is gone once the
/// program runs.
const VARIABLE: &str = "TRINE_SANDBOX_POLICY";
/// The exit status of a program that was not started, because it could not be confined as it should be.
pub const NOT_CONFINED: u8 = 125;
/// The exit status of a program that could not be started.
pub const NOT_STARTED: u8 = 126;

/// How far programs are confined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = SandboxMode)]
pub enum Mode {
    /// As far as the kernel can; what it can't is said at the start.
    #[default]
    On,
    /// Wholly: the server does not start where the kernel can't.
    Required,
    /// Only their resources are limited; otherwise they may do what the server may.
    Off,
}

/// Starts programs that are confined. Clones are handles to the same one.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// The program of Trine.
    program: PathBuf,
    mode: Mode,
    watch: Watch,
    /// What every program may read must stay what it is.
    _held: Arc<[PathFd]>,
}

/// What a program may do.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Files and folders that it may read and execute, besides itself and the system's own, such as `/usr`. What is missing is passed
    /// over.
    pub read: Vec<PathBuf>,
    /// Folders of which it may read the files whose names it knows, and that it can't list.
    pub unlisted: Vec<PathBuf>,
    /// The one folder that it may write to; also where it starts, and its `TMPDIR`. It can't execute what is there by its path.
    pub scratch: PathBuf,
    /// Whether it may open sockets.
    pub network: bool,
    /// Its environment, whole but for `TMPDIR`.
    pub environment: BTreeMap<String, String>,
    /// What it may use.
    pub limits: Limits,
}

/// What a program and all that it starts may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Address space of each process, in bytes. The kernel refuses more.
    pub address_space_bytes: Option<u64>,
    /// File descriptors of each process. The kernel refuses more.
    pub open_files: u64,
    /// The longest file that it may write, in bytes. The kernel refuses more, with SIGXFSZ.
    pub file_bytes: u64,
    /// Processes that it may start. With none, the kernel refuses the first; more of them are a [`Violation`].
    pub processes: u64,
    /// Threads of all its processes together. More are a [`Violation`].
    pub threads: u64,
    /// Resident memory of all its processes together, in bytes. More is a [`Violation`].
    pub memory_bytes: u64,
    /// What it may keep in its scratch folder, in bytes. More is a [`Violation`].
    pub scratch_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            address_space_bytes: None,
            open_files: 256,
            file_bytes: 1 << 30,
            processes: 0,
            threads: 512,
            memory_bytes: 1 << 30,
            scratch_bytes: 1 << 30,
        }
    }
}

/// What `trine sandbox` is told.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    policy: Policy,
    confine: bool,
    /// The server. Whoever finds another parent was started by a server that is gone.
    server: u32,
}

impl Sandbox {
    /// `program` is the one of Trine.
    ///
    /// # Errors
    /// No thread can be started to watch over the programs.
    pub fn new(program: PathBuf, mode: Mode) -> io::Result<Self> {
        Ok(Self { program, mode, watch: Watch::start()?, _held: files::hold_system().into() })
    }

    /// Whether a program is kept from anything but to use more than it may.
    pub fn confines(&self) -> bool {
        self.mode != Mode::Off
    }

    /// A command that runs `program`, an absolute path, in its scratch folder and under its policy, for [`Sandbox::spawn`].
    ///
    /// It shares what the caller leaves it of standard input, output and error, and no other file.
    ///
    /// # Errors
    /// A path of the policy is not UTF-8.
    pub fn command(
        &self,
        policy: &Policy,
        program: &Path,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> io::Result<Command> {
        let order = Order { policy: policy.clone(), confine: self.confines(), server: std::process::id() };
        let mut command = Command::new(&self.program);
        command.arg("sandbox").arg("--").arg(program).args(arguments);
        command.env_clear().env(VARIABLE, serde_json::to_string(&order)?).current_dir(&policy.scratch);
        Ok(command)
    }

    /// Starts a command made for this policy, and watches over it. Must be called on a tokio runtime.
    ///
    /// The program dies with the *thread* that calls this, so that has to be one that lives as long as the server.
    ///
    /// # Errors
    /// It can't be started.
    pub fn spawn(&self, command: &mut Command, policy: &Policy) -> io::Result<Group> {
        Group::spawn(command, &self.watch, policy)
    }
}
