//! Artifacts: files that jobs leave behind, kept in a folder or in a storage that speaks S3's protocol.
//!
//! A file is kept as `STORE/DAY/JOB/ATTEMPT/NAME`: the store is the database that the job is in, the day that on which it got its id, in UTC. That
//! is all there is to know of it. The database holds nothing of artifacts, so a job without any costs nothing, and what a crash leaves behind is
//! found by its job, which is gone.

mod collect;
mod keep;
mod key;
mod place;

pub use place::{ArtifactPlace, BadPlace};

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use jiff::civil::Date;
use object_store::aws::AmazonS3Builder;
use object_store::client::{HttpClient, HttpConnector};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientConfigKey, ClientOptions, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt as _,
    RetryConfig,
};
use tokio::sync::Semaphore;

use self::key::day;
use crate::clock::Timestamp;
use crate::job::JobId;
use crate::{outbound, own};

/// How long a request to a storage is tried again, and how long it may take until its answer begins: it may have a part of a file to send.
const PATIENCE: Duration = Duration::from_mins(2);
const SILENCE: Duration = Duration::from_mins(1);
/// How long a client waits for a storage that says nothing to what it asks.
const ANSWER: Duration = Duration::from_secs(15);
/// How long a storage may take to be reached.
const CONNECT: Duration = Duration::from_secs(5);
/// Files that are copied at once: each may take 24 MiB of memory, three parts.
const AT_ONCE: usize = 4;

/// Where artifacts are kept. Clones are handles to the same.
#[derive(Clone, Debug)]
pub struct Artifacts {
    storage: Arc<dyn ObjectStore>,
    /// What all keys begin with.
    prefix: Path,
    /// The folder, if it is one, that corresponds to the prefix.
    folder: Option<PathBuf>,
    max_bytes: u64,
    copying: Arc<Semaphore>,
    opened_at: Timestamp,
}

/// A file that a job left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// Its path below the folder that the job had for such files, with `/` between the parts.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// When it was kept.
    pub kept_at: Timestamp,
}

/// What of a file is wanted, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All but so many at its beginning.
    From(u64),
    /// From the first to the second, both included.
    Between(u64, u64),
    /// So many at its end.
    Last(u64),
}

/// The content of a file, or a part of it.
pub struct Content {
    /// What the file is told by from another one of the same name.
    pub version: String,
    /// The length of the whole file.
    pub bytes: u64,
    /// Which of them these are, the second not among them; `None` for all.
    pub part: Option<std::ops::Range<u64>>,
    /// They come as they are read.
    pub stream: BoxStream<'static, Result<Bytes, ArtifactError>>,
}

/// Why artifacts can't be kept or had.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// Together they are longer than those of one attempt may be.
    #[error("they are longer than the {0} bytes that an attempt may leave")]
    TooLong(u64),
    /// They are more than those of one attempt may be.
    #[error("they are more than {0}")]
    TooMany(usize),
    /// The name of one can't be kept.
    #[error("the name {0:?} can't be kept: {1}")]
    Name(String, &'static str),
    /// They can't be read where the job left them.
    #[error("{0:?} can't be read: {1}")]
    Unreadable(String, std::io::Error),
    /// One of them could not be copied to the storage.
    #[error("{0:?} can't be copied: {1}")]
    NotCopied(String, std::io::Error),
    /// The job was told to stop in the meantime.
    #[error("the job was told to stop in the meantime")]
    Stopped,
    /// There is no such part of the file, which has so many bytes.
    #[error("the file has {0} bytes")]
    NoSuchPart(u64),
    /// The storage can't be used as it is set up.
    #[error("the storage of artifacts can't be used: {0}")]
    Unusable(String),
    /// The storage does not do what it should.
    #[error("the storage of artifacts fails: {0}")]
    Storage(#[from] object_store::Error),
}

impl Artifacts {
    /// Keeps those of the jobs of a store in this place, of each attempt so many bytes at most. Other stores may have the same place.
    pub fn open(place: &ArtifactPlace, store: &str, max_bytes: u64) -> Result<Self, ArtifactError> {
        let unusable = |error: &dyn std::fmt::Display| ArtifactError::Unusable(error.to_string());
        let (storage, prefix, folder): (Arc<dyn ObjectStore>, _, _) = match place {
            ArtifactPlace::Folder(folder) => {
                own::folder(&folder.join(store)).map_err(|error| unusable(&error))?;
                (Arc::new(LocalFileSystem::new_with_prefix(folder)?), Path::default(), Some(folder.join(store)))
            }
            ArtifactPlace::S3 { bucket, prefix } => {
                let retry = RetryConfig { backoff: BackoffConfig::default(), max_retries: 10, retry_timeout: PATIENCE };
                // Who may use it and where it is, the environment says, as it does for other programs.
                let builder =
                    AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(retry).with_http_connector(Connector);
                (Arc::new(builder.build()?), prefix.clone(), None)
            }
        };
        let (prefix, copying, opened_at) = (prefix.join(store), Arc::new(Semaphore::new(AT_ONCE)), Timestamp::now());
        Ok(Self { storage, prefix, folder, max_bytes, copying, opened_at })
    }

    /// The artifacts of an attempt, sorted by name.
    pub async fn list(&self, job: JobId, attempt: u32) -> Result<Vec<Artifact>, ArtifactError> {
        let folder = self.of_attempt(job, attempt);
        let found = in_time(self.storage.list(Some(&folder)).try_collect::<Vec<_>>()).await?;
        let mut artifacts: Vec<_> = found.iter().filter_map(|meta| Artifact::of(&folder, meta)).collect();
        artifacts.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(artifacts)
    }

    /// What an artifact is told by from another one of the same name; `None` if there is none.
    pub async fn version(&self, job: JobId, attempt: u32, name: &str) -> Result<Option<String>, ArtifactError> {
        let Some(key) = key::of_name(&self.of_attempt(job, attempt), name.split('/')) else { return Ok(None) };
        Ok(there(in_time(self.storage.head(&key)).await)?.map(|meta| version(attempt, &meta)))
    }

    /// The content of an artifact; `None` if there is none of this name. A part `of` a version that it is not is the whole.
    pub async fn get(
        &self,
        job: JobId,
        attempt: u32,
        name: &str,
        part: Option<Part>,
        of: Option<&str>,
    ) -> Result<Option<Content>, ArtifactError> {
        let Some(key) = key::of_name(&self.of_attempt(job, attempt), name.split('/')) else { return Ok(None) };
        let mut range = None;
        if let Some(part) = part {
            // Storages answer differently what lies beyond the end of a file.
            let Some(meta) = there(in_time(self.storage.head(&key)).await)? else { return Ok(None) };
            if of.is_none_or(|of| of == version(attempt, &meta)) {
                range = Some(part.of(meta.size).ok_or(ArtifactError::NoSuchPart(meta.size))?);
            }
        }
        let options = GetOptions { range: range.clone().map(GetRange::Bounded), ..GetOptions::default() };
        let Some(found) = there(in_time(self.storage.get_opts(&key, options)).await)? else { return Ok(None) };
        let (version, bytes) = (version(attempt, &found.meta), found.meta.size);
        Ok(Some(Content { version, bytes, part: range, stream: found.into_stream().map_err(ArtifactError::from).boxed() }))
    }

    /// Removes those of all attempts at a job.
    pub async fn remove(&self, job: JobId) -> Result<(), ArtifactError> {
        self.remove_below(self.of_job(job)).await
    }

    /// The days of which there are some, the first ones first.
    pub async fn days(&self) -> Result<Vec<Date>, ArtifactError> {
        let found = self.storage.list_with_delimiter(Some(&self.prefix)).await?;
        let mut days: Vec<Date> = found.common_prefixes.iter().filter_map(|day| day.filename()?.parse().ok()).collect();
        days.sort_unstable();
        Ok(days)
    }

    /// The jobs of a day of which there are some.
    pub async fn jobs(&self, of: Date) -> Result<Vec<JobId>, ArtifactError> {
        let found = self.storage.list_with_delimiter(Some(&self.prefix.clone().join(of.to_string()))).await?;
        let jobs = found.common_prefixes.iter().filter_map(|job| job.filename()?.parse().ok());
        Ok(jobs.filter(|job| day(*job) == of).collect())
    }

    fn of_job(&self, job: JobId) -> Path {
        self.prefix.clone().join(day(job).to_string()).join(job.to_string())
    }

    fn of_attempt(&self, job: JobId, attempt: u32) -> Path {
        self.of_job(job).join(attempt.to_string())
    }
}

impl Artifact {
    fn of(folder: &Path, meta: &ObjectMeta) -> Option<Self> {
        let name = key::name(folder, &meta.location)?;
        Some(Self { name, bytes: meta.size, kept_at: Timestamp::from_micros(meta.last_modified.timestamp_micros()) })
    }
}

impl Part {
    /// Which bytes that are of a file of this length; `None` if it has none of them.
    fn of(self, bytes: u64) -> Option<std::ops::Range<u64>> {
        let range = match self {
            Self::From(first) => first..bytes,
            Self::Between(first, last) => first..bytes.min(last.saturating_add(1)),
            Self::Last(count) => bytes.saturating_sub(count)..bytes,
        };
        Some(range).filter(|range| !range.is_empty())
    }
}

/// An attempt that is handed back gives its number, and the names of its files, to the next one: so what the storage tells files by is a part of
/// it. A time alone would not do, since S3 has no more than its seconds.
fn version(attempt: u32, meta: &ObjectMeta) -> String {
    let of_storage = meta.e_tag.as_deref().filter(|tag| !tag.starts_with("W/")).map(|tag| tag.trim_matches('"').to_owned());
    let of_time = || format!("{:x}-{:x}", meta.last_modified.timestamp_micros(), meta.size);
    format!("{attempt}-{}", of_storage.unwrap_or_else(of_time))
}

/// What a storage answers, unless it says nothing for too long for whoever waits.
async fn in_time<T>(asked: impl Future<Output = object_store::Result<T>>) -> object_store::Result<T> {
    let silent = || format!("no answer within {} s", ANSWER.as_secs()).into();
    let silent = |_| Err(object_store::Error::Generic { store: "storage", source: silent() });
    tokio::time::timeout(ANSWER, asked).await.unwrap_or_else(silent)
}

/// What was found, if it was; what is said to be below a file is not there either.
fn there<T>(found: object_store::Result<T>) -> Result<Option<T>, ArtifactError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => {
            let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
            while let Some(error) = cause {
                let io = error.downcast_ref::<std::io::Error>();
                if io.is_some_and(|io| matches!(io.kind(), std::io::ErrorKind::NotADirectory | std::io::ErrorKind::NotFound)) {
                    return Ok(None);
                }
                cause = error.source();
            }
            Err(error.into())
        }
    }
}

/// Requests to a storage go through a client that is ours.
#[derive(Debug)]
struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let unusable = |source| object_store::Error::Generic { store: "storage", source };
        let without_tls = options
            .get_config_value(&ClientConfigKey::AllowHttp)
            .is_some_and(|allowed| ["1", "true", "on", "yes", "y"].contains(&&*allowed.to_ascii_lowercase()));
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(outbound::tls().map_err(|error| unusable(error.into()))?)
            .https_only(!without_tls)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .build();
        Ok(HttpClient::new(client.map_err(|error| unusable(error.into()))?))
    }
}

#[cfg(test)]
mod tests;
