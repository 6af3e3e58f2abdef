use std::collections::BTreeMap;
use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};

use clap::Command;
use clap::error::{ContextKind, ContextValue};
use toml::{Table, Value};

use super::Config;

/// The file that is read when none is named.
const USUAL: &str = "trine.toml";

/// Settings from a TOML file: known names, and values that the settings' own parsers took.
#[derive(Debug)]
pub(super) struct File {
    /// Where it was found.
    pub(super) path: PathBuf,
    settings: BTreeMap<String, Vec<String>>,
}

/// What is wrong with the file. The first field is its path.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It can't be read.
    #[error("{0}: {1}")]
    Unreadable(PathBuf, io::Error),
    /// It is not TOML.
    #[error("{0}, line {1}: {2}")]
    NotToml(PathBuf, usize, String),
    /// It has a key that is no setting.
    #[error("{0}: unknown key `{1}`; `trine config` lists the settings")]
    UnknownKey(PathBuf, String),
    /// It has the same setting twice, such as `http_allow` and `[http] allow`.
    #[error("{0}: `{1}` is set twice")]
    Twice(PathBuf, String),
    /// A setting has a value that it can't take.
    #[error("{0}: `{1}`: {2}")]
    BadValue(PathBuf, String, String),
}

impl File {
    /// Reads the file that is named; without a name the usual one, if it exists.
    pub(super) fn find(named: Option<&Path>) -> Result<Option<Self>, FileError> {
        let path = named.unwrap_or(Path::new(USUAL));
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(path, &text).map(Some),
            Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(FileError::Unreadable(path.into(), error)),
        }
    }

    fn parse(path: &Path, text: &str) -> Result<Self, FileError> {
        let table = text.parse::<Table>().map_err(|error| {
            // The line itself may have a secret in it.
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            FileError::NotToml(path.into(), 1 + before.matches('\n').count(), error.message().to_owned())
        })?;
        let mut file = Self { path: path.into(), settings: BTreeMap::new() };
        for (written, texts) in flattened("", table) {
            // `[http] allow` and `http_allow` mean the same.
            let key = written.replace('.', "_");
            file.check(&key, &written, &texts)?;
            if file.settings.insert(key.clone(), texts).is_some() {
                return Err(FileError::Twice(file.path, key));
            }
        }
        Ok(file)
    }

    /// Makes the file's values the defaults of `command`, which takes all settings.
    pub(super) fn over_defaults_of(&self, command: Command) -> Command {
        self.settings
            .iter()
            .fold(command, |command, (key, texts)| command.mut_arg(key, |argument| argument.default_values(texts)))
    }

    /// Whether the file has this setting.
    pub(super) fn has(&self, name: &str) -> bool {
        self.settings.contains_key(name)
    }

    fn check(&self, key: &str, written: &str, texts: &[String]) -> Result<(), FileError> {
        let arguments = Config::arguments_alone();
        let argument = arguments.get_arguments().find(|argument| argument.get_id() == key);
        let (secret, flag) = argument
            .and_then(|argument| Some((argument.is_hide_env_values_set(), argument.get_long()?)))
            .ok_or_else(|| FileError::UnknownKey(self.path.clone(), written.into()))?;
        if key == "http_ports" && texts.is_empty() {
            let why = "an empty list would let every port be reached; leave it out for that";
            return Err(FileError::BadValue(self.path.clone(), key.into(), why.into()));
        }
        let flags = texts.iter().map(|text| format!("--{flag}={text}"));
        arguments.clone().try_get_matches_from(flags).map(drop).map_err(|error| {
            let reason = match (error.source(), error.get(ContextKind::ValidValue)) {
                (Some(source), _) => source.to_string(),
                (None, Some(ContextValue::Strings(values))) => format!("must be one of {}", values.join(", ")),
                (None, _) => "takes one value".to_owned(),
            };
            // What is secret is not repeated, and whole tables are not.
            let is_short = texts.iter().all(|text| !text.contains('\n'));
            let value = (!secret && is_short).then(|| format!("{}: ", texts.join(", ")));
            FileError::BadValue(self.path.clone(), key.into(), value.unwrap_or_default() + &reason)
        })
    }
}

/// The values of a table and of those in it, by their keys with dots between.
fn flattened(prefix: &str, table: Table) -> Vec<(String, Vec<String>)> {
    let of_key = |(key, value)| {
        let key = format!("{prefix}{key}");
        let texts = match value {
            // They are tables in tables, read by a parser of their own.
            Value::Table(commands) if key == "commands" => vec![commands.to_string()],
            // Their names are the operator's.
            Value::Table(labels) if key == "labels" => {
                labels.into_iter().map(|(name, value)| format!("{name}={}", text(value))).collect()
            }
            Value::Table(inner) => return flattened(&format!("{key}."), inner),
            Value::Array(values) => values.into_iter().map(text).collect(),
            value => vec![text(value)],
        };
        vec![(key, texts)]
    };
    table.into_iter().flat_map(of_key).collect()
}

/// As it would be written behind a flag.
fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn parse(text: &str) -> Result<File, FileError> {
        File::parse(Path::new("t.toml"), text)
    }

    #[rstest]
    #[case("http_allow = ['10.0.0.0/8', '127.0.0.1']\nasync_slots = 7")]
    #[case("[http]\nallow = ['10.0.0.0/8', '127.0.0.1']\n[async]\nslots = 7")]
    fn tables_are_flattened(#[case] text: &str) {
        let file = parse(text).unwrap();
        assert_eq!(file.settings["http_allow"], ["10.0.0.0/8", "127.0.0.1"]);
        assert_eq!(file.settings["async_slots"], ["7"]);
    }

    #[test]
    fn labels_are_a_table_or_a_list() {
        for text in ["labels = { gpu = 'a100', rack = 7 }", "[labels]\ngpu = 'a100'\nrack = 7", "labels = ['gpu=a100', 'rack=7']"]
        {
            assert_eq!(parse(text).unwrap().settings["labels"], ["gpu=a100", "rack=7"]);
        }
    }

    #[rstest]
    #[case("lissten = '127.0.0.1:1'", "t.toml: unknown key `lissten`; `trine config` lists the settings")]
    #[case("[http]\nfoo = 1", "t.toml: unknown key `http.foo`; `trine config` lists the settings")]
    #[case(
        "listen = 8040",
        "t.toml: `listen`: 8040: must be an address and a port, such as 127.0.0.1:8040, [::1]:8040 or 0.0.0.0:8040"
    )]
    #[case("processes = 0", "t.toml: `processes`: 0: must be at least 1")]
    #[case("database_connections = 2", "t.toml: `database_connections`: 2: must be at least 3")]
    #[case("lease_ms = 30", "t.toml: `lease_ms`: 30: must be at least 1000")]
    #[case("processes = 1025", "t.toml: `processes`: 1025: must be at most 1024")]
    #[case("python_memory_bytes = 1", "t.toml: `python_memory_bytes`: 1: must be at least 67108864")]
    #[case("processes = -1", "t.toml: `processes`: -1: must be a whole number")]
    #[case("grace_ms = '5s'", "t.toml: `grace_ms`: 5s: must be a whole number of milliseconds, such as 5000")]
    #[case("http_ports = []", "t.toml: `http_ports`: an empty list would let every port be reached; leave it out for that")]
    #[case("http_ports = ['http']", "t.toml: `http_ports`: http: must be a whole number")]
    #[case("routing = 'auto'", "t.toml: `routing`: auto: must be one of declared, advise, measured")]
    #[case("python_pickles = true", "t.toml: `python_pickles`: true: must be one of allow, deny")]
    #[case(
        "log = 'inof,trine=debug'",
        "t.toml: `log`: inof,trine=debug: inof is none of off, error, warn, info, debug and trace; a module has one of them, as in hyper=debug"
    )]
    #[case("processes = [1, 2]", "t.toml: `processes`: 1, 2: takes one value")]
    #[case("[commands.c]\npath = 'sh'", "t.toml: `commands`: c: the path sh is not absolute")]
    #[case("http_allow = ['here']", "t.toml: `http_allow`: here: invalid IP address syntax")]
    #[case(
        "database = 'mysql://x'",
        "t.toml: `database`: jobs are kept in SQLite or in PostgreSQL: write sqlite:PATH or postgres://USER:PASSWORD@HOST/DATABASE"
    )]
    #[case("http_allow = []\n[http]\nallow = []", "t.toml: `http_allow` is set twice")]
    fn what_is_wrong_is_named(#[case] text: &str, #[case] message: &str) {
        assert_eq!(parse(text).unwrap_err().to_string(), message);
    }

    #[rstest]
    #[case("database = 'postgres://me:p#canary@a,b/trine'")]
    #[case("webhook_secrets = ['whsec_canary', 'canary']")]
    #[case("commands = 'x = { path = \"/bin/sh\", environment = { A = \"canary\" }'")]
    #[case("commands = 'x = { path = \"sh\", environment = { A = \"canary\" } }'")]
    #[case("[commands.x]\npath = '/bin/sh'\nenvironment = { A = 'canary' }\nnothing = 1")]
    #[case("database = 'postgres://me:canary@a/trine' 7")]
    #[case("database = \"postgres://me:canary\\q@a/trine\"")]
    fn what_is_secret_is_not_repeated(#[case] text: &str) {
        let said = parse(text).unwrap_err().to_string();
        assert!(!said.contains("canary"), "{said}");
    }

    #[test]
    fn a_file_that_is_named_must_be_there() {
        assert!(matches!(File::find(Some(Path::new("/nowhere/trine.toml"))), Err(FileError::Unreadable(..))));
    }
}
