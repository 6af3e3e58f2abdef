use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{ArgGroup, Args};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::answer::{Accepted, Job, Page, Workload, parse};
use super::client::{Client, Server};
use super::error::CliError;
use super::parameter::{WithWorkload, after, concurrency, parameter, rate, tag, workload};
use super::wait::Ended;
use super::{events, human, print, table, wait};
use crate::clock::Timestamp;
use crate::job::{Bound, Executor, Retry, Routing, Unique};

/// The most jobs, and about the most bytes, of a batch; the server takes 10,000 jobs and 32 MiB.
const BATCH_JOBS: usize = 10_000;
const BATCH_BYTES: usize = 16 << 20;
/// What is said of one job on the command line, not in a file.
const OF_ONE: [&str; 20] = [
    "bound",
    "executor",
    "isolated",
    "routing",
    "count",
    "priority",
    "deadline",
    "retries",
    "backoff",
    "retry_on",
    "tags",
    "webhook",
    "delay",
    "run_at",
    "expires",
    "unique",
    "after",
    "concurrency",
    "rate",
    "requires",
];
/// The most rows of a table. Programs get all of them.
const ROWS: usize = 20;

/// `trine submit`
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("what").required(true).args(["kind", "workload", "file"]), after_help = EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(super) struct Submit {
    #[command(flatten)]
    server: Server,
    /// What to run, such as primes or http
    #[arg(value_name = "WORKLOAD")]
    kind: Option<String>,
    /// Its parameters; a value that can be read as JSON is that (ms=5, headers='{"a": "b"}', text='"5"'), any other is text
    #[arg(value_name = "KEY=VALUE", value_parser = parameter, requires = "kind")]
    parameters: Vec<(String, Box<RawValue>)>,
    /// What to run with its parameters, as a JSON object with a `type`
    #[arg(long, value_name = "JSON")]
    workload: Option<String>,
    /// A file with a submission as JSON on each line, - for standard input; sent in batches of 10,000, of each all or none is accepted
    #[arg(long, value_name = "FILE", conflicts_with_all = OF_ONE)]
    file: Option<PathBuf>,
    /// Whether it mostly waits or computes [default: the workload's own tag; of a function what it was deployed with]
    #[arg(long, value_parser = PossibleValuesParser::new(Bound::ALL.map(Bound::as_str)))]
    bound: Option<String>,
    /// Run it here, whatever the router thinks
    #[arg(long, value_parser = PossibleValuesParser::new(Executor::ALL.map(Executor::as_str)))]
    executor: Option<String>,
    /// Run it where its crash hurts nobody else: in a worker process
    #[arg(long)]
    isolated: bool,
    /// What the choice of the executor goes by [default: the server's setting]
    #[arg(long, value_enum)]
    routing: Option<Routing>,
    /// Submit it so many times
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// From -100 to 100; higher runs first
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    priority: Option<i16>,
    /// The longest that an attempt may run, such as 30s
    #[arg(long, value_name = "TIME", value_parser = human::duration)]
    deadline: Option<Duration>,
    /// How many times it is tried again after a failure
    #[arg(long, value_name = "N")]
    retries: Option<u32>,
    /// The wait before it is tried again, such as 1s; twice as long each further time, up to a minute
    #[arg(long, value_name = "TIME", value_parser = human::duration, requires = "retries")]
    backoff: Option<Duration>,
    /// After which failures it is tried again, separated by commas [default: all of them]
    #[arg(long, value_name = "KINDS", value_delimiter = ',', requires = "retries",
        value_parser = PossibleValuesParser::new(["error", "timeout", "panic", "lost"]))]
    retry_on: Option<Vec<String>>,
    /// A free label; may be repeated
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = tag)]
    tags: Vec<(String, String)>,
    /// Where to post a signed message when the job has ended
    #[arg(long, value_name = "URL")]
    webhook: Option<String>,
    /// Not to be started for so long, such as 10m
    #[arg(long, value_name = "TIME", value_parser = human::duration, conflicts_with = "run_at")]
    delay: Option<Duration>,
    /// Not to be started before this moment, as RFC 3339
    #[arg(long, value_name = "TIME")]
    run_at: Option<Timestamp>,
    /// Not to be started from this moment on, as RFC 3339 or as in 10m for ten minutes from now
    #[arg(long, value_name = "TIME", value_parser = human::later)]
    expires: Option<Timestamp>,
    /// Take a job with the same workload and parameters for this one: one that has not ended, or was submitted within this time. Both
    /// have to be submitted so
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "", value_parser = uniqueness)]
    unique: Option<Unique>,
    /// A name for this request: if it came before, its jobs are not submitted again
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Run it after this job has ended; may be repeated. If that one does not succeed it is cancelled, or what else is said: cancel, fail
    /// or run
    #[arg(long, value_name = "ID[=RULE]", value_parser = after)]
    after: Vec<Value>,
    /// At most so many jobs with this key run at once, as in customer-7=3
    #[arg(long, value_name = "KEY=LIMIT", value_parser = concurrency)]
    concurrency: Option<Value>,
    /// At most so many jobs with this key start in a time, as in api.example.org=10/1s
    #[arg(long, value_name = "KEY=LIMIT/TIME", value_parser = rate)]
    rate: Option<Value>,
    /// A label that a node must have to run it, as in gpu=a100; may be repeated
    #[arg(long = "require", value_name = "NAME=VALUE", value_parser = tag)]
    requires: Vec<(String, String)>,
    /// Wait until all jobs have ended and show their results; exit with 1 unless all succeeded
    #[arg(long)]
    wait: bool,
    /// Show what happens to the job until it has ended: its states, its progress, its lines; exit with 1 unless it succeeded
    #[arg(long, conflicts_with_all = ["wait", "count", "file"])]
    follow: bool,
    /// One JSON object a line, as the API has it: what was accepted, with --wait the finished jobs, or with --follow the events
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  trine submit primes below=1000000 --wait
  trine submit http url=https://example.com/ --retries 3 --backoff 2s --retry-on timeout,lost --deadline 10s
  trine submit --workload '{\"type\": \"sleep\", \"ms\": 5}' --executor processes
  trine submit primes below=20000000 --follow
  trine submit http url=https://example.com/ --delay 10m --expires 1h --unique
  trine submit sleep ms=200 --count 1000 --wait
  trine submit http url=https://example.com/ --rate example.com=10/1s --concurrency customer-7=3
  trine submit --file jobs.ndjson --json";

impl Submit {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let client = self.server.client()?;
        let mut accepted = Vec::new();
        let mut sent = match &self.file {
            Some(path) => send_file(&client, path, Keys::new(self.idempotency_key.clone()), &mut accepted).await,
            None => self.send_copies(&client, &mut accepted).await.map_err(CliError::about_bound),
        };
        if let ([one], true, Ok(())) = (accepted.as_slice(), self.follow, &sent) {
            return events::follow(&client, &parse::<Accepted>(one)?.id, self.json).await;
        }
        if self.wait && sent.is_ok() {
            let ids = accepted.iter().map(|job| parse(job).map(|job: Accepted| job.id)).collect::<Result<Vec<_>, _>>()?;
            // Whoever goes away meanwhile can come back to them.
            match ids.as_slice() {
                [] => {}
                [id] => print::aside(format_args!("Waiting for the job {id}")),
                [first, .., last] => print::aside(format_args!("Waiting for {} jobs, {first} to {last}", ids.len())),
            }
            match wait::all(&client, &ids).await {
                Ok(ended) => return self.show_results(&ended),
                Err(error) => sent = Err(error),
            }
        }
        // What was accepted runs, also if a later batch was refused or nobody can tell how it ends.
        self.show_accepted(&accepted)?;
        sent
    }

    /// Submits the job of the command line, as often as it says.
    async fn send_copies(&self, client: &Client, accepted: &mut Vec<Box<RawValue>>) -> Result<(), CliError> {
        let submission = self.submission(client).await?;
        let (mut left, mut keys) = (self.count as usize, Keys::new(self.idempotency_key.clone()));
        if left == 1 {
            accepted.push(send(client, "/jobs", &submission, &mut keys).await?);
            return Ok(());
        }
        let most = (BATCH_BYTES / submission.bytes()).clamp(1, BATCH_JOBS);
        while left > 0 {
            let batch = vec![&submission; left.min(most)];
            left -= batch.len();
            let page: Page<_> = send(client, "/jobs/batch", &batch, &mut keys).await?;
            accepted.extend(page.items);
        }
        Ok(())
    }

    /// The submission that the command line describes.
    async fn submission(&self, client: &Client) -> Result<WithWorkload, CliError> {
        let workload = workload(self.kind.as_deref(), &self.parameters, self.workload.as_deref())?;
        let mut fields = Map::new();
        fields.extend(bound(client, self.bound.as_deref(), &workload.kind).await?);
        fields.extend(self.executor.as_ref().map(|executor| ("executor".into(), executor.as_str().into())));
        fields.extend(self.isolated.then(|| ("isolated".into(), true.into())));
        fields.extend(self.routing.map(|routing| ("routing".into(), routing.as_str().into())));
        fields.extend(self.priority.map(|priority| ("priority".into(), priority.into())));
        fields.extend(self.deadline.map(|deadline| ("deadline_ms".into(), json!(deadline.as_millis().max(1)))));
        fields.extend(self.retry().map(|retry| ("retry".into(), retry)));
        fields.extend(self.webhook.as_ref().map(|url| ("webhook".into(), json!({ "url": url }))));
        fields.extend(self.delay.map(|delay| ("delay_ms".into(), json!(delay.as_millis()))));
        fields.extend(self.run_at.map(|run_at| ("run_at".into(), json!(run_at))));
        fields.extend(self.expires.map(|expires| ("expires_at".into(), json!(expires))));
        fields.extend(self.unique.map(|unique| ("unique".into(), json!(unique))));
        if !self.after.is_empty() {
            fields.insert("after".into(), self.after.as_slice().into());
        }
        fields.extend(self.concurrency.as_ref().map(|limit| ("concurrency".into(), limit.clone())));
        fields.extend(self.rate.as_ref().map(|limit| ("rate".into(), limit.clone())));
        if !self.requires.is_empty() {
            fields.insert("requires".into(), self.requires.iter().cloned().collect());
        }
        if !self.tags.is_empty() {
            fields.insert("tags".into(), self.tags.iter().cloned().collect());
        }
        Ok(WithWorkload { workload: workload.json, fields })
    }

    /// When a failed attempt is followed by another, if it is.
    fn retry(&self) -> Option<Value> {
        let mut retry = Map::new();
        retry.insert("attempts".into(), self.retries?.saturating_add(1).into());
        if let Some(backoff) = self.backoff {
            let (backoff_ms, least) = (backoff.as_millis(), u128::from(Retry::default().max_backoff_ms));
            retry.insert("backoff_ms".into(), json!(backoff_ms));
            retry.insert("max_backoff_ms".into(), json!(backoff_ms.max(least)));
        }
        retry.extend(self.retry_on.as_ref().map(|kinds| ("on".into(), json!(kinds))));
        Some(retry.into())
    }

    fn show_accepted(&self, accepted: &[Box<RawValue>]) -> Result<(), CliError> {
        if self.json {
            return accepted.iter().try_for_each(|job| print::json(job));
        }
        if !accepted.is_empty() {
            let shown = accepted.iter().take(ROWS).map(|job| parse(job)).collect::<Result<Vec<_>, _>>()?;
            print::line(table::accepted(&shown))?;
            print_rest(accepted.len());
        }
        Ok(())
    }

    fn show_results(&self, ended: &[Ended]) -> Result<(), CliError> {
        let failed = ended.iter().filter(|ended| !ended.job.succeeded()).count();
        if self.json {
            ended.iter().try_for_each(|ended| print::json(&ended.json))?;
        } else if let [one] = ended {
            print::line(table::details(&one.job))?;
        } else {
            // Those that people look for come first.
            let mut jobs: Vec<&Job> = ended.iter().map(|ended| &ended.job).collect();
            jobs.sort_by_key(|job| job.succeeded());
            jobs.truncate(ROWS);
            print::line(table::results(jobs))?;
            print_rest(ended.len());
        }
        if failed == 0 { Ok(()) } else { Err(CliError::Unsuccessful { failed, jobs: ended.len() }) }
    }
}

/// Reads a time, or nothing.
fn uniqueness(text: &str) -> Result<Unique, String> {
    let within = Some(text).filter(|text| !text.is_empty()).map(human::duration).transpose()?;
    let within_ms = within.map(|within| u64::try_from(within.as_millis()).unwrap_or(u64::MAX).max(1));
    Ok(Unique { within_ms })
}

fn print_rest(jobs: usize) {
    if jobs > ROWS {
        print::aside(format_args!("... and {} more, {jobs} in all", jobs - ROWS));
    }
}

/// The field `bound`: as it was said, or as the server has it for such a workload. What a function is, was declared when it was deployed.
pub(super) async fn bound(client: &Client, said: Option<&str>, kind: &str) -> Result<Option<(String, Value)>, CliError> {
    let field = |bound: &str| Some(("bound".to_owned(), bound.into()));
    if said.is_some() || kind == "function" {
        return Ok(said.and_then(field));
    }
    let workloads: Page<Workload> = client.get("/workloads", &()).await?;
    let known = workloads.items.iter().find(|workload| *kind == workload.name);
    known.map(|workload| field(&workload.bound)).ok_or_else(|| {
        let names: Vec<_> = workloads.items.iter().map(|workload| workload.name.as_str()).collect();
        CliError::Usage(format!("the server has no workload {kind:?}; there are {}", names.join(", ")))
    })
}

/// Submits what is on the lines of a file, batch by batch.
async fn send_file(client: &Client, path: &Path, mut keys: Keys, accepted: &mut Vec<Box<RawValue>>) -> Result<(), CliError> {
    let unreadable = |error: io::Error| CliError::Usage(format!("{}: {error}", path.display()));
    let reader: Box<dyn BufRead> = if path == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(path).map_err(unreadable)?))
    };
    let mut batch = Batch::default();
    for (line, text) in (1..).zip(reader.lines()) {
        let text = text.map_err(unreadable)?;
        if text.trim().is_empty() {
            continue;
        }
        let wrong = |why: &str| CliError::Usage(format!("{}: line {line}: {why}", path.display()));
        if text.trim_start().starts_with('[') {
            return Err(wrong("a list of jobs; a file has one job a line (NDJSON)"));
        }
        let submission =
            serde_json::from_str(&text).map_err(|error| wrong(&format!("no JSON, from column {} on", error.column())))?;
        batch.push(line, submission);
        if batch.is_full() {
            batch.send(client, &mut keys, accepted).await?;
        }
    }
    batch.send(client, &mut keys, accepted).await
}

/// Submits something under the next key, and says so if that was done before.
async fn send<T: DeserializeOwned>(
    client: &Client,
    path: &str,
    submissions: &impl Serialize,
    keys: &mut Keys,
) -> Result<T, CliError> {
    let (answer, replayed) = client.post_once(path, submissions, keys.next()).await?;
    if replayed {
        print::aside("This request came before: nothing was submitted again, and its jobs are shown.");
    }
    Ok(answer)
}

/// The keys of the requests of a command: the one that it was given, then the same with a number.
struct Keys {
    key: Option<String>,
    used: usize,
}

impl Keys {
    const fn new(key: Option<String>) -> Self {
        Self { key, used: 0 }
    }

    fn next(&mut self) -> Option<String> {
        self.used += 1;
        let key = self.key.as_ref()?;
        Some(if self.used == 1 { key.clone() } else { format!("{key}#{}", self.used) })
    }
}

/// Submissions of a file that are sent together.
#[derive(Default)]
struct Batch {
    submissions: Vec<Box<RawValue>>,
    lines: Vec<usize>,
    bytes: usize,
}

impl Batch {
    fn push(&mut self, line: usize, submission: Box<RawValue>) {
        self.bytes += submission.get().len();
        self.submissions.push(submission);
        self.lines.push(line);
    }

    fn is_full(&self) -> bool {
        self.submissions.len() >= BATCH_JOBS || self.bytes >= BATCH_BYTES
    }

    /// Sends what there is, and begins a new batch.
    async fn send(&mut self, client: &Client, keys: &mut Keys, accepted: &mut Vec<Box<RawValue>>) -> Result<(), CliError> {
        let Self { submissions, lines, .. } = std::mem::take(self);
        if submissions.is_empty() {
            return Ok(());
        }
        let page: Page<_> = send(client, "/jobs/batch", &submissions, keys).await.map_err(|error| match error {
            CliError::Refused(problem) => match problem.index().and_then(|index| lines.get(index)) {
                Some(&line) => CliError::RefusedLine { line, problem },
                None => CliError::Refused(problem),
            },
            other => other,
        })?;
        accepted.extend(page.items);
        Ok(())
    }
}
