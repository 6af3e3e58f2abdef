//! What one server has for itself alone: its folder, its files.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

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
