//! The worker process itself: `trine worker`. It talks to the server over the socket that is its standard input.

use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::gettid;
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::protocol::{Channel, FromWorker, LONGEST_OUTPUT, ProtocolError, Report, RunRequest, ToWorker};
use crate::clock::{Stopwatch, micros};
use crate::executor::attempt::{made, panicked};
use crate::job::{Failure, Note, Output, Spec};
use crate::measure::{Helpers, Usage, memory, run_delay};
use crate::workload::{Environment, Registry, Reporter, Sink, Stop, Work};

/// How often threads are looked at that the work has started.
const LOOK: Duration = Duration::from_millis(50);
/// Notes that may wait for the server.
const NOTES: usize = 1_024;

/// Works until the server hangs up. `registry` makes the workloads out of what the server lets them reach.
pub fn main(registry: fn(Environment) -> Registry) -> ExitCode {
    // A worker must not outlive its server; hanging up is how it notices where this is not possible.
    let _ = prctl::set_pdeathsig(Signal::SIGKILL);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("trine worker: can't start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(serve(registry)) {
        // The server is gone or has no more work; what may still run ends with the process.
        Ok(()) | Err(ProtocolError::Gone) => ExitCode::SUCCESS,
        Err(ProtocolError::Io(error)) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("trine worker: {error} (it is started by `trine serve`, with a socket as its standard input)");
            ExitCode::FAILURE
        }
    }
}

async fn serve(registry: fn(Environment) -> Registry) -> Result<(), ProtocolError> {
    // Whoever stops a service may tell all of its processes, as systemd does. When this one ends, the server says, which lets jobs end before.
    let _unheeded = signal(SignalKind::terminate())?;
    let socket = StdUnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    socket.set_nonblocking(true)?;
    let mut channel = Channel::new(UnixStream::from_std(socket)?);
    let ToWorker::Setup(settings) = channel.receive().await? else { return Err(ProtocolError::Gone) };
    let registry = match Environment::open(&settings) {
        Ok(environment) => Arc::new(registry(environment)),
        Err(error) => return channel.send(&FromWorker::Unable(error.to_string())).await,
    };
    channel.send(&FromWorker::Ready).await?;
    loop {
        let ToWorker::Run(request) = channel.receive().await? else {
            // A stop that came after the end of what it was meant for.
            continue;
        };
        let stop = Stop::default();
        let (reports, mut notes) = Reports::new();
        let reporter = Reporter::new(Arc::clone(&reports) as _);
        let worker = Arc::new(AtomicI32::new(0));
        let mut helpers = Helpers::default();
        let mut running = tokio::spawn(run(*request, Arc::clone(&registry), stop.clone(), reporter, Arc::clone(&worker)));
        let mut looks = tokio::time::interval_at(Instant::now() + LOOK, LOOK);
        let report = loop {
            tokio::select! {
                biased;
                message = channel.receive() => if let ToWorker::Stop(reason) = message? { stop.stop(reason) },
                report = &mut running => break report,
                Some(note) = notes.recv() => channel.send(&FromWorker::Note(note)).await?,
                _ = looks.tick() => helpers.look([gettid().as_raw(), worker.load(Ordering::Relaxed)]),
            }
        };
        while let Ok(note) = notes.try_recv() {
            channel.send(&FromWorker::Note(note)).await?;
        }
        if let Some(missing) = reports.missing() {
            channel.send(&FromWorker::Note(missing)).await?;
        }
        let Ok(mut report) = report else { return Err(ProtocolError::Gone) };
        if report.result.as_ref().is_ok_and(|output| output.get().len() > LONGEST_OUTPUT) {
            let why = format!("its output has more than the {LONGEST_OUTPUT} bytes of JSON that a worker can hand over");
            report.result = Err(Failure::error(why));
        }
        report.core_wait_us = report.core_wait_us.map(|own| own + micros(helpers.core_wait()));
        channel.send(&FromWorker::Done(Box::new(report))).await?;
    }
}

/// Takes what the work says, for the server.
struct Reports {
    notes: mpsc::Sender<Note>,
    /// How many notes found no room.
    missing: AtomicU64,
}

impl Reports {
    fn new() -> (Arc<Self>, mpsc::Receiver<Note>) {
        let (notes, receiver) = mpsc::channel(NOTES);
        (Arc::new(Self { notes, missing: AtomicU64::new(0) }), receiver)
    }

    /// Says what is missing, if anything is.
    fn missing(&self) -> Option<Note> {
        Some(self.missing.swap(0, Ordering::Relaxed)).filter(|&count| count > 0).map(Note::missing)
    }
}

impl Sink for Reports {
    fn offer(&self, note: Note) {
        // Together, so that the line about those that are missing stands where they are.
        let missing = self.missing.load(Ordering::Relaxed);
        let Ok(room) = self.notes.try_reserve_many(1 + usize::from(missing > 0)) else {
            self.missing.fetch_add(1, Ordering::Relaxed);
            return;
        };
        room.zip(self.missing().into_iter().chain([note])).for_each(|(room, note)| room.send(note));
    }

    fn note(&self, note: Note) -> BoxFuture<'_, ()> {
        // That the server is gone ends this process in any case.
        Box::pin(self.notes.send(note).map(drop))
    }
}

async fn run(request: RunRequest, registry: Arc<Registry>, stop: Stop, reporter: Reporter, worker: Arc<AtomicI32>) -> Report {
    let spec = Spec { kind: request.kind, json: request.workload };
    let work = made(|| registry.work(&spec, stop.clone(), reporter));
    let peak_is_fresh = memory::reset_peak();
    let before = Usage::of_process();
    let done = match work {
        Ok(work) => finish(work, stop, &worker).await,
        Err(failure) => Begun::now().end(Err(failure)),
    };
    let usage = Usage::of_process() - before;
    let max_rss_bytes = if peak_is_fresh { memory::peak_bytes() } else { None };
    let Finished { result, began, wall, core_wait } = done;
    Report { result, began, wall_us: micros(wall), usage, max_rss_bytes, core_wait_us: core_wait.map(micros) }
}

/// What begins when work does, on the thread that does it.
struct Begun {
    began: Stopwatch,
    delayed: Option<Duration>,
}

/// Work that has ended.
struct Finished {
    result: Result<Output, Failure>,
    began: Stopwatch,
    wall: Duration,
    /// How long the thread could have run and had no core.
    core_wait: Option<Duration>,
}

impl Begun {
    fn now() -> Self {
        Self { delayed: run_delay(), began: Stopwatch::start() }
    }

    fn end(self, result: Result<Output, Failure>) -> Finished {
        let wall = self.began.started.elapsed();
        let core_wait = self.delayed.and_then(|before| Some(run_delay()?.saturating_sub(before)));
        Finished { result, began: self.began, wall, core_wait }
    }
}

/// Runs work so that this process can still be told to stop meanwhile: a blocking call on a thread beside, which is named in `worker`.
async fn finish(work: Work, stop: Stop, worker: &Arc<AtomicI32>) -> Finished {
    match work {
        Work::Future(future) => {
            let begun = Begun::now();
            begun.end(guarded(future, stop).await)
        }
        Work::Blocking(call) => {
            let worker = Arc::clone(worker);
            let running = tokio::task::spawn_blocking(move || {
                worker.store(gettid().as_raw(), Ordering::Relaxed);
                let begun = Begun::now();
                // What unwinds is no result, so nothing of it is seen in between.
                let result = std::panic::catch_unwind(AssertUnwindSafe(call));
                begun.end(result.unwrap_or_else(|panic| Err(panicked(&*panic))))
            });
            // Only a runtime that shuts down does not run it.
            running.await.unwrap_or_else(|error| Begun::now().end(Err(Failure::error(error.to_string()))))
        }
    }
}

async fn guarded(future: impl Future<Output = Result<Output, Failure>>, stop: Stop) -> Result<Output, Failure> {
    tokio::select! {
        biased;
        ended = AssertUnwindSafe(future).catch_unwind() => ended.unwrap_or_else(|panic| Err(panicked(&*panic))),
        _ = stop.stopped() => Err(Failure::error("stopped")),
    }
}
