use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use url::{Position, Url};

/// Where jobs are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Database {
    /// In this file; made if it is not there.
    Sqlite(PathBuf),
    /// In a PostgreSQL, which other servers may share.
    Postgres(PostgresUrl),
}

impl Database {
    /// The file that it is, if it is one.
    pub fn into_file(self) -> Option<PathBuf> {
        match self {
            Self::Sqlite(path) => Some(path),
            Self::Postgres(_) => None,
        }
    }
}

/// What the query of a PostgreSQL's URL may say. What sqlx does not know it only warns of: with a slip of the pen, TLS that was asked for would be
/// left out.
const PARAMETERS: [&str; 18] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "host",
    "hostaddr",
    "port",
    "user",
    "password",
    "dbname",
    "application_name",
    "options",
    "statement-cache-capacity",
];

/// Where a PostgreSQL is, and who asks it: shown without the password. It may be on one of several hosts, `postgres://a:5432,b:5432/trine`, as
/// [libpq] has it.
///
/// [libpq]: https://www.postgresql.org/docs/15/libpq-connect.html#LIBPQ-MULTIPLE-HOSTS
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUrl(String);

impl PostgresUrl {
    /// The URL of each host, with the password.
    pub fn of_each_host(&self) -> Vec<String> {
        let (before, hosts, after) = self.parts();
        hosts.split(',').map(|host| format!("{before}{host}{after}")).collect()
    }

    /// What is before the hosts, the hosts, and what is behind them.
    fn parts(&self) -> (&str, &str, &str) {
        let text = self.0.as_str();
        let from = text.find("://").map_or(0, |at| at + 3);
        let to = text[from..].find(['/', '?', '#']).map_or(text.len(), |at| from + at);
        let from = text[from..to].rfind('@').map_or(from, |at| from + at + 1);
        (&text[..from], &text[from..to], &text[to..])
    }
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls = self.of_each_host();
        let Ok(mut shown) = Url::parse(&urls[0]) else { return f.write_str("postgres://***") };
        if shown.password().is_some() {
            // It can't be done only to URLs that can't have a password.
            let _ = shown.set_password(Some("***"));
        }
        let open: Vec<_> =
            shown.query_pairs().filter(|(name, _)| name != "password").map(|(a, b)| (a.into_owned(), b.into_owned())).collect();
        if open.len() < shown.query_pairs().count() {
            shown.query_pairs_mut().clear().extend_pairs(open).append_pair("password", "***");
        }
        write!(f, "{}{}{}", &shown[..Position::BeforeHost], self.parts().1, &shown[Position::AfterPort..])
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text names no database that this version can use.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDatabase {
    /// It starts with neither `sqlite:` nor `postgres:`.
    #[error("jobs are kept in SQLite or in PostgreSQL: write sqlite:PATH or postgres://USER:PASSWORD@HOST/DATABASE")]
    Unsupported,
    /// It is no URL of a PostgreSQL: why.
    #[error("this is no URL of a PostgreSQL ({0}): write postgres://USER:PASSWORD@HOST/DATABASE")]
    NoUrl(String),
    /// It names no file.
    #[error("no file is named: write sqlite:PATH")]
    NoPath,
    /// It would be gone with the server, and with it what a 202 promises.
    #[error("a database in memory keeps nothing: write sqlite:PATH")]
    InMemory,
}

impl FromStr for Database {
    type Err = BadDatabase;

    /// Reads `sqlite:PATH`; `sqlite://PATH`, as other programs write it, is the same. Or `postgres://…`, or `postgresql://…`.
    fn from_str(text: &str) -> Result<Self, BadDatabase> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            let url = PostgresUrl(text.to_owned());
            url.of_each_host().iter().try_for_each(|url| check(url))?;
            return Ok(Self::Postgres(url));
        }
        let path = text.strip_prefix("sqlite:").ok_or(BadDatabase::Unsupported)?;
        match path.strip_prefix("//").unwrap_or(path) {
            "" => Err(BadDatabase::NoPath),
            ":memory:" => Err(BadDatabase::InMemory),
            path => Ok(Self::Sqlite(path.into())),
        }
    }
}

/// Refuses what would be taken for something else than it is meant to be. A password may be in any part of it, so none is shown.
fn check(text: &str) -> Result<(), BadDatabase> {
    let wrong = |why: &str| Err(BadDatabase::NoUrl(why.to_owned()));
    let url = Url::parse(text).map_err(|error| BadDatabase::NoUrl(error.to_string()))?;
    let escape = "characters like @, /, ? and # in a user or a password are written as %40, %2F, %3F and %23";
    if url.fragment().is_some() || url.path().contains('@') || url.query().is_some_and(|query| query.contains('@')) {
        return wrong(escape);
    }
    match url.query_pairs().find(|(name, _)| !PARAMETERS.contains(&&**name) && !name.starts_with("options[")) {
        Some(_) => wrong(&format!("it has a parameter that is not known; there are {}", PARAMETERS.join(", "))),
        None => Ok(()),
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(url) => url.fmt(f),
        }
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
    fn a_file_or_a_server_will_do() {
        assert_eq!("sqlite:a/b.db".parse(), Ok(Database::Sqlite("a/b.db".into())));
        assert_eq!("sqlite:///a/b.db".parse(), Ok(Database::Sqlite("/a/b.db".into())));
        assert!(matches!("postgres://db/trine".parse(), Ok(Database::Postgres(_))));
        assert!(matches!("postgresql://me@db:5433/trine?sslmode=require".parse(), Ok(Database::Postgres(_))));
        assert_eq!("mysql://db/trine".parse::<Database>(), Err(BadDatabase::Unsupported));
        assert_eq!("sqlite::memory:".parse::<Database>(), Err(BadDatabase::InMemory));
        assert_eq!("sqlite:".parse::<Database>(), Err(BadDatabase::NoPath));
    }

    #[test]
    fn a_password_is_not_shown() {
        for text in ["postgres://me:canary@db/trine", "postgres://me@db/trine?sslmode=require&password=canary"] {
            let database: Database = text.parse().unwrap();
            let shown = format!("{database} {database:?} {}", serde_json::to_string(&database).unwrap());
            assert!(!shown.contains("canary") && shown.contains("me") && shown.contains("db/trine"), "{shown}");
            let Database::Postgres(url) = database else { panic!("{shown}") };
            assert_eq!(url.of_each_host(), [text]);
        }
    }

    #[test]
    fn it_may_be_on_one_of_several_hosts() {
        let database: Database = "postgres://me:can%2Cary@a:5432,b,[::1]:5433/trine?sslmode=require".parse().unwrap();
        assert_eq!(database.to_string(), "postgres://me:***@a:5432,b,[::1]:5433/trine?sslmode=require");
        let Database::Postgres(url) = database else { panic!("{database}") };
        let each = ["a:5432", "b", "[::1]:5433"].map(|host| format!("postgres://me:can%2Cary@{host}/trine?sslmode=require"));
        assert_eq!(url.of_each_host(), each);
        for wrong in ["postgres://a,b:no/trine", "postgres://me:p,canary/@a,b/trine"] {
            assert!(wrong.parse::<Database>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_would_be_taken_for_something_else_is_refused_without_being_shown() {
        for text in [
            "postgres://me:canary@db:no/trine",
            "postgres://me:p@can/ary@db/trine",
            "postgres://me:p#canary@db/trine",
            "postgres://me:12?canary@db/trine",
            "postgres://me@db/trine?sslmod=canary",
            "postgres://me@db/trine?canary=1",
        ] {
            let why = text.parse::<Database>().unwrap_err().to_string();
            assert!(why.contains("no URL of a PostgreSQL") && !why.contains("canary"), "{text}: {why}");
        }
        let url = "postgres://me:p%40ss@db/trine?sslmode=verify-full&sslrootcert=ca.pem&options[synchronous_commit]=off";
        assert!(url.parse::<Database>().is_ok());
    }
}
