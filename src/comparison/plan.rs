//! What is run: the cells of the matrix with what is beside them, and how many tasks each has.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::control::{self, Kind};
use super::request::{Request, Subject};
use crate::job::{Executor, Spec};

/// So many repetitions should fit into the budget; the tasks of a cell are as many as then fit.
pub(super) const REPETITIONS: u32 = 8;
/// The fewest that say anything, and the most that are worth their time.
pub(super) const FEWEST: u32 = 3;
pub(super) const MOST: u32 = 40;
/// So many attempts are kept in memory until the figures are made of them; the last repetition may exceed it.
pub(super) const MOST_ATTEMPTS: u32 = 200_000;

/// What a cell runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// What is compared.
    Workload,
    /// What it is placed between.
    Control(Kind),
}

/// One cell: something, somewhere, so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cell {
    pub(super) what: What,
    /// The place of the interpreter in the list.
    pub(super) variant: usize,
    /// The executor, or `None` for inline.
    pub(super) executor: Option<Executor>,
    /// Inline it is always 1.
    pub(super) concurrency: u32,
}

impl Cell {
    /// Without any executor.
    pub(super) const fn inline(what: What, variant: usize) -> Self {
        Self { what, variant, executor: None, concurrency: 1 }
    }
}

/// A cell with what it takes to run it.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) cell: Cell,
    pub(super) spec: Arc<Spec>,
    pub(super) tasks: u32,
}

/// A control, made for one variant.
#[derive(Clone, Debug)]
pub(super) struct Controlled {
    pub(super) waiting: Value,
    pub(super) computing: Value,
    pub(super) span: Duration,
}

/// At which concurrency the controls run: where computing gains as much as it can, and waiting as much as that many can.
pub(super) fn probe(cores: u32) -> u32 {
    cores.clamp(2, 8)
}

/// The cells of the workload: inline, then each executor at each level, and what the controls are compared with.
pub(super) fn of_workload(request: &Request, subject: &Subject, probe: u32) -> Vec<Cell> {
    let mut cells = Vec::new();
    for variant in 0..subject.variants.len() {
        let what = What::Workload;
        cells.push(Cell::inline(what, variant));
        for executor in &request.executors {
            let mut levels: BTreeSet<u32> = request.concurrency.iter().copied().collect();
            if *executor == Executor::Threads {
                levels.insert(probe);
            }
            for level in levels {
                cells.push(Cell { what, variant, executor: Some(*executor), concurrency: level });
            }
        }
    }
    cells
}

/// The cells of the controls: all executors for the first interpreter, threads for the others.
pub(super) fn of_controls(request: &Request, subject: &Subject, probe: u32) -> Vec<Cell> {
    let mut cells = Vec::new();
    for kind in [Kind::Waiting, Kind::Computing] {
        for variant in 0..subject.variants.len() {
            let what = What::Control(kind);
            cells.push(Cell::inline(what, variant));
            let executors = request.executors.iter().filter(|executor| variant == 0 || **executor == Executor::Threads);
            cells.extend(executors.map(|executor| Cell { what, variant, executor: Some(*executor), concurrency: probe }));
        }
    }
    cells
}

/// How many tasks a cell has in each repetition, so that enough repetitions of all `cells` fit into the time that is left, and into memory.
/// `per_task` is what one more task in every cell costs, `controls` what the controls cost in each repetition.
pub(super) fn tasks(request: &Request, cells: usize, left: Duration, per_task: Duration, controls: Duration) -> u32 {
    let widest = request.concurrency.iter().copied().max().unwrap_or(1);
    let each = (left / REPETITIONS).saturating_sub(controls);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the limits of a request")]
    let fit = (each.as_secs_f64() / per_task.as_secs_f64().max(1e-9)).min(f64::from(request.tasks)) as u32;
    let kept = MOST_ATTEMPTS / REPETITIONS / u32::try_from(cells).unwrap_or(u32::MAX).max(1);
    let fit = fit.min(kept);
    // Whole waves: one task more than fit at once takes as long as twice as many.
    (fit / widest * widest).max(widest).min(request.tasks)
}

/// The cells in the order of a repetition. No cell is always behind the same one, or always first.
pub(super) fn in_turn(runs: &[Run], repetition: u32) -> Vec<Run> {
    let mut runs = runs.to_vec();
    let count = runs.len().max(1);
    runs.rotate_left(repetition as usize * 3 % count);
    if repetition % 2 == 1 {
        runs.reverse();
    }
    runs
}

impl Controlled {
    pub(super) const fn workload(&self, kind: Kind) -> &Value {
        match kind {
            Kind::Waiting => &self.waiting,
            Kind::Computing => &self.computing,
        }
    }

    /// How a control runs in a cell.
    pub(super) fn run(&self, cell: Cell, kind: Kind, probe: u32) -> Run {
        Run { cell, spec: Arc::new(control::of(self.workload(kind))), tasks: control::tasks(self.span, probe) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::request::Variant;
    use crate::job::{Bound, Form, Runtime};

    fn request() -> Request {
        Request {
            bound: Bound::Cpu,
            workload: serde_json::value::RawValue::NULL.to_owned(),
            tasks: 64,
            concurrency: vec![1, 4],
            executors: Executor::ALL.to_vec(),
            interpreters: Vec::new(),
            budget_ms: 10_000,
        }
    }

    fn subject(interpreters: &[&str]) -> Subject {
        let variant =
            |name: &&str| Variant { interpreter: Some((*name).into()), gil: true, network: false, spec: Arc::default() };
        Subject {
            runtime: Runtime::Python,
            form: Form::Blocking,
            variants: interpreters.iter().map(variant).collect(),
            slots: std::collections::BTreeMap::new(),
        }
    }

    #[test]
    fn every_executor_runs_at_every_level_and_threads_where_the_controls_do() {
        let cells = of_workload(&request(), &subject(&["a", "b"]), 2);
        assert_eq!(cells.len(), 2 * (1 + 2 + 3 + 2));
        assert!(cells.iter().all(|cell| cell.concurrency != 2 || cell.executor == Some(Executor::Threads)));
        let controls = of_controls(&request(), &subject(&["a", "b"]), 2);
        assert_eq!(controls.len(), 2 * ((1 + 3) + (1 + 1)));
    }

    #[test]
    fn tasks_are_whole_waves_that_fit_the_budget() {
        let seconds = Duration::from_secs_f64;
        assert_eq!(tasks(&request(), 20, seconds(8.0), seconds(0.05), seconds(0.1)), 16);
        assert_eq!(tasks(&request(), 20, seconds(8.0), seconds(0.0001), seconds(0.1)), 64);
        assert_eq!(tasks(&request(), 20, seconds(8.0), seconds(30.0), seconds(0.1)), 4);
        assert_eq!(
            tasks(&Request { tasks: 1, concurrency: vec![1], ..request() }, 20, seconds(1.0), seconds(30.0), seconds(0.1)),
            1
        );
        // However short they are, there is room for enough repetitions.
        let many = Request { tasks: 10_000, ..request() };
        assert_eq!(tasks(&many, 20, seconds(80.0), seconds(0.0001), seconds(0.1)), 1_248);
    }

    #[test]
    fn a_repetition_has_all_cells_in_an_order_of_its_own() {
        let cells = of_workload(&request(), &subject(&["a"]), 2);
        let runs: Vec<_> = cells.iter().map(|cell| Run { cell: *cell, spec: Arc::default(), tasks: 1 }).collect();
        let orders: BTreeSet<Vec<Cell>> =
            (0..4).map(|repetition| in_turn(&runs, repetition).iter().map(|run| run.cell).collect()).collect();
        assert_eq!(orders.len(), 4);
        for mut order in orders {
            order.sort_unstable();
            let mut all = cells.clone();
            all.sort_unstable();
            assert_eq!(order, all);
        }
    }
}
