//! Folders that programs write to, gone when they are not needed any more.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use tempfile::TempDir;

/// Where scratch folders are.
#[derive(Clone, Debug)]
pub struct ScratchSpace {
    root: PathBuf,
}

/// A scratch folder. Dropped, it is removed with all that is in it, which may take a while: on a thread that may block.
#[derive(Debug)]
pub struct Scratch {
    folder: TempDir,
}

impl ScratchSpace {
    /// Creates the folder if it is missing, and empties it of what an earlier server has left. Nobody else may use it.
    pub fn open(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        let root = root.canonicalize()?;
        for entry in fs::read_dir(&root)?.flatten() {
            if entry.file_type()?.is_dir() {
                remove(&entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(Self { root })
    }

    /// A fresh folder that only this user can look into.
    pub fn folder(&self) -> io::Result<Scratch> {
        Ok(Scratch {
            folder: tempfile::Builder::new().prefix("").permissions(Permissions::from_mode(0o700)).tempdir_in(&self.root)?,
        })
    }
}

impl Scratch {
    /// Its absolute path.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Removes a folder in it, and nothing elsewhere, whatever a program has put in its place.
    pub fn clear(&self, folder: &str) {
        let cleared = Dir::open_ambient_dir(self.path(), ambient_authority()).and_then(|scratch| scratch.remove_dir_all(folder));
        if let Err(error) = cleared
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(%error, folder, "a folder stays until its scratch folder goes");
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.folder.disable_cleanup(true);
        // Gone is what it should be, also if the folder that it was in went first.
        if let Err(error) = remove(self.folder.path()).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        }) {
            tracing::warn!(%error, folder = %self.folder.path().display(), "a scratch folder can't be removed");
        }
    }
}

/// Removes a folder, also one that a program has closed to itself.
fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(folder)?;
            fs::remove_dir_all(folder)
        }
        removed => removed,
    }
}

fn open_up(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // A link to a folder is no folder.
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_gone_with_all_that_is_in_it() {
        let root = tempfile::tempdir().unwrap();
        let space = ScratchSpace::open(root.path()).unwrap();
        let scratch = space.folder().unwrap();
        let closed = scratch.path().join("a/b");
        fs::create_dir_all(&closed).unwrap();
        fs::write(closed.join("file"), "x").unwrap();
        std::os::unix::fs::symlink(root.path(), closed.join("link")).unwrap();
        fs::set_permissions(&closed, Permissions::from_mode(0o000)).unwrap();
        let path = scratch.path().to_owned();
        drop(scratch);
        assert!(!path.exists() && root.path().exists());
    }

    #[test]
    fn what_an_earlier_server_left_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let left = ScratchSpace::open(root.path()).unwrap().folder().unwrap();
        fs::write(left.path().join("file"), "x").unwrap();
        let path = left.path().to_owned();
        std::mem::forget(left);
        ScratchSpace::open(root.path()).unwrap();
        assert!(!path.exists());
    }
}
