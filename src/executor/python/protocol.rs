//! What the server and a Python host say to each other; `host/__main__.py` describes it.

use std::sync::LazyLock;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::MAX_OUTPUT;
use super::run::Wanted;
use crate::clock::{Monotonic, Stopwatch, Timestamp};
use crate::executor::attempt::Reading;
use crate::function::Limits;
#[cfg(any(test, fuzzing))]
use crate::job::Note;
use crate::job::{Failure, FailureKind, JobId, LogStream, Outcome, Output};
use crate::measure::machine::Ticks;
use crate::measure::{Usage, memory};
use crate::workload::{PythonCode, PythonContent, PythonFunction, depth};

/// More threads no host has.
const MOST_THREADS: u32 = 1 << 15;
/// How many cores there are.
static CORES: LazyLock<u32> = LazyLock::new(|| Ticks::now().map_or(u32::MAX, |ticks| ticks.cores));
/// What other threads of a process have used is counted when the kernel next looks at them: what is a little older may be part of it.
const TICK: Duration = Duration::from_millis(100);
/// How much memory there is, in bytes.
static MEMORY: LazyLock<Option<u64>> = LazyLock::new(memory::machine_bytes);

/// In characters, how much is kept of the message of an error that is too long in all.
const LONGEST_MESSAGE: usize = 1 << 14;
/// The longest message, in bytes.
pub(super) const LONGEST: usize = 64 << 20;

/// From the server.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ToHost<'a> {
    /// Said once, first.
    Setup(Setup),
    /// Run this.
    Run(Run<'a>),
    /// End this early.
    Stop { id: u64 },
    /// Nobody waits for this any more: it is to go no further, as far as it can be kept from that.
    Leave { id: u64 },
    /// Say that you hear.
    Ping {},
}

#[derive(Serialize)]
pub(super) struct Setup {
    pub(super) threads: usize,
    pub(super) max_output_bytes: usize,
    pub(super) max_log_bytes: usize,
    /// Whether the sandbox confines it, and if so, whether it may use the network all the same.
    pub(super) confined: bool,
    pub(super) network: bool,
}

/// A call. The id comes first: the host finds it there even if it can't read the rest.
#[derive(Serialize)]
pub(super) struct Run<'a> {
    pub(super) id: u64,
    pub(super) job: JobId,
    pub(super) attempt: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<Code<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kwargs: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pickle: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_bytes: Option<u64>,
    /// Whether it stands behind another call, and is to be given back if that leaves something behind.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    behind: bool,
}

#[derive(Serialize)]
struct Code<'a> {
    sha: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    zip: Option<&'a str>,
    entrypoint: &'a str,
}

impl<'a> Run<'a> {
    /// A call of this function, with its source if the host may not have it yet.
    pub(super) fn new(id: u64, (job, attempt): (JobId, u32), wanted: &Wanted<'a>, with_source: bool, behind: bool) -> Self {
        let Limits { cpu_ms, output_bytes, .. } = wanted.limits;
        let empty = Self { id, job, attempt, code: None, args: None, kwargs: None, pickle: None, cpu_ms, output_bytes, behind };
        match wanted.function {
            PythonFunction::Pickle(pickle) => Self { pickle: Some(pickle), ..empty },
            PythonFunction::Code { code: PythonCode { sha, content, entrypoint }, args, kwargs } => {
                let (source, zip) = match content {
                    PythonContent::Source(source) => (with_source.then_some(&**source), None),
                    PythonContent::Zip(path) => (None, path.to_str()),
                };
                Self { code: Some(Code { sha, source, zip, entrypoint }), args: Some(args), kwargs: Some(kwargs), ..empty }
            }
        }
    }
}

/// A message as it goes over the socket: its length in four bytes, then its text.
pub(super) fn framed(message: &ToHost<'_>) -> Vec<u8> {
    let mut frame = vec![0; 4];
    // Writing to memory can't fail, and these types have string keys alone.
    let _ = serde_json::to_writer(&mut frame, message);
    let length = u32::try_from(frame.len() - 4).unwrap_or(u32::MAX);
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame
}

/// From the host.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FromHost {
    /// It waits for work.
    Ready {},
    /// A line that a job wrote; without an id, one that can't be said whose it is.
    Log { id: Option<u64>, stream: LogStream, line: String },
    /// A job says how far it is.
    Progress { id: u64, value: Box<RawValue> },
    /// A job has ended.
    Done(Box<Done>),
    /// A call that stood behind another has not begun, and will not.
    Returned { id: u64 },
    /// It hears.
    Pong {},
}

/// How a call ended, and what was measured of it.
#[derive(Debug, Deserialize)]
pub(super) struct Done {
    pub(super) id: u64,
    /// A `null` that it returned is an output, too.
    #[serde(default, deserialize_with = "present")]
    output: Option<Output>,
    pickle: Option<String>,
    error: Option<Box<RawValue>>,
    /// Whether it asked for a folder to leave files in.
    #[serde(default)]
    pub(super) artifacts: bool,
    /// Whether the host should get no further calls: too much goes on in it that nobody can end.
    #[serde(default)]
    pub(super) worn: bool,
    measured: Option<Figures>,
}

fn present<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<Output>, D::Error> {
    Output::deserialize(value).map(Some)
}

#[derive(Debug, Deserialize)]
struct Figures {
    began_ns: u64,
    started_at_us: i64,
    wall_us: u64,
    cpu_user_us: u64,
    cpu_system_us: u64,
    polls: Option<u64>,
    longest_poll_us: Option<u64>,
    max_rss_bytes: Option<u64>,
    ctx_voluntary: u64,
    ctx_involuntary: u64,
    gil: Option<bool>,
    core_wait_us: Option<u64>,
    loop_wait_us: Option<u64>,
    gil_wait_us: Option<u64>,
    held_jobs: Option<u32>,
    longest_hold_us: Option<u64>,
}

/// What of an error is needed here; the rest is passed on as it is.
#[derive(Deserialize)]
struct ErrorHead {
    kind: ErrorKind,
    r#type: String,
    message: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ErrorKind {
    Error,
    Invalid,
    Cancelled,
    UnknownCode,
}

impl Done {
    /// Whether the host has not got the code that was to be run, so that it must be sent.
    pub(super) fn lacks_code(&self) -> bool {
        self.error_head().is_some_and(|head| head.kind == ErrorKind::UnknownCode)
    }

    fn error_head(&self) -> Option<ErrorHead> {
        self.error.as_ref().and_then(|error| serde_json::from_str(error.get()).ok())
    }

    /// What was measured of an attempt that was claimed then, as far as it can be true: it may be a job that says so.
    pub(super) fn reading(&self, claimed: Monotonic) -> Reading {
        let (now, micros) = (Monotonic::now(), Duration::from_micros);
        let is_so = |figures: &&Figures| {
            let began = Monotonic::from_nanos(figures.began_ns);
            claimed <= began && began.after(micros(figures.wall_us)) <= now
        };
        let Some(figures) = self.measured.as_ref().filter(is_so) else { return Reading::default() };
        let since = now.since(claimed);
        // Some are of several threads together.
        let time = |us: Option<u64>, threads: u32| us.map(micros).filter(|time| *time <= since.saturating_mul(threads));
        // Each takes some time.
        let are_possible = |count: u64| u128::from(count) <= since.as_nanos() * u128::from(*CORES);
        let usage = Usage {
            cpu_user_us: figures.cpu_user_us,
            cpu_system_us: figures.cpu_system_us,
            ctx_voluntary: figures.ctx_voluntary,
            ctx_involuntary: figures.ctx_involuntary,
        };
        let most_cpu = (since + TICK).saturating_mul(*CORES);
        let cpu = usage.cpu_user_us.checked_add(usage.cpu_system_us).filter(|us| micros(*us) <= most_cpu);
        let is_possible = cpu.is_some() && are_possible(usage.ctx_voluntary) && are_possible(usage.ctx_involuntary);
        let polls = figures.polls.filter(|polls| are_possible(*polls));
        Reading {
            began: Some(Stopwatch {
                started_at: Timestamp::from_micros(figures.started_at_us),
                started: Monotonic::from_nanos(figures.began_ns),
            }),
            wall: Some(micros(figures.wall_us)),
            usage: Some(usage).filter(|_| is_possible),
            polls: polls.zip(time(figures.longest_poll_us, 1)),
            max_rss_bytes: figures.max_rss_bytes.filter(|bytes| MEMORY.is_none_or(|all| *bytes <= all)),
            gil: figures.gil,
            core_wait: time(figures.core_wait_us, MOST_THREADS),
            loop_wait: time(figures.loop_wait_us, 1),
            gil_wait: time(figures.gil_wait_us, 1),
            held_jobs: figures.held_jobs.map(u64::from),
            longest_hold: time(figures.longest_hold_us, 1),
        }
    }

    /// How it ended, with an output of at most `most` bytes. The host has looked at that itself; but it is a job that says so if it likes.
    pub(super) fn into_outcome(self, most: usize) -> Outcome {
        let head = self.error_head();
        let outcome = match (self.error, head, self.output, self.pickle) {
            (Some(error), Some(head), _, pickle) => {
                let kind = if head.kind == ErrorKind::Cancelled { FailureKind::Cancelled } else { FailureKind::Error };
                let message = if head.message.is_empty() { head.r#type } else { format!("{}: {}", head.r#type, head.message) };
                if error.get().len() > MAX_OUTPUT {
                    // It is told without what is known of it besides.
                    return Outcome::Error(Failure::new(kind, message.chars().take(LONGEST_MESSAGE).collect::<String>()));
                }
                let pickle = pickle.filter(|pickle| pickled_bytes(pickle) <= most);
                Outcome::Error(Failure { python: Some(with_pickle(error, pickle)), ..Failure::new(kind, message) })
            }
            (None, _, Some(output), _) if output.get().len() > most => too_long(output.get().len(), most),
            (None, _, Some(output), _) => Outcome::Output(output),
            (None, _, None, Some(pickle)) if pickled_bytes(&pickle) > most => too_long(pickled_bytes(&pickle), most),
            (None, _, None, Some(pickle)) => match RawValue::from_string(format!("{{\"pickle\":\"{pickle}\"}}")) {
                Ok(output) => Outcome::Output(output),
                Err(error) => Outcome::Error(Failure::error(format!("the output is not base64: {error}"))),
            },
            _ => Outcome::Error(Failure::error("the Python host reported neither an output nor an error")),
        };
        let (what, json) = match &outcome {
            Outcome::Output(output) => ("output", Some(output)),
            Outcome::Error(failure) => ("error", failure.python.as_ref()),
        };
        match json.map_or(Ok(()), |json| depth::check(json.get().as_bytes())) {
            Ok(()) => outcome,
            Err(invalid) => Outcome::Error(Failure::error(format!("the {what} {}", invalid.message))),
        }
    }
}

/// As the host says it (`host/messages.py`).
fn too_long(bytes: usize, most: usize) -> Outcome {
    Outcome::Error(Failure::error(format!("ValueError: the output takes {bytes} bytes; the most is {most}")))
}

/// How many bytes this is in Base64, but for one or two.
const fn pickled_bytes(base64: &str) -> usize {
    (base64.len() / 4 * 3).saturating_sub(2)
}

/// The error with the pickled exception as one more field.
fn with_pickle(error: Box<RawValue>, pickle: Option<String>) -> Box<RawValue> {
    let Some((pickle, open)) = pickle.zip(error.get().strip_suffix('}')) else { return error };
    RawValue::from_string(format!("{open},\"pickle\":\"{pickle}\"}}")).unwrap_or(error)
}

/// Whether this is what a host says; what is made of it is JSON.
#[cfg(any(test, fuzzing))]
pub(in crate::executor) fn understand(frame: &[u8]) -> bool {
    let Ok(message) = serde_json::from_slice(frame) else { return false };
    match message {
        FromHost::Done(done) => {
            let _ = (done.lacks_code(), done.reading(Monotonic::from_nanos(0)));
            let json = match done.into_outcome(MAX_OUTPUT) {
                Outcome::Output(output) => Some(output),
                Outcome::Error(failure) => failure.python,
            };
            let is_json = |json: Box<RawValue>| serde_json::from_str::<serde::de::IgnoredAny>(json.get()).is_ok();
            assert!(json.is_none_or(is_json), "what a host says made no JSON");
        }
        FromHost::Log { stream, line, .. } => drop(Note::log(stream, line)),
        FromHost::Progress { value, .. } => drop(Note::progress(&value)),
        FromHost::Ready {} | FromHost::Returned { .. } | FromHost::Pong {} => {}
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn done(rest: &str) -> Done {
        serde_json::from_str(&format!("{{\"id\": 7, {rest}}}")).unwrap()
    }

    fn nested(levels: usize) -> String {
        "[".repeat(levels) + &"]".repeat(levels)
    }

    #[rstest]
    #[case::as_long_as_it_may_be("\"output\": \"12345678\"".into(), None)]
    #[case::longer("\"output\": \"123456789\"".into(), Some("ValueError: the output takes 11 bytes; the most is 10"))]
    #[case::a_pickle("\"pickle\": \"MTIzNDU2Nzg5MA==\"".into(), None)]
    #[case::a_longer_pickle("\"pickle\": \"MTIzNDU2Nzg5MDEyMzQ1\"".into(), Some("ValueError: the output takes 13 bytes; the most is 10"))]
    #[case::a_deep_error(
        format!("\"error\": {{\"kind\": \"error\", \"type\": \"E\", \"message\": \"\", \"x\": {}}}", nested(100)),
        Some("the error is nested more than 100 deep")
    )]
    fn what_a_host_says_is_as_long_and_as_deep_as_it_may_be(#[case] said: String, #[case] failure: Option<&str>) {
        let outcome = done(&said).into_outcome(10);
        assert_eq!(outcome.failure().map(|failure| &*failure.message), failure);
    }

    #[test]
    fn an_error_that_is_too_long_keeps_its_kind_and_how_its_message_begins() {
        let said =
            format!("\"error\": {{\"kind\": \"cancelled\", \"type\": \"E\", \"message\": \"{}\"}}", "x".repeat(MAX_OUTPUT));
        let failure = done(&said).into_outcome(10).into_failure().unwrap();
        assert_eq!(
            (failure.kind, failure.message.len(), failure.python.is_none()),
            (FailureKind::Cancelled, LONGEST_MESSAGE, true)
        );
        assert!(failure.message.starts_with("E: xx"));
    }

    #[test]
    fn an_output_is_nested_as_deeply_as_what_is_submitted() {
        let ended = |levels| done(&format!("\"output\": {}", nested(levels))).into_outcome(MAX_OUTPUT);
        assert!(ended(100).is_success());
        let too_deep = "the output is nested more than 100 deep";
        assert_eq!(ended(101).into_failure().unwrap().message, too_deep);
        let no_pickle = done(&format!("\"pickle\": \"\\\",\\\"x\\\": {}, \\\"y\\\":\\\"\"", nested(100)));
        assert_eq!(no_pickle.into_outcome(MAX_OUTPUT).into_failure().unwrap().message, too_deep);
    }

    /// What is made of the figures of a second that has ended just now, one of them changed; it was claimed so many seconds ago.
    fn read(name: &str, figure: u64, claimed_s: u64) -> Reading {
        let before = |seconds: u64| Monotonic::now().as_nanos().saturating_sub(seconds * 1_000_000_000);
        let mut figures = serde_json::json!({
            "began_ns": before(1), "started_at_us": 5, "wall_us": 1_000_000, "cpu_user_us": 7, "cpu_system_us": 8, "polls": 9,
            "longest_poll_us": 10, "max_rss_bytes": 11, "ctx_voluntary": 12, "ctx_involuntary": 13, "core_wait_us": 14,
            "loop_wait_us": 15, "gil_wait_us": 16, "held_jobs": 17, "longest_hold_us": 18,
        });
        figures[name] = figure.into();
        done(&format!("\"output\": null, \"measured\": {figures}")).reading(Monotonic::from_nanos(before(claimed_s)))
    }

    #[rstest]
    #[case::as_they_are("started_at_us", 6, "")]
    #[case::longer_than_it_ran("wall_us", 3_000_000, "all")]
    #[case::without_end("wall_us", u64::MAX, "all")]
    #[case::before_it_was_claimed("began_ns", 1, "all")]
    #[case::in_the_future("began_ns", u64::MAX, "all")]
    #[case::user_mode("cpu_user_us", u64::MAX, "usage ")]
    #[case::kernel("cpu_system_us", u64::MAX, "usage ")]
    #[case::switches("ctx_voluntary", u64::MAX, "usage ")]
    #[case::other_switches("ctx_involuntary", u64::MAX, "usage ")]
    #[case::memory("max_rss_bytes", u64::MAX, "memory ")]
    #[case::polls("polls", u64::MAX, "polls ")]
    #[case::a_poll("longest_poll_us", 3_000_000, "polls ")]
    #[case::a_hold("longest_hold_us", 3_000_000, "hold ")]
    #[case::for_a_core("core_wait_us", u64::MAX, "core ")]
    #[case::for_the_loop("loop_wait_us", 3_000_000, "loop ")]
    #[case::for_the_lock("gil_wait_us", 3_000_000, "lock ")]
    fn figures_that_can_not_be_true_are_absent(#[case] name: &str, #[case] figure: u64, #[case] absent: &str) {
        let read = read(name, figure, 2);
        let figures = [
            ("usage ", read.usage.is_none()),
            ("memory ", read.max_rss_bytes.is_none()),
            ("polls ", read.polls.is_none()),
            ("hold ", read.longest_hold.is_none()),
            ("core ", read.core_wait.is_none()),
            ("loop ", read.loop_wait.is_none()),
            ("lock ", read.gil_wait.is_none()),
        ];
        let are_absent: String = figures.iter().filter(|(_, is_absent)| *is_absent).map(|(name, _)| *name).collect();
        assert_eq!(if read.began.is_none() && read.wall.is_none() { "all" } else { &are_absent }, absent);
    }

    #[test]
    fn all_cores_have_no_more_cpu_time_than_there_is() {
        let used = |seconds: u64| read("cpu_user_us", seconds * 1_000_000 * u64::from(*CORES), 2).usage.is_some();
        assert!(used(1) && !used(100));
    }
}
