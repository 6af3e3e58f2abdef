//! The code of a function as it is sent.

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

/// Adds what is in a folder, apart from hidden things and what Python compiled.
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
        if path.is_dir() {
            add(writer, &path, &format!("{name}/"))?;
        } else {
            writer.start_file(name, SimpleFileOptions::default()).map_err(io::Error::other)?;
            writer.write_all(&fs::read(path)?)?;
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
}
