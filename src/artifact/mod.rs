//! Artifacts: files that jobs leave behind, kept in a folder or in a storage that speaks S3's protocol.
//!
//! A file is kept as `DAY/JOB/ATTEMPT/NAME`, the day being that on which the job got its id, in UTC. That is all there is to know of it: the
//! database holds nothing of artifacts, so a job without any costs nothing, and what a crash leaves behind is found by its job, which is gone.

mod collect;
mod place;

pub use place::{ArtifactPlace, BadPlace};

use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::aws::AmazonS3Builder;
use object_store::buffered::BufWriter;
use object_store::client::{HttpClient, HttpConnector};
use object_store::local::LocalFileSystem;
use object_store::path::{Path, PathPart};
use object_store::{
    BackoffConfig, ClientOptions, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt as _, RetryConfig,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use self::collect::Left;
use crate::clock::Timestamp;
use crate::job::JobId;
use crate::outbound;

/// Files that are longer are sent in parts of so many bytes.
const PART_BYTES: usize = 8 << 20;
/// How long a storage that does not answer is tried.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a storage may take to be reached, and to go on with an answer.
const CONNECT: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_secs(20);

/// Where artifacts are kept. Clones are handles to the same.
#[derive(Clone, Debug)]
pub struct Artifacts {
    storage: Arc<dyn ObjectStore>,
    prefix: Path,
    max_bytes: u64,
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
    /// The length of the whole file.
    pub bytes: u64,
    /// Which of them these are; the second is not among them.
    pub range: std::ops::Range<u64>,
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
    NotKept(String, std::io::Error),
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
    /// Keeps them in this place, of each attempt so many bytes at most.
    pub fn open(place: &ArtifactPlace, max_bytes: u64) -> Result<Self, ArtifactError> {
        let unusable = |error: &dyn std::fmt::Display| ArtifactError::Unusable(error.to_string());
        let (storage, prefix): (Arc<dyn ObjectStore>, _) = match place {
            ArtifactPlace::Folder(folder) => {
                std::fs::create_dir_all(folder).map_err(|error| unusable(&error))?;
                let storage = LocalFileSystem::new_with_prefix(folder)?.with_automatic_cleanup(true).with_fsync(true);
                (Arc::new(storage), Path::default())
            }
            ArtifactPlace::S3 { bucket, prefix } => {
                let retry = RetryConfig { backoff: BackoffConfig::default(), max_retries: 10, retry_timeout: PATIENCE };
                // Who may use it and where it is, the environment says, as it does for other programs.
                let builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(retry);
                let builder = builder.with_http_connector(Connector(client().map_err(|error| unusable(&error))?));
                (Arc::new(builder.build()?), prefix.clone())
            }
        };
        Ok(Self { storage, prefix, max_bytes })
    }

    /// Keeps what an attempt has left in `folder`, below `scratch`, which the job can't have replaced; the folder is gone then. How many files
    /// that were.
    ///
    /// # Errors
    /// They can't all be kept; then some of them may be.
    pub async fn keep(&self, job: JobId, attempt: u32, scratch: &FilePath, folder: &str) -> Result<usize, ArtifactError> {
        let kept = self.keep_all(job, attempt, Left::behind(scratch, folder, self.max_bytes).await).await;
        collect::clear(scratch, folder).await;
        kept
    }

    async fn keep_all(&self, job: JobId, attempt: u32, left: Result<Left, ArtifactError>) -> Result<usize, ArtifactError> {
        let left = left?;
        for name in left.names() {
            let key = name.iter().fold(self.of_attempt(job, attempt), |key, part| key.join(PathPart::from(&**part)));
            let (file, bytes) = left.open(name).await?;
            let mut writer = BufWriter::with_capacity(Arc::clone(&self.storage), key, PART_BYTES);
            let failed = |error| ArtifactError::NotKept(name.join("/"), error);
            // A process that the job has left behind may still be writing.
            if let Err(error) = tokio::io::copy(&mut tokio::fs::File::from_std(file).take(bytes), &mut writer).await {
                // What was sent is not to be kept for ever. Whether that works can't be helped.
                let _ = writer.abort().await;
                return Err(failed(error));
            }
            writer.shutdown().await.map_err(failed)?;
        }
        Ok(left.names().len())
    }

    /// The artifacts of an attempt, sorted by name.
    pub async fn list(&self, job: JobId, attempt: u32) -> Result<Vec<Artifact>, ArtifactError> {
        let folder = self.of_attempt(job, attempt);
        let found = self.storage.list(Some(&folder)).try_collect::<Vec<_>>().await?;
        let mut artifacts: Vec<_> = found.iter().filter_map(|meta| Artifact::of(&folder, meta)).collect();
        artifacts.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(artifacts)
    }

    /// The content of an artifact; `None` if there is none of this name.
    pub async fn get(&self, job: JobId, attempt: u32, name: &str, part: Option<Part>) -> Result<Option<Content>, ArtifactError> {
        let mut key = self.of_attempt(job, attempt);
        for segment in name.split('/') {
            if matches!(segment, "" | "." | "..") {
                return Ok(None);
            }
            key = key.join(PathPart::from(segment));
        }
        let options = match part {
            None => GetOptions::default(),
            Some(part) => {
                // Storages answer differently what lies beyond the end of a file.
                let Some(meta) = there(self.storage.head(&key).await)? else { return Ok(None) };
                let range = part.of(meta.size).ok_or(ArtifactError::NoSuchPart(meta.size))?;
                GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() }
            }
        };
        let Some(found) = there(self.storage.get_opts(&key, options).await)? else { return Ok(None) };
        let (bytes, range) = (found.meta.size, found.range.clone());
        Ok(Some(Content { bytes, range, stream: found.into_stream().map_err(ArtifactError::from).boxed() }))
    }

    /// Removes those of all attempts at a job.
    pub async fn remove(&self, job: JobId) -> Result<(), ArtifactError> {
        let found = self.storage.list(Some(&self.of_job(job))).map_ok(|meta| meta.location).boxed();
        Ok(self.storage.delete_stream(found).try_for_each(|_| async { Ok(()) }).await?)
    }

    /// The days of which there are some.
    pub async fn days(&self) -> Result<Vec<String>, ArtifactError> {
        let prefix = Some(&self.prefix).filter(|prefix| !prefix.is_root());
        let found = self.storage.list_with_delimiter(prefix).await?;
        let mut days: Vec<_> = found.common_prefixes.iter().filter_map(|day| Some(day.filename()?.to_owned())).collect();
        days.sort();
        Ok(days)
    }

    /// The jobs of a day of which there are some.
    pub async fn jobs(&self, day: &str) -> Result<Vec<JobId>, ArtifactError> {
        let found = self.storage.list_with_delimiter(Some(&self.prefix.clone().join(day))).await?;
        Ok(found.common_prefixes.iter().filter_map(|job| job.filename()?.parse().ok()).collect())
    }

    fn of_job(&self, job: JobId) -> Path {
        self.prefix.clone().join(day(job)).join(job.to_string())
    }

    fn of_attempt(&self, job: JobId, attempt: u32) -> Path {
        self.of_job(job).join(attempt.to_string())
    }
}

impl Artifact {
    fn of(folder: &Path, meta: &ObjectMeta) -> Option<Self> {
        let parts = meta.location.prefix_match(folder)?;
        let names: Vec<_> = parts.map(|part| decoded(part.as_ref())).collect();
        let kept_at = Timestamp::from_micros(meta.last_modified.timestamp_micros());
        Some(Self { name: names.join("/"), bytes: meta.size, kept_at })
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

/// A part of a name as it was before it became a part of a key.
fn decoded(part: &str) -> String {
    percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned()
}

/// The day of a job's id, such as `2026-11-27`.
fn day(job: JobId) -> String {
    let millis = job.as_bytes()[..6].iter().fold(0, |millis, &byte| millis << 8 | i64::from(byte));
    let moment = jiff::Timestamp::from_millisecond(millis).unwrap_or_default();
    moment.to_zoned(jiff::tz::TimeZone::UTC).date().to_string()
}

fn there<T>(found: object_store::Result<T>) -> Result<Option<T>, ArtifactError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Requests to a storage go through a client that is ours.
#[derive(Debug)]
struct Connector(reqwest::Client);

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

fn client() -> Result<reqwest::Client, Box<dyn std::error::Error>> {
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(outbound::tls()?)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT)
        .read_timeout(SILENCE);
    Ok(client.build()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// A place to keep them, and a folder in which a job may leave some.
    struct Bench {
        folder: tempfile::TempDir,
        artifacts: Artifacts,
        job: JobId,
    }

    impl Bench {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let artifacts = Artifacts::open(&ArtifactPlace::Folder(folder.path().join("kept")), 1_000).unwrap();
            std::fs::create_dir_all(folder.path().join("scratch/artifacts")).unwrap();
            Self { folder, artifacts, job: JobId::new() }
        }

        fn leave(&self, name: &str, content: &str) {
            let path = self.left(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }

        fn left(&self, name: &str) -> std::path::PathBuf {
            self.folder.path().join("scratch/artifacts").join(name)
        }

        async fn keep(&self) -> Result<usize, ArtifactError> {
            self.artifacts.keep(self.job, 1, &self.folder.path().join("scratch"), "artifacts").await
        }

        async fn names(&self) -> Vec<String> {
            self.artifacts.list(self.job, 1).await.unwrap().into_iter().map(|artifact| artifact.name).collect()
        }

        async fn read(&self, name: &str, part: Option<Part>) -> Option<String> {
            let content = self.artifacts.get(self.job, 1, name, part).await.unwrap()?;
            let chunks = content.stream.try_collect::<Vec<_>>().await.unwrap();
            Some(String::from_utf8(chunks.concat()).unwrap())
        }
    }

    #[tokio::test]
    async fn what_is_left_is_kept_under_its_name_and_gone_with_its_job() {
        let bench = Bench::new();
        let names = ["a b.txt", "dir/deep/x%2F.csv", "ünïcode~*#?.txt"];
        for name in names {
            bench.leave(name, name);
        }
        bench.leave("empty", "");
        assert_eq!(bench.keep().await.unwrap(), 4);
        assert_eq!(bench.names().await, ["a b.txt", "dir/deep/x%2F.csv", "empty", "ünïcode~*#?.txt"]);
        for name in names {
            assert_eq!(bench.read(name, None).await.as_deref(), Some(name));
        }
        assert_eq!(bench.artifacts.list(bench.job, 2).await.unwrap(), []);
        assert_eq!(bench.read("empty", None).await.as_deref(), Some(""));
        let days = bench.artifacts.days().await.unwrap();
        assert_eq!(days, [day(bench.job)]);
        assert_eq!(bench.artifacts.jobs(&days[0]).await.unwrap(), [bench.job]);
        bench.artifacts.remove(bench.job).await.unwrap();
        assert_eq!(bench.names().await, [""; 0]);
        assert_eq!(bench.artifacts.days().await.unwrap(), [""; 0]);
    }

    #[rstest]
    #[case(Part::From(2), Some("2345"))]
    #[case(Part::Between(1, 3), Some("123"))]
    #[case(Part::Between(4, 400), Some("45"))]
    #[case(Part::Last(2), Some("45"))]
    #[case(Part::Last(20), Some("012345"))]
    #[case(Part::From(6), None)]
    #[case(Part::Last(0), None)]
    #[tokio::test]
    async fn a_part_of_it_can_be_had(#[case] part: Part, #[case] expected: Option<&str>) {
        let bench = Bench::new();
        bench.leave("digits", "012345");
        bench.keep().await.unwrap();
        if expected.is_some() {
            assert_eq!(bench.read("digits", Some(part)).await.as_deref(), expected);
        } else {
            let refused = bench.artifacts.get(bench.job, 1, "digits", Some(part)).await;
            assert!(matches!(refused, Err(ArtifactError::NoSuchPart(6))));
        }
    }

    #[tokio::test]
    async fn no_name_leads_elsewhere() {
        let bench = Bench::new();
        bench.leave("mine", "mine");
        bench.keep().await.unwrap();
        for name in ["", "/", "../1/mine", "./mine", "mine/", "/mine", "nothing", "../../../../scratch/artifacts/mine"] {
            assert_eq!(bench.read(name, None).await, None, "{name}");
        }
    }

    #[tokio::test]
    async fn a_link_out_of_the_folder_takes_nothing_along() {
        let bench = Bench::new();
        let secret = bench.folder.path().join("secret");
        std::fs::write(&secret, "secret").unwrap();
        std::os::unix::fs::symlink(&secret, bench.left("link")).unwrap();
        std::os::unix::fs::symlink(bench.folder.path(), bench.left("folder")).unwrap();
        nix::unistd::mkfifo(&bench.left("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        bench.leave("file", "file");
        assert_eq!(bench.keep().await.unwrap(), 1);
        assert_eq!(bench.names().await, ["file"]);

        // The folder itself is the job's to replace.
        std::os::unix::fs::symlink(bench.folder.path(), bench.folder.path().join("scratch/artifacts")).unwrap();
        assert!(matches!(bench.keep().await, Err(ArtifactError::Unreadable(..))));
    }

    #[tokio::test]
    async fn there_is_a_limit_to_their_length_and_number() {
        let bench = Bench::new();
        let just_enough = || {
            bench.leave("a", &"x".repeat(600));
            bench.leave("b", &"x".repeat(400));
        };
        just_enough();
        assert_eq!(bench.keep().await.unwrap(), 2);
        just_enough();
        bench.leave("c", "x");
        assert!(matches!(bench.keep().await, Err(ArtifactError::TooLong(1_000))));
        for n in 0..=collect::MOST {
            bench.leave(&n.to_string(), "");
        }
        assert!(matches!(bench.keep().await, Err(ArtifactError::TooMany(_))));
    }

    #[tokio::test]
    async fn a_job_that_leaves_nothing_needs_no_folder() {
        let bench = Bench::new();
        std::fs::remove_dir(bench.left("")).unwrap();
        assert_eq!(bench.keep().await.unwrap(), 0);
    }

    #[test]
    fn a_job_belongs_to_the_day_of_its_id() {
        let id = "01997d3e-8c00-7000-8000-000000000000".parse().unwrap();
        assert_eq!(day(id), "2025-09-24");
    }
}
