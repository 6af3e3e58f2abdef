use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::answer::{Accepted, Job, Page, parse};
use super::client::{Client, Server};
use super::error::CliError;
use super::human::Later;
use super::options::JobOptions;
use super::parameter::{WithWorkload, after, parameter, workload};
use super::wait::Ended;
use super::{events, human, print, table, wait};
use crate::clock::{Timestamp, millis};
use crate::job::Unique;

/// The most jobs, and about the most bytes, of a batch; the server takes 10,000 jobs and 32 MiB.
const BATCH_JOBS: usize = 10_000;
const BATCH_BYTES: usize = 16 << 20;
/// What is said of one job on the command line, not in a file: the options that other commands have as well, and those of this one.
const OF_ONE: [&str; 6] = ["JobOptions", "count", "run_at", "expires", "unique", "after"];
/// The most rows of a table. Programs get all of them.
const ROWS: usize = 20;

/// `trine submit`
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("what").required(true).args(["kind", "workload", "file"]), after_help = EXAMPLES)]
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
    #[command(flatten)]
    job: JobOptions,
    /// Submit it so many times
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// Not to be started before this moment, as RFC 3339
    #[arg(long, value_name = "TIME", conflicts_with = "delay")]
    run_at: Option<Timestamp>,
    /// Not to be started from this moment on, as RFC 3339 or as in 10m for ten minutes from now; with --idempotency-key, as RFC 3339
    #[arg(long, value_name = "TIME", value_parser = human::later)]
    expires: Option<Later>,
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
        if self.idempotency_key.is_some() && self.expires.is_some_and(|expires| expires.from_now) {
            let why = "--expires: with --idempotency-key, give a moment, as in --expires 2026-01-31T12:00:00Z: \
                       what is so long from now is another one when the command is repeated, and the request another";
            return Err(CliError::Usage(why.into()));
        }
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
        let mut fields = self.job.fields(client, &workload.kind).await?;
        fields.extend(self.run_at.map(|run_at| ("run_at".into(), json!(run_at))));
        fields.extend(self.expires.map(|expires| ("expires_at".into(), json!(expires.at))));
        fields.extend(self.unique.map(|unique| ("unique".into(), json!(unique))));
        if !self.after.is_empty() {
            fields.insert("after".into(), self.after.as_slice().into());
        }
        Ok(WithWorkload { workload: workload.json, fields })
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
    let within = Some(text).filter(|text| !text.is_empty()).map(human::some_duration).transpose()?;
    let within_ms = within.map(millis);
    Ok(Unique { within_ms })
}

fn print_rest(jobs: usize) {
    if jobs > ROWS {
        print::aside(format_args!("... and {} more, {jobs} in all", jobs - ROWS));
    }
}

/// Submits what is on the lines of a file, batch by batch.
async fn send_file(client: &Client, path: &Path, mut keys: Keys, accepted: &mut Vec<Box<RawValue>>) -> Result<(), CliError> {
    let unreadable = |error: io::Error| CliError::Usage(format!("{}: {error}", path.display()));
    let reader: Box<dyn BufRead> = if path == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(path).map_err(unreadable)?))
    };
    let (mut batch, mut is_empty) = (Batch::default(), true);
    for (line, text) in (1..).zip(reader.lines()) {
        let text = text.map_err(unreadable)?;
        if text.trim().is_empty() {
            continue;
        }
        let wrong = |why: &str| CliError::Usage(format!("{}: line {line}: {why}", path.display()));
        if text.trim_start().starts_with('[') {
            return Err(wrong("a list of jobs; a file has one job a line (NDJSON)"));
        }
        let submission = serde_json::from_str(&text)
            .map_err(|error| wrong(&format!("no JSON, from column {} on; a file has one job a line (NDJSON)", error.column())))?;
        batch.push(line, submission);
        is_empty = false;
        if batch.is_full() {
            batch.send(client, &mut keys, accepted).await?;
        }
    }
    if is_empty {
        return Err(CliError::Usage(format!("{}: there is no job in it", path.display())));
    }
    batch.send(client, &mut keys, accepted).await
}

/// Submits something under the next key, and says so if that was done before.
pub(super) async fn send<T: DeserializeOwned>(
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
pub(super) struct Keys {
    key: Option<String>,
    used: usize,
}

impl Keys {
    pub(super) const fn new(key: Option<String>) -> Self {
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
            CliError::Refused(problem) => CliError::Refused(problem.in_lines(&lines)),
            other => other,
        })?;
        accepted.extend(page.items);
        Ok(())
    }
}
