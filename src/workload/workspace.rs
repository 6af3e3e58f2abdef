//! The folder that workloads read and write in, and can't leave.

use std::io::{self, Read, Write};
use std::path::{Component, Path};

use cap_std::ambient_authority;
use cap_std::fs::{Dir, File, OpenOptions, OpenOptionsExt};
use cap_tempfile::TempFile;
use nix::fcntl::OFlag;

use super::Stop;
use crate::job::Failure;

const CHUNK_BYTES: usize = 256 * 1024;

/// A folder as a capability: paths are resolved beneath it by the kernel, symbolic links included.
#[derive(Debug)]
pub(super) struct Workspace {
    dir: Dir,
}

impl Workspace {
    /// Opens the folder, after creating it if it is missing.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        Ok(Self { dir: Dir::open_ambient_dir(path, ambient_authority())? })
    }

    /// What can be said of a path without looking at the disk: it must be relative, name something and not climb.
    pub(super) fn check(path: &str) -> Result<(), &'static str> {
        if path.contains('\0') {
            return Err("a path has no NUL in it");
        }
        let mut names = 0;
        for component in Path::new(path).components() {
            match component {
                Component::Normal(_) => names += 1,
                Component::CurDir => {}
                Component::ParentDir => return Err("a path can't climb out of the workspace: `..` is refused"),
                Component::RootDir | Component::Prefix(_) => return Err("a path is relative to the workspace, not absolute"),
            }
        }
        if names == 0 { Err("a path names a file") } else { Ok(()) }
    }

    /// Opens a file for reading. Anything but a regular file is refused.
    pub(super) fn file(&self, path: &str) -> Result<File, Failure> {
        let failed = |error| Failure::error(format!("can't open {path:?} in the workspace: {error}"));
        // Opening a pipe would wait for whoever writes to it.
        let flags = OFlag::O_NONBLOCK.bits();
        let file = self.dir.open_with(path, OpenOptions::new().read(true).custom_flags(flags)).map_err(failed)?;
        if file.metadata().map_err(failed)?.is_file() {
            Ok(file)
        } else {
            Err(Failure::error(format!("{path:?} in the workspace is not a file")))
        }
    }

    /// Writes a file, in folders that are created as needed. It appears under its name, in the place of an older one, only when
    /// `content` has succeeded.
    pub(super) fn write<T>(&self, path: &str, content: impl FnOnce(&mut dyn Write) -> Result<T, Failure>) -> Result<T, Failure> {
        let failed = |error| Failure::error(format!("can't write {path:?} in the workspace: {error}"));
        let name = Path::new(path).file_name().ok_or_else(|| failed(io::ErrorKind::InvalidFilename.into()))?;
        let folder = match Path::new(path).parent() {
            Some(parent) if parent != Path::new("") => {
                self.dir.create_dir_all(parent).and_then(|()| self.dir.open_dir(parent)).map_err(failed)?
            }
            _ => self.dir.try_clone().map_err(failed)?,
        };
        let mut draft = TempFile::new(&folder).map_err(failed)?;
        let written = content(&mut draft)?;
        draft.replace(name).map_err(failed)?;
        Ok(written)
    }
}

/// Hands on what `reader` gives, chunk by chunk, until its end or a stop. Returns the number of bytes.
pub(super) fn for_each_chunk(
    mut reader: impl Read,
    stop: &Stop,
    mut each: impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<u64, Failure> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut bytes = 0;
    loop {
        stop.check()?;
        match reader.read(&mut chunk) {
            Ok(0) => return Ok(bytes),
            Ok(length) => {
                each(&chunk[..length])?;
                bytes += length as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::error(format!("can't read on after {bytes} bytes: {error}"))),
        }
    }
}
