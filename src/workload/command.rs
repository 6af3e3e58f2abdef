//! `command`: a program that the operator offers.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::content::of_base64;
use super::{Description, Invalid, Likeness, Prepared, Task, parameters, pointer};
use crate::command::{BadValue, Command, Commands};
use crate::job::{Bound, Form, Runtime};

const TYPE: &str = "command";

/// A run of a program, its arguments filled in.
#[derive(Clone, Debug)]
pub struct CommandCall {
    /// The program.
    pub command: Arc<Command>,
    /// All of its arguments.
    pub arguments: Vec<String>,
    /// Its standard input.
    pub stdin: Vec<u8>,
}

/// Which program to run, and with what.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Fields {
    /// The name of the command, as `GET /workloads` lists them.
    name: String,
    /// What the operator lets clients fill in, by name.
    #[serde(default, deserialize_with = "parameters::distinct")]
    #[schema(value_type = Object)]
    parameters: BTreeMap<String, Value>,
    /// Its standard input; without one it is empty.
    #[serde(default)]
    #[schema(default = "")]
    stdin: String,
    /// How that is written, if it is no text.
    #[serde(default)]
    #[schema(inline)]
    stdin_encoding: Option<Encoding>,
}

/// How bytes are written.
#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Encoding {
    Base64,
}

pub(super) fn description() -> Description {
    Description {
        name: TYPE,
        about: "Runs a program that the operator offers, in the sandbox and without a shell.",
        bound: Bound::Cpu,
        form: Form::Blocking,
        runtime: Runtime::Command,
        schema: <Fields as utoipa::PartialSchema>::schema(),
        example: json!({ "type": TYPE, "name": "word-count", "parameters": { "what": "words" }, "stdin": "one two three" }),
    }
}

pub(super) fn prepare(text: &str, commands: &Commands) -> Result<Prepared, Invalid> {
    let Fields { name, parameters, stdin, stdin_encoding } = parameters::parse(text)?;
    let command = commands.0.get(&name).ok_or_else(|| {
        let known = commands.0.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let known = if known.is_empty() { "this server offers none".to_owned() } else { format!("there are: {known}") };
        Invalid::new("/name", format!("no command is called {name:?}; {known}"))
    })?;
    let arguments = command
        .fill(&parameters)
        .map_err(|BadValue { parameter, reason }| Invalid::new(format!("/parameters/{}", pointer::token(&parameter)), reason))?;
    let stdin = match stdin_encoding {
        None => stdin.into_bytes(),
        Some(Encoding::Base64) => {
            of_base64(&stdin).map_err(|error| Invalid::new("/stdin", format!("must be base64: {error}")))?
        }
    };
    let most = command.limits.stdin_bytes;
    if stdin.len() > most {
        return Err(Invalid::new("/stdin", format!("must have at most {most} bytes")));
    }
    let likeness = Some(Likeness::of(TYPE).name(name));
    let call = CommandCall { command: Arc::clone(command), arguments, stdin };
    Ok(Prepared { runtime: Runtime::Command, form: Form::Blocking, gil: false, likeness, task: Task::Command(Box::new(call)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const COMMANDS: &str = "
        [count]
        path = '/bin/sh'
        arguments = ['{what}']
        parameters.what = { type = 'choice', choices = ['-l', '-w'] }
        limits.stdin_bytes = 3";

    #[rstest]
    #[case::unknown(json!({"name": "other"}), "/name", "no command is called \"other\"; there are: count")]
    #[case::parameter(json!({"name": "count", "parameters": {"what": "-x"}}), "/parameters/what", "must be one of -l, -w")]
    #[case::nonsense(json!({"name": "count", "parameters": {"a/b": 1}}), "/parameters/a~1b", "is no parameter of this command; there are what")]
    #[case::stdin(json!({"name": "count", "parameters": {"what": "-l"}, "stdin": "four"}), "/stdin", "must have at most 3 bytes")]
    #[case::bytes(json!({"name": "count", "parameters": {"what": "-l"}, "stdin": "%", "stdin_encoding": "base64"}), "/stdin", "must be base64")]
    #[case::field(json!({"name": "count", "arguments": []}), "/arguments", "unknown field `arguments`")]
    fn what_is_wrong_is_named(#[case] workload: Value, #[case] pointer: &str, #[case] message: &str) {
        let invalid = prepare(&workload.to_string(), &COMMANDS.parse().unwrap()).map(drop).unwrap_err();
        assert_eq!(invalid.pointer, pointer);
        assert!(invalid.message.starts_with(message), "{invalid}");
    }
}
