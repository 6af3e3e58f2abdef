use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::PossibleValuesParser;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::package::{self, Package};
use super::{path, show_one};
use crate::cli::answer::Page;
use crate::cli::asked::Asked;
use crate::cli::error::CliError;
use crate::cli::options::choice;
use crate::cli::{human, print};
use crate::job::Bound;

/// `trine function deploy`
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Deploy {
    #[command(flatten)]
    asked: Asked,
    /// A Python file, a folder with modules, or a zip of them
    code: PathBuf,
    /// The name
    #[arg(long)]
    name: String,
    /// What to call: a function, main by default; of a folder or zip module:function, main:main by default
    #[arg(long)]
    entrypoint: Option<String>,
    /// Whether it mostly waits or computes; without it each job has to say so
    #[arg(long, value_parser = PossibleValuesParser::new(Bound::ALL.map(Bound::as_str)))]
    bound: Option<String>,
    /// The executor that runs it where a job does not ask for one; auto leaves it to the router, as without it
    #[arg(long, value_parser = choice())]
    executor: Option<String>,
    /// The name of the interpreter that runs it
    #[arg(long)]
    interpreter: Option<String>,
    /// The longest that an attempt may run where a job does not say, such as 30s
    #[arg(long, value_name = "TIME", value_parser = human::some_duration)]
    deadline: Option<Duration>,
    /// The most resident memory of the process of one call, in bytes; only on processes
    #[arg(long, value_name = "BYTES")]
    memory_bytes: Option<u64>,
    /// The most CPU time of one call, such as 10s; only on processes
    #[arg(long, value_name = "TIME", value_parser = human::some_duration)]
    cpu: Option<Duration>,
    /// The longest output of one call, in bytes of JSON
    #[arg(long, value_name = "BYTES")]
    output_bytes: Option<u64>,
}

const EXAMPLES: &str = "\
Examples:
  trine function deploy resize.py --name resize --bound cpu
  trine function deploy ./tools --name crawl --entrypoint crawler:main --bound io --deadline 30s";

impl Deploy {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let Package { kind, content } =
            package::of(&self.code).map_err(|error| CliError::Usage(format!("{}: {error}", self.code.display())))?;
        let deadline_ms = self.deadline.map(|deadline| deadline.as_millis().to_string());
        let cpu_ms = self.cpu.map(|cpu| cpu.as_millis().to_string());
        let [memory_bytes, output_bytes] =
            [self.memory_bytes, self.output_bytes].map(|bytes| bytes.map(|bytes| bytes.to_string()));
        let query = [
            ("entrypoint", &self.entrypoint),
            ("bound", &self.bound),
            ("executor", &self.executor),
            ("interpreter", &self.interpreter),
            ("deadline_ms", &deadline_ms),
            ("memory_bytes", &memory_bytes),
            ("cpu_ms", &cpu_ms),
            ("output_bytes", &output_bytes),
        ];
        let query: Vec<_> = query.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?))).collect();
        let client = self.asked.server.client()?;
        let path = path(&self.name);
        // Where there is none, or the key may not see it, there is nothing to compare with.
        let before = client.get::<Page<Map<String, Value>>>(&path, &()).await.ok();
        let function: Box<RawValue> = client
            .put(&path, &query, kind.media_type(), content)
            .await
            .map_err(|error| if self.code.is_dir() { error.about_length() } else { error })?;
        let before = before.and_then(|page| page.items.into_iter().find(|version| version.get("latest") == Some(&true.into())));
        let missed = before.map(|before| missed(&before, &query)).unwrap_or_default();
        if !missed.is_empty() {
            print::aside(format_args!("Before it was deployed with {missed}, which does not hold any more."));
        }
        show_one(&function, self.asked.json)
    }
}

/// What the version before declared and this one does not say: each deployment says all of it.
fn missed(before: &Map<String, Value>, said: &[(&str, &String)]) -> String {
    let flags = [
        ("bound", "--bound", ""),
        ("executor", "--executor", ""),
        ("interpreter", "--interpreter", ""),
        ("deadline_ms", "--deadline", "ms"),
        ("memory_bytes", "--memory-bytes", ""),
        ("cpu_ms", "--cpu", "ms"),
        ("output_bytes", "--output-bytes", ""),
    ];
    let missed = flags.into_iter().filter(|(field, ..)| said.iter().all(|(name, _)| name != field));
    let flag = |(field, flag, unit): (&str, &str, &str)| match before.get(field)? {
        Value::String(auto) if auto == "auto" => None,
        Value::String(text) => Some(format!("{flag} {text}")),
        Value::Number(number) => Some(format!("{flag} {number}{unit}")),
        _ => None,
    };
    missed.filter_map(flag).collect::<Vec<_>>().join(" ")
}
