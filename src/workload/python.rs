//! `python`: a function that came with the job, run by an interpreter of the operator's.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::content::sha256;
use super::parameters;
use super::registry::{Description, Prepared, Task};
use super::{Invalid, Likeness};
use crate::job::{Bound, Form, Runtime};

pub(super) const TYPE: &str = "python";
/// How many digits of a hash are enough to tell code from other code.
const DIGITS: usize = 16;

/// What jobs in Python may use, as the operator configured it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PythonRules {
    /// The interpreters; the first is used where a job names none.
    pub interpreters: Vec<InterpreterRule>,
    /// Whether a job may ask for the network.
    pub network: bool,
    /// Whether functions may come by pickle, which can do anything as it is read.
    pub pickles: bool,
}

/// What is known of an interpreter without running it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterpreterRule {
    /// Its name.
    pub name: String,
    /// Whether it has a global lock, which lets one thread compute at a time.
    pub gil: bool,
}

/// A call of a Python function.
#[derive(Clone, Debug)]
pub struct PythonCall {
    /// The function.
    pub function: PythonFunction,
    /// The name of the interpreter.
    pub interpreter: String,
    /// Whether it may reach the network.
    pub network: bool,
}

/// A function with its arguments.
#[derive(Clone, Debug)]
pub enum PythonFunction {
    /// Code that is called by the name of its entry point.
    Code {
        /// The code.
        code: PythonCode,
        /// A JSON array.
        args: Box<RawValue>,
        /// A JSON object.
        kwargs: Box<RawValue>,
    },
    /// Base64 of a pickled triple of function, arguments and keyword arguments.
    Pickle(String),
}

impl PythonFunction {
    /// How many bytes it takes to send.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Code { code, args, kwargs } => code.content.bytes() + args.get().len() + kwargs.get().len(),
            Self::Pickle(pickle) => pickle.len(),
        }
    }
}

/// Code, known by its content.
#[derive(Clone, Debug)]
pub struct PythonCode {
    /// SHA-256 of the content, in hexadecimal.
    pub sha: String,
    /// The content.
    pub content: PythonContent,
    /// What to call: a name, dotted for a member; with the module and a colon before it for a zip.
    pub entrypoint: String,
}

/// The content of code.
#[derive(Clone, Debug)]
pub enum PythonContent {
    /// One module.
    Source(Arc<str>),
    /// A zip with several modules, at this place.
    Zip(PathBuf),
}

impl PythonContent {
    /// How many bytes it takes to send: a zip is read where it is.
    fn bytes(&self) -> usize {
        match self {
            Self::Source(source) => source.len(),
            Self::Zip(_) => 0,
        }
    }
}

/// A function that comes with the job.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Python {
    /// A module's source. It is compiled once in each warm process, and its globals stay from one job to the next.
    source: Option<String>,
    /// The function to call: plain, `async`, or a generator, whose steps are reported as progress.
    #[schema(default = "main")]
    entrypoint: Option<String>,
    /// Its arguments.
    #[schema(value_type = Option<Vec<serde_json::Value>>)]
    args: Option<Box<RawValue>>,
    /// Its keyword arguments.
    #[schema(value_type = Option<Object>)]
    kwargs: Option<Box<RawValue>>,
    /// Instead of a source: base64 of what `cloudpickle.dumps((function, args, kwargs))` gives, where the server allows it.
    pickle: Option<String>,
    /// With `pickle`, how the function is written: `async` or `blocking`.
    #[schema(value_type = Option<String>, pattern = "^(async|blocking)$")]
    form: Option<Form>,
    /// The name of the interpreter, as in `GET /executors`; without it the server's default.
    interpreter: Option<String>,
    /// Whether it needs the network, which the server must allow.
    #[serde(default)]
    #[schema(default = false)]
    network: bool,
}

pub(super) fn description() -> Description {
    Description {
        name: TYPE,
        about: "Runs a Python function that comes with the job, in a warm interpreter.",
        bound: Bound::Cpu,
        form: Form::Blocking,
        runtime: Runtime::Python,
        schema: <Python as utoipa::PartialSchema>::schema(),
        example: json!({ "type": TYPE, "source": "def main(n):\n    return sum(i * i for i in range(n))\n", "args": [1000] }),
    }
}

pub(super) fn prepare(text: &str, rules: &PythonRules) -> Result<Prepared, Invalid> {
    let Python { source, entrypoint, args, kwargs, pickle, form, interpreter, network } = parameters::parse(text)?;
    let (function, form) = match (source, pickle) {
        (Some(_), Some(_)) => return Err(Invalid::new("/pickle", "there is a source already")),
        (None, None) => return Err(Invalid::new("/source", "there must be a source (or a pickle)")),
        (Some(source), None) => {
            if form.is_some() {
                return Err(Invalid::new("/form", "only for a pickle; a source shows it"));
            }
            let entrypoint = entrypoint.unwrap_or_else(|| "main".into());
            let form = form_of(&source, &entrypoint);
            let code = PythonCode { sha: sha256(source.as_bytes()), content: PythonContent::Source(source.into()), entrypoint };
            (PythonFunction::Code { code, args: array(args)?, kwargs: object(kwargs)? }, form)
        }
        (None, Some(pickle)) => {
            if !rules.pickles {
                let reason = "this server takes no pickles (its setting python_pickles); send the source instead";
                return Err(Invalid::new("/pickle", reason));
            }
            let beside = [("/entrypoint", entrypoint.is_some()), ("/args", args.is_some()), ("/kwargs", kwargs.is_some())];
            if let Some((pointer, _)) = beside.into_iter().find(|(_, given)| *given) {
                return Err(Invalid::new(pointer, "the pickle holds it"));
            }
            (PythonFunction::Pickle(pickle), form.unwrap_or(Form::Blocking))
        }
    };
    let rule = rules.interpreter(interpreter.as_deref())?;
    rules.check_network(network)?;
    let likeness = match &function {
        PythonFunction::Code { code, .. } => {
            let hash = sha256(format!("{} {} {}", code.sha, rule.name, code.entrypoint).as_bytes());
            Some(Likeness::of(TYPE).name(&hash[..DIGITS]))
        }
        // Its arguments are in it, so each is unlike all others.
        PythonFunction::Pickle(_) => None,
    };
    let call = PythonCall { function, interpreter: rule.name.clone(), network };
    Ok(Prepared { runtime: Runtime::Python, form, gil: rule.gil, likeness, task: Task::Python(Box::new(call)) })
}

impl PythonRules {
    /// The interpreter of this name, or the default one.
    ///
    /// # Errors
    /// There is none.
    pub fn interpreter(&self, name: Option<&str>) -> Result<&InterpreterRule, Invalid> {
        let Some(first) = self.interpreters.first() else {
            return Err(Invalid::new("/type", "this server has no Python interpreter (its setting python_interpreters)"));
        };
        let Some(name) = name else { return Ok(first) };
        self.interpreters.iter().find(|rule| rule.name == name).ok_or_else(|| {
            let known = self.interpreters.iter().map(|rule| rule.name.as_str()).collect::<Vec<_>>().join(", ");
            Invalid::new("/interpreter", format!("no interpreter is called {name:?}; there are: {known}"))
        })
    }

    pub(super) fn check_network(&self, wanted: bool) -> Result<(), Invalid> {
        if wanted && !self.network {
            return Err(Invalid::new("/network", "this server gives Python no network (its setting python_network)"));
        }
        Ok(())
    }
}

/// The arguments of a call, none if they are not given.
pub(super) fn array(args: Option<Box<RawValue>>) -> Result<Box<RawValue>, Invalid> {
    shaped(args, '[', || json!([])).ok_or_else(|| Invalid::new("/args", "must be an array"))
}

/// The keyword arguments of a call, none if they are not given.
pub(super) fn object(kwargs: Option<Box<RawValue>>) -> Result<Box<RawValue>, Invalid> {
    shaped(kwargs, '{', || json!({})).ok_or_else(|| Invalid::new("/kwargs", "must be an object"))
}

fn shaped(value: Option<Box<RawValue>>, first: char, none: impl FnOnce() -> serde_json::Value) -> Option<Box<RawValue>> {
    match value {
        Some(value) => Some(value).filter(|value| value.get().starts_with(first)),
        None => serde_json::value::to_raw_value(&none()).ok(),
    }
}

/// How a function is written, by its definition in the source: the last one, and if it is no method, the last one at the beginning of a
/// line if there is any. A function that is not found there in plain sight counts as blocking: on threads it runs either way.
pub(crate) fn form_of(source: &str, entrypoint: &str) -> Form {
    let source = source.trim_start_matches('\u{feff}'); // a byte order mark, which Python passes over
    let path = entrypoint.rsplit(':').next().unwrap_or(entrypoint);
    let name = path.rsplit('.').next().unwrap_or(path);
    let definition = |line: &str| {
        let (form, rest) = match line.strip_prefix("async") {
            Some(rest) => (Form::Async, rest.trim_start().strip_prefix("def")?),
            None => (Form::Blocking, line.strip_prefix("def")?),
        };
        let rest = rest.trim_start().strip_prefix(name)?;
        rest.trim_start().starts_with(['(', '[']).then_some(form)
    };
    let outermost = || source.lines().filter_map(definition).next_back();
    let anywhere = || source.lines().map(str::trim_start).filter_map(definition).next_back();
    let is_method = path.contains('.');
    let found = if is_method { anywhere() } else { outermost().or_else(anywhere) };
    found.unwrap_or(Form::Blocking)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn rules() -> PythonRules {
        let named = |name: &str, gil| InterpreterRule { name: name.into(), gil };
        PythonRules { interpreters: vec![named("usual", true), named("free", false)], network: false, pickles: false }
    }

    #[rstest]
    #[case("def main(): pass", "main", Form::Blocking)]
    #[case("async  def main (x):\n  pass", "main", Form::Async)]
    #[case("async def main_loop(): pass\ndef main(): pass", "main", Form::Blocking)]
    #[case("class A:\n    async def go(self): pass", "A.go", Form::Async)]
    #[case("async def go[T](x: T): pass", "tool:go", Form::Async)]
    #[case("from x import main", "main", Form::Blocking)]
    #[case("\u{feff}async def main(): pass", "main", Form::Async)]
    #[case("def main(): pass\nclass A:\n    async def main(self): pass", "main", Form::Blocking)]
    #[case("async def main(): pass\nclass A:\n    def main(self): pass", "main", Form::Async)]
    #[case("try:\n    async def main(): pass\nexcept OSError: pass", "tool:main", Form::Async)]
    fn the_source_shows_the_form(#[case] source: &str, #[case] entrypoint: &str, #[case] form: Form) {
        assert_eq!(form_of(source, entrypoint), form);
    }

    #[rstest]
    #[case::nothing(json!({}), "/source")]
    #[case::both(json!({"source": "", "pickle": ""}), "/pickle")]
    #[case::no_pickles_here(json!({"pickle": ""}), "/pickle")]
    #[case::args(json!({"source": "", "args": {}}), "/args")]
    #[case::kwargs(json!({"source": "", "kwargs": []}), "/kwargs")]
    #[case::interpreter(json!({"source": "", "interpreter": "other"}), "/interpreter")]
    #[case::network(json!({"source": "", "network": true}), "/network")]
    #[case::form(json!({"source": "", "form": "async"}), "/form")]
    #[case::unknown(json!({"source": "", "file": "x"}), "/file")]
    fn what_is_wrong_is_named(#[case] workload: serde_json::Value, #[case] pointer: &str) {
        let invalid = prepare(&workload.to_string(), &rules()).map(drop).unwrap_err();
        assert_eq!(invalid.pointer, pointer, "{invalid}");
    }

    #[test]
    fn the_interpreter_decides_about_the_lock() {
        for (name, gil) in [("usual", true), ("free", false)] {
            let workload = json!({"source": "async def main(): pass", "interpreter": name}).to_string();
            let prepared = prepare(&workload, &rules()).unwrap();
            assert_eq!((prepared.form, prepared.gil, prepared.runtime), (Form::Async, gil, Runtime::Python));
        }
    }
}
