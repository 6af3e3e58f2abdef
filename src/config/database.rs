use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// Where jobs are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Database {
    /// In this file; made if it is not there.
    Sqlite(PathBuf),
}

/// The text names no database that this version can use.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDatabase {
    /// It does not start with `sqlite:`.
    #[error("this version keeps jobs in SQLite only: write sqlite:PATH")]
    Unsupported,
    /// It names no file.
    #[error("no file is named: write sqlite:PATH")]
    NoPath,
    /// It would be gone with the server, and with it what a 202 promises.
    #[error("a database in memory keeps nothing: write sqlite:PATH")]
    InMemory,
}

impl FromStr for Database {
    type Err = BadDatabase;

    /// Reads `sqlite:PATH`; `sqlite://PATH`, as other programs write it, is the same.
    fn from_str(text: &str) -> Result<Self, BadDatabase> {
        let path = text.strip_prefix("sqlite:").ok_or(BadDatabase::Unsupported)?;
        match path.strip_prefix("//").unwrap_or(path) {
            "" => Err(BadDatabase::NoPath),
            ":memory:" => Err(BadDatabase::InMemory),
            path => Ok(Self::Sqlite(path.into())),
        }
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Sqlite(path) = self;
        write!(f, "sqlite:{}", path.display())
    }
}

impl Serialize for Database {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_will_do() {
        assert_eq!("sqlite:a/b.db".parse(), Ok(Database::Sqlite("a/b.db".into())));
        assert_eq!("sqlite:///a/b.db".parse(), Ok(Database::Sqlite("/a/b.db".into())));
        assert_eq!("postgres://db/trine".parse::<Database>(), Err(BadDatabase::Unsupported));
        assert_eq!("sqlite::memory:".parse::<Database>(), Err(BadDatabase::InMemory));
        assert_eq!("sqlite:".parse::<Database>(), Err(BadDatabase::NoPath));
    }
}
