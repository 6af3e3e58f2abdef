use std::str::FromStr;

use clap::builder::PossibleValuesParser;
use clap::{Arg, Args};
use serde::de::DeserializeOwned;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::client::Client;
use super::error::CliError;
use super::human::moment;
use super::parameter::tag;
use crate::clock::Timestamp;
use crate::job::{Bound, Executor, FailureKind};

/// The states of jobs that have not ended.
const GOING: [&str; 4] = ["scheduled", "blocked", "queued", "running"];
/// Those of jobs that have.
const ENDED: [&str; 4] = ["succeeded", "failed", "cancelled", "lost"];

/// Which jobs: those that pass every condition.
#[derive(Args, Debug, Serialize)]
pub(super) struct Conditions {
    /// Only those in this state, or in one of several with commas between
    #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(GOING.into_iter().chain(ENDED)))]
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "with_commas")]
    state: Vec<String>,
    /// Only those that ended with an error of this kind
    #[arg(long, value_name = "KIND", value_parser = PossibleValuesParser::new(FailureKind::ALL.map(FailureKind::as_str)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Only those with this tag of what they do
    #[arg(long, value_parser = PossibleValuesParser::new(Bound::ALL.map(Bound::as_str)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    bound: Option<String>,
    /// Only those on this executor
    #[arg(long, value_parser = PossibleValuesParser::new(Executor::ALL.map(Executor::as_str)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    executor: Option<String>,
    /// Only those of this type, such as primes
    #[arg(long, value_name = "TYPE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    workload: Option<String>,
    /// Only those with this label; may be repeated, for those that have all of them
    #[arg(long, value_name = "KEY=VALUE")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tag: Vec<Label>,
    /// Only those accepted since, as RFC 3339 or as in 10m for ten minutes ago
    #[arg(long, value_name = "TIME", value_parser = moment)]
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    /// Only those accepted before, written alike
    #[arg(long, value_name = "TIME", value_parser = moment)]
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
}

/// Which jobs or results a list shows.
#[derive(Args, Debug)]
pub(super) struct Filter {
    #[command(flatten)]
    conditions: Conditions,
    /// Only those whose figures speak against their tag or executor: any, or of one kind
    #[arg(long, value_name = "KIND", value_parser = PossibleValuesParser::new(["any", "computes", "waits", "held_loop"]))]
    advice: Option<String>,
    /// Only those of this owner, the id of a key; for administrators
    #[arg(long, value_name = "KEY")]
    owner: Option<String>,
    /// The oldest first
    #[arg(long)]
    oldest: bool,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// All of them
    #[arg(long, conflicts_with = "limit")]
    all: bool,
}

/// The query of a list.
#[derive(Serialize)]
struct Query<'a> {
    #[serde(flatten)]
    conditions: &'a Conditions,
    advice: Option<&'a str>,
    owner: Option<&'a str>,
    order: &'a str,
}

/// A label, written as the API writes it.
#[derive(Clone, Debug)]
struct Label(String);

impl FromStr for Label {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        tag(text).map(|(name, value)| Self(format!("{name}:{value}")))
    }
}

impl Serialize for Label {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// A query of which parameters may be repeated, as pairs.
fn in_pairs(query: &impl Serialize) -> Vec<(String, String)> {
    let text = |value: Value| if let Value::String(text) = value { text } else { value.to_string() };
    let pairs = |(name, value): (String, Value)| match value {
        Value::Null => Vec::new(),
        Value::Array(values) => values.into_iter().map(|value| (name.clone(), text(value))).collect(),
        value => vec![(name, text(value))],
    };
    // A struct can always be written as an object.
    let Ok(Value::Object(query)) = serde_json::to_value(query) else { return Vec::new() };
    query.into_iter().flat_map(pairs).collect()
}

/// As the API has several.
fn with_commas<S: Serializer>(names: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&names.join(","))
}

/// The argument `state` of a command that is about jobs that have not ended.
pub(super) fn going(state: Arg) -> Arg {
    state.value_parser(PossibleValuesParser::new(GOING))
}

/// The same of one that is about jobs that have.
pub(super) fn ended(state: Arg) -> Arg {
    state.value_parser(PossibleValuesParser::new(ENDED))
}

impl Conditions {
    /// Whether there is one.
    pub(super) fn any(&self) -> bool {
        let Self { state, error, bound, executor, workload, tag, since, until } = self;
        let said = [error, bound, executor, workload].into_iter().any(Option::is_some);
        said || !state.is_empty() || !tag.is_empty() || since.is_some() || until.is_some()
    }
}

impl Filter {
    /// The query of a summary by these fields of the results that pass.
    pub(super) fn of_summary(&self, by: &[String]) -> Vec<(String, String)> {
        in_pairs(&self.conditions).into_iter().chain([("by".to_owned(), by.join(","))]).collect()
    }

    /// Fetches the list at `path`. Returns whether there would be more.
    pub(super) async fn fetch<T: DeserializeOwned>(
        &self,
        client: &Client,
        path: &str,
        each: impl FnMut(T) -> Result<(), CliError>,
    ) -> Result<bool, CliError> {
        let query = Query {
            conditions: &self.conditions,
            advice: self.advice.as_deref(),
            owner: self.owner.as_deref(),
            order: if self.oldest { "oldest" } else { "newest" },
        };
        let most = if self.all { usize::MAX } else { self.limit as usize };
        client.list(path, &in_pairs(&query), most, each).await
    }
}
