//! What one server has for itself alone: its folder, its files.

use std::fs::{DirBuilder, File, Metadata, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, umask};

/// From now on, whatever this process makes is for its user alone: what jobs are given may be secret.
pub fn keep_private() {
    umask(Mode::from_bits_truncate(0o077));
}

/// Makes a folder that is missing, with those that it is in: for this user alone.
pub fn folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Has this file, which is made if it is missing, for as long as it is open. Nobody else gets it meanwhile.
pub fn lock(path: &Path) -> Result<File, TryLockError> {
    let file = File::options().create(true).write(true).truncate(false).open(path).map_err(TryLockError::Error)?;
    file.try_lock().map(|()| file)
}

/// A file as it was found under its name.
#[derive(Debug)]
pub struct Seen {
    path: PathBuf,
    inode: (u64, u64),
}

impl Seen {
    /// The one that is there now.
    pub fn of(path: PathBuf) -> io::Result<Self> {
        let inode = inode(&path.metadata()?);
        Ok(Self { path, inode })
    }

    /// Its name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is none of its name any more, or another one. What can't be looked at just now may be there.
    pub async fn is_gone(&self) -> bool {
        match tokio::fs::metadata(&self.path).await {
            Ok(found) => inode(&found) != self.inode,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }
}

fn inode(found: &Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}
