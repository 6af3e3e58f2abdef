//! Why the service could not start or go on.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::artifact::ArtifactError;
use crate::config::Database;
use crate::executor::ExecutorError;
use crate::executor::python::InterpreterError;
use crate::job::Role;
use crate::server::TlsError;
use crate::store::StoreError;
use crate::workload::EnvironmentError;

/// How the first key is made in a database. A URL is not shown with its password, so it is no good to be copied.
fn first_key(database: &Database) -> String {
    let command = "trine keys create admin --scopes admin --database";
    match database {
        Database::Sqlite(_) => format!("`{command} {database}`"),
        Database::Postgres(_) => format!("`{command}`, which takes the URL from TRINE_DATABASE or the settings' file"),
    }
}

/// Why the service could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// What workloads share can't be opened.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// The store can't be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The executors can't be started.
    #[error(transparent)]
    Executors(#[from] ExecutorError),
    /// Programs can't be confined as the operator requires.
    #[error("`sandbox` is `required`, but it has a gap: {0}")]
    Sandbox(String),
    /// The certificate can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Requests need a key, and there is none.
    #[error(
        "{address} asks for API keys, and there is none that is good for anything: make one with {}, or let in whoever comes with \
         `--keys off`",
        first_key(database)
    )]
    NoKeys {
        /// Where the server would listen.
        address: SocketAddr,
        /// Where keys are kept.
        database: Database,
    },
    /// It is to do a part of what there is to do, and there is nobody to do the rest.
    #[error("the role `{}` is for servers that share a PostgreSQL: one that keeps its jobs in SQLite has to do all", .0.as_str())]
    Alone(Role),
    /// The address of the listener can't be told.
    #[error("can't tell the address of the listener: {0}")]
    Listener(std::io::Error),
    /// An interpreter that the operator named can't be used.
    #[error(transparent)]
    Interpreter(#[from] InterpreterError),
    /// The data folder can't be made, or nothing in it.
    #[error("can't use the data folder {}: {error}", path.display())]
    DataFolder {
        /// Where it is.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The data folder is another server's.
    #[error("another server has the data folder {}: each needs one of its own, also where they share a database", .0.display())]
    DataFolderTaken(PathBuf),
    /// What it had open is not at its place any more.
    #[error("{} was removed or replaced while the server ran", .0.display())]
    FileGone(PathBuf),
    /// What confines programs can't be set up.
    #[error("can't prepare the sandbox: {0}")]
    SandboxSetup(std::io::Error),
    /// Where artifacts are kept can't be used.
    #[error(transparent)]
    Artifacts(#[from] ArtifactError),
    /// What signs webhooks can't be read or made.
    #[error("can't read or make webhook.secret in the data folder: {0}")]
    Secret(std::io::Error),
}
