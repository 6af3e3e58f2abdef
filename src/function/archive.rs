//! Zips of modules, looked at before anything of them is run.

use std::io::{Cursor, Read};

use zip::ZipArchive;

/// The most that a zip may hold, unpacked, in bytes.
const MOST_BYTES: u64 = 64 << 20;
/// The most entries of a zip.
const MOST_ENTRIES: usize = 10_000;

/// A zip can't be used.
#[derive(Debug, thiserror::Error)]
pub enum BadArchive {
    /// It is damaged, encrypted or packed in a way that Python can't read.
    #[error("the zip can't be read: {0}")]
    Unreadable(String),
    /// Something in it would lie outside of it.
    #[error("the zip has an entry with the path {0:?}, which leads out of it")]
    Path(String),
    /// It holds too much.
    #[error("the zip holds more than {MOST_ENTRIES} entries or, unpacked, {MOST_BYTES} bytes")]
    TooLarge,
    /// What is to be called is not there.
    #[error("the zip has no module {0:?}: there is neither {1} nor {2}")]
    NoModule(String, String, String),
    /// The module of the entry point is no text.
    #[error("{0} in the zip is not UTF-8")]
    NotText(String),
}

/// Reads the whole zip once, and gives the source of a module of it.
pub fn open(content: &[u8], module: &str) -> Result<String, BadArchive> {
    let mut archive = ZipArchive::new(Cursor::new(content)).map_err(unreadable)?;
    if archive.len() > MOST_ENTRIES {
        return Err(BadArchive::TooLarge);
    }
    let path = module.replace('.', "/");
    let places = [format!("{path}/__init__.py"), format!("{path}.py")];
    let (mut room, mut found) = (MOST_BYTES, [None, None]);
    for index in 0..archive.len() {
        let entry = archive.by_index(index).map_err(unreadable)?;
        let name = entry.name().map_err(unreadable)?.into_owned();
        if is_outside(&name) {
            return Err(BadArchive::Path(name));
        }
        let mut source = Vec::new();
        let mut entry = entry.take(room + 1);
        let place = places.iter().position(|place| *place == name);
        let read = match place {
            Some(_) => entry.read_to_end(&mut source).map(|bytes| bytes as u64),
            None => std::io::copy(&mut entry, &mut std::io::sink()),
        };
        room = room.checked_sub(read.map_err(unreadable)?).ok_or(BadArchive::TooLarge)?;
        if let Some(place) = place {
            found[place] = Some(String::from_utf8(source).map_err(|_| BadArchive::NotText(name))?);
        }
    }
    // A package goes before a module of its name.
    let [package, plain] = found;
    package.or(plain).ok_or_else(|| {
        let [package, plain] = places;
        BadArchive::NoModule(module.to_owned(), plain, package)
    })
}

fn unreadable(error: impl std::fmt::Display) -> BadArchive {
    BadArchive::Unreadable(error.to_string())
}

fn is_outside(name: &str) -> bool {
    name.starts_with('/') || name.contains(['\0', '\\', ':']) || name.split('/').any(|part| part == "..")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::io::Write;
    use zip::write::{SimpleFileOptions, ZipWriter};

    fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in files {
            writer.start_file(*name, SimpleFileOptions::default()).unwrap();
            writer.write_all(content).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    #[test]
    fn a_module_is_found_where_python_finds_it() {
        let content = zip(&[("a.py", b"plain"), ("b/__init__.py", b"package"), ("b.py", b"hidden"), ("b/c.py", b"deep")]);
        for (module, source) in [("a", "plain"), ("b", "package"), ("b.c", "deep")] {
            assert_eq!(open(&content, module).unwrap(), source);
        }
        assert!(open(&content, "c").unwrap_err().to_string().contains("neither c.py nor c/__init__.py"));
    }

    #[rstest]
    #[case("../main.py")]
    #[case("/main.py")]
    #[case("a/../../main.py")]
    #[case("a\\main.py")]
    #[case("c:main.py")]
    fn nothing_lies_outside(#[case] name: &str) {
        assert!(matches!(open(&zip(&[("main.py", b""), (name, b"")]), "main"), Err(BadArchive::Path(_))));
    }

    #[test]
    fn what_is_damaged_or_unpacks_to_too_much_is_refused() {
        let good = zip(&[("main.py", b"x = 1\n")]);
        assert!(matches!(open(&good[..20], "main"), Err(BadArchive::Unreadable(_))));
        let mut damaged = good;
        let at = damaged.windows(7).position(|bytes| bytes == b"main.py").unwrap() + 9;
        damaged[at] ^= 0xff;
        assert!(matches!(open(&damaged, "main"), Err(BadArchive::Unreadable(_))));
        let zeros = vec![0; usize::try_from(MOST_BYTES).unwrap()];
        assert!(matches!(open(&zip(&[("main.py", b"x"), ("zeros", &zeros)]), "main"), Err(BadArchive::TooLarge)));
        assert!(matches!(open(&zip(&[("main.py", b"\xff")]), "main"), Err(BadArchive::NotText(_))));
    }
}
