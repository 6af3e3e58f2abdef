//! Folders that programs write to, gone when they are not needed any more.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

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
        for path in fs::read_dir(&root)?.flatten().map(|entry| entry.path()) {
            let removed = if path.symlink_metadata()?.is_dir() { remove(&path, &root) } else { fs::remove_file(&path) };
            if let Err(error) = removed {
                tracing::warn!(%error, path = %path.display(), "what an earlier server has left can't be removed");
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

    /// Removes another folder of the same file system that no program can write to any more, by way of this space.
    ///
    /// # Errors
    /// It is not there, or can't be removed. What is left of it is in the space, which the next start empties.
    pub fn remove(&self, folder: &Path) -> io::Result<()> {
        remove(folder, &self.root)
    }
}

impl Scratch {
    /// Its absolute path.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The folder that it is in, which no program can write to.
    fn space(&self) -> &Path {
        self.path().parent().unwrap_or(self.path())
    }

    /// Removes a folder in it, and nothing elsewhere, whatever a program has put in its place.
    pub fn clear(&self, folder: &str) {
        let folder = self.path().join(folder);
        if let Err(error) = remove_flat(&folder, self.space())
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(%error, folder = %folder.display(), "a folder stays until its scratch folder goes");
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.folder.disable_cleanup(true);
        // Gone is what it should be, also if the folder that it was in went first.
        if let Err(error) = remove(self.path(), self.space()).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        }) {
            tracing::warn!(%error, folder = %self.folder.path().display(), "a scratch folder can't be removed");
        }
    }
}

/// Removes a folder that no program can write to any more, also one that a program has closed to itself, by way of another one `beside` it.
fn remove(folder: &Path, beside: &Path) -> io::Result<()> {
    fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    // Most are empty.
    fs::remove_dir(folder).or_else(|_| remove_flat(folder, beside))
}

/// Removes a folder by way of another one `beside` it, which has to be on the same file system and out of a program's reach.
///
/// A program can join chains of folders to one that is deeper than any stack, and longer than any path. So each folder is moved to the
/// top before its turn comes: this goes nowhere deeper than one level, whatever is in there.
fn remove_flat(folder: &Path, beside: &Path) -> io::Result<()> {
    let heap = tempfile::Builder::new().prefix("").permissions(Permissions::from_mode(0o700)).tempdir_in(beside)?.keep();
    let place = |number: u32| heap.join(number.to_string());
    let moved = fs::rename(folder, place(0)).and_then(|()| {
        if !place(0).symlink_metadata()?.is_dir() {
            return fs::remove_file(place(0));
        }
        let (mut waiting, mut latest) = (vec![0], 0);
        while let Some(number) = waiting.pop() {
            let folder = place(number);
            fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
            for entry in fs::read_dir(&folder)? {
                let entry = entry?;
                // A link to a folder is no folder.
                if !entry.file_type()?.is_dir() {
                    fs::remove_file(entry.path())?;
                    continue;
                }
                latest += 1;
                // To be moved elsewhere it has to be open to its owner.
                fs::set_permissions(entry.path(), Permissions::from_mode(0o700))?;
                fs::rename(entry.path(), place(latest))?;
                waiting.push(latest);
            }
            fs::remove_dir(folder)?;
        }
        Ok(())
    });
    // Where something is left, the next start tries it once more.
    moved.and(fs::remove_dir(&heap))
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
    fn one_that_is_deeper_than_any_path_is_gone_as_well() {
        let root = tempfile::tempdir().unwrap();
        let scratch = ScratchSpace::open(root.path()).unwrap().folder().unwrap();
        // Chains that are as long as a path can be, each joined to the bottom of the one before.
        let chain: PathBuf = std::iter::repeat_n("a", 1_900).collect();
        let top = scratch.path().join("top");
        for _ in 0..4 {
            let next = scratch.path().join("next");
            fs::create_dir_all(next.join(&chain)).unwrap();
            if top.exists() {
                fs::rename(&top, next.join(&chain).join("a")).unwrap();
            }
            fs::rename(next, &top).unwrap();
        }
        let path = scratch.path().to_owned();
        // As small a stack as threads have that remove folders.
        std::thread::Builder::new().stack_size(256 << 10).spawn(|| drop(scratch)).unwrap().join().unwrap();
        assert!(!path.exists() && fs::read_dir(root.path()).unwrap().next().is_none());
    }

    #[test]
    fn a_link_in_the_place_of_a_folder_is_cleared_and_not_what_it_leads_to() {
        let (root, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(elsewhere.path().join("file"), "x").unwrap();
        let scratch = ScratchSpace::open(root.path()).unwrap().folder().unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), scratch.path().join("artifacts")).unwrap();
        scratch.clear("artifacts");
        fs::create_dir_all(scratch.path().join("artifacts/a")).unwrap();
        scratch.clear("artifacts");
        assert!(!scratch.path().join("artifacts").exists() && elsewhere.path().join("file").exists());
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
