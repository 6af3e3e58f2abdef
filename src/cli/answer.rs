//! What the commands read of the API's answers. Fields that they don't show are left out.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use super::error::CliError;
use super::print;
use crate::job::{Bound, Ending, Executor, Failure};

/// Reads what was kept as it was written.
pub(super) fn parse<T: DeserializeOwned>(json: &RawValue) -> Result<T, CliError> {
    serde_json::from_str(json.get()).map_err(|error| CliError::NotTrine(error.to_string()))
}

/// Shows what a list holds: each item on a line of its own as it was written, or all in a table.
pub(super) fn show<T: DeserializeOwned>(
    items: &[Box<RawValue>],
    as_json: bool,
    table: impl FnOnce(Vec<T>) -> String,
) -> Result<(), CliError> {
    if as_json {
        return items.iter().try_for_each(|item| print::json(item));
    }
    print::line(table(items.iter().map(|item| parse(item)).collect::<Result<_, _>>()?))
}

/// What a job gave, as it was written; null if it was nothing.
pub(super) fn written(value: Option<&RawValue>) -> &str {
    value.map_or("null", RawValue::get)
}

/// A page of a list.
#[derive(Deserialize)]
pub(super) struct Page<T> {
    pub(super) items: Vec<T>,
    pub(super) next_cursor: Option<String>,
}

/// A job that was accepted.
#[derive(Deserialize)]
pub(super) struct Accepted {
    pub(super) id: String,
    pub(super) state: String,
    pub(super) route: Route,
    /// Whether it was there before, so that nothing was accepted.
    #[serde(default)]
    pub(super) existing: bool,
}

/// A job, or the result of one: a job that has not ended lacks the last fields.
#[derive(Deserialize)]
pub(super) struct Job {
    pub(super) id: String,
    pub(super) state: String,
    pub(super) bound: Bound,
    pub(super) workload: Box<RawValue>,
    pub(super) route: Route,
    pub(super) attempt: u32,
    #[serde(default)]
    pub(super) priority: Option<i16>,
    #[serde(default)]
    pub(super) deadline_ms: Option<u64>,
    #[serde(default)]
    pub(super) due_at: Option<String>,
    #[serde(default)]
    pub(super) expires_at: Option<String>,
    #[serde(default)]
    pub(super) attempts: Vec<Attempt>,
    #[serde(default)]
    pub(super) tags: BTreeMap<String, String>,
    pub(super) accepted_at: String,
    #[serde(default)]
    pub(super) started_at: Option<String>,
    #[serde(default)]
    pub(super) finished_at: Option<String>,
    /// What it waits for.
    #[serde(default)]
    pub(super) waiting: Option<Value>,
    #[serde(default)]
    pub(super) owner: Option<String>,
    #[serde(default)]
    pub(super) graph: Option<Graph>,
    #[serde(default)]
    pub(super) output: Option<Box<RawValue>>,
    #[serde(default)]
    pub(super) error: Option<Failure>,
    #[serde(default)]
    pub(super) timing: Option<Timing>,
}

/// The jobs that come before and after one.
#[derive(Deserialize)]
pub(super) struct Graph {
    pub(super) parent_count: u64,
    pub(super) parents: Vec<Related>,
    pub(super) child_count: u64,
    pub(super) children: Vec<Related>,
}

/// One of them.
#[derive(Deserialize)]
pub(super) struct Related {
    pub(super) id: String,
    /// What it was called in its batch.
    #[serde(default)]
    pub(super) name: Option<String>,
    /// None if it is not kept any more.
    pub(super) state: Option<String>,
}

/// One attempt of a job.
#[derive(Deserialize)]
pub(super) struct Attempt {
    #[serde(rename = "attempt")]
    pub(super) number: u32,
    pub(super) state: String,
    pub(super) started_at: String,
    pub(super) error: Option<Failure>,
    pub(super) timing: Option<Timing>,
}

/// Something that can be run.
#[derive(Deserialize)]
pub(super) struct Workload {
    /// The value of `type`.
    pub(super) name: String,
    /// The tag that fits it.
    pub(super) bound: String,
}

/// Which executor, and why.
#[derive(Deserialize)]
pub(super) struct Route {
    pub(super) executor: Executor,
    pub(super) reason: String,
}

/// What was measured of the last attempt.
#[derive(Deserialize)]
pub(super) struct Timing {
    pub(super) queue_us: u64,
    pub(super) dispatch_us: u64,
    pub(super) wall_us: u64,
    pub(super) cpu_user_us: Option<u64>,
    pub(super) cpu_system_us: Option<u64>,
    pub(super) cpu_share: Option<f64>,
    pub(super) polls: Option<u64>,
    pub(super) longest_poll_us: Option<u64>,
    pub(super) max_rss_bytes: Option<u64>,
    pub(super) ctx_voluntary: Option<u64>,
    pub(super) ctx_involuntary: Option<u64>,
    pub(super) core_wait_us: Option<u64>,
    pub(super) loop_wait_us: Option<u64>,
    pub(super) gil_wait_us: Option<u64>,
    pub(super) observed: Option<String>,
    pub(super) advice: Option<String>,
}

impl Job {
    /// The workload's `type`.
    pub(super) fn kind(&self) -> String {
        #[derive(Deserialize)]
        struct Head {
            r#type: String,
        }
        serde_json::from_str(self.workload.get()).map_or_else(|_| "?".into(), |Head { r#type: kind }| kind)
    }

    /// How it ended; `None` if it has not.
    pub(super) fn ending(&self) -> Option<Ending> {
        self.state.parse().ok()
    }

    /// Whether it ended with an output.
    pub(super) fn succeeded(&self) -> bool {
        self.ending() == Some(Ending::Succeeded)
    }
}

impl Timing {
    /// CPU time in user mode and in the kernel together, in microseconds.
    pub(super) fn cpu_us(&self) -> Option<u64> {
        Some(self.cpu_user_us? + self.cpu_system_us?)
    }
}
