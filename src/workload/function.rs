//! `function`: a Python function that is registered on this server.

use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::python::{PythonRules, array, object};
use super::{Description, Invalid, Likeness, Prepared, Task, parameters};
use crate::job::{Bound, Form, Runtime, Spec};

const TYPE: &str = "function";
/// How many digits of a version are enough to tell it from the others of a function.
const DIGITS: usize = 12;

/// A call of a registered function. Which code that is and which interpreter runs it, its version says.
#[derive(Clone, Debug)]
pub struct FunctionCall {
    /// Its name.
    pub name: String,
    /// Its version, whole once the job is accepted.
    pub version: Option<String>,
    /// A JSON array.
    pub args: Box<RawValue>,
    /// A JSON object.
    pub kwargs: Box<RawValue>,
    /// Whether it may reach the network.
    pub network: bool,
}

/// Which function to call, and with what.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Fields {
    /// The name that it was registered under, as `GET /functions` lists them.
    name: String,
    /// The version, or at least 8 of its first digits. Without it, the one that is the latest when the job is accepted.
    #[schema(min_length = 8, max_length = 64)]
    version: Option<String>,
    /// Its arguments.
    #[schema(value_type = Option<Vec<serde_json::Value>>)]
    args: Option<Box<RawValue>>,
    /// Its keyword arguments.
    #[schema(value_type = Option<Object>)]
    kwargs: Option<Box<RawValue>>,
    /// Whether it needs the network, which the server must allow.
    #[serde(default)]
    #[schema(default = false)]
    network: bool,
}

pub(super) fn description() -> Description {
    Description {
        name: TYPE,
        about: "Runs a Python function that is registered on this server, in a warm interpreter.",
        bound: Bound::Cpu,
        form: Form::Blocking,
        runtime: Runtime::Python,
        schema: <Fields as utoipa::PartialSchema>::schema(),
        example: json!({ "type": TYPE, "name": "resize", "args": [640, 480] }),
    }
}

/// What is known without looking the function up: the form is that of its version, and the lock that of its interpreter.
pub(super) fn prepare(text: &str, rules: &PythonRules) -> Result<Prepared, Invalid> {
    let Fields { name, version, args, kwargs, network } = parameters::parse(text)?;
    rules.check_network(network)?;
    let likeness = version.as_deref().map(|version| likeness(&name, version));
    let call = FunctionCall { name, version, args: array(args)?, kwargs: object(kwargs)?, network };
    Ok(Prepared { runtime: Runtime::Python, form: Form::Blocking, gil: true, likeness, task: Task::Function(Box::new(call)) })
}

/// The calls of a version of a function.
pub(crate) fn likeness(name: &str, version: &str) -> Likeness {
    let digits = version.get(..DIGITS).unwrap_or(version);
    Likeness::of(TYPE).name(format!("{name}@{digits}"))
}

/// Whether a workload is a call of a function.
pub(crate) fn is_function(spec: &Spec) -> bool {
    spec.kind == TYPE
}

/// Replaces the version in a workload of this kind by the one that `find` gives for the name and the version that is asked for.
pub(crate) fn pin<T>(
    spec: &mut Spec,
    find: impl FnOnce(&str, Option<&str>) -> Result<(String, T), Invalid>,
) -> Result<T, Invalid> {
    #[derive(Serialize)]
    struct Typed<'a> {
        r#type: &'a str,
        name: &'a str,
        version: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        args: &'a Option<Box<RawValue>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        kwargs: &'a Option<Box<RawValue>>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        network: bool,
    }

    let Fields { name, version: asked, args, kwargs, network } = parameters::parse(spec.json.get())?;
    let (version, found) = find(&name, asked.as_deref())?;
    if asked.as_ref() != Some(&version) {
        let typed = Typed { r#type: TYPE, name: &name, version: &version, args: &args, kwargs: &kwargs, network };
        spec.json = serde_json::value::to_raw_value(&typed).map_err(|error| Invalid::new("", error.to_string()))?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_replaced_and_the_rest_is_kept() {
        let text = r#"{"args": [1.50, {"b":1,"a":2}], "name":"f","type":"function", "network":true}"#;
        let mut spec = Spec { kind: TYPE.into(), json: RawValue::from_string(text.into()).unwrap() };
        let found = pin(&mut spec, |name, version| {
            assert_eq!((name, version), ("f", None));
            Ok(("abc".into(), 7))
        });
        assert_eq!(found, Ok(7));
        let pinned = r#"{"type":"function","name":"f","version":"abc","args":[1.50, {"b":1,"a":2}],"network":true}"#;
        assert_eq!(spec.json.get(), pinned);
        pin(&mut spec, |_, version| Ok((version.unwrap().to_owned(), ()))).unwrap();
        assert_eq!(spec.json.get(), pinned);
    }

    #[test]
    fn arguments_have_a_shape() {
        let refused = |fields: &str| {
            let text = format!(r#"{{"type":"function","name":"f",{fields}}}"#);
            prepare(&text, &PythonRules::default()).map(drop).unwrap_err().pointer
        };
        let pointers = [r#""args":{}"#, r#""kwargs":[]"#, r#""network":true"#, r#""source":"""#].map(refused);
        assert_eq!(pointers, ["/args", "/kwargs", "/network", "/source"]);
    }
}
