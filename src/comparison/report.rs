//! What a comparison says. It is stored, shown and drawn as it is here; figures are of the attempts alone, or they are absent.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::job::{Executor, Form, Runtime};

/// Between one core's work and two cores': what is surely above has run in parallel, what is surely below has not.
pub const PARALLEL: f64 = 1.35;
/// What computes one at a time uses one core, and a little for taking turns.
pub const SERIAL: f64 = 1.1;

/// What was found.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = ComparisonReport)]
pub struct Report {
    /// What the workload is written in.
    pub runtime: Runtime,
    /// How it is written.
    pub form: Form,
    /// How many cores this server may use.
    pub cores: u32,
    /// How often everything was run: all in turn, then again.
    pub repetitions: u32,
    /// How many tasks were run in each cell of the matrix each time.
    pub tasks_per_repetition: u32,
    /// One after the other, without any executor: what the rest is measured against. One for each interpreter.
    pub inline: Vec<Inline>,
    /// A row for each executor and concurrency, and each interpreter if there are several.
    pub matrix: Vec<Row>,
    /// What pure waiting and pure computing of about the same duration gain here.
    pub controls: Controls,
    /// How much of the global lock the workload releases, for each interpreter.
    pub gil: Vec<GilRelease>,
    /// What else the machine had to do.
    pub pressure: Pressure,
    /// What follows from all that.
    pub verdict: Verdict,
}

impl Report {
    /// What the rows of an executor are called, and of an interpreter if there are several.
    pub(super) fn series(&self, executor: Executor, interpreter: Option<&str>) -> String {
        match interpreter {
            Some(interpreter) if self.inline.len() > 1 => format!("{executor}, {interpreter}"),
            _ => executor.to_string(),
        }
    }
}

/// Tasks one after the other.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = ComparisonInline)]
pub struct Inline {
    /// The interpreter, for Python.
    #[schema(required)]
    pub interpreter: Option<String>,
    /// Tasks in a second.
    pub throughput_per_s: f64,
    /// How long a task took.
    pub wall_us: Spans,
    /// CPU time over wall time.
    #[schema(required)]
    pub cpu_share: Option<f64>,
    /// Peak resident memory of a task, in bytes; of Python alone, where it runs in a process of its own.
    #[schema(required)]
    pub max_rss_bytes: Option<u64>,
    /// A short wait on the event loop of the same runtime meanwhile: how it does where nothing is in its way.
    #[schema(required)]
    pub bystander_us: Option<Bystander>,
}

/// One executor at one concurrency.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = ComparisonRow)]
pub struct Row {
    /// The executor.
    pub executor: Executor,
    /// The interpreter, for Python.
    #[schema(required)]
    pub interpreter: Option<String>,
    /// How many tasks were under way at once.
    pub concurrency: u32,
    /// How many of them the executor worked on at once: not more than it has slots.
    pub at_once: u32,
    /// How many tasks were run.
    pub tasks: u64,
    /// How many of them failed.
    pub failures: u64,
    /// Why one of them did.
    #[schema(required)]
    pub failure: Option<String>,
    /// Tasks in a second.
    #[schema(required)]
    pub throughput_per_s: Option<f64>,
    /// How many times as fast as inline, by the first interpreter if there are several.
    #[schema(required)]
    pub speedup: Option<f64>,
    /// Between what the speed-up lies.
    #[schema(required)]
    pub spread: Option<Spread>,
    /// Where the speed-up lies between the controls on this executor: 0 as pure computing, 1 as pure waiting. Only at the controls'
    /// concurrency, and where they differ.
    #[schema(required)]
    pub between_controls: Option<f64>,
    /// From asking until the answer, for each task.
    #[schema(required)]
    pub latency_us: Option<Spans>,
    /// The work itself.
    #[schema(required)]
    pub wall_us: Option<Spans>,
    /// CPU time over wall time.
    #[schema(required)]
    pub cpu_share: Option<f64>,
    /// How many cores its tasks used at once: all their CPU time over the time from the first to the last, in the repetition where that
    /// was the most. Other programs can lower it, but nothing can raise it over 1 where only one task computes at a time.
    #[schema(required)]
    pub cores_used: Option<f64>,
    /// The longest that one task held the event loop (`async` only).
    #[schema(required)]
    pub longest_poll_us: Option<u64>,
    /// Peak resident memory of a task, in bytes (`processes` only).
    #[schema(required)]
    pub max_rss_bytes: Option<u64>,
    /// What the processes that run tasks of this executor hold in memory, in bytes: their proportional share of it, all together. It
    /// is theirs, not a task's; absent where tasks run in the server's own process.
    #[schema(required)]
    pub runners_pss_bytes: Option<u64>,
    /// How many those processes are.
    pub runners: u32,
    /// What handing a task over costs, and what that gains.
    #[schema(required)]
    pub handover: Option<Handover>,
    /// A short wait on the event loop of the same runtime meanwhile.
    #[schema(required)]
    pub bystander_us: Option<Bystander>,
}

/// Half, nine tenths and 99 of 100 are at most this long, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ComparisonSpans)]
pub struct Spans {
    /// Half.
    pub p50: u64,
    /// Nine tenths.
    pub p90: u64,
    /// 99 of 100.
    pub p99: u64,
}

/// Between what a speed-up lies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = ComparisonSpread)]
pub struct Spread {
    /// Not below this …
    pub low: f64,
    /// … and not above this,
    pub high: f64,
    /// with this probability.
    pub confidence: f64,
    /// By so many repetitions.
    pub repetitions: u32,
}

/// What handing a task over costs: serialising, the hop to where it runs, and the way back.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = ComparisonHandover)]
pub struct Handover {
    /// Of half of the tasks at most this.
    pub cost_us: u64,
    /// By how much sooner a task is done than inline, on average, the cost already paid; negative if later.
    pub gained_us: i64,
}

/// How long short waits took that had nothing to do with the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ComparisonBystander)]
pub struct Bystander {
    /// Half at most this long.
    pub p50: u64,
    /// 99 of 100.
    pub p99: u64,
    /// The longest.
    pub longest: u64,
    /// How many there were.
    pub count: u64,
}

/// What pure waiting and pure computing gain here.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = ComparisonControls)]
pub struct Controls {
    /// At this concurrency.
    pub concurrency: u32,
    /// Pure waiting.
    pub waiting: Control,
    /// Pure computing.
    pub computing: Control,
}

/// One of the controls.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = ComparisonControl)]
pub struct Control {
    /// What was run.
    #[schema(value_type = Object)]
    pub workload: Value,
    /// How long it took inline: half of the tasks at most this.
    #[schema(required)]
    pub wall_us: Option<u64>,
    /// Its speed-up over itself inline, by executor.
    pub rows: Vec<ControlRow>,
}

/// The speed-up of a control on one executor.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = ComparisonControlRow)]
pub struct ControlRow {
    /// The executor.
    pub executor: Executor,
    /// The interpreter, for Python.
    #[schema(required)]
    pub interpreter: Option<String>,
    /// How many times as fast as inline.
    pub speedup: f64,
    /// Between what that lies.
    pub spread: Spread,
}

/// How much of the interpreter's global lock a workload releases: the speed-up of threads, placed between the controls.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = ComparisonGil)]
pub struct GilRelease {
    /// The interpreter.
    pub interpreter: String,
    /// Whether it has such a lock at all.
    pub gil: bool,
    /// So many threads.
    pub concurrency: u32,
    /// The speed-up of the workload on them.
    pub speedup: f64,
    /// That of pure computing.
    pub computing: f64,
    /// That of pure waiting.
    pub waiting: f64,
    /// 0 as pure computing, 1 as pure waiting; null where the controls are too close together to tell.
    #[schema(required)]
    pub released: Option<f64>,
}

/// What else the machine had to do meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = ComparisonPressure)]
pub struct Pressure {
    /// The share of all cores that other programs used; null where the system does not tell.
    #[schema(required)]
    pub others_share: Option<f64>,
    /// The share of all cores that a hypervisor kept for others.
    #[schema(required)]
    pub stolen_share: Option<f64>,
    /// How many jobs of this server's queues ran meanwhile, at the most.
    pub jobs: u64,
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = ComparisonVerdict)]
pub struct Verdict {
    /// The executor that should run it, or why none should.
    pub executor: Choice,
    /// By which interpreter, if several were compared.
    #[schema(required)]
    pub interpreter: Option<String>,
    /// So many at once.
    #[schema(required)]
    pub concurrency: Option<u32>,
    /// How many times as fast as inline that is.
    #[schema(required)]
    pub speedup: Option<f64>,
    /// Why, in words.
    pub because: String,
    /// How sure that is.
    pub confidence: Confidence,
}

/// An executor, or none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ComparisonChoice)]
pub enum Choice {
    /// The event loop.
    Async,
    /// The threads.
    Threads,
    /// The processes.
    Processes,
    /// None is faster than doing it where one is.
    Inline,
    /// Handing it over costs as much as doing it.
    TooShort,
    /// It can't be told.
    Inconclusive,
}

impl From<Executor> for Choice {
    fn from(executor: Executor) -> Self {
        match executor {
            Executor::Async => Self::Async,
            Executor::Threads => Self::Threads,
            Executor::Processes => Self::Processes,
        }
    }
}

impl Choice {
    /// In a few words.
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::Async => "the event loop",
            Self::Threads => "threads",
            Self::Processes => "processes",
            Self::Inline => "run it inline",
            Self::TooShort => "too short to matter",
            Self::Inconclusive => "inconclusive",
        }
    }

    /// Red, green and blue. Colours that also those can tell apart who see few of them (Okabe and Ito's).
    pub(super) const fn colour(self) -> (u8, u8, u8) {
        match self {
            Self::Async => (0, 114, 178),
            Self::Threads => (230, 159, 0),
            Self::Processes => (0, 158, 115),
            Self::Inline | Self::TooShort | Self::Inconclusive => (134, 142, 150),
        }
    }
}

/// How sure a verdict is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ComparisonConfidence)]
pub enum Confidence {
    /// It may be otherwise.
    Low,
    /// The figures are rough, or the machine was busy.
    Medium,
    /// The same would come out again.
    High,
}

impl Confidence {
    /// The name that the API uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}
