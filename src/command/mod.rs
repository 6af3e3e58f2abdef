//! The programs that an operator offers: what is fixed of them, and what a client may fill in.
//!
//! No shell has a part in it: a program gets a list of arguments, and a client's value is (a part of) exactly one of them.

mod argument;
mod parameter;

pub use argument::Argument;
pub use parameter::{Kind, Parameter, Pattern};

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::sandbox;

/// The variables that say where a run may write.
const OWN_VARIABLES: [&str; 2] = ["TMPDIR", "TRINE_ARTIFACT_FOLDER"];

/// The programs, by the names that clients use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Commands(pub BTreeMap<String, Arc<Command>>);

/// A program that clients may run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// What it is good for: a sentence for clients.
    #[serde(default)]
    pub about: String,
    /// The program, an absolute path.
    pub path: PathBuf,
    /// What it is given.
    #[serde(default)]
    pub arguments: Vec<Argument>,
    /// What a client may fill in.
    #[serde(default)]
    pub parameters: BTreeMap<String, Parameter>,
    /// Its environment, whole but for `TMPDIR` and `TRINE_ARTIFACT_FOLDER`. The values may be secrets: they are not
    /// shown.
    #[serde(default, serialize_with = "names_alone")]
    pub environment: BTreeMap<String, String>,
    /// The folder that it starts in, which it may read; without one, the scratch folder of the job.
    #[serde(default)]
    pub folder: Option<PathBuf>,
    /// Further files and folders that it may read.
    #[serde(default)]
    pub read: Vec<PathBuf>,
    /// Whether it may reach the network.
    #[serde(default)]
    pub network: bool,
    /// What it may use.
    #[serde(default)]
    pub limits: Limits,
}

/// What one run of a program may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// How long it may run, in milliseconds, whatever the job allows.
    pub deadline_ms: u64,
    /// Processes that it may start.
    pub processes: u64,
    /// Resident memory of all its processes together, in bytes.
    pub memory_bytes: u64,
    /// What it may keep in its scratch folder, in bytes.
    pub scratch_bytes: u64,
    /// What is kept of its standard output, and of its standard error, in bytes. More is read and thrown away.
    pub output_bytes: usize,
    /// The longest standard input that it takes, in bytes.
    pub stdin_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            deadline_ms: 600_000,
            processes: 0,
            memory_bytes: 1 << 30,
            scratch_bytes: 1 << 30,
            output_bytes: 1 << 20,
            stdin_bytes: 1 << 20,
        }
    }
}

impl Limits {
    /// How long it may run.
    pub const fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms)
    }

    /// For the sandbox. Programs reserve more memory than they use, so what they may address is more than what they may use.
    pub fn in_sandbox(&self) -> sandbox::Limits {
        sandbox::Limits {
            address_space_bytes: Some(self.memory_bytes.saturating_mul(4)),
            file_bytes: self.scratch_bytes,
            processes: self.processes,
            memory_bytes: self.memory_bytes,
            scratch_bytes: self.scratch_bytes,
            ..sandbox::Limits::default()
        }
    }
}

/// Why programs can't be offered as they are written down.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The text is not what is expected. The text itself may have a secret in it.
    #[error("{}", .0.message())]
    Toml(#[from] toml::de::Error),
    /// One of them makes no sense.
    #[error("{command}: {reason}")]
    Senseless {
        /// Its name.
        command: String,
        /// Why.
        reason: String,
    },
}

/// A client's value that can't be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{parameter}: {reason}")]
pub struct BadValue {
    /// Of which parameter.
    pub parameter: String,
    /// Why.
    pub reason: String,
}

/// Which variables there are, but not what they say.
fn names_alone<S: Serializer>(environment: &BTreeMap<String, String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(environment.keys().map(|name| (name, "…")))
}

impl FromStr for Commands {
    type Err = CommandError;

    /// Reads a TOML table: a table for each command, by its name.
    fn from_str(text: &str) -> Result<Self, CommandError> {
        let tables: BTreeMap<String, toml::Value> = toml::from_str(text)?;
        let read = |(name, table): (String, toml::Value)| {
            let command = serde_path_to_error::deserialize::<_, Command>(table).map_err(|error| match error.path().to_string() {
                whole if whole == "." => error.inner().message().to_owned(),
                key => format!("{key}: {}", error.inner().message()),
            });
            let checked = command.and_then(|command| command.check().map(|()| command));
            match checked {
                Ok(command) => Ok((name, Arc::new(command))),
                Err(reason) => Err(CommandError::Senseless { command: name, reason }),
            }
        };
        tables.into_iter().map(read).collect::<Result<_, _>>().map(Self)
    }
}

impl Command {
    /// The arguments, with a client's values in their places.
    ///
    /// # Errors
    /// The first value that is wrong, missing or of no parameter.
    pub fn fill(&self, values: &BTreeMap<String, Value>) -> Result<Vec<String>, BadValue> {
        if let Some(unknown) = values.keys().find(|name| !self.parameters.contains_key(*name)) {
            let known = self.parameters.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            let others = if known.is_empty() { "there are none".into() } else { format!("there are {known}") };
            let reason = format!("is no parameter of this command; {others}");
            return Err(BadValue { parameter: unknown.clone(), reason });
        }
        let mut texts = BTreeMap::new();
        for (name, parameter) in &self.parameters {
            let text = parameter.text(values.get(name));
            let text = text.map_err(|reason| BadValue { parameter: name.clone(), reason })?;
            texts.insert(name.as_str(), text);
        }
        let mut filled = Vec::new();
        for argument in &self.arguments {
            argument.fill(&texts, |name| self.may_begin_with_dash(name), &mut filled)?;
        }
        Ok(filled)
    }

    fn may_begin_with_dash(&self, parameter: &str) -> bool {
        self.parameters.get(parameter).is_some_and(Parameter::may_begin_with_dash)
    }

    /// The JSON Schema of its parameters.
    pub fn schema(&self) -> Value {
        let leading: Vec<&str> = self.arguments.iter().flat_map(Argument::leading).collect();
        let schema = |(name, parameter): (&String, &Parameter)| {
            let may_begin_with_dash = parameter.may_begin_with_dash() || !leading.contains(&name.as_str());
            (name.clone(), parameter.schema(may_begin_with_dash))
        };
        let properties: Map<String, Value> = self.parameters.iter().map(schema).collect();
        let required: Vec<_> =
            self.parameters.iter().filter(|(_, parameter)| parameter.is_required()).map(|(name, _)| name).collect();
        json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
    }

    fn check(&self) -> Result<(), String> {
        if !self.path.is_absolute() {
            return Err(format!("the path {} is not absolute", self.path.display()));
        }
        if !self.path.is_file() {
            return Err(format!("there is no program {}", self.path.display()));
        }
        if self.path.metadata().is_ok_and(|file| file.permissions().mode() & 0o111 == 0) {
            return Err(format!("{} is no program: it is not executable", self.path.display()));
        }
        if let Some(path) = self.folder.iter().chain(&self.read).find(|path| !path.is_absolute()) {
            return Err(format!("the path {} is not absolute", path.display()));
        }
        if let Some(folder) = self.folder.iter().find(|folder| !folder.is_dir()) {
            return Err(format!("there is no folder {}", folder.display()));
        }
        let is_variable = |name: &str| !name.is_empty() && !name.contains(['=', '\0']);
        if let Some((name, _)) = self.environment.iter().find(|(name, value)| !is_variable(name) || value.contains('\0')) {
            return Err(format!("the environment can't have a variable {name:?} with this value"));
        }
        if let Some(own) = OWN_VARIABLES.iter().find(|name| self.environment.contains_key(**name)) {
            return Err(format!("environment.{own}: Trine sets it, for each run another one"));
        }
        if self.limits.deadline_ms == 0 {
            return Err("limits.deadline_ms: 0 ms leave no time for anything".into());
        }
        if self.limits.memory_bytes == 0 {
            return Err("limits.memory_bytes: 0 bytes are too few for any program".into());
        }
        for (name, parameter) in &self.parameters {
            parameter.check().map_err(|reason| format!("parameter {name}: {reason}"))?;
        }
        let named: Vec<&str> = self.arguments.iter().flat_map(Argument::parameters).collect();
        if let Some(unknown) = named.iter().find(|name| !self.parameters.contains_key(**name)) {
            return Err(format!("an argument holds {{{unknown}}}, but there is no such parameter; a brace is written twice"));
        }
        let texts = self.parameters.iter().map(|(name, parameter)| (name.as_str(), parameter.text(None).unwrap_or_default()));
        let texts = texts.collect();
        for argument in &self.arguments {
            let filled = argument.fill(&texts, |name| self.may_begin_with_dash(name), &mut Vec::new());
            filled.map_err(|BadValue { parameter, reason }| format!("parameter {parameter}: the default {reason}"))?;
        }
        match self.parameters.keys().find(|name| !named.contains(&name.as_str())) {
            Some(unused) => Err(format!("no argument holds the parameter {unused}")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn commands(text: &str) -> Result<Commands, CommandError> {
        text.parse()
    }

    fn fill(text: &str, values: &Value) -> Result<Vec<String>, String> {
        let commands = commands(&format!("[c]\npath = '/bin/sh'\n{text}")).unwrap();
        commands.0["c"].fill(&serde_json::from_value(values.clone()).unwrap()).map_err(|bad| bad.to_string())
    }

    const SEARCH: &str = "
        arguments = ['-n', ['-m', '{most}'], '{quiet}', '--regexp={what}', '{file}']
        parameters.most = { type = 'integer', min = 1, max = 100, optional = true }
        parameters.quiet = { type = 'flag', argument = '--quiet' }
        parameters.what = { type = 'text', max_length = 8, pattern = '[a-z-]*' }
        parameters.file = { type = 'choice', choices = ['a.txt', 'b.txt'], default = 'a.txt' }";

    #[rstest]
    #[case(json!({"what": "x"}), &["-n", "--regexp=x", "a.txt"])]
    #[case(json!({"what": "-x", "most": 7, "quiet": true, "file": "b.txt"}), &["-n", "-m", "7", "--quiet", "--regexp=-x", "b.txt"])]
    fn values_go_to_their_places(#[case] values: Value, #[case] arguments: &[&str]) {
        assert_eq!(fill(SEARCH, &values).unwrap(), arguments);
    }

    #[rstest]
    #[case(json!({}), "what: must be given")]
    #[case(json!({"what": "x", "other": 1}), "other: is no parameter of this command; there are file, most, quiet, what")]
    #[case(json!({"what": 1}), "what: must be a text")]
    #[case(json!({"what": "UPPER"}), "what: must match [a-z-]*")]
    #[case(json!({"what": "aaaaaaaaa"}), "what: must have at most 8 characters")]
    #[case(json!({"what": "x", "most": 0}), "most: must be at least 1")]
    #[case(json!({"what": "x", "most": 101}), "most: must be at most 100")]
    #[case(json!({"what": "x", "most": "7"}), "most: must be a whole number")]
    #[case(json!({"what": "x", "quiet": "yes"}), "quiet: must be true or false")]
    #[case(json!({"what": "x", "file": "c.txt"}), "file: must be one of a.txt, b.txt")]
    fn other_values_are_refused(#[case] values: Value, #[case] message: &str) {
        assert_eq!(fill(SEARCH, &values).unwrap_err(), message);
    }

    #[rstest]
    #[case("arguments = ['{a}']\nparameters.a = { type = 'text' }", json!({"a": "--help"}), Err("a: must not begin with `-`"))]
    #[case("arguments = ['{a}']\nparameters.a = { type = 'text', dash = true }", json!({"a": "--help"}), Ok("--help"))]
    #[case("arguments = ['{a}']\nparameters.a = { type = 'integer' }", json!({"a": -5}), Err("a: must not begin with `-`"))]
    #[case("arguments = ['a={a}']\nparameters.a = { type = 'integer' }", json!({"a": -5}), Ok("a=-5"))]
    #[case(
        "arguments = ['{a}{b}']\nparameters.a = { type = 'text', dash = true }\nparameters.b = { type = 'text' }",
        json!({"a": "", "b": "-x"}),
        Err("b: must not begin with `-`")
    )]
    #[case("arguments = ['{a}']\nparameters.a = { type = 'text' }", json!({"a": "x\u{0}y"}), Err("a: must not hold a NUL"))]
    #[case("arguments = ['{{{a}}}']\nparameters.a = { type = 'text' }", json!({"a": "; rm -rf $HOME"}), Ok("{; rm -rf $HOME}"))]
    fn no_value_becomes_an_option_or_more_than_one_argument(
        #[case] text: &str,
        #[case] values: Value,
        #[case] expected: Result<&str, &str>,
    ) {
        let expected = expected.map(|argument| vec![argument.to_owned()]).map_err(str::to_owned);
        assert_eq!(fill(text, &values), expected);
    }

    #[rstest]
    #[case("path = 'sh'", "c: the path sh is not absolute")]
    #[case("path = '/nowhere/sh'", "c: there is no program /nowhere/sh")]
    #[case("path = '/etc/passwd'", "c: /etc/passwd is no program: it is not executable")]
    #[case("path = '/bin/sh'\nfolder = '/etc/passwd'", "c: there is no folder /etc/passwd")]
    #[case("path = '/bin/sh'\nenvironment = { 'A=B' = 'x' }", "c: the environment can't have a variable \"A=B\" with this value")]
    #[case(
        "path = '/bin/sh'\nenvironment = { A = \"\\u0000\" }",
        "c: the environment can't have a variable \"A\" with this value"
    )]
    #[case(
        "path = '/bin/sh'\nenvironment = { TMPDIR = '/tmp' }",
        "c: environment.TMPDIR: Trine sets it, for each run another one"
    )]
    #[case(
        "path = '/bin/sh'\nenvironment = { TRINE_ARTIFACT_FOLDER = '/tmp' }",
        "c: environment.TRINE_ARTIFACT_FOLDER: Trine sets it, for each run another one"
    )]
    #[case(
        "path = '/bin/sh'\narguments = ['{a}']\nparameters.a = { type = 'text', max_length = 0 }",
        "c: parameter a: max_length must be 1 to 131071, the most bytes that an argument can have"
    )]
    #[case(
        "path = '/bin/sh'\narguments = ['{a}']\nparameters.a = { type = 'text', max_length = 131_072 }",
        "c: parameter a: max_length must be 1 to 131071, the most bytes that an argument can have"
    )]
    #[case("path = '/bin/sh'\narguments = [5]", "c: arguments[0]: must be a text, or a list of texts that belong together")]
    #[case("path = '/bin/sh'\narguments = [\"a\\u0000\"]", "c: arguments[0]: an argument can't hold a NUL")]
    #[case("path = '/bin/sh'\narguments = ['{a']", "c: arguments[0]: a brace is not closed; write {{ for a brace")]
    #[case(
        "path = '/bin/sh'\narguments = ['{a}']\nparameters.a = { type = 'integer', min = 5, max = 1 }",
        "c: parameter a: no number is at least 5 and at most 1"
    )]
    #[case(
        "path = '/bin/sh'\narguments = ['{a}']\nparameters.a = { type = 'text', default = '-x' }",
        "c: parameter a: the default must not begin with `-`"
    )]
    #[case(
        "path = '/bin/sh'\narguments = ['{a}']",
        "c: an argument holds {a}, but there is no such parameter; a brace is written twice"
    )]
    #[case("path = '/bin/sh'\nparameters.a = { type = 'text' }", "c: no argument holds the parameter a")]
    #[case(
        "path = '/bin/sh'\narguments = ['{a}']\nparameters.a = { type = 'flag' }",
        "c: parameter a: a flag needs an `argument`"
    )]
    #[case(
        "path = '/bin/sh'\narguments = ['{a}']\nparameters.a = { type = 'integer', pattern = 'x' }",
        "c: parameter a: `pattern` is for a text"
    )]
    #[case(
        "path = '/bin/sh'\narguments = ['{a}']\nparameters.a = { type = 'integer', default = 'x' }",
        "c: parameter a: the default must be a whole number"
    )]
    fn what_makes_no_sense_is_named(#[case] text: &str, #[case] message: &str) {
        assert_eq!(commands(&format!("[c]\n{text}")).unwrap_err().to_string(), message);
    }

    #[rstest]
    #[case("[c]\npath = '/bin/sh'\nshell = true", "unknown field `shell`")]
    #[case(
        "[c]\npath = '/bin/sh'\nparameters.a = { type = 'text', pattern = '(' }",
        "c: parameters.a.pattern: regex parse error"
    )]
    #[case("[c]\npath = '/bin/sh'\nparameters.a = { type = 'text', pattern = 'a)(b' }", "    a)(b\n")]
    #[case("[c]\npath = '/bin/sh'\nlimits = { deadline_ms = -1 }", "c: limits.deadline_ms: invalid value: integer `-1`")]
    #[case("[c]\npath = '/bin/sh'\nlimits.memory_bytes = 0", "c: limits.memory_bytes: 0 bytes are too few for any program")]
    #[case("[c]\npath = '/bin/sh'\nlimits.deadline_ms = 0", "c: limits.deadline_ms: 0 ms leave no time for anything")]
    #[case("[c]\narguments = []", "missing field `path`")]
    fn what_is_not_a_command_is_named(#[case] text: &str, #[case] message: &str) {
        let error = commands(text).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }

    #[test]
    fn the_schema_says_what_is_expected() {
        let commands = commands(&format!("[c]\npath = '/bin/sh'\n{SEARCH}")).unwrap();
        let schema = commands.0["c"].schema();
        assert_eq!(schema["required"], json!(["what"]));
        assert_eq!(schema["properties"]["what"], json!({"type": "string", "maxLength": 8, "pattern": "^(?:[a-z-]*)$"}));
        assert_eq!(schema["properties"]["most"], json!({"type": "integer", "minimum": 1, "maximum": 100}));
        assert_eq!(schema["properties"]["file"], json!({"type": "string", "enum": ["a.txt", "b.txt"], "default": "a.txt"}));
        assert_eq!(schema["properties"]["quiet"], json!({"type": "boolean", "default": false}));
    }

    #[test]
    fn the_schema_says_what_may_begin_with_a_dash() {
        let schema = |arguments: &str, parameter: &str| {
            let commands = commands(&format!("[c]\npath = '/bin/sh'\narguments = [{arguments}]\nparameters.a = {parameter}"));
            commands.unwrap().0["c"].schema()["properties"]["a"].take()
        };
        let number = "{ type = 'integer', min = -10 }";
        assert_eq!(schema("'{a}'", number), json!({"type": "integer", "minimum": 0}));
        assert_eq!(schema("'a={a}'", number), json!({"type": "integer", "minimum": -10}));
        assert_eq!(schema("'{a}'", "{ type = 'integer', dash = true }"), json!({"type": "integer"}));
        let text = json!({"type": "string", "maxLength": 256, "not": {"pattern": "^-"}});
        assert_eq!(schema("['-o', '{a}']", "{ type = 'text' }"), text);
    }

    #[test]
    fn an_argument_is_no_longer_than_a_program_can_be_given() {
        let text = "arguments = ['a={a}']\nparameters.a = { type = 'text', max_length = 131_071 }";
        assert_eq!(fill(text, &json!({ "a": "x".repeat(131_069) })).unwrap()[0].len(), 131_071);
        let refused = fill(text, &json!({ "a": "ä".repeat(65_535) })).unwrap_err();
        assert_eq!(refused, "a: makes an argument of more than 131071 bytes, which no program can be given");
        // What stands behind it counts, too.
        assert_eq!(fill(&text.replace("a={a}", "{a}=a"), &json!({ "a": "x".repeat(131_070) })).unwrap_err(), refused);
    }

    #[test]
    fn commands_survive_the_way_to_another_process() {
        let before = commands(&format!("[c]\npath = '/bin/sh'\n{SEARCH}")).unwrap();
        let after: Commands = serde_json::from_str(&serde_json::to_string(&before).unwrap()).unwrap();
        assert_eq!(before, after);
    }
}
