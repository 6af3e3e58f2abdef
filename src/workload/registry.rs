//! Which workloads there are, by the name in `type`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use utoipa::openapi::{RefOr, Schema};

use super::command::{self, CommandCall};
use super::function::{self, FunctionCall};
use super::likeness::Likeness;
use super::pointer::{is_in, token};
use super::python::{self, PythonCall};
use super::{Context, Environment, Invalid, Reporter, Stop, Work, Workload, fill, parameters};
use crate::job::{Bound, Failure, Form, Runtime, Spec};

/// Values that might be an output, one of each type.
const STAND_INS: [&str; 6] = ["null", "1", "\"x\"", "[]", "{}", "true"];

/// The workloads that this server can run, with the environment that they share.
pub struct Registry {
    environment: Arc<Environment>,
    entries: BTreeMap<&'static str, Entry>,
}

/// What is known of a workload without running it.
#[derive(Clone)]
pub struct Description {
    /// The value of `type`.
    pub name: &'static str,
    /// One sentence.
    pub about: &'static str,
    /// What it mostly does.
    pub bound: Bound,
    /// How it is written; a Python function may be written otherwise.
    pub form: Form,
    /// What it is written in.
    pub runtime: Runtime,
    /// The JSON Schema of its parameters, without `type`.
    pub schema: RefOr<Schema>,
    /// A workload object that works, `type` included.
    pub example: Value,
}

/// A workload whose parameters are known to be good, with what the choice of an executor depends on.
pub struct Prepared {
    /// What it is written in.
    pub runtime: Runtime,
    /// How it is written.
    pub form: Form,
    /// Whether a global lock lets one of its threads compute at a time.
    pub gil: bool,
    /// The runs that its figures belong to; `None` where no other run can be expected to be like it.
    pub likeness: Option<Likeness>,
    /// What is to be done.
    pub task: Task,
}

/// What is to be done, by the runtime that does it.
pub enum Task {
    /// Native: makes the work, not begun.
    Native(Box<dyn FnOnce(Context) -> Work + Send>),
    /// A call of a Python function.
    Python(Box<PythonCall>),
    /// A call of a Python function that is registered.
    Function(Box<FunctionCall>),
    /// A run of a program.
    Command(Box<CommandCall>),
}

struct Entry {
    description: Description,
    prepare: Prepare,
}

/// Reads and checks the text of a workload object.
type Prepare = fn(&str, &Environment) -> Result<Prepared, Invalid>;

impl Registry {
    /// A registry without workloads.
    pub fn empty(environment: Environment) -> Self {
        Self { environment: Arc::new(environment), entries: BTreeMap::new() }
    }

    /// Every workload that comes with Trine.
    pub fn native(environment: Environment) -> Self {
        Self::empty(environment)
            .register::<super::file::File>()
            .register::<super::http::Http>()
            .register::<super::image::Image>()
            .register::<super::primes::Primes>()
            .register::<super::sleep::Sleep>()
            .with(command::description(), |text, environment| command::prepare(text, &environment.commands))
            .with(function::description(), |text, environment| function::prepare(text, &environment.python))
            .with(python::description(), |text, environment| python::prepare(text, &environment.python))
    }

    /// Adds a workload; one of the same name is replaced.
    #[must_use]
    pub fn register<W: Workload>(self) -> Self {
        let mut example = W::example();
        if let Some(fields) = example.as_object_mut() {
            fields.insert("type".into(), W::TYPE.into());
        }
        let description = Description {
            name: W::TYPE,
            about: W::ABOUT,
            bound: W::BOUND,
            form: W::FORM,
            runtime: Runtime::Native,
            schema: W::schema(),
            example,
        };
        self.with(description, prepare::<W>)
    }

    fn with(mut self, description: Description, prepare: Prepare) -> Self {
        self.entries.insert(description.name, Entry { description, prepare });
        self
    }

    /// What is known of each workload, by name.
    pub fn describe(&self) -> impl Iterator<Item = &Description> {
        self.entries.values().map(|entry| &entry.description)
    }

    /// What is known of one workload.
    pub fn get(&self, name: &str) -> Option<&Description> {
        self.entries.get(name).map(|entry| &entry.description)
    }

    /// What all workloads share.
    pub fn environment(&self) -> &Arc<Environment> {
        &self.environment
    }

    /// Validates a workload object. Pointers in the error are relative to that object.
    ///
    /// # Errors
    /// The name is unknown, or the first parameter that is wrong.
    pub fn prepare(&self, spec: &Spec) -> Result<Prepared, Invalid> {
        let entry = self.entries.get(spec.kind.as_str()).ok_or_else(|| {
            let known = self.entries.keys().copied().collect::<Vec<_>>().join(", ");
            Invalid::new("/type", format!("no workload is called {:?}; there are: {known}", spec.kind))
        })?;
        (entry.prepare)(spec.json.get(), &self.environment)
    }

    /// Validates a workload object that other jobs' outputs are to be put into, as far as that goes without them: `None` if what it is
    /// depends on them.
    ///
    /// # Errors
    /// As for [`Registry::prepare`]; what is said is not about the places of the outputs.
    pub fn foresee(&self, spec: &Spec) -> Result<Option<Prepared>, Invalid> {
        /// So many bytes are gone through at most. Each turn finds a value for one place, and goes through all of the workload.
        const MOST_BYTES: usize = 8 << 20;
        let mut turns = 1;
        let example = self.get(&spec.kind).map(|description| &description.example);
        // For each place, how many of the values that might be there have been refused.
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        loop {
            let json = fill(&spec.json, &mut |pointer, _| {
                let refused = *places.entry(pointer.to_owned()).or_default();
                let usual = example.and_then(|example| example.pointer(pointer)).map(Value::to_string);
                let value = usual.into_iter().chain(STAND_INS.map(str::to_owned)).nth(refused);
                Ok(value.unwrap_or_else(|| "null".into()).into())
            })?;
            let invalid = match self.prepare(&Spec { kind: spec.kind.clone(), json }) {
                Ok(prepared) => return Ok(Some(prepared)),
                Err(invalid) => invalid,
            };
            let about = |place: &String| {
                is_in(&invalid.pointer, place) || (is_in(place, &invalid.pointer) && !invalid.pointer.is_empty())
            };
            let Some((_, refused)) = places.iter_mut().find(|(place, _)| about(place)) else { return Err(invalid) };
            *refused += 1;
            turns += 1;
            if *refused > STAND_INS.len() || turns * spec.json.get().len() > MOST_BYTES {
                return Ok(None);
            }
        }
    }
}

impl Registry {
    /// The work of a stored native workload, not begun.
    ///
    /// # Errors
    /// It is not valid any more: this server knows other workloads, or has other limits, than the one that accepted it.
    pub fn work(&self, spec: &Spec, stop: Stop, reporter: Reporter) -> Result<Work, Failure> {
        match self.task(spec)? {
            Task::Native(work) => Ok(work(Context { environment: Arc::clone(&self.environment), stop, reporter })),
            Task::Python(_) | Task::Function(_) | Task::Command(_) => {
                Err(Failure::error("it is not native and was sent to an executor of native work"))
            }
        }
    }

    /// Which runs a stored workload's are like, if it is still valid and there can be any.
    pub fn likeness(&self, spec: &Spec) -> Option<Likeness> {
        self.prepare(spec).ok()?.likeness
    }

    /// What a stored workload asks for.
    ///
    /// # Errors
    /// As for [`Registry::work`].
    pub fn task(&self, spec: &Spec) -> Result<Task, Failure> {
        let prepared = self.prepare(spec).map_err(|invalid| Failure::error(format!("this server can't run it: {invalid}")))?;
        Ok(prepared.task)
    }
}

fn prepare<W: Workload>(text: &str, environment: &Environment) -> Result<Prepared, Invalid> {
    let workload: W = parameters::parse(text)?;
    workload.check(environment)?;
    let likeness = Some(workload.likeness());
    let task = Task::Native(Box::new(move |context| workload.work(context)));
    Ok(Prepared { runtime: Runtime::Native, form: W::FORM, gil: false, likeness, task })
}

impl Invalid {
    /// From an error of serde with the path where it happened.
    pub fn at_path(error: &serde_path_to_error::Error<serde_json::Error>) -> Self {
        use serde_path_to_error::Segment;
        let mut pointer = String::new();
        for segment in error.path() {
            match segment {
                Segment::Seq { index } => {
                    pointer.push('/');
                    pointer.push_str(&index.to_string());
                }
                Segment::Map { key } | Segment::Enum { variant: key } => {
                    pointer.push('/');
                    pointer.push_str(&token(key));
                }
                Segment::Unknown => {}
            }
        }
        let message = error.inner().to_string();
        // serde_json appends where in the text it was; the pointer says it better.
        Self::new(pointer, in_words(message.split(" at line ").next().unwrap_or_default()))
    }
}

/// What serde says, but for the names that Rust has for numbers, and where it only says that it is none of the names that it should be.
fn in_words(message: &str) -> String {
    if message == "expected value" {
        return "must be a string".to_owned();
    }
    let Some((found, expected)) = message.rsplit_once(", expected ") else { return message.to_owned() };
    let number = match expected {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number from 0 on",
        "i16" | "i32" | "i64" => "a whole number",
        "f32" | "f64" => "a number",
        other => other,
    };
    format!("{found}, expected {number}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use serde_json::value::RawValue;

    use super::super::testing::Bench;
    use super::*;

    #[test]
    fn every_example_is_valid() {
        let registry = Bench::new().registry;
        for workload in registry.describe() {
            let json = RawValue::from_string(workload.example.to_string()).unwrap();
            registry.prepare(&Spec { kind: workload.name.to_owned(), json }).map(drop).unwrap();
        }
    }

    #[test]
    fn every_schema_stands_alone_and_is_closed() {
        for workload in Bench::new().registry.describe() {
            let schema = serde_json::to_value(&workload.schema).unwrap();
            // The sum of an inlined type and what its field says of it comes out as a contradiction: a string that is an object.
            assert!(["$ref", "allOf"].iter().all(|part| !schema.to_string().contains(part)), "{schema:#}");
            assert_eq!(schema["additionalProperties"], false, "{schema:#}");
            for (name, property) in schema["properties"].as_object().unwrap() {
                assert!(property.get("description").is_some(), "{} of {} is not described", name, workload.name);
            }
        }
    }

    #[test]
    fn a_likeness_keeps_sizes_and_hosts_and_no_secrets() {
        let bench = Bench::allowing(&["127.0.0.1/32"]);
        let key = |workload: Value| {
            let kind = workload["type"].as_str().unwrap().to_owned();
            let json = RawValue::from_string(workload.to_string()).unwrap();
            bench.registry.prepare(&Spec { kind, json }).unwrap().likeness.map(|likeness| likeness.to_string())
        };
        let secret = json!({ "type": "http", "url": "http://127.0.0.1:81/secret?secret#secret", "headers": { "x": "secret" } });
        assert_eq!(key(secret).unwrap(), "http:127.0.0.1:81");
        assert_eq!(key(json!({ "type": "http", "url": "https://Example.com/x" })).unwrap(), "http:example.com");
        assert_eq!(key(json!({ "type": "primes", "below": 1_000_000 })).unwrap(), "primes:below~2^20");
        assert_eq!(key(json!({ "type": "sleep", "ms": 0 })).unwrap(), "sleep:ms~0");
        assert_eq!(key(json!({ "type": "file", "op": "digest", "path": "secret" })).unwrap(), "file:digest");
        assert_eq!(
            key(json!({ "type": "function", "name": "f", "version": "0123456789abcdef" })).unwrap(),
            "function:f@0123456789ab"
        );
        assert_eq!(key(json!({ "type": "function", "name": "f" })), None);
        let code = |args: Value| key(json!({ "type": "python", "source": "def main(x): pass", "args": args })).unwrap();
        assert_eq!(code(json!(["secret"])), code(json!(["other"])));
        assert!(code(json!([])).starts_with("python:") && code(json!([])).len() == "python:".len() + 16);
        let program = json!({ "type": "command", "name": "word-count", "parameters": { "what": "words" }, "stdin": "secret" });
        assert_eq!(key(program).unwrap(), "command:word-count");
    }

    #[test]
    fn what_depends_on_outputs_is_validated_as_far_as_it_goes() {
        let registry = Bench::new().registry;
        let foreseen = |workload: Value| {
            let kind = workload["type"].as_str().unwrap().to_owned();
            let json = RawValue::from_string(workload.to_string()).unwrap();
            registry.foresee(&Spec { kind, json }).map(|prepared| prepared.is_some()).map_err(|invalid| invalid.pointer)
        };
        let output = json!({ "$output": "a" });
        assert_eq!(foreseen(json!({ "type": "primes", "below": output })), Ok(true));
        assert_eq!(foreseen(json!({ "type": "http", "url": output, "timeout": 1 })), Err("/timeout".into()));
        assert_eq!(foreseen(json!({ "type": "http", "url": output })), Ok(true));
        assert_eq!(foreseen(json!({ "type": "http", "url": "https://example.org", "method": output })), Ok(false));
        assert_eq!(foreseen(json!({ "type": "function", "name": "f", "args": output })), Ok(true));
        assert_eq!(foreseen(json!({ "type": "function", "name": "f", "args": [output] })), Ok(true));
        // Each of them would take two turns, of which each goes through all of them.
        let many: serde_json::Map<_, _> = (0..20_000).map(|n| (format!("x-{n}"), output.clone())).collect();
        assert_eq!(foreseen(json!({ "type": "http", "url": "https://example.org", "headers": many })), Ok(false));
        assert_eq!(foreseen(json!({ "type": "primes", "below": output, "x": 1 })), Err("/x".into()));
        assert_eq!(foreseen(json!({ "type": "http", "headers": { "a": output } })), Err(String::new()));
        assert_eq!(foreseen(json!({ "type": "primes" })), Err(String::new()));
        assert_eq!(foreseen(json!({ "type": "prime", "below": output })), Err("/type".into()));
    }

    #[test]
    fn an_unknown_workload_is_told_from_the_known_ones() {
        let invalid = Bench::new().invalid(&serde_json::json!({ "type": "prime" }));
        assert_eq!(
            invalid,
            Invalid::new(
                "/type",
                "no workload is called \"prime\"; there are: command, file, function, http, image, primes, python, sleep"
            )
        );
    }
}
