//! Commands: each attempt is a process of its own, in the sandbox and with a scratch folder of its own.

use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};

use super::attempt::{Attempt, Ran, Reading};
use super::processes::describe;
use crate::artifact::Artifacts;
use crate::clock::{Stopwatch, micros};
use crate::job::{Failure, FailureKind, LogStream, Note, Outcome};
use crate::measure::Usage;
use crate::sandbox::{Ended, Group, NOT_CONFINED, NOT_STARTED, Policy, Sandbox, ScratchSpace};
use crate::workload::{CommandCall, Registry, Reporter, Stop, Task, text_or_base64};

/// What an error holds of the end of standard error, in bytes.
const LAST_WORDS: usize = 2_048;
/// A line longer than this is told in parts, in bytes.
const LONGEST_LINE: usize = 8_192;
/// How long to wait for the end of the output of a program that has ended. Only one that is not confined can leave something behind
/// that keeps it open.
const OUTPUT_GRACE: Duration = Duration::from_secs(1);

/// The folder of a command's scratch folder in which it leaves what is to be kept.
const ARTIFACTS: &str = "artifacts";

/// How commands are run.
#[derive(Clone, Debug)]
pub struct CommandSettings {
    /// How they are confined.
    pub sandbox: Sandbox,
    /// Where their scratch folders are.
    pub folder: PathBuf,
    /// How many at once.
    pub slots: usize,
}

/// Runs each attempt as a process of its own.
#[derive(Clone)]
pub(super) struct CommandsExecutor {
    sandbox: Sandbox,
    scratch: ScratchSpace,
    registry: Arc<Registry>,
    grace: Duration,
    artifacts: Artifacts,
}

/// What a command that ended well gives.
#[derive(Serialize)]
struct Output {
    exit_status: i32,
    /// Its beginning.
    stdout: String,
    /// How that is written, if it is no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    stdout_encoding: Option<&'static str>,
    /// Its end. What is not UTF-8 is replaced.
    stderr: String,
    stdout_truncated: bool,
    stderr_truncated: bool,
}

impl CommandsExecutor {
    /// Runs the commands of `registry`. One that has not stopped `grace` after it was told to is killed.
    pub(super) fn new(
        settings: &CommandSettings,
        registry: Arc<Registry>,
        grace: Duration,
        artifacts: Artifacts,
    ) -> io::Result<Self> {
        let scratch = ScratchSpace::open(&settings.folder)?;
        Ok(Self { sandbox: settings.sandbox.clone(), scratch, registry, grace, artifacts })
    }

    pub(super) async fn run(self, attempt: Attempt) -> Ran {
        let Attempt { job, number, workload, keeps_files, stop, reporter, slot, .. } = attempt;
        let call = match self.registry.task(&workload) {
            Ok(Task::Command(call)) => call,
            Ok(Task::Native(_) | Task::Python(_) | Task::Function(_)) => {
                return Ran::failed(Failure::error("it is no command and was sent to the executor of commands"));
            }
            Err(failure) => return Ran::failed(failure),
        };
        let space = self.scratch.clone();
        // Folders are made and removed by threads that may block.
        let made = tokio::task::spawn_blocking(move || {
            let scratch = space.folder()?;
            std::fs::create_dir(scratch.path().join(ARTIFACTS))?;
            Ok(scratch)
        });
        let made = made.await;
        let scratch = match made.map_err(io::Error::other).flatten() {
            Ok(scratch) => scratch,
            Err(error) => return Ran::failed(Failure::error(format!("its scratch folder can't be made: {error}"))),
        };
        let command = &call.command;
        let mut environment = command.environment.clone();
        environment.insert("TRINE_ARTIFACT_FOLDER".to_owned(), scratch.path().join(ARTIFACTS).display().to_string());
        let policy = Policy {
            read: command.read.iter().chain(&command.folder).cloned().collect(),
            unlisted: Vec::new(),
            scratch: scratch.path().to_owned(),
            network: command.network,
            environment,
            limits: command.limits.in_sandbox(),
        };
        let ran = match self.start(&call, &policy) {
            Ok((running, began)) => {
                let ran = running.finish(*call, began, &stop, &reporter, self.grace).await;
                if keeps_files {
                    ran.but(self.artifacts.keep(job, number, scratch.path(), ARTIFACTS, stop.stopped()).await)
                } else {
                    ran
                }
            }
            Err(error) => Ran::failed(Failure::error(format!("it can't be started: {error}"))),
        };
        // The slot is free when all that it stands for is gone. Nobody has to wait for that.
        tokio::task::spawn_blocking(move || drop((scratch, slot)));
        ran
    }

    fn start(&self, call: &CommandCall, policy: &Policy) -> io::Result<(Running, Stopwatch)> {
        let mut command = self.sandbox.command(policy, &call.command.path, &call.arguments)?;
        if let Some(folder) = &call.command.folder {
            command.current_dir(folder);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let began = Stopwatch::start();
        let mut group = self.sandbox.spawn(&mut command, policy)?;
        // They are piped, as was asked for just above.
        let missing = || io::Error::from(io::ErrorKind::BrokenPipe);
        let stdin = ChildStdin::from_std(group.stdin.take().ok_or_else(missing)?)?;
        let stdout = ChildStdout::from_std(group.stdout.take().ok_or_else(missing)?)?;
        let stderr = ChildStderr::from_std(group.stderr.take().ok_or_else(missing)?)?;
        Ok((Running { group, stdin, stdout, stderr }, began))
    }
}

/// A command that runs.
struct Running {
    group: Group,
    stdin: ChildStdin,
    stdout: ChildStdout,
    stderr: ChildStderr,
}

impl Running {
    /// Runs it to its end, or until it is stopped.
    async fn finish(self, call: CommandCall, began: Stopwatch, stop: &Stop, reporter: &Reporter, grace: Duration) -> Ran {
        let Self { mut group, stdin, stdout, stderr } = self;
        let CommandCall { command, stdin: input, .. } = call;
        let most = command.limits.output_bytes;
        tokio::spawn(feed(stdin, input));
        let stdout = Listening::to(stdout, LogStream::Stdout, Kept::first(most), reporter.clone());
        let stderr = Listening::to(stderr, LogStream::Stderr, Kept::last(most), reporter.clone());
        let mut late = false;
        let ended = tokio::select! {
            ended = group.wait() => ended,
            _ = stop.stopped() => group.end(grace).await,
            () = tokio::time::sleep(command.limits.deadline()) => {
                late = true;
                group.end(grace).await
            }
        };
        let wall = began.started.elapsed();
        let ended = match ended {
            Ok(ended) => ended,
            Err(error) => return Ran::failed(Failure::new(FailureKind::Lost, format!("it can't be waited for: {error}"))),
        };
        let (stdout, stderr) = tokio::join!(stdout.end(), stderr.end());
        let outcome = if late {
            let limit = command.limits.deadline_ms;
            Outcome::Error(Failure::new(FailureKind::Timeout, format!("it ran longer than the command's deadline of {limit} ms")))
        } else {
            outcome(&ended, stdout, &stderr)
        };
        let cost = ended.cost;
        let usage = Usage {
            cpu_user_us: micros(cost.cpu_user),
            cpu_system_us: micros(cost.cpu_system),
            ctx_voluntary: cost.ctx_voluntary,
            ctx_involuntary: cost.ctx_involuntary,
        };
        let reading = Reading {
            began: Some(began),
            wall: Some(wall),
            usage: Some(usage),
            max_rss_bytes: cost.max_rss_bytes,
            ..Reading::default()
        };
        Ran { outcome, reading, crashed: None, begun: true }
    }
}

fn outcome(ended: &Ended, stdout: Kept, stderr: &Kept) -> Outcome {
    let failed = |how: String| {
        let words = stderr.text();
        let last = words.trim_end();
        let last = &last[last.ceil_char_boundary(last.len().saturating_sub(LAST_WORDS))..];
        Outcome::Error(Failure::error(if last.is_empty() { how } else { format!("{how}: {last}") }))
    };
    if let Some(violation) = ended.violation {
        return Outcome::Error(Failure::error(format!("it was ended: {violation}")));
    }
    match ended.status.code() {
        Some(0) => {
            let stdout_truncated = stdout.truncated;
            let (stdout, stdout_encoding) = text_or_base64(stdout.whole());
            let output = Output {
                exit_status: 0,
                stdout,
                stdout_encoding,
                stderr: stderr.text(),
                stdout_truncated,
                stderr_truncated: stderr.truncated,
            };
            let json = serde_json::value::to_raw_value(&output);
            json.map_or_else(|error| Outcome::Error(Failure::error(error.to_string())), Outcome::Output)
        }
        Some(code)
            if [NOT_CONFINED, NOT_STARTED].map(i32::from).contains(&code) && stderr.text().starts_with("trine sandbox: ") =>
        {
            failed("it can't be started".into())
        }
        Some(code) => failed(format!("exit status {code}")),
        None => failed(format!("it {}", describe(ended.status))),
    }
}

/// Writes the standard input, as far as the program reads it.
async fn feed(mut stdin: ChildStdin, input: Vec<u8>) {
    // That it reads no further is its own affair.
    let _ = stdin.write_all(&input).await;
}

/// A stream that is listened to.
struct Listening {
    task: tokio::task::JoinHandle<()>,
    kept: Arc<Mutex<Kept>>,
}

impl Listening {
    fn to(pipe: impl AsyncRead + Unpin + Send + 'static, stream: LogStream, kept: Kept, reporter: Reporter) -> Self {
        let kept = Arc::new(Mutex::new(kept));
        Self { task: tokio::spawn(listen(pipe, stream, Arc::clone(&kept), reporter)), kept }
    }

    /// What was said, once the program has ended: until the end of the stream, or as far as it was heard.
    async fn end(mut self) -> Kept {
        let all = tokio::time::timeout(OUTPUT_GRACE, &mut self.task).await.is_ok();
        self.task.abort();
        let mut kept = std::mem::replace(&mut *locked(&self.kept), Kept::first(0));
        kept.truncated |= !all;
        kept.finish()
    }
}

fn locked(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads to the end, keeps what is to be kept, and tells each line. A program that writes faster than lines can be kept waits.
async fn listen(mut pipe: impl AsyncRead + Unpin, stream: LogStream, kept: Arc<Mutex<Kept>>, reporter: Reporter) {
    let (mut chunk, mut line) = (vec![0; 16 << 10], Vec::new());
    while let Ok(count @ 1..) = pipe.read(&mut chunk).await {
        locked(&kept).add(&chunk[..count]);
        for part in chunk[..count].split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(part);
            let ends = line.ends_with(b"\n");
            while line.len() - usize::from(ends) > LONGEST_LINE {
                // The last character may be there in part.
                let part = &line[..LONGEST_LINE];
                let whole = LONGEST_LINE - part.utf8_chunks().last().map_or(0, |chunk| chunk.invalid().len());
                reporter.note(Note::log(stream, String::from_utf8_lossy(&line[..whole]))).await;
                line.drain(..whole);
            }
            if ends {
                reporter.note(Note::log(stream, String::from_utf8_lossy(&line))).await;
                line.clear();
            }
        }
    }
    if !line.is_empty() {
        reporter.note(Note::log(stream, String::from_utf8_lossy(&line))).await;
    }
}

/// What is kept of a stream: so many bytes, the first or the last of it.
#[derive(Debug)]
struct Kept {
    bytes: Vec<u8>,
    most: usize,
    last: bool,
    truncated: bool,
}

impl Kept {
    const fn first(most: usize) -> Self {
        Self { bytes: Vec::new(), most, last: false, truncated: false }
    }

    const fn last(most: usize) -> Self {
        Self { bytes: Vec::new(), most, last: true, truncated: false }
    }

    fn add(&mut self, chunk: &[u8]) {
        if self.last {
            self.bytes.extend_from_slice(chunk);
            // Not at each chunk, or all that is kept would be moved each time.
            if self.bytes.len() > 2 * self.most {
                self.cut();
            }
        } else {
            let room = self.most - self.bytes.len();
            self.truncated |= chunk.len() > room;
            self.bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
        }
    }

    fn finish(mut self) -> Self {
        self.cut();
        self
    }

    fn cut(&mut self) {
        let surplus = self.bytes.len().saturating_sub(self.most);
        self.truncated |= surplus > 0;
        self.bytes.drain(..surplus);
    }

    /// The first of it, without a character of a text that is there in part.
    fn whole(mut self) -> Vec<u8> {
        if let Err(error) = str::from_utf8(&self.bytes)
            && self.truncated
            && error.error_len().is_none()
        {
            self.bytes.truncate(error.valid_up_to());
        }
        self.bytes
    }

    /// The last of it as text, without a character that is there in part; what is not UTF-8 is replaced.
    fn text(&self) -> String {
        let part = if self.truncated { self.bytes.iter().take(3).take_while(|byte| **byte & 0xc0 == 0x80).count() } else { 0 };
        String::from_utf8_lossy(&self.bytes[part..]).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Sink;
    use futures_util::future::BoxFuture;

    fn kept(mut kept: Kept, chunks: &[&str]) -> (String, bool) {
        for chunk in chunks {
            kept.add(chunk.as_bytes());
        }
        let kept = kept.finish();
        (kept.text(), kept.truncated)
    }

    /// Takes lines, so many of them.
    struct Room(Mutex<(usize, Vec<Note>)>);

    impl Sink for Room {
        fn offer(&self, _: Note) {}

        fn note(&self, note: Note) -> BoxFuture<'_, ()> {
            let mut taken = self.0.lock().unwrap();
            taken.1.push(note);
            if taken.1.len() > taken.0 { Box::pin(std::future::pending()) } else { Box::pin(std::future::ready(())) }
        }
    }

    async fn heard(said: &'static [u8], room: usize) -> (Kept, Vec<String>) {
        let room = Arc::new(Room(Mutex::new((room, Vec::new()))));
        let reporter = Reporter::new(Arc::clone(&room) as _);
        let kept = Listening::to(said, LogStream::Stdout, Kept::first(1 << 20), reporter).end().await;
        let notes = std::mem::take(&mut room.0.lock().unwrap().1);
        let lines = notes.into_iter().map(|note| match note {
            Note::Log(_, line) => line,
            Note::Progress(value) => panic!("{value}"),
        });
        (kept, lines.collect())
    }

    #[tokio::test]
    async fn what_was_heard_is_kept_though_its_lines_find_no_room() {
        let (kept, lines) = heard(b"one\ntwo\n", 0).await;
        assert_eq!((kept.text(), kept.truncated, lines), ("one\ntwo\n".into(), true, vec!["one".into()]));
    }

    #[tokio::test]
    async fn a_long_line_is_told_in_parts_of_whole_characters() {
        let long: &'static str = "\u{17c}".repeat(2 * LONGEST_LINE).leak();
        let text: &'static str = format!("x{long}\n").leak();
        let (kept, lines) = heard(text.as_bytes(), usize::MAX).await;
        assert_eq!((kept.text().as_str(), kept.truncated), (text, false));
        assert!(lines.len() > 1 && lines.iter().all(|line| !line.contains('\u{fffd}')));
        assert_eq!(lines.concat(), text.trim_end());
    }

    #[test]
    fn the_first_or_the_last_is_kept() {
        for whole in [Kept::first(4), Kept::last(4)] {
            assert_eq!(kept(whole, &["ab", "cd"]), ("abcd".into(), false));
        }
        let chunks = ["ab", "cd", "ef", "", "ghijkl"];
        assert_eq!(kept(Kept::first(4), &chunks), ("abcd".into(), true));
        assert_eq!(kept(Kept::last(4), &chunks), ("ijkl".into(), true));
    }
}
