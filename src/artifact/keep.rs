//! How artifacts get to where they are kept, and how they go.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path as FilePath, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use object_store::buffered::BufWriter;
use object_store::path::Path;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

use super::collect::{Left, LeftFile};
use super::{AT_ONCE, ArtifactError, Artifacts, key};
use crate::job::JobId;
use crate::own;

/// Files that are longer are sent in parts of so many bytes, two at once.
const PART_BYTES: usize = 8 << 20;
const PARTS_AT_ONCE: usize = 2;
/// How much is read at once.
const READ_BYTES: usize = 256 << 10;
/// How long it may take to take back what an attempt that was stopped has left so far.
const TAKING_BACK: Duration = Duration::from_secs(2);

impl Artifacts {
    /// Removes what an earlier run of this attempt has left, if a crash kept the end of that from being recorded: before it runs, so that this
    /// is so however it ends. A job that is younger than this server has had no such run, and costs nothing.
    pub async fn make_way(&self, job: JobId, attempt: u32) {
        // A storage is not asked for each job.
        if self.folder.is_none() || key::millis(job) >= self.opened_at.as_micros() / 1_000 {
            return;
        }
        if let Err(error) = self.remove_below(self.of_attempt(job, attempt)).await {
            tracing::warn!(%job, attempt, %error, "what an earlier run of an attempt has left can't be removed");
        }
    }

    /// Keeps what an attempt has left in `folder`, below `scratch`, which the job can't have replaced; unless it is `stopped` before that is done.
    /// What was kept of it before goes: a crash that kept its end from being recorded has it run again under the same number.
    ///
    /// # Errors
    /// They can't all be kept; then some of them may be, but none of an attempt that was stopped.
    pub async fn keep<R>(
        &self,
        job: JobId,
        attempt: u32,
        scratch: &FilePath,
        folder: &str,
        stopped: impl Future<Output = R>,
    ) -> Result<(), ArtifactError> {
        let left = Left::behind(scratch, folder, self.max_bytes).await?;
        if left.files().is_empty() {
            // A storage is not asked for each job that leaves nothing: that takes longer than many a job.
            return if self.folder.is_some() { self.remove_below(self.of_attempt(job, attempt)).await } else { Ok(()) };
        }
        let broken_off = Arc::new(AtomicBool::new(false));
        let mut keeping = pin!(self.keep_all(job, attempt, &left, &broken_off));
        let kept = tokio::select! {
            biased;
            _ = stopped => None,
            kept = &mut keeping => Some(kept),
        };
        if let Some(kept) = kept {
            return kept;
        }
        // What is just being copied ends before it is taken back, unless the storage does not answer.
        broken_off.store(true, Ordering::Relaxed);
        let _ = tokio::time::timeout(TAKING_BACK, keeping).await;
        // It may run again under the same number.
        let taken_back = tokio::time::timeout(TAKING_BACK, self.remove_below(self.of_attempt(job, attempt))).await;
        if !matches!(taken_back, Ok(Ok(()))) {
            tracing::warn!(%job, attempt, "some artifacts of an attempt that was stopped stay as long as its job");
        }
        Err(ArtifactError::Stopped)
    }

    async fn keep_all(&self, job: JobId, attempt: u32, left: &Left, broken_off: &Arc<AtomicBool>) -> Result<(), ArtifactError> {
        let target = self.of_attempt(job, attempt);
        self.remove_below(target.clone()).await?;
        let copies: Vec<_> = left.files().iter().map(|file| self.copy(left, file, &target, broken_off).boxed()).collect();
        let mut copies = stream::iter(copies).buffer_unordered(AT_ONCE);
        let mut kept = Ok(());
        // All of them end, so that what one has begun is aborted when another one fails.
        while let Some(copied) = copies.next().await {
            broken_off.fetch_or(copied.is_err(), Ordering::Relaxed);
            kept = kept.and(copied);
        }
        kept?;
        self.sync(job, attempt).await
    }

    async fn copy(&self, left: &Left, of: &LeftFile, target: &Path, broken_off: &Arc<AtomicBool>) -> Result<(), ArtifactError> {
        let failed = |error| ArtifactError::NotCopied(of.name.join("/"), error);
        // It does not end before this does.
        let _turn = self.copying.acquire().await.map_err(|error| failed(io::Error::other(error)))?;
        if broken_off.load(Ordering::Relaxed) {
            return Err(ArtifactError::Stopped);
        }
        let file = left.open(of).await?;
        let too_long = || ArtifactError::Name(of.name.join("/"), "it is too long");
        let key = key::of_name(target, of.name.iter().map(|part| &**part)).ok_or_else(too_long)?;
        // A process that the job has left behind may still be writing.
        if let Some(path) = self.path(&key) {
            let (bytes, broken_off) = (of.bytes, Arc::clone(broken_off));
            return blocking(move || write(&path, file.take(bytes), &broken_off)).await.map_err(failed);
        }
        let mut writer = BufWriter::with_capacity(Arc::clone(&self.storage), key, PART_BYTES).with_max_concurrency(PARTS_AT_ONCE);
        let mut reader = BufReader::with_capacity(READ_BYTES, tokio::fs::File::from_std(file)).take(of.bytes);
        let copied = async {
            loop {
                let chunk = reader.fill_buf().await?;
                let count = chunk.len();
                if count == 0 {
                    return Ok(());
                }
                go_on(broken_off)?;
                writer.write_all(chunk).await?;
                reader.consume(count);
            }
        };
        if let Err(error) = copied.await {
            // What was sent is not to be kept for ever. Whether that works can't be helped.
            let _ = writer.abort().await;
            return Err(failed(error));
        }
        writer.shutdown().await.map_err(failed)
    }

    /// Makes sure that what is in a folder outlives the machine.
    async fn sync(&self, job: JobId, attempt: u32) -> Result<(), ArtifactError> {
        let Some(folder) = self.path(&self.of_attempt(job, attempt)) else { return Ok(()) };
        let synced = blocking(move || {
            // That of the attempt with the folders in it, then those of the job, of the day, and of the store.
            sync_all(&folder)?;
            folder.ancestors().skip(1).take(3).try_for_each(|above| File::open(above)?.sync_all())
        });
        synced.await.map_err(|error| ArtifactError::NotCopied(String::new(), error))
    }

    /// Removes all that is below a key.
    pub(super) async fn remove_below(&self, prefix: Path) -> Result<(), ArtifactError> {
        if let Some(folder) = self.path(&prefix) {
            let top = self.folder.clone();
            let removed = blocking(move || remove(&folder, top.as_deref()));
            return removed.await.map_err(|error| ArtifactError::Unusable(error.to_string()));
        }
        let found = self.storage.list(Some(&prefix)).map_ok(|meta| meta.location).boxed();
        let mut removed = self.storage.delete_stream(found);
        while let Some(removed) = removed.next().await {
            // Another node may have been quicker.
            if let Err(error) = removed
                && !matches!(error, object_store::Error::NotFound { .. })
            {
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// Where a key is in the folder, if they are kept in one.
    fn path(&self, key: &Path) -> Option<PathBuf> {
        let folder = self.folder.as_ref()?;
        Some(key.prefix_match(&self.prefix)?.fold(folder.clone(), |path, part| path.join(part.as_ref())))
    }
}

/// Writes a file, which is there when it is whole.
fn write(path: &FilePath, mut from: impl io::Read, broken_off: &AtomicBool) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidFilename)?;
    // What ends like this is no file to whoever lists them.
    let draft = || {
        own::folder(folder)?;
        tempfile::Builder::new().prefix("").suffix("#1").tempfile_in(folder)
    };
    // The folder of the day may just be removed, because it was empty.
    let mut draft = draft().or_else(|error| if error.kind() == io::ErrorKind::NotFound { draft() } else { Err(error) })?;
    let mut chunk = vec![0; READ_BYTES];
    loop {
        go_on(broken_off)?;
        match from.read(&mut chunk)? {
            0 => break,
            count => draft.write_all(&chunk[..count])?,
        }
    }
    draft.as_file().sync_all()?;
    draft.persist(path).map(drop).map_err(|error| error.error)
}

fn sync_all(folder: &FilePath) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_all(&entry.path())?;
        }
    }
    File::open(folder)?.sync_all()
}

/// Removes a folder, and those above it that are empty then, up to the top.
fn remove(folder: &FilePath, top: Option<&FilePath>) -> io::Result<()> {
    let gone = |error: io::Error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) };
    fs::remove_dir_all(folder).or_else(gone)?;
    for above in folder.ancestors().skip(1).take_while(|above| Some(*above) != top) {
        // One in which something is stays.
        if fs::remove_dir(above).is_err() {
            break;
        }
    }
    Ok(())
}

fn go_on(broken_off: &AtomicBool) -> io::Result<()> {
    if broken_off.load(Ordering::Relaxed) { Err(io::Error::new(io::ErrorKind::Interrupted, "it was broken off")) } else { Ok(()) }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other).flatten()
}
