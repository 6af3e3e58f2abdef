//! `ARCHITECTURE.md` says which module may import which; this holds the code against it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on fails")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The modules of the table, each with its row.
fn rows() -> BTreeMap<String, usize> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let table = text.split("## Modules").nth(1).unwrap();
    let named = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    named.enumerate().map(|(row, name)| (name.to_owned(), row)).collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files of Rust below a folder but those of tests.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let of_tests = |path: &Path| path.file_stem().is_some_and(|name| name == "tests" || name == "testing");
    let found = entries.filter(|path| !of_tests(path)).flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] });
    found.filter(|path| path.extension().is_some_and(|kind| kind == "rs")).collect()
}

/// The modules that a text imports, its comments and its tests left out.
fn imported(text: &str) -> Vec<String> {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let text: String = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    let mut found = Vec::new();
    for after in text.split("crate::").skip(1) {
        match after.strip_prefix('{') {
            // One level is enough: what is nested in a module belongs to it.
            Some(group) => {
                let mut depth = 0;
                let outer: String = group
                    .chars()
                    .take_while(|c| {
                        depth += i32::from(*c == '{') - i32::from(*c == '}');
                        depth >= 0
                    })
                    .collect();
                found.extend(outer.split(',').map(|part| first_name(part.trim())));
            }
            None => found.push(first_name(after)),
        }
    }
    found
}

fn first_name(path: &str) -> String {
    path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn imports_point_downwards_only() {
    let rows = rows();
    let src = root().join("src");
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for path in sources(&src) {
        let inside = path.strip_prefix(&src).unwrap();
        let module = inside.iter().next().and_then(|name| Path::new(name).file_stem()).unwrap().to_string_lossy().into_owned();
        if matches!(&*module, "lib" | "main" | "fuzz") {
            continue;
        }
        let row = *rows.get(&module).unwrap_or_else(|| panic!("the table of ARCHITECTURE.md lacks {module}"));
        for import in imported(&fs::read_to_string(&path).unwrap()) {
            seen += 1;
            if rows.get(&import).is_some_and(|below| *below < row) {
                wrong.push(format!("{} imports {import}", inside.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "upwards: {wrong:#?}");
    assert!(seen > 500, "only {seen} imports were found");
}
