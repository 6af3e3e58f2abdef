//! What a job has left in its folder. Nothing outside of it is read, whatever links the job has made.

use std::fs::File;
use std::io;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt as _};
use nix::fcntl::OFlag;
use object_store::path::Path;

use super::{ArtifactError, key};

/// The most files of an attempt.
pub(super) const MOST: usize = 1_000;
/// How deep folders may be in folders.
const DEEPEST: usize = 16;
/// The most of whatever else is in their folders: it takes time to look at it.
const MOST_OTHERS: usize = 10 * MOST;

/// Files of an attempt, where it left them. What is no plain file - links, pipes, sockets - is passed over, and so are folders without any.
pub(super) struct Left {
    folder: Option<Arc<Dir>>,
    files: Vec<LeftFile>,
}

/// One of them.
#[derive(Clone)]
pub(super) struct LeftFile {
    /// Its path in parts.
    pub(super) name: Vec<String>,
    /// How long it was.
    pub(super) bytes: u64,
}

impl Left {
    /// What is in `folder` below `scratch`, which may be missing.
    pub(super) async fn behind(scratch: &FilePath, folder: &str, most_bytes: u64) -> Result<Self, ArtifactError> {
        let (scratch, folder) = (scratch.to_owned(), folder.to_owned());
        blocking(move || {
            let unreadable = |error| ArtifactError::Unreadable(folder.clone(), error);
            let scratch = Dir::open_ambient_dir(scratch, ambient_authority()).map_err(unreadable)?;
            let dir = match scratch.open_dir(&folder) {
                Ok(dir) => dir,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self { folder: None, files: Vec::new() }),
                Err(error) => return Err(unreadable(error)),
            };
            let mut found = Found { files: Vec::new(), bytes: 0, others: 0, most_bytes };
            found.look_into(&dir, &mut Vec::new())?;
            Ok(Self { folder: Some(Arc::new(dir)), files: found.files })
        })
        .await
    }

    pub(super) fn files(&self) -> &[LeftFile] {
        &self.files
    }

    /// Opens one of them.
    pub(super) async fn open(&self, file: &LeftFile) -> Result<File, ArtifactError> {
        let (folder, name) = (self.folder.clone(), file.name.clone());
        blocking(move || {
            let unreadable = |error| ArtifactError::Unreadable(name.join("/"), error);
            let folder = folder.ok_or_else(|| unreadable(io::ErrorKind::NotFound.into()))?;
            // It may have become something else by now: a link is not followed, and nobody waits for the other end of a pipe.
            let flags = (OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW).bits();
            let path: PathBuf = name.iter().collect();
            let file = folder.open_with(path, OpenOptions::new().read(true).custom_flags(flags)).map_err(unreadable)?;
            let is_file = file.metadata().map_err(unreadable)?.is_file();
            if is_file { Ok(file.into_std()) } else { Err(unreadable(io::ErrorKind::InvalidInput.into())) }
        })
        .await
    }
}

struct Found {
    files: Vec<LeftFile>,
    bytes: u64,
    others: usize,
    most_bytes: u64,
}

impl Found {
    fn look_into(&mut self, folder: &Dir, above: &mut Vec<String>) -> Result<(), ArtifactError> {
        let here = above.join("/");
        let unreadable = |error| ArtifactError::Unreadable(here.clone(), error);
        for entry in folder.entries().map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let kind = entry.file_type().map_err(unreadable)?;
            if !kind.is_file() {
                self.others += 1;
            }
            if self.others > MOST_OTHERS {
                return Err(ArtifactError::TooMany(MOST_OTHERS));
            }
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
                if key::of_name(&Path::default(), above.iter().map(|part| &**part)).is_none() {
                    return Err(ArtifactError::Name(above.join("/"), "it is too long"));
                }
                let bytes = entry.metadata().map_err(unreadable)?.len();
                self.bytes = self.bytes.saturating_add(bytes);
                self.files.push(LeftFile { name: above.clone(), bytes });
            }
            above.pop();
            if self.files.len() > MOST {
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
