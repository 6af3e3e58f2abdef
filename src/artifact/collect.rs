//! What a job has left in its folder. Nothing outside of it is read, whatever links the job has made.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt as _};
use nix::fcntl::OFlag;

use super::ArtifactError;

/// The most files of an attempt.
pub(super) const MOST: usize = 1_000;
/// How deep folders may be in folders.
const DEEPEST: usize = 16;
/// The longest part of a name, in bytes: file systems and storages take it also where each of them takes three.
const LONGEST: usize = 80;

/// Files of an attempt, where it left them. What is no plain file - links, pipes, sockets - is passed over.
pub(super) struct Left {
    folder: Option<Arc<Dir>>,
    names: Vec<Vec<String>>,
}

impl Left {
    /// What is in `folder` below `scratch`, which may be missing.
    pub(super) async fn behind(scratch: &Path, folder: &str, most_bytes: u64) -> Result<Self, ArtifactError> {
        let (scratch, folder) = (scratch.to_owned(), folder.to_owned());
        blocking(move || {
            let unreadable = |error| ArtifactError::Unreadable(folder.clone(), error);
            let scratch = Dir::open_ambient_dir(scratch, ambient_authority()).map_err(unreadable)?;
            let dir = match scratch.open_dir(&folder) {
                Ok(dir) => dir,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self { folder: None, names: Vec::new() }),
                Err(error) => return Err(unreadable(error)),
            };
            let mut found = Found { names: Vec::new(), bytes: 0, most_bytes };
            found.look_into(&dir, &mut Vec::new())?;
            found.names.sort();
            Ok(Self { folder: Some(Arc::new(dir)), names: found.names })
        })
        .await
    }

    /// Their names, each in parts.
    pub(super) fn names(&self) -> &[Vec<String>] {
        &self.names
    }

    /// Opens one of them, as long as it is now.
    pub(super) async fn open(&self, name: &[String]) -> Result<(File, u64), ArtifactError> {
        let (folder, name) = (self.folder.clone(), name.to_vec());
        blocking(move || {
            let unreadable = |error| ArtifactError::Unreadable(name.join("/"), error);
            let folder = folder.ok_or_else(|| unreadable(io::ErrorKind::NotFound.into()))?;
            // It may have become something else by now: a link is not followed, and nobody waits for the other end of a pipe.
            let flags = (OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW).bits();
            let path: PathBuf = name.iter().collect();
            let file = folder.open_with(path, OpenOptions::new().read(true).custom_flags(flags)).map_err(unreadable)?;
            let meta = file.metadata().map_err(unreadable)?;
            if meta.is_file() { Ok((file.into_std(), meta.len())) } else { Err(unreadable(io::ErrorKind::InvalidInput.into())) }
        })
        .await
    }
}

/// Removes such a folder; what can't be removed is so with the scratch folder.
pub(super) async fn clear(scratch: &Path, folder: &str) {
    let (scratch, folder) = (scratch.to_owned(), folder.to_owned());
    let cleared =
        tokio::task::spawn_blocking(move || Dir::open_ambient_dir(scratch, ambient_authority())?.remove_dir_all(folder));
    if let Ok(Err(error)) = cleared.await.map(|cleared: io::Result<()>| cleared)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!(%error, "the folder of a job's artifacts stays until its scratch folder goes");
    }
}

struct Found {
    names: Vec<Vec<String>>,
    bytes: u64,
    most_bytes: u64,
}

impl Found {
    fn look_into(&mut self, folder: &Dir, above: &mut Vec<String>) -> Result<(), ArtifactError> {
        let here = above.join("/");
        let unreadable = |error| ArtifactError::Unreadable(here.clone(), error);
        for entry in folder.entries().map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let kind = entry.file_type().map_err(unreadable)?;
            if !kind.is_file() && !kind.is_dir() {
                continue;
            }
            above.push(name_of(&entry.file_name())?);
            if kind.is_dir() {
                if above.len() > DEEPEST {
                    return Err(ArtifactError::Name(above.join("/"), "its folders are too deep"));
                }
                // Opened beneath this one: a link in its place leads nowhere outside.
                self.look_into(&entry.open_dir().map_err(unreadable)?, above)?;
            } else {
                self.bytes = self.bytes.saturating_add(entry.metadata().map_err(unreadable)?.len());
                self.names.push(above.clone());
            }
            above.pop();
            if self.names.len() > MOST {
                return Err(ArtifactError::TooMany(MOST));
            }
            if self.bytes > self.most_bytes {
                return Err(ArtifactError::TooLong(self.most_bytes));
            }
        }
        Ok(())
    }
}

fn name_of(name: &std::ffi::OsStr) -> Result<String, ArtifactError> {
    let refused = |why| Err(ArtifactError::Name(name.to_string_lossy().into_owned(), why));
    match name.to_str() {
        None => refused("it is not UTF-8"),
        Some(text) if text.len() > LONGEST => refused("it is longer than 80 bytes"),
        Some(text) if text.contains(char::is_control) => refused("it has control characters"),
        Some(text) => Ok(text.to_owned()),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArtifactError> + Send + 'static,
) -> Result<T, ArtifactError> {
    let broke_off = |error: tokio::task::JoinError| ArtifactError::Unreadable(String::new(), io::Error::other(error));
    tokio::task::spawn_blocking(work).await.map_err(broke_off).flatten()
}
