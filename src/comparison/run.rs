//! Drives a comparison: warms up, finds out what things take, then runs all cells in turn until the figures are sure or time is up.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::batch::{self, Batch, Place};
use super::control::{self, Kind};
use super::plan::{self, Cell, Controlled, FEWEST, MOST, MOST_ATTEMPTS, REPETITIONS, Run, What};
use super::pressure::{self, Watch};
use super::report::Report;
use super::request::{Request, Subject};
use super::tally::{self, Runs};
use crate::clock::{Monotonic, micros};
use crate::dispatch::Dispatcher;
use crate::executor::ExecutorError;
use crate::job::{Executor, Runtime};
use crate::store::StoreError;
use crate::workload::{Invalid, Stop, StopReason};

/// A row is precise enough when its speed-up is known to so much on either side; after so many repetitions less will do.
const PRECISE: (f64, f64) = (0.03, 0.1);
/// How long a task may take, also where the budget is shorter: on a busy machine anything can take a second.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often the first task may fail until it is one that fails always, or as good as that.
const TRIES: u32 = 3;
/// Tasks of the first warm-up; enough for an interpreter to have met them.
const FIRST_TASKS: u32 = 3;
/// How often a control's length is corrected.
const CORRECTIONS: u32 = 3;

/// How far a comparison is.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// From 0 to 1, by time.
    pub share: f64,
    /// What it does now.
    pub doing: String,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error("it can't be run any more: {0}")]
    Invalid(#[from] Invalid),
    #[error("what it names can't be looked up: {0}")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Executors(#[from] ExecutorError),
    #[error("it fails already when it is run alone: {0}")]
    Fails(String),
    #[error("one task alone takes longer than all of it may, {} s: give it a larger `budget_ms`", .0.as_secs_f64())]
    Long(Duration),
    #[error("a control fails: {0}")]
    Control(String),
    #[error("after {} s it had not run everything once: give it a larger `budget_ms`, or see whether what it runs hangs", .0.as_secs())]
    Late(Duration),
    #[error("it was stopped")]
    Stopped,
}

/// Runs a comparison to its end, or as far as it comes in twice the time that it, or one task, may take.
pub(super) async fn run(
    dispatcher: &Dispatcher,
    request: &Request,
    stop: &Stop,
    progress: &watch::Sender<Progress>,
) -> Result<Report, RunError> {
    let limit = longest_task(request) * 2;
    match within(limit, stop, find_out(dispatcher, request, stop, progress)).await {
        Err(RunError::Stopped) if stop.reason() == Some(StopReason::Deadline) => Err(RunError::Late(limit)),
        ended => ended,
    }
}

/// Has something end that takes longer than this.
async fn within<T>(limit: Duration, stop: &Stop, running: impl Future<Output = T>) -> T {
    let mut running = pin!(running);
    tokio::select! {
        ended = &mut running => return ended,
        () = tokio::time::sleep(limit) => stop.stop(StopReason::Deadline),
    }
    running.await
}

/// How long a single task may take.
fn longest_task(request: &Request) -> Duration {
    request.budget().max(PATIENCE)
}

async fn find_out(
    dispatcher: &Dispatcher,
    request: &Request,
    stop: &Stop,
    progress: &watch::Sender<Progress>,
) -> Result<Report, RunError> {
    let subject = request.subject(dispatcher).await?;
    let runner = Runner::new(dispatcher, request, &subject, stop, progress)?;
    let controls = runner.controls().await?;
    let cells = runner.runs(&controls).await?;
    let watch = Watch::start(dispatcher);
    let (runs, watch) = runner.repeat(&cells, watch).await?;
    let pressure = watch.end(dispatcher);
    Ok(tally::report(request, &subject, &controls, runner.probe, &runs, pressure))
}

struct Runner<'a> {
    dispatcher: &'a Dispatcher,
    request: &'a Request,
    subject: &'a Subject,
    /// What the controls are written in.
    runtime: Runtime,
    stop: &'a Stop,
    progress: &'a watch::Sender<Progress>,
    /// Native work inline.
    inline: Place,
    /// For the bystanders' wishes: some outlast the cell that they were beside.
    room: Arc<Semaphore>,
    probe: u32,
    began: Monotonic,
}

impl<'a> Runner<'a> {
    fn new(
        dispatcher: &'a Dispatcher,
        request: &'a Request,
        subject: &'a Subject,
        stop: &'a Stop,
        progress: &'a watch::Sender<Progress>,
    ) -> Result<Self, RunError> {
        let runtime = if subject.runtime == Runtime::Python { Runtime::Python } else { Runtime::Native };
        // One task waits while another runs, so that the thread never does.
        let inline = Place::inline(dispatcher.executors().inline()?, 2);
        let (room, probe) = (Arc::new(Semaphore::new(batch::MOST_OPEN)), plan::probe(super::cores()));
        Ok(Self { dispatcher, request, subject, runtime, stop, progress, inline, room, probe, began: Monotonic::now() })
    }

    /// The controls of each variant, about as long as the workload; and with that the first warm-up.
    async fn controls(&self) -> Result<Vec<Controlled>, RunError> {
        let mut controls = Vec::new();
        for (at, variant) in self.subject.variants.iter().enumerate() {
            self.tell(0.0, "warming up: the workload inline".into());
            let alone = Cell::inline(What::Workload, at);
            let first = self.first(&Run { cell: alone, spec: Arc::clone(&variant.spec), tasks: 1 }).await?;
            // What takes long was warm enough after one.
            let tasks = if first < 1e5 { FIRST_TASKS } else { 1 };
            let run = Run { cell: alone, spec: Arc::clone(&variant.spec), tasks };
            let wall = if tasks > 1 { self.batch(&run, false).await?.serial_us().unwrap_or(first) } else { first };
            let span = control::span(Duration::from_secs_f64(wall / 1e6));
            let (runtime, form) = (self.runtime, self.subject.form);
            let waiting = control::waiting(variant, runtime, form, span);
            let mut steps = control::first_steps(runtime);
            self.tell(0.0, "warming up: the controls".into());
            let cell = Cell { what: What::Control(Kind::Computing), ..alone };
            for _ in 0..CORRECTIONS {
                let spec = Arc::new(control::of(&control::computing(variant, runtime, form, steps)));
                let took = self.batch(&Run { cell, spec, tasks: 2 }, false).await?;
                let took = took.serial_us().ok_or_else(|| RunError::Control(took.failure.unwrap_or_default()))?;
                steps = control::more_steps(runtime, steps, Duration::from_secs_f64(took / 1e6), span);
            }
            controls.push(Controlled { waiting, computing: control::computing(variant, runtime, form, steps), span });
        }
        Ok(controls)
    }

    /// How long one task takes by itself, in microseconds.
    async fn first(&self, run: &Run) -> Result<f64, RunError> {
        first(self.request.budget(), |deadline| self.batch_within(deadline, run, false)).await
    }

    /// All cells with their tasks: warms each of them up, and makes as many tasks of the workload as the budget has room for.
    async fn runs(&self, controls: &[Controlled]) -> Result<Vec<Run>, RunError> {
        let mut beside = Vec::new();
        let mut of_controls = Duration::ZERO;
        for cell in plan::of_controls(self.request, self.subject, self.probe) {
            let (What::Control(kind), Some(control)) = (cell.what, controls.get(cell.variant)) else { continue };
            let run = control.run(cell, kind, self.probe);
            self.tell(0.0, format!("warming up: {}", name(cell)));
            let warm = self.batch(&Run { tasks: cell.concurrency, ..run.clone() }, false).await?;
            of_controls += warm.elapsed / cell.concurrency * run.tasks;
            beside.push(run);
        }
        let mut per_task = Duration::ZERO;
        let mut cells = Vec::new();
        for cell in plan::of_workload(self.request, self.subject, self.probe) {
            let Some(variant) = self.subject.variants.get(cell.variant) else { continue };
            self.tell(0.0, format!("warming up: {}", name(cell)));
            let run = Run { cell, spec: Arc::clone(&variant.spec), tasks: cell.concurrency };
            let warm = self.batch(&run, false).await?;
            per_task += warm.elapsed / cell.concurrency;
            cells.push(run);
        }
        let left = self.request.budget().saturating_sub(self.began.elapsed());
        let tasks = plan::tasks(self.request, cells.len() + beside.len(), left, per_task, of_controls);
        for run in &mut cells {
            // As many as are under way at once, where the controls are wider than what was asked for.
            run.tasks = tasks.max(run.cell.concurrency);
        }
        cells.extend(beside);
        Ok(cells)
    }

    /// Runs all cells in turn, again and again. A repetition that has to stop is as if it had not begun: its cells are compared with each other.
    async fn repeat(&self, cells: &[Run], mut watch: Watch) -> Result<(Runs, Watch), RunError> {
        let mut runs = Runs::new();
        let budget = self.request.budget();
        for repetition in 0..MOST {
            let mut batches = BTreeMap::new();
            for (at, run) in plan::in_turn(cells, repetition).into_iter().enumerate() {
                #[expect(clippy::cast_precision_loss, reason = "few cells")]
                let done = (f64::from(repetition) + at as f64 / cells.len() as f64) / f64::from(REPETITIONS);
                let share = done.min(1.0).max(self.began.elapsed().as_secs_f64() / budget.as_secs_f64()).min(0.99);
                self.tell(share, format!("repetition {}: {}", repetition + 1, name(run.cell)));
                let batch = match self.batch(&run, true).await {
                    Err(RunError::Stopped) if self.stop.reason() == Some(StopReason::Deadline) && !runs.is_empty() => {
                        return Ok((runs, watch));
                    }
                    batch => batch?,
                };
                batches.insert(run.cell, batch);
            }
            watch.look(self.dispatcher);
            for (cell, batch) in batches {
                runs.entry(cell).or_default().push(batch);
            }
            let (spent, repetitions) = (self.began.elapsed(), repetition + 1);
            let is_full = tally::attempts(&runs) >= MOST_ATTEMPTS as usize;
            let late = (spent >= budget || is_full) && repetitions >= FEWEST || spent >= budget * 2;
            let precise = |enough| tally::half_width(&runs).is_some_and(|width| width <= enough);
            // Fewer than six repetitions can't be as sure as is wanted.
            if late || repetitions >= 6 && precise(PRECISE.0) || repetitions >= REPETITIONS && precise(PRECISE.1) {
                break;
            }
        }
        Ok((runs, watch))
    }

    /// Runs a cell once, with a bystander beside it if that is wanted.
    async fn batch(&self, run: &Run, with_bystander: bool) -> Result<Batch, RunError> {
        self.batch_within(longest_task(self.request), run, with_bystander).await
    }

    /// The same, of tasks that may take so long.
    async fn batch_within(&self, deadline: Duration, run: &Run, with_bystander: bool) -> Result<Batch, RunError> {
        let place = self.place(run.cell);
        let end = CancellationToken::new();
        let variant = self.subject.variants.get(run.cell.variant).filter(|_| with_bystander && run.cell.what == What::Workload);
        let bystander = variant.map(|variant| {
            let on_loop = Executor::Async.queue(self.runtime, self.request.bound);
            let place = Place::of(self.dispatcher.executors(), on_loop);
            let (spec, room) = (control::bystander(variant, self.runtime), Arc::clone(&self.room));
            tokio::spawn(batch::bystand(place, spec, room, end.clone(), self.stop.clone()))
        });
        // Two at once keep the inline thread busy; it still runs one at a time.
        let clients = if run.cell.executor.is_none() && place.slots() > 1 { 2 } else { run.cell.concurrency };
        let mut batch = batch::run(&place, &run.spec, run.tasks, clients, deadline, self.stop).await;
        end.cancel();
        if let Some(bystander) = bystander {
            batch.bystanders = bystander.await.unwrap_or_default();
        }
        if let (What::Workload, Some(executor)) = (run.cell.what, run.cell.executor) {
            let interpreter = self.subject.variants.get(run.cell.variant).and_then(|variant| variant.interpreter.as_deref());
            let queue = executor.queue(self.subject.runtime, self.request.bound);
            batch.runners = pressure::runners(self.dispatcher, queue, interpreter);
        }
        if self.stop.is_stopped() { Err(RunError::Stopped) } else { Ok(batch) }
    }

    /// Where a cell runs. Inline, Python has a process to itself and no concurrency; its hand-over is not counted.
    fn place(&self, cell: Cell) -> Place {
        let runtime = if cell.what == What::Workload { self.subject.runtime } else { self.runtime };
        let executors = self.dispatcher.executors();
        match cell.executor {
            Some(executor) => Place::of(executors, executor.queue(runtime, self.request.bound)),
            None if runtime == Runtime::Native => self.inline.clone(),
            None => Place::one_at_a_time(executors, Executor::Processes.queue(runtime, self.request.bound)),
        }
    }

    fn tell(&self, share: f64, doing: String) {
        self.progress.send_replace(Progress { share: (share * 1000.0).round() / 1000.0, doing });
    }
}

/// How long one task takes by itself, in microseconds; `run` runs it for so long at the most. What takes longer than the budget does not fit
/// into it however long it is waited for; what others have kept from running may do. And what fails once may do well the next time.
async fn first<F>(budget: Duration, mut run: impl FnMut(Duration) -> F) -> Result<f64, RunError>
where
    F: Future<Output = Result<Batch, RunError>>,
{
    let began = Monotonic::now();
    let mut failure = None;
    for _ in 0..TRIES {
        let mut one = run(budget).await?;
        // How long others kept it from running is known to a twentieth or so.
        if one.late_us.is_some_and(|own| own < micros(budget) / 10 * 9) {
            one = run(budget.max(PATIENCE)).await?;
        }
        if one.late_us.is_some() {
            return Err(RunError::Long(budget));
        }
        if let Some(took) = one.serial_us() {
            return Ok(took);
        }
        failure = one.failure;
        if began.elapsed() >= budget {
            break;
        }
    }
    Err(RunError::Fails(failure.unwrap_or_default()))
}

/// A cell in words.
fn name(cell: Cell) -> String {
    let what = match cell.what {
        What::Workload => "the workload",
        What::Control(Kind::Waiting) => "pure waiting",
        What::Control(Kind::Computing) => "pure computing",
    };
    match cell.executor {
        None => format!("{what} inline"),
        Some(executor) => format!("{what} on {executor}, {} at once", cell.concurrency),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::batch::Sample;
    use crate::job::Timing;
    use rstest::rstest;

    const LONG: &str = "one task alone takes longer than all of it may, 2 s: give it a larger `budget_ms`";

    fn succeeds() -> Batch {
        let timing = Timing { wall_us: 5_000, ..Timing::default() };
        Batch { samples: vec![Sample { latency_us: 5_100, handover_us: 100, timing }], ..Batch::default() }
    }

    fn fails() -> Batch {
        Batch { failures: 1, failure: Some("no luck".into()), ..Batch::default() }
    }

    /// It was stopped after it could run for so long.
    fn late(own_us: u64) -> Batch {
        Batch { late_us: Some(own_us), ..fails() }
    }

    #[rstest]
    #[case::at_once(&[succeeds()], Ok(5_000.5), &[2])]
    #[case::now_and_then(&[fails(), fails(), succeeds()], Ok(5_000.5), &[2, 2, 2])]
    #[case::always(&[fails(), fails(), fails()], Err("it fails already when it is run alone: no luck"), &[2, 2, 2])]
    #[case::too_long(&[late(1_900_000)], Err(LONG), &[2])]
    #[case::kept_from_running(&[late(1_200_000), succeeds()], Ok(5_000.5), &[2, 30])]
    #[case::kept_from_running_and_too_long(&[late(1_200_000), late(18_000_000)], Err(LONG), &[2, 30])]
    #[tokio::test]
    async fn a_first_task_shows_whether_it_fits(
        #[case] ends: &[Batch],
        #[case] found: Result<f64, &str>,
        #[case] seconds: &[u64],
    ) {
        let (mut ends, mut given) = (ends.iter().cloned(), Vec::new());
        let run = |deadline: Duration| {
            given.push(deadline.as_secs());
            std::future::ready(Ok(ends.next().unwrap()))
        };
        let took = first(Duration::from_secs(2), run).await.map_err(|error| error.to_string());
        assert_eq!((took, &given[..]), (found.map_err(str::to_owned), seconds));
    }

    #[tokio::test]
    async fn what_takes_too_long_is_told_to_stop_and_waited_for() {
        let stop = Stop::default();
        assert_eq!(within(Duration::from_millis(1), &stop, stop.stopped()).await, StopReason::Deadline);
        let stop = Stop::default();
        within(Duration::from_secs(60), &stop, std::future::ready(())).await;
        assert_eq!(stop.reason(), None);
    }
}
