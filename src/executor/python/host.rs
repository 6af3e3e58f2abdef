//! One Python host: a confined process, the conversation with it, and the calls that it works on.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use nix::unistd::Pid;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::process::ChildStderr;
use tokio::sync::{Notify, oneshot};
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};

use super::calls::{Call, Calls, Ended, Gone, Stopping, Unsaid};
use super::line::Seat;
use super::outbox::Outbox;
use super::protocol::{FromHost, LONGEST, Run, Setup, ToHost, framed};
use super::run::Wanted;
use super::{HostSettings, Key, MAX_LOG, MAX_OUTPUT};
use crate::artifact::{ArtifactError, Artifacts};
use crate::executor::slots::Slot;
use crate::executor::{pool, processes};
use crate::job::{Executor, FailureKind, JobId, Note};
use crate::measure::memory;
use crate::sandbox::{self, Group, Limits, Policy, Scratch, Violation};
use crate::workload::{PythonFunction, Reporter, Stop, depth};

/// How long a host may take until it is ready.
const START: Duration = Duration::from_secs(30);
/// How long a host that hears may take to say so.
const ANSWER: Duration = Duration::from_secs(1);
/// For a host with a loop. asyncio takes in what comes into 256 KiB, most of which it gives back at once. By itself, glibc has the kernel give
/// and take that memory each time (mallopt(3): what was made smaller does not raise the threshold), and a process of several threads then
/// waits for all cores to forget it.
const KEEPS_BUFFERS: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=4194304:glibc.malloc.trim_threshold=8388608");
/// What is kept of what a host writes when it crashes, in bytes.
const LAST_WORDS: usize = 4 << 10;
/// How long to wait for that once a host has ended. Only one that is not confined can leave something behind that keeps it open.
const LAST_WORDS_GRACE: Duration = Duration::from_secs(1);

/// A host that waits for calls or works on some. Dropped, it and all that it started are killed.
#[derive(Debug)]
pub(super) struct Host {
    key: Key,
    pid: Pid,
    /// Its scratch folder, as long as the process or what it has left needs it.
    scratch: Weak<Scratch>,
    outbox: Outbox,
    calls: Arc<Calls>,
    given: AtomicU64,
    /// The most resident memory that it may have, and files.
    most_memory: u64,
    most_files: u64,
    /// Whether it is short of anything that later calls need.
    is_short: Arc<AtomicBool>,
    /// The code that it was sent.
    known: Mutex<HashSet<String>>,
    /// It is to be replaced: nothing new is given to it.
    retired: AtomicBool,
    /// Tells the task that has the process to end it.
    end: Arc<Notify>,
}

/// Why a host could not be started.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error("no interpreter is called {0:?}")]
    Unknown(String),
    #[error("can't start {program}: {error}")]
    Spawn { program: String, error: std::io::Error },
    #[error("the Python host {0} before it was ready")]
    Died(String),
    #[error("the Python host was not ready after {} s", START.as_secs())]
    Late,
}

/// A call that was handed to a host.
pub(super) struct Begun {
    pub(super) id: u64,
    pub(super) ended: oneshot::Receiver<Ended>,
}

impl pool::Worker for Arc<Host> {
    type Settings = HostSettings;
    type Key = Key;
    type Error = StartError;

    async fn start(settings: &HostSettings, key: &Key) -> Result<Self, StartError> {
        let interpreter = settings.interpreters.iter().find(|interpreter| interpreter.name == key.interpreter);
        let interpreter = interpreter.ok_or_else(|| StartError::Unknown(key.interpreter.clone()))?;
        let failed = |error| StartError::Spawn { program: interpreter.path.display().to_string(), error };
        let scratch = settings.scratch.folder().map_err(failed)?;
        let (ours, theirs) = StdUnixStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let mut read = interpreter.folders.clone();
        read.push(settings.program.clone());
        // Libraries that keep something in the user's folder fail without one.
        let home = scratch.path().to_string_lossy().into_owned();
        let usual = [("HOME", home.as_str()), ("LANG", "C.UTF-8"), ("PATH", "/usr/local/bin:/usr/bin:/bin")];
        let environment = usual.into_iter().chain((settings.mode == Executor::Async).then_some(KEEPS_BUFFERS));
        let most_memory = most_memory(settings, key);
        let policy = Policy {
            read,
            // They have all functions' code, under names that only who is given it is told.
            unlisted: vec![settings.archives.clone()],
            scratch: scratch.path().to_owned(),
            network: key.network,
            environment: environment.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            limits: Limits { memory_bytes: most_memory, ..settings.limits },
        };
        let script = settings.program.join("__main__.py");
        let arguments = ["-I".as_ref(), "-u".as_ref(), script.as_os_str(), settings.mode.as_str().as_ref()];
        let mut command = settings.sandbox.command(&policy, &interpreter.path, arguments).map_err(failed)?;
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut group = settings.sandbox.spawn(&mut command, &policy).map_err(failed)?;
        // With it goes our copy of the other end of the socket.
        drop(command);
        let pid = group.id();
        let stderr = group.stderr.take().map(ChildStderr::from_std).transpose().map_err(failed)?;
        let last_words = tokio::spawn(async { Some(last_words(stderr?).await) });
        let (reading, writing) = UnixStream::from_std(ours).map_err(failed)?.into_split();
        let (ready, is_ready) = oneshot::channel();
        let is_short = group.is_short();
        let (calls, end) = (Arc::new(Calls::new(settings.mode == Executor::Processes)), Arc::new(Notify::new()));
        let outbox = Outbox::new(writing);
        let scratch = Arc::new(scratch);
        let kept_for = Arc::downgrade(&scratch);
        tokio::spawn(serve(Process { group, scratch, last_words }, reading, Arc::clone(&calls), ready, Arc::clone(&end)));
        let host = Host {
            key: key.clone(),
            pid,
            scratch: kept_for,
            outbox,
            calls,
            given: AtomicU64::new(0),
            most_memory,
            most_files: settings.limits.open_files,
            is_short,
            known: Mutex::default(),
            retired: AtomicBool::new(false),
            end,
        };
        host.say(&ToHost::Setup(Setup {
            threads: settings.threads,
            max_output_bytes: MAX_OUTPUT,
            max_log_bytes: MAX_LOG,
            confined: settings.sandbox.confines(),
            network: key.network,
        }));
        match tokio::time::timeout(START, is_ready).await {
            Ok(Ok(())) => Ok(Arc::new(host)),
            Ok(Err(_)) => Err(StartError::Died(host.calls.gone().map_or_else(|| "ended".into(), |gone| gone.how))),
            Err(_) => Err(StartError::Late),
        }
    }

    fn key(&self) -> &Key {
        &self.key
    }

    fn pid(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    fn jobs(&self) -> u64 {
        self.given.load(Ordering::Relaxed)
    }

    fn interpreter(&self) -> Option<&str> {
        Some(&self.key.interpreter)
    }

    fn can_serve(&mut self, settings: &HostSettings) -> bool {
        self.is_usable(settings)
    }
}

impl Host {
    /// Hands a call to it. The slot is kept until the host has really ended the call.
    pub(super) fn begin(
        &self,
        (job, attempt): (JobId, u32),
        wanted: &Wanted<'_>,
        reporter: Reporter,
        slot: &Arc<Slot>,
        code_is_lacking: bool,
        seat: Option<&Seat>,
    ) -> Begun {
        let id = self.given.fetch_add(1, Ordering::Relaxed);
        let with_source = match wanted.function {
            PythonFunction::Code { code, .. } => {
                let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
                known.insert(code.sha.clone()) || code_is_lacking
            }
            PythonFunction::Pickle(_) => false,
        };
        let (report, ended) = oneshot::channel();
        // Sent once more, it may stand behind those that came in between.
        let behind = seat.is_some_and(|seat| seat.is_behind || code_is_lacking);
        let frame = framed(&ToHost::Run(Run::new(id, (job, attempt), wanted, with_source, behind)));
        let call = Call::new(report, reporter, slot, seat.map(|seat| (&seat.turn, behind)));
        self.calls.begin(id, call, || self.outbox.send(frame));
        seat.inspect(|seat| seat.is_sent());
        Begun { id, ended }
    }

    /// The next call of this function brings its code along: whether that was read of one that has come back is not known.
    pub(super) fn forget(&self, function: &PythonFunction) {
        if let PythonFunction::Code { code, .. } = function {
            self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(&code.sha);
        }
    }

    /// Asks a call to end.
    pub(super) fn stop(&self, id: u64) {
        self.say(&ToHost::Stop { id });
    }

    /// Has a call go no further that did not end though it was asked to, if it gives its host a chance.
    pub(super) fn leave(&self, id: u64) {
        self.say(&ToHost::Leave { id });
    }

    /// What is returned is kept while a call is waited for that was asked to end.
    pub(super) fn stopping(&self) -> Stopping<'_> {
        self.calls.stopping()
    }

    /// Keeps the files that a call has left in its folder, if somebody keeps them; the folder is gone then.
    pub(super) async fn take_artifacts(
        &self,
        id: u64,
        (job, attempt): (JobId, u32),
        artifacts: Option<&Artifacts>,
        stop: &Stop,
    ) -> Result<(), ArtifactError> {
        // `host/trine.py` has the same.
        let folder = format!("artifacts/{id}");
        // The host may end meanwhile, for what another job does.
        let gone = || ArtifactError::Unreadable(folder.clone(), std::io::ErrorKind::NotFound.into());
        let scratch = self.scratch.upgrade().ok_or_else(gone)?;
        let kept = match artifacts {
            Some(artifacts) => artifacts.keep(job, attempt, scratch.path(), &folder, stop.stopped()).await,
            None => Ok(()),
        };
        if matches!(kept, Err(ArtifactError::Unreadable(..))) {
            // Whatever a job has put in the way there would be in that of all later ones.
            self.retire();
        }
        tokio::task::spawn_blocking(move || scratch.clear(&folder));
        kept
    }

    /// Kills the host. Its calls end when it is gone.
    pub(super) fn kill(&self) {
        self.retire();
        self.end.notify_one();
    }

    /// Whether it takes further calls.
    pub(super) fn is_usable(&self, settings: &HostSettings) -> bool {
        !self.retired.load(Ordering::Relaxed) && !self.is_gone() && !self.is_worn(settings)
    }

    pub(super) fn is_gone(&self) -> bool {
        self.calls.is_gone()
    }

    /// Takes no further calls.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// Nobody waits any longer for a call that it still works on.
    pub(super) fn given_up(&self) {
        self.calls.fewer.notify_waiters();
    }

    /// Whether it hears what it is told: if not, a call holds its event loop.
    pub(super) async fn hears(&self) -> bool {
        // What it says before that is heard, whether or not the store has room for it.
        let _stopping = self.stopping();
        let mut heard = std::pin::pin!(self.calls.heard.notified());
        heard.as_mut().enable();
        self.say(&ToHost::Ping {});
        tokio::time::timeout(ANSWER, heard).await.is_ok()
    }

    /// Waits until it works on nothing that anybody still waits for.
    pub(super) async fn drained(&self) {
        loop {
            let fewer = self.calls.fewer.notified();
            if self.calls.are_given_up() {
                return;
            }
            fewer.await;
        }
    }

    pub(super) const fn pid(&self) -> Pid {
        self.pid
    }

    /// How many calls it works on.
    pub(super) fn open(&self) -> usize {
        self.calls.open()
    }

    /// Whether a call stands behind another one, and has not begun.
    pub(super) fn is_behind(&self, id: u64) -> bool {
        self.calls.is_behind(id)
    }

    /// Whether a call for this key may be sent to it while it makes another one, which does not take longer than `most` so far.
    pub(super) fn takes_one_behind(&self, key: &Key, settings: &HostSettings, most: Duration) -> bool {
        self.key == *key && self.calls.are_short(most) && self.is_usable(settings)
    }

    fn is_worn(&self, settings: &HostSettings) -> bool {
        let given = self.given.load(Ordering::Relaxed);
        let worn = given >= settings.max_jobs || self.is_short.load(Ordering::Relaxed) || (given % 16 == 15 && self.has_much());
        if worn {
            // It is not asked about again before the next time that this is looked at.
            self.retire();
        }
        worn
    }

    /// Takes no further calls if much is left of what a call has used, which has had so many bytes.
    pub(super) fn has_used(&self, max_rss_bytes: Option<u64>) {
        if max_rss_bytes.is_some_and(|bytes| self.is_much(bytes)) && self.has_much() {
            self.retire();
        }
    }

    /// Takes no further calls if one has failed that may have left so many files open that the next ones would fail for it.
    pub(super) fn has_failed(&self) {
        if sandbox::open_files(self.pid.as_raw()).is_some_and(|open| sandbox::is_short(open, self.most_files)) {
            self.retire();
        }
    }

    fn has_much(&self) -> bool {
        memory::resident_bytes(self.pid).is_some_and(|bytes| self.is_much(bytes))
    }

    const fn is_much(&self, bytes: u64) -> bool {
        bytes > self.most_memory / 2
    }

    fn say(&self, message: &ToHost<'_>) {
        // If the host is gone, whoever waits for an answer learns it from there.
        self.outbox.send(framed(message));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.end.notify_one();
    }
}

/// What goes with the process.
struct Process {
    group: Group,
    scratch: Arc<Scratch>,
    last_words: tokio::task::JoinHandle<Option<String>>,
}

/// Takes in what the host says, until it is gone or is to be killed.
async fn serve(process: Process, socket: OwnedReadHalf, calls: Arc<Calls>, ready: oneshot::Sender<()>, end: Arc<Notify>) {
    // If this is dropped, what runs there is killed before its folder is removed.
    let Process { scratch, mut group, last_words } = process;
    let pid = group.id().as_raw();
    // Told, or gone once it is known what has become of the host.
    let mut ready = Some(ready);
    let mut listening = std::pin::pin!(listen(socket, &calls, &mut ready));
    let understood = tokio::select! {
        // Whoever drops a host says so before its socket closes, so one that was dropped has not ended by itself.
        biased;
        () = end.notified() => None,
        understood = &mut listening => Some(understood),
    };
    let killed = understood.is_none();
    // What it has said before is heard, whether or not the store has room for it.
    let _stopping = killed.then(|| calls.stopping());
    // Without its socket it ends by itself, unless it is held up. One that is not understood might go on with calls meanwhile.
    let grace = if understood == Some(true) { Duration::from_secs(1) } else { Duration::ZERO };
    let ended = match tokio::time::timeout(grace, group.wait()).await {
        Ok(ended) => ended,
        Err(_) => group.end(Duration::ZERO).await,
    };
    let words = tokio::time::timeout(LAST_WORDS_GRACE, last_words).await.ok().and_then(|read| read.ok()?).unwrap_or_default();
    let lost = |how, by_itself| Gone { kind: FailureKind::Lost, how, by_itself, may_be_left: false };
    let gone = match ended {
        Ok(ended) => match ended.violation {
            Some(violation) => Gone {
                kind: FailureKind::Error,
                may_be_left: matches!(violation, Violation::Threads { .. } | Violation::Scratch { .. }),
                ..lost(format!("was ended: {violation}"), false)
            },
            None => lost(processes::describe(ended.status), !killed),
        },
        Err(error) => lost(format!("disappeared: {error}"), false),
    };
    if !killed {
        // The words may be those of a job.
        tracing::warn!(pid, how = gone.how, "a Python host has ended by itself");
    }
    let how = if words.is_empty() { gone.how } else { format!("{}; its last words: {words}", gone.how) };
    // What it had said before tells which call it was at.
    let all_is_heard = match understood {
        Some(understood) => understood,
        None => tokio::time::timeout(LAST_WORDS_GRACE, listening).await.unwrap_or(false),
    };
    calls.end_all(&Gone { how, ..gone }, all_is_heard);
    // Removing a folder may block.
    tokio::task::spawn_blocking(move || drop(scratch));
}

/// Takes in what a host says to its end, whether or not that comes in the midst of a message. False if there is something that can't be
/// understood: which calls it has made is not known then.
async fn listen(socket: OwnedReadHalf, calls: &Calls, ready: &mut Option<oneshot::Sender<()>>) -> bool {
    let mut frames = FramedRead::new(socket, LengthDelimitedCodec::builder().max_frame_length(LONGEST).new_codec());
    while let Some(frame) = frames.next().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => return error.kind() != std::io::ErrorKind::InvalidData,
        };
        match serde_json::from_slice(&frame) {
            Ok(FromHost::Done(done)) => calls.end(done.id, Ok(done)),
            Ok(FromHost::Log { id: Some(id), stream, line }) => calls.note(id, Note::log(stream, line)).await,
            // What jobs print is in no line of the log, also if it is not known whose it is.
            Ok(FromHost::Log { id: None, line, .. }) => tracing::debug!(bytes = line.len(), "a job has printed past its own log"),
            Ok(FromHost::Progress { id, value }) => {
                if let Some(note) = Note::progress(&value).filter(|_| depth::check(value.get().as_bytes()).is_ok()) {
                    calls.note(id, note).await;
                }
            }
            Ok(FromHost::Returned { id }) if calls.may_return(id) => calls.end(id, Err(Unsaid::Returned)),
            Ok(FromHost::Returned { .. }) => {
                tracing::error!("a Python host gives back a call that stood behind no other");
                return false;
            }
            Ok(FromHost::Pong {}) => calls.heard.notify_waiters(),
            Ok(FromHost::Ready {}) => drop(ready.take().map(|ready| ready.send(()))),
            Err(error) => {
                tracing::error!(%error, "a Python host says what can't be understood");
                return false;
            }
        }
    }
    true
}

/// The beginning of what it writes to its standard error itself: where it crashed. Reads to the end.
async fn last_words(mut stderr: ChildStderr) -> String {
    let (mut kept, mut buffer) = (Vec::new(), [0; 1024]);
    while let Ok(count @ 1..) = stderr.read(&mut buffer).await {
        let room = LAST_WORDS.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..count.min(room)]);
    }
    String::from_utf8_lossy(&kept).trim().to_owned()
}

/// The most resident memory of a host for this key.
fn most_memory(settings: &HostSettings, key: &Key) -> u64 {
    key.memory_bytes.map_or(settings.limits.memory_bytes, |bytes| bytes.min(settings.limits.memory_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Sink;
    use futures_util::future::BoxFuture;
    use tokio::io::AsyncWriteExt;

    /// A store that has no room for notes.
    struct Full(Mutex<Vec<Note>>);

    impl Sink for Full {
        fn offer(&self, note: Note) {
            self.0.lock().unwrap().push(note);
        }

        fn note(&self, _: Note) -> BoxFuture<'_, ()> {
            Box::pin(std::future::pending())
        }
    }

    fn frame(text: &str) -> Vec<u8> {
        let length = u32::try_from(text.len()).unwrap();
        [&length.to_be_bytes()[..], text.as_bytes()].concat()
    }

    #[tokio::test]
    async fn what_can_not_be_understood_is_not_taken_for_the_end() {
        let (whole, beyond) = (frame(r#"{"ready": {}}"#), u32::try_from(LONGEST + 1).unwrap().to_be_bytes());
        let cases: [(&[u8], bool); 5] =
            [(b"", true), (&whole, true), (&whole[..7], true), (&frame("garbage"), false), (&beyond, false)];
        for (said, understood) in cases {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.write_all(said).await.unwrap();
            drop(theirs);
            let heard = listen(ours.into_split().0, &Calls::new(true), &mut None).await;
            assert_eq!(heard, understood, "{said:?}");
        }
    }

    #[tokio::test]
    async fn a_call_that_stood_behind_no_other_is_not_given_back() {
        for in_order in [true, false] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let (calls, (report, mut ended)) = (Calls::new(in_order), oneshot::channel());
            calls.begin(7, Call::new(report, Reporter::default(), &Arc::default(), None), || ());
            theirs.write_all(&frame(r#"{"returned": {"id": 7}}"#)).await.unwrap();
            assert!(!listen(ours.into_split().0, &calls, &mut None).await);
            assert!(ended.try_recv().is_err(), "it ends with the host");
        }
    }

    #[tokio::test]
    async fn a_host_that_hears_is_heard_though_the_store_takes_no_notes() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (reading, writing) = ours.into_split();
        let (sink, calls) = (Arc::new(Full(Mutex::default())), Arc::new(Calls::new(false)));
        let reporter = Reporter::new(Arc::clone(&sink) as Arc<dyn Sink>);
        calls.begin(7, Call::new(oneshot::channel().0, reporter, &Arc::default(), None), || ());
        let host = Host {
            key: Key { interpreter: String::new(), network: false, memory_bytes: None },
            pid: Pid::this(),
            scratch: Weak::new(),
            outbox: Outbox::new(writing),
            calls: Arc::clone(&calls),
            given: AtomicU64::new(1),
            most_memory: u64::MAX,
            most_files: u64::MAX,
            is_short: Arc::default(),
            known: Mutex::default(),
            retired: AtomicBool::new(false),
            end: Arc::default(),
        };
        tokio::spawn(async move { listen(reading, &calls, &mut None).await });
        theirs.write_all(&frame(r#"{"log": {"id": 7, "stream": "stdout", "line": "x"}}"#)).await.unwrap();
        theirs.write_all(&frame(r#"{"pong": {}}"#)).await.unwrap();
        assert!(host.hears().await);
    }

    #[tokio::test]
    async fn a_call_that_was_told_to_stop_is_heard_though_the_store_takes_no_notes() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (sink, calls) = (Arc::new(Full(Mutex::default())), Arc::new(Calls::new(false)));
        let (report, ended) = oneshot::channel();
        let reporter = Reporter::new(Arc::clone(&sink) as Arc<dyn Sink>);
        calls.begin(7, Call::new(report, reporter, &Arc::default(), None), || ());
        tokio::spawn({
            let calls = Arc::clone(&calls);
            async move { listen(ours.into_split().0, &calls, &mut None).await }
        });
        theirs.write_all(&frame(r#"{"log": {"id": 7, "stream": "stdout", "line": "x"}}"#)).await.unwrap();
        theirs.write_all(&frame(r#"{"done": {"id": 7, "output": null}}"#)).await.unwrap();
        let _stopping = calls.stopping();
        assert_eq!(ended.await.unwrap().unwrap().id, 7);
        assert!(matches!(&sink.0.lock().unwrap()[..], [Note::Log(_, line)] if line == "x"));
    }
}
