//! Registered functions: kept by the store, known by the catalogue, given to the executors of Python.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use super::catalogue::Catalogue;
use super::patience::until_read;
use crate::clock::Timestamp;
use crate::executor::python::{CodeSource, SourceFault};
use crate::function::{self, BadArchive, Defaults, Function, Kind, Limits, is_dotted, is_name, open_archive};
use crate::job::Choice;
use crate::store::{Age, Copied, Store, StoreError};
use crate::workload::{Invalid, form_of, sha256};

/// Content under a name, and what it is declared with.
#[derive(Clone, Debug)]
pub struct Deployment {
    /// The name.
    pub name: String,
    /// What the content is.
    pub kind: Kind,
    /// The content.
    pub content: Vec<u8>,
    /// What to call; `main` of the module, or `main:main` of a zip, if it is not said.
    pub entrypoint: Option<String>,
    /// The interpreter that runs it; without one, the server's default.
    pub interpreter: Option<String>,
    /// What its jobs are where they do not say otherwise.
    pub defaults: Defaults,
    /// What one call of it may use.
    pub limits: Limits,
}

/// Why a function was not deployed. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// It can't have this name.
    #[error(
        "{0:?} is no name of a function: it has 1 to 64 lower-case letters, digits, _ and -, and begins with one of the first two"
    )]
    Name(String),
    /// What is to be called is not said as it has to be.
    #[error("{0}")]
    Entrypoint(&'static str),
    /// Its limits would not hold where it is declared to run.
    #[error("memory and CPU time of one call can only be limited on processes: declare that executor")]
    Limits,
    /// There is no such interpreter.
    #[error("{0}")]
    Interpreter(String),
    /// The content can't be read.
    #[error("{0}")]
    Content(String),
    /// Its code can't be run, says the interpreter.
    #[error("{}", told(.0))]
    Source(SourceFault),
    /// Its code could not be looked at; that may be possible later.
    #[error("the code could not be looked at: {0}")]
    Unchecked(String),
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<BadArchive> for DeployError {
    fn from(error: BadArchive) -> Self {
        Self::Content(error.to_string())
    }
}

fn told(SourceFault { line, column, message }: &SourceFault) -> String {
    match (line, column) {
        (Some(line), Some(column)) => format!("line {line}, column {column}: {message}"),
        (Some(line), None) => format!("line {line}: {message}"),
        (None, _) => message.clone(),
    }
}

/// A deployment that was looked at.
pub(super) struct Candidate {
    pub(super) function: Function,
    content: Vec<u8>,
    /// The source of the module that the entry point is in.
    pub(super) source: String,
}

impl Candidate {
    /// The entry point within its module.
    pub(super) fn entrypoint(&self) -> &str {
        let whole = &self.function.entrypoint;
        whole.split_once(':').map_or(whole.as_str(), |(_, path)| path)
    }
}

/// The functions of this server.
pub struct Functions {
    store: Arc<dyn Store>,
    catalogue: Catalogue,
    /// Of the catalogue.
    age: Age,
}

impl fmt::Debug for Functions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Functions").field("catalogue", &self.catalogue).finish_non_exhaustive()
    }
}

impl Functions {
    /// Those of a store.
    pub async fn load(store: Arc<dyn Store>) -> Result<Self, StoreError> {
        let age = Age::new(Arc::clone(&store), Copied::Functions);
        let functions = Self { store, catalogue: Catalogue::default(), age };
        functions.catch_up().await?;
        Ok(functions)
    }

    /// Takes over what other servers change, for as long as it is polled.
    pub async fn follow(&self) {
        loop {
            self.age.changed().await;
            if let Err(error) = self.catch_up().await {
                self.age.rest(&error).await;
            }
        }
    }

    /// Takes over what other servers have changed up to now.
    pub async fn catch_up(&self) -> Result<(), StoreError> {
        self.age.catch_up(self.refresh()).await
    }

    /// Reads what may name functions; a second time if it is wrong by what was known of them, and others have changed them.
    pub async fn read<T, E: From<StoreError>>(&self, read: impl Fn(&Catalogue) -> Result<T, E>) -> Result<T, E> {
        let known = self.age.version();
        let first = read(&self.catalogue);
        if first.is_err() {
            self.catch_up().await?;
            if self.age.version() != known {
                return read(&self.catalogue);
            }
        }
        first
    }

    async fn refresh(&self) -> Result<(), StoreError> {
        self.catalogue.replace(self.store.functions().await?);
        Ok(())
    }

    /// What is known of them.
    pub const fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Checks a deployment, but for its code.
    pub(super) async fn look_at(deployment: Deployment) -> Result<Candidate, DeployError> {
        // Unpacking megabytes takes longer than other requests should wait for this thread.
        let looked_at = tokio::task::spawn_blocking(move || look_at(deployment)).await;
        // It ends early only if the runtime does, or if it panics.
        looked_at.map_err(|error| StoreError::Refused(error.to_string()))?
    }

    /// Keeps a version, which becomes the latest of its name. The same again is no new version.
    pub(super) async fn keep(&self, candidate: Candidate) -> Result<Arc<Function>, DeployError> {
        let Candidate { function, content, .. } = candidate;
        let _turn = self.age.turn().await;
        Ok(self.catalogue.put(self.store.deploy(function, content).await?))
    }

    /// Makes a version that is known the latest of its name. `None` if it is not known any more.
    pub async fn redeploy(&self, function: &Function) -> Result<Option<Arc<Function>>, StoreError> {
        let _turn = self.age.turn().await;
        let redeployed = self.store.redeploy(&function.name, &function.version).await?;
        Ok(redeployed.map(|function| self.catalogue.put(function)))
    }

    /// Forgets a function with all of its versions: what waits to call it fails. Whether there was one.
    pub async fn remove(&self, name: &str) -> Result<bool, StoreError> {
        let _turn = self.age.turn().await;
        let removed = self.store.undeploy(name).await?;
        self.catalogue.remove(name);
        Ok(removed)
    }

    /// The content of a version.
    pub async fn content(&self, function: &Function) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.function_content(&function.name, &function.version).await
    }
}

#[async_trait]
impl CodeSource for Functions {
    async fn find(&self, name: &str, version: Option<&str>) -> Result<Arc<Function>, String> {
        until_read(|| async {
            match self.read(|catalogue| catalogue.find(name, version).map_err(NotFound::Gone)).await {
                Ok(function) => Ok(Ok(function)),
                Err(NotFound::Store(error)) => Err(error),
                Err(gone) => Ok(Err(gone)),
            }
        })
        .await
        .map_err(NotFound::Store)
        .flatten()
        .map_err(|error| error.to_string())
    }

    async fn content(&self, function: &Function) -> Result<Option<Vec<u8>>, String> {
        until_read(|| self.content(function)).await.map_err(|error| error.to_string())
    }
}

/// Why a function can't be called.
#[derive(Debug, thiserror::Error)]
enum NotFound {
    #[error("the function is gone: {}", .0.message)]
    Gone(Invalid),
    #[error("the function can't be looked up: {0}")]
    Store(#[from] StoreError),
}

/// Checks a deployment, and finds out what its version and its form are.
fn look_at(deployment: Deployment) -> Result<Candidate, DeployError> {
    let Deployment { name, kind, content, entrypoint, interpreter, defaults, limits } = deployment;
    if !is_name(&name) {
        return Err(DeployError::Name(name));
    }
    if limits.need_a_process() && defaults.executor != Choice::Processes {
        return Err(DeployError::Limits);
    }
    let (entrypoint, source) = match kind {
        Kind::Source => {
            let entrypoint = entrypoint.unwrap_or_else(|| "main".into());
            if !is_dotted(&entrypoint) {
                return Err(DeployError::Entrypoint("must be the name of a function, such as main or Tool.run"));
            }
            let source = std::str::from_utf8(&content).map_err(|_| DeployError::Content("the source is not UTF-8".into()))?;
            (entrypoint, source.to_owned())
        }
        Kind::Zip => {
            let entrypoint = entrypoint.unwrap_or_else(|| "main:main".into());
            let source = source_in_archive(&content, &entrypoint)?;
            (entrypoint, source)
        }
    };
    let path = entrypoint.split_once(':').map_or(entrypoint.as_str(), |(_, path)| path);
    let form = form_of(&source, path);
    let now = Timestamp::now();
    let function = Function {
        version: version(kind, &content, &entrypoint, interpreter.as_deref()),
        name,
        created_at: now,
        deployed_at: now,
        kind,
        bytes: content.len() as u64,
        entrypoint,
        form,
        interpreter,
        defaults,
        limits,
    };
    Ok(Candidate { function, content, source })
}

fn source_in_archive(content: &[u8], entrypoint: &str) -> Result<String, DeployError> {
    match entrypoint.split_once(':') {
        Some((module, path)) if is_dotted(module) && is_dotted(path) => Ok(open_archive(content, module)?),
        _ => Err(DeployError::Entrypoint("of a zip, must be a module and a function in it, such as main:main")),
    }
}

/// What tells versions apart: everything that decides about what runs.
fn version(kind: function::Kind, content: &[u8], entrypoint: &str, interpreter: Option<&str>) -> String {
    // None of the parts holds a line break, so they can't run into each other.
    let mut identity = format!("{}\n{entrypoint}\n{}\n", kind.as_str(), interpreter.unwrap_or_default()).into_bytes();
    identity.extend_from_slice(content);
    sha256(&identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_all_that_decides_about_what_runs() {
        let versions = [
            version(Kind::Source, b"x", "main", None),
            version(Kind::Source, b"y", "main", None),
            version(Kind::Source, b"x", "other", None),
            version(Kind::Source, b"x", "main", Some("venv")),
        ];
        let different: std::collections::BTreeSet<_> = versions.iter().collect();
        assert_eq!(different.len(), versions.len());
        assert_eq!(versions[0], version(Kind::Source, b"x", "main", None));
    }
}
