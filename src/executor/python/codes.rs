//! The code of registered functions, fetched when it is first needed and kept for a while.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use moka::future::Cache;
use moka::policy::EvictionPolicy;
use tempfile::NamedTempFile;

use crate::function::{Function, Kind, Limits};
use crate::job::Failure;
use crate::workload::{FunctionCall, PythonCall, PythonCode, PythonContent, PythonFunction, PythonRules, sha256};

/// The most bytes of sources that are kept in memory.
const MOST_BYTES: u64 = 64 << 20;
/// What an entry takes up besides its source, at a guess.
const ENTRY_BYTES: usize = 512;

/// Where the code of functions comes from.
#[async_trait]
pub trait CodeSource: fmt::Debug + Send + Sync + 'static {
    /// The version of a function; waits for as long as that can't be said just now.
    ///
    /// # Errors
    /// It can't be called, for this reason.
    async fn find(&self, name: &str, version: Option<&str>) -> Result<Arc<Function>, String>;

    /// Its content, waited for as well; `None` if it is gone.
    ///
    /// # Errors
    /// It can't be read, for this reason.
    async fn content(&self, function: &Function) -> Result<Option<Vec<u8>>, String>;
}

/// Turns calls of functions into calls of their code.
#[derive(Clone)]
pub(super) struct Codes {
    source: Arc<dyn CodeSource>,
    /// The zips are here, under the hash of their content: hosts read them as long as they run, so they stay as long as the server does.
    archives: PathBuf,
    /// The content of each version, and its hash. Functions of one content have its modules in common, as tasks of one program have.
    recent: Cache<String, (String, PythonContent)>,
}

impl Codes {
    pub(super) fn new(source: Arc<dyn CodeSource>, archives: PathBuf) -> Self {
        let bytes = |_: &String, (_, content): &(String, PythonContent)| {
            let bytes = match content {
                PythonContent::Source(source) => source.len(),
                PythonContent::Zip(_) => 0,
            };
            u32::try_from(bytes + ENTRY_BYTES).unwrap_or(u32::MAX)
        };
        let recent = Cache::builder().weigher(bytes).max_capacity(MOST_BYTES).eviction_policy(EvictionPolicy::lru()).build();
        Self { source, archives, recent }
    }

    /// The call of the code that a function is, and what it may use.
    pub(super) async fn call(&self, call: FunctionCall, rules: &PythonRules) -> Result<(PythonCall, Limits), Failure> {
        let FunctionCall { name, version, args, kwargs, network } = call;
        let function = self.source.find(&name, version.as_deref()).await.map_err(Failure::error)?;
        let interpreter = rules.interpreter(function.interpreter.as_deref());
        let interpreter = interpreter.map_err(|invalid| Failure::error(invalid.message))?.name.clone();
        let content = self.recent.try_get_with_by_ref(&function.version, self.fetch(&function)).await;
        let (sha, content) =
            content.map_err(|reason| Failure::error(format!("the code of the function {name} can't be had: {reason}")))?;
        let code = PythonCode { sha, content, entrypoint: function.entrypoint.clone() };
        let call = PythonCall { function: PythonFunction::Code { code, args, kwargs }, interpreter, network };
        Ok((call, function.limits))
    }

    async fn fetch(&self, function: &Function) -> Result<(String, PythonContent), String> {
        let content = self.source.content(function).await?.ok_or("it was removed")?;
        let (kind, archives) = (function.kind, self.archives.clone());
        let kept = tokio::task::spawn_blocking(move || keep(kind, content, &archives)).await;
        kept.map_err(io::Error::other).flatten().map_err(|error| error.to_string())
    }
}

/// Makes what hosts need of a content, by its hash.
fn keep(kind: Kind, content: Vec<u8>, archives: &Path) -> io::Result<(String, PythonContent)> {
    let sha = sha256(&content);
    let content = match kind {
        Kind::Source => PythonContent::Source(String::from_utf8(content).map_err(io::Error::other)?.into()),
        Kind::Zip => {
            let path = archives.join(format!("{sha}.zip"));
            if !path.exists() {
                write(&path, &content)?;
            }
            PythonContent::Zip(path)
        }
    };
    Ok((sha, content))
}

/// Writes a file that is there whole or not at all.
fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
    file.write_all(content)?;
    file.persist(path)?;
    Ok(())
}
