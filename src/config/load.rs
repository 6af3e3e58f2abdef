use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, CommandFactory, FromArgMatches};
use serde::Serialize;

use super::file::File;
use super::{Config, FileError, Settings};

/// The argument that names the file; the mark of a command that takes settings.
const FILE_ARGUMENT: &str = "config_file";

/// Where a setting's value came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "source", content = "from", rename_all = "snake_case")]
pub enum Source {
    /// From this flag.
    Flag(String),
    /// From this environment variable.
    Environment(String),
    /// From this file.
    File(PathBuf),
    /// It was set nowhere.
    Default,
}

/// Where each setting's value came from, by the setting's name. Empty for a command that takes no settings.
pub type Sources = BTreeMap<String, Source>;

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The command line or the environment is wrong, or help was asked for.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// The file is wrong.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Parses a command line; if its subcommand takes [`super::Settings`], with the environment and the file below the flags.
pub fn load<C: CommandFactory + FromArgMatches>(
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<(C, Sources), LoadError> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let told = |error| as_given(without_secret(error, &C::command()), &C::command(), &arguments);
    let (mut matches, sources) = layer(C::command(), &arguments).map_err(told)?;
    Ok((C::from_arg_matches_mut(&mut matches)?, sources))
}

/// The settings by which a server goes here that is started without a flag.
pub fn without_flags() -> Result<Config, LoadError> {
    #[derive(clap::Parser)]
    enum Here {
        Settings(Box<Settings>),
    }
    let (Here::Settings(settings), _) = load(["trine", "settings"].map(OsString::from))?;
    Ok(settings.in_force())
}

/// All arguments of a command and of those below it.
pub fn arguments_of(command: &Command) -> Vec<&Arg> {
    command.get_arguments().chain(command.get_subcommands().flat_map(arguments_of)).collect()
}

/// A value that is refused may hold a secret all the same, so it is not repeated.
fn without_secret(mut error: LoadError, command: &Command) -> LoadError {
    let is_secret = |flag| with_flag(command, flag).any(Arg::is_hide_env_values_set);
    if let LoadError::Usage(usage) = &mut error
        && let Some(ContextValue::String(value)) = usage.get(ContextKind::InvalidValue)
        && !value.is_empty()
        && flag_of(usage).is_some_and(is_secret)
    {
        usage.insert(ContextKind::InvalidValue, ContextValue::String("***".into()));
    }
    error
}

/// A wrong value of the environment is not one of a flag that nobody gave.
fn as_given(mut error: LoadError, command: &Command, arguments: &[OsString]) -> LoadError {
    if let LoadError::Usage(usage) = &mut error
        && let Some(flag) = flag_of(usage)
        && !arguments.iter().any(|given| given.to_str().is_some_and(|given| given.split('=').next() == Some(flag)))
        && let Some(variable) = variable_of(command, flag)
    {
        usage.insert(ContextKind::InvalidArg, ContextValue::String(variable));
    }
    error
}

/// The flag that an error is about, such as `--key`.
fn flag_of(error: &clap::Error) -> Option<&str> {
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else { return None };
    argument.split(' ').next().filter(|flag| flag.starts_with("--"))
}

/// The arguments with this flag, each of another command.
fn with_flag<'a>(command: &'a Command, flag: &str) -> impl Iterator<Item = &'a Arg> {
    arguments_of(command).into_iter().filter(move |argument| argument.get_long() == flag.strip_prefix("--"))
}

/// The environment variable that is set in the place of a flag.
fn variable_of(command: &Command, flag: &str) -> Option<String> {
    let variables = with_flag(command, flag).filter_map(Arg::get_env);
    variables.filter(|variable| std::env::var_os(variable).is_some()).find_map(|variable| Some(variable.to_str()?.to_owned()))
}

/// Parses twice: first to find the file, then with what it says in the place of the defaults, so that each value takes the same path
/// through the same parser wherever it was written.
fn layer(command: Command, arguments: &[OsString]) -> Result<(ArgMatches, Sources), LoadError> {
    let command = without_empty_variables(command);
    let matches = command.clone().try_get_matches_from(arguments)?;
    let Some((name, chosen)) = matches.subcommand() else { return Ok((matches, Sources::new())) };
    // The command is asked, not the matches: clap looks whether an argument is known only in a debug build.
    let takes_settings = |chosen: &Command| chosen.get_arguments().any(|argument| argument.get_id() == FILE_ARGUMENT);
    if !command.find_subcommand(name).is_some_and(takes_settings) {
        return Ok((matches, Sources::new()));
    }
    let file = File::find(chosen.get_one::<PathBuf>(FILE_ARGUMENT).map(PathBuf::as_path))?;
    let matches = match &file {
        Some(file) => {
            let found = |argument: Arg| argument.default_value(file.path.clone().into_os_string());
            let command = command.mut_subcommand(name, |chosen| file.over_defaults_of(chosen).mut_arg(FILE_ARGUMENT, found));
            command.try_get_matches_from(arguments)?
        }
        None => matches,
    };
    let Some((_, chosen)) = matches.subcommand() else { return Ok((matches, Sources::new())) };
    if let Some(message) = Config::from_arg_matches(chosen)?.contradiction() {
        return Err(clap::Error::raw(ErrorKind::ValueValidation, format!("{message}\n")).into());
    }
    let sources = sources(chosen, file.as_ref());
    Ok((matches, sources))
}

/// `TRINE_X=` is what tools write that can't leave a variable out; it means that it is not set.
fn without_empty_variables(command: Command) -> Command {
    let heard = |argument: Arg| {
        let empty = argument.get_env().is_some_and(|name| std::env::var_os(name).is_some_and(|value| value.is_empty()));
        if empty { argument.env(Resettable::Reset) } else { argument }
    };
    command.mut_args(heard).mut_subcommands(without_empty_variables)
}

fn sources(matches: &ArgMatches, file: Option<&File>) -> Sources {
    let source = |argument: &Arg| {
        let name = argument.get_id().as_str();
        match (matches.value_source(name), file) {
            (Some(ValueSource::CommandLine), _) => Source::Flag(format!("--{}", argument.get_long().unwrap_or(name))),
            (Some(ValueSource::EnvVariable), _) => {
                let variable = argument.get_env().map_or_else(String::new, |variable| variable.to_string_lossy().into_owned());
                Source::Environment(variable)
            }
            (_, Some(file)) if file.has(name) => Source::File(file.path.clone()),
            _ => Source::Default,
        }
    };
    Config::arguments().get_arguments().map(|argument| (argument.get_id().to_string(), source(argument))).collect()
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "flag {flag}"),
            Self::Environment(variable) => write!(f, "environment {variable}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    enum Cli {
        Serve(Box<Settings>),
        Other,
    }

    /// Deaf to the environment of whoever runs the tests, but for one variable that cargo sets.
    fn command() -> Command {
        let deaf = |serve: Command| serve.mut_args(|argument| argument.env(Resettable::Reset));
        Cli::command().mut_subcommand("serve", |serve| deaf(serve).mut_arg("log", |log| log.env("CARGO_PKG_NAME")))
    }

    fn load(text: Option<&str>, flags: &[&str]) -> Result<(Config, Sources), LoadError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, text.unwrap_or_default()).unwrap();
        let path = file.path().to_str().unwrap();
        let arguments: Vec<OsString> = ["trine", "serve", "--config", path].iter().chain(flags).map(OsString::from).collect();
        let (matches, sources) = layer(command(), &arguments)?;
        match Cli::from_arg_matches(&matches)? {
            Cli::Serve(settings) => Ok((settings.in_force(), sources)),
            Cli::Other => unreachable!("the command line says serve"),
        }
    }

    fn kind(source: &Source) -> &'static str {
        match source {
            Source::Flag(_) => "flag",
            Source::Environment(_) => "environment",
            Source::File(_) => "file",
            Source::Default => "default",
        }
    }

    #[test]
    fn the_file_wins_over_defaults() {
        let (config, sources) = load(Some("grace_ms = 7\n[http]\nallow = ['10.0.0.0/8', '::1']\n"), &[]).unwrap();
        assert_eq!((config.grace.as_millis(), config.stop_grace.as_millis()), (7, 2_000));
        assert_eq!(config.http_allow.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0/8", "::1/128"]);
        assert_eq!(["grace_ms", "http_allow", "stop_grace_ms"].map(|name| kind(&sources[name])), ["file", "file", "default"]);
    }

    #[test]
    fn the_environment_wins_over_the_file_and_a_flag_over_both() {
        let (config, sources) = load(Some("log = 'warn'"), &[]).unwrap();
        assert_eq!((config.log.as_str(), kind(&sources["log"])), ("trine", "environment"));
        let (config, sources) = load(Some("log = 'warn'"), &["--log", "debug"]).unwrap();
        assert_eq!((config.log.as_str(), kind(&sources["log"])), ("debug", "flag"));
        assert_eq!(sources["log"], Source::Flag("--log".into()));
    }

    #[test]
    fn a_flag_replaces_the_whole_list_of_the_file() {
        let (config, _) = load(Some("http_allow = ['10.0.0.0/8']"), &["--http-allow", "127.0.0.1, ::1"]).unwrap();
        assert_eq!(config.http_allow.iter().map(ToString::to_string).collect::<Vec<_>>(), ["127.0.0.1/32", "::1/128"]);
    }

    #[test]
    fn what_is_wrong_is_an_error() {
        assert!(
            matches!(load(Some("nonsense = 1"), &[]), Err(LoadError::File(FileError::UnknownKey(_, key))) if key == "nonsense")
        );
        assert!(matches!(load(None, &["--processes", "none"]), Err(LoadError::Usage(_))));
        let twice = load(Some("max_waiting = ['async=5', '10', 'async=6']"), &[]).unwrap_err().to_string();
        assert_eq!(twice, "error: `max_waiting` says two things of async: which of them is meant?\n");
        let no_memory = load(Some("max_body_bytes = 2000"), &["--max-body-memory-bytes", "1999"]).unwrap_err().to_string();
        assert!(no_memory.contains("`max_body_memory_bytes` is 1999 and `max_body_bytes` is 2000"), "{no_memory}");
        load(Some("max_body_bytes = 2000"), &["--max-body-memory-bytes", "2000"]).unwrap();
    }

    #[test]
    fn a_wrong_value_is_one_of_the_variable_that_it_comes_from() {
        let command = command().mut_subcommand("serve", |serve| serve.mut_arg("processes", |it| it.env("CARGO_PKG_NAME")));
        let told = |flags: &[&str]| {
            let arguments: Vec<_> = ["trine", "serve"].iter().chain(flags).map(OsString::from).collect();
            as_given(layer(command.clone(), &arguments).unwrap_err(), &command, &arguments).to_string()
        };
        assert!(
            told(&[]).starts_with("error: invalid value 'trine' for 'CARGO_PKG_NAME': must be a whole number"),
            "{}",
            told(&[])
        );
        assert!(told(&["--processes=many"]).contains("for '--processes <"), "{}", told(&["--processes=many"]));
    }

    #[test]
    fn a_command_without_settings_reads_no_file() {
        let arguments = ["trine", "other"].map(OsString::from);
        assert_eq!(layer(command(), &arguments).unwrap().1, Sources::new());
    }
}
