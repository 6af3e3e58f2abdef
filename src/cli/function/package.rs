//! The code of a function as it is sent.

use std::fmt;
use std::fs;
use std::io::{self, Cursor, Write};
use std::path::Path;

use zip::write::{SimpleFileOptions, ZipWriter};

use crate::function::Kind;

/// Code and what it is.
pub(super) struct Package {
    pub(super) kind: Kind,
    pub(super) content: Vec<u8>,
}

/// A file as it is, a folder as a zip. The same files always make the same zip.
pub(super) fn of(path: &Path) -> io::Result<Package> {
    if !path.is_dir() {
        let is_zip = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("zip"));
        let kind = if is_zip { Kind::Zip } else { Kind::Source };
        return Ok(Package { kind, content: fs::read(path)? });
    }
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    add(&mut writer, path, "")?;
    let content = writer.finish().map_err(io::Error::other)?.into_inner();
    Ok(Package { kind: Kind::Zip, content })
}

/// Adds what is in a folder, apart from hidden things and what Python compiled. Links are not followed.
fn add(writer: &mut ZipWriter<Cursor<Vec<u8>>>, folder: &Path, prefix: &str) -> io::Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        let name = name.to_str().ok_or_else(|| io::Error::other(format!("{} is not UTF-8", name.display())))?;
        if name.starts_with('.') || name == "__pycache__" {
            continue;
        }
        let (path, name) = (entry.path(), format!("{prefix}{name}"));
        let wrong = |why: &dyn fmt::Display| io::Error::other(format!("{name}: {why}"));
        let kind = entry.file_type().map_err(|error| wrong(&error))?;
        if kind.is_dir() {
            add(writer, &path, &format!("{name}/"))?;
        } else if kind.is_file() {
            let content = fs::read(path).map_err(|error| wrong(&error))?;
            writer.start_file(name, SimpleFileOptions::default()).map_err(io::Error::other)?;
            writer.write_all(&content)?;
        } else if kind.is_symlink() {
            // It may lead to what is nobody else's business, into a circle, or nowhere.
            return Err(wrong(&"a symbolic link, which is not followed; put there what it leads to"));
        } else {
            return Err(wrong(&"neither a file nor a folder"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_packed_the_same_each_time() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("main.py", "main"), ("pkg/__init__.py", "package"), ("__pycache__/x.pyc", ""), (".git/x", "")] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let (first, second) = (of(folder.path()).unwrap(), of(folder.path()).unwrap());
        assert_eq!(first.content, second.content);
        let mut archive = zip::ZipArchive::new(Cursor::new(first.content)).unwrap();
        assert_eq!(archive.len(), 2);
        assert_eq!(io::read_to_string(archive.by_name("pkg/__init__.py").unwrap()).unwrap(), "package");
    }

    #[test]
    fn what_is_no_file_of_the_folder_is_named() {
        for target in ["/etc/passwd", "nowhere", "..", "main.py"] {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir(folder.path().join("pkg")).unwrap();
            fs::write(folder.path().join("pkg/main.py"), "").unwrap();
            std::os::unix::fs::symlink(target, folder.path().join("pkg/link")).unwrap();
            let refused = of(folder.path()).err().unwrap().to_string();
            assert!(refused.starts_with("pkg/link: a symbolic link"), "{target}: {refused}");
        }
        let folder = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(&folder.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(of(folder.path()).err().unwrap().to_string(), "pipe: neither a file nor a folder");
    }
}
