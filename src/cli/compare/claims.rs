//! What the guide says of the three models, each claim beside what was measured: a pure function of the reports.

use serde::Serialize;

use crate::cli::human::micros;
use crate::comparison::report::{PARALLEL, Report, Row, SERIAL};
use crate::job::Executor;

/// Waits are side by side when so many times as many are over in the same time.
const SIDE_BY_SIDE: f64 = 3.0;
/// A figure is larger than another if it is so many times as large.
const LARGER: f64 = 1.25;
/// What other programs may use of the machine until it has no core to spare.
const BUSY: f64 = 0.2;
/// A held event loop makes a short wait so many times as long.
const HELD: f64 = 4.0;

/// Whether a claim of the guide holds on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Held {
    /// The figures say so.
    Holds,
    /// The figures say otherwise.
    DoesNot,
    /// The figures do not say.
    CantTell,
}

/// A claim, and what was found.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Claim {
    /// The guide's row.
    pub(super) about: &'static str,
    /// What the guide says.
    pub(super) says: &'static str,
    /// Whether it holds.
    pub(super) held: Held,
    /// What was measured.
    pub(super) measured: String,
}

/// The same work on all models.
pub(super) struct Measured {
    pub(super) native_io: Report,
    pub(super) native_cpu: Report,
    /// Without an interpreter there are none.
    pub(super) python: Option<Python>,
}

pub(super) struct Python {
    pub(super) io: Report,
    pub(super) cpu: Report,
    /// Calls that each read a module's variable, wait, and write one more back: the process and what it wrote, for threads and processes.
    pub(super) on_threads: Vec<(u64, u64)>,
    pub(super) on_processes: Vec<(u64, u64)>,
}

impl Held {
    pub(super) const fn in_words(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::DoesNot => "does not hold here",
            Self::CantTell => "can't be told",
        }
    }

    /// Both, as far as it can be told.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Holds, Self::Holds) => Self::Holds,
            (Self::DoesNot, _) | (_, Self::DoesNot) => Self::DoesNot,
            _ => Self::CantTell,
        }
    }
}

/// Every claim.
pub(super) fn claims(measured: &Measured) -> Vec<Claim> {
    let Measured { native_io, native_cpu, python } = measured;
    let of = |python_report: fn(&Python) -> &Report| python.as_ref().map(python_report);
    let (io, cpu) = (of(|python| &python.io), of(|python| &python.cpu));
    vec![
        Claim::of(
            "event loop: waiting",
            "one thread holds many waits at once",
            both(|report| waits(report, Executor::Async), native_io, io),
        ),
        Claim::of(
            "event loop: computing",
            "concurrency is not parallelism: computing gets no faster",
            both(|report| not_parallel(report, Executor::Async), native_cpu, cpu),
        ),
        Claim::of("event loop: blocked", "one task that computes keeps all others waiting", both(blocked, native_cpu, cpu)),
        Claim::of("threads: waiting", "threads wait in parallel", both(|report| waits(report, Executor::Threads), native_io, io)),
        Claim::of(
            "threads: the GIL",
            "in Python, one thread computes at a time",
            cpu.map_or_else(no_python, |report| not_parallel(report, Executor::Threads)),
        ),
        Claim::of(
            "threads: native",
            "without such a lock, threads compute on all cores",
            parallel(native_cpu, Executor::Threads),
        ),
        Claim::of("threads: shared memory", "threads share memory, and race for it; processes do not", shared(python.as_ref())),
        Claim::of(
            "processes: computing",
            "processes compute on all cores, also in Python",
            both(|report| parallel(report, Executor::Processes), native_cpu, cpu),
        ),
        Claim::of(
            "processes: overhead",
            "handing work to a process costs more than to a thread",
            overhead(&[native_io, native_cpu]),
        ),
        Claim::of("processes: memory", "each process has a memory of its own", cpu.map_or_else(no_python, memory)),
    ]
}

type Found = (Held, String);

impl Claim {
    fn of(about: &'static str, says: &'static str, (held, measured): Found) -> Self {
        Self { about, says, held, measured }
    }
}

/// Native and Python, where there is Python.
fn both(find: impl Fn(&Report) -> Found, native: &Report, python: Option<&Report>) -> Found {
    let (held, native) = find(native);
    let Some((other, python)) = python.map(find) else { return (held, format!("native {native}")) };
    (held.and(other), format!("native {native}; Python {python}"))
}

fn no_python() -> Found {
    (Held::CantTell, "there is no Python interpreter here".into())
}

/// The row with the most tasks at once.
fn widest(report: &Report, executor: Executor) -> Option<&Row> {
    report.matrix.iter().filter(|row| row.executor == executor).max_by_key(|row| row.concurrency)
}

/// The row with the fewest.
fn alone(report: &Report, executor: Executor) -> Option<&Row> {
    report.matrix.iter().filter(|row| row.executor == executor).min_by_key(|row| row.concurrency)
}

/// Whether a speed-up is surely above or surely below.
fn above(row: Option<&Row>, limit: f64) -> Found {
    let Some((row, (speedup, spread))) = row.and_then(|row| Some((row, row.speedup.zip(row.spread)?))) else {
        return (Held::CantTell, "nothing measured".into());
    };
    let held = if spread.low >= limit {
        Held::Holds
    } else if spread.high < limit {
        Held::DoesNot
    } else {
        Held::CantTell
    };
    (held, format!("{speedup:.2} times with {} at once ({:.2} - {:.2})", row.concurrency, spread.low, spread.high))
}

fn not((held, measured): Found) -> Found {
    let held = match held {
        Held::Holds => Held::DoesNot,
        Held::DoesNot => Held::Holds,
        Held::CantTell => Held::CantTell,
    };
    (held, measured)
}

fn waits(report: &Report, executor: Executor) -> Found {
    above(widest(report, executor), SIDE_BY_SIDE)
}

/// Whether tasks of an executor have computed at once: by how much faster that was, or by the cores that they have used.
fn parallel(report: &Report, executor: Executor) -> Found {
    if report.cores < 2 {
        return (Held::CantTell, "this machine has one core".into());
    }
    let row = widest(report, executor);
    let (held, measured) = above(row, PARALLEL);
    let Some(used) = row.and_then(|row| row.cores_used) else { return (held, measured) };
    let measured = format!("{measured} on up to {used:.2} cores");
    let held = if used >= PARALLEL {
        // One core's work can't use more, whatever others do.
        Held::Holds
    } else if held != Held::Holds && used <= SERIAL && has_room(report) {
        Held::DoesNot
    } else if held == Held::DoesNot && !has_room(report) {
        // That nothing ran in parallel says nothing where other programs had the cores.
        Held::CantTell
    } else {
        held
    };
    (held, measured)
}

fn not_parallel(report: &Report, executor: Executor) -> Found {
    not(parallel(report, executor))
}

/// Whether there was a second core to run on: another executor surely got it, or nobody else wanted it. The cores that it used in its best
/// repetition say nothing of the others.
fn has_room(report: &Report) -> bool {
    let got = |executor| above(widest(report, executor), PARALLEL).0 == Held::Holds;
    Executor::ALL.into_iter().any(got) || report.pressure.others_share.is_some_and(|share| share < BUSY)
}

/// A figure that should be the larger one.
#[expect(clippy::cast_precision_loss, reason = "a ratio")]
fn larger(larger: u64, smaller: u64, by: f64) -> Held {
    let ratio = larger as f64 / smaller.max(1) as f64;
    if ratio >= by {
        Held::Holds
    } else if ratio <= 1.0 {
        Held::DoesNot
    } else {
        Held::CantTell
    }
}

/// Half of the bystander's waits: beside computing on its loop, and beside computing elsewhere.
fn blocked(report: &Report) -> Found {
    let beside = alone(report, Executor::Async).and_then(|row| row.bystander_us);
    let calm = report.inline.first().and_then(|inline| inline.bystander_us);
    let Some((beside, calm)) = beside.zip(calm) else { return (Held::CantTell, "nothing measured".into()) };
    let held = larger(beside.p50, calm.p50, HELD);
    (held, format!("a wait of 1 ms took {} beside it, {} otherwise", micros(beside.p50), micros(calm.p50)))
}

fn overhead(reports: &[&Report]) -> Found {
    let cost =
        |executor| reports.iter().filter_map(|report| alone(report, executor)?.handover).map(|handover| handover.cost_us).min();
    let Some((process, thread)) = cost(Executor::Processes).zip(cost(Executor::Threads)) else {
        return (Held::CantTell, "nothing measured".into());
    };
    (larger(process, thread, LARGER), format!("native {} to a process and back, {} to a thread", micros(process), micros(thread)))
}

fn memory(report: &Report) -> Found {
    let of = |executor| widest(report, executor).and_then(|row| Some((row.runners_pss_bytes?, row.runners)));
    let Some(((all, count), (one, _))) = of(Executor::Processes).zip(of(Executor::Threads)) else {
        return (Held::CantTell, "the system does not tell".into());
    };
    let mib = |bytes: u64| bytes >> 20;
    (
        larger(all, one, LARGER),
        format!("Python: {count} processes hold {} MiB, the process of all threads {} MiB", mib(all), mib(one)),
    )
}

fn shared(python: Option<&Python>) -> Found {
    let Some(Python { on_threads, on_processes, .. }) = python else { return no_python() };
    let reached =
        |calls: &[(u64, u64)], process: u64| calls.iter().filter(|(own, _)| *own == process).map(|(_, count)| *count).max();
    let processes = |calls: &[(u64, u64)]| calls.iter().map(|(process, _)| *process).collect::<std::collections::BTreeSet<_>>();
    let (one, many) = (processes(on_threads), processes(on_processes));
    let counted: u64 = one.iter().filter_map(|process| reached(on_threads, *process)).sum();
    let each: u64 = many.iter().filter_map(|process| reached(on_processes, *process)).sum();
    let (calls, others) = (on_threads.len() as u64, on_processes.len() as u64);
    let held = if calls == 0 || others == 0 || one.len() != 1 {
        Held::CantTell
    } else if counted < calls && each == others {
        Held::Holds
    } else {
        Held::DoesNot
    };
    let measured = format!(
        "Python: {calls} calls that add one to the same variable made it {counted} on threads; on {} processes, each with its own, {each} \
         in all",
        many.len()
    );
    (held, measured)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::example_report;
    use crate::comparison::report::{Bystander, Pressure, Spread};
    use rstest::rstest;

    /// A report with these speed-ups at 16 at once, within 3 %.
    fn report(speedups: [f64; 3]) -> Report {
        let mut report = example_report();
        for (executor, speedup) in Executor::ALL.into_iter().zip(speedups) {
            for row in report.matrix.iter_mut().filter(|row| row.executor == executor && row.concurrency == 2) {
                (row.concurrency, row.speedup) = (16, Some(speedup));
                row.spread = Some(Spread { low: speedup * 0.97, high: speedup * 1.03, confidence: 0.96, repetitions: 8 });
                row.cores_used = Some(speedup.min(2.0));
                row.runners_pss_bytes = Some(if executor == Executor::Processes { 24 << 20 } else { 12 << 20 });
            }
        }
        report
    }

    fn measured(native_threads: f64, python_threads: f64) -> Measured {
        Measured {
            native_io: report([15.5, 15.6, 2.0]),
            native_cpu: report([0.99, native_threads, 1.9]),
            python: Some(Python {
                io: report([13.0, 11.0, 2.0]),
                cpu: report([0.99, python_threads, 1.9]),
                on_threads: vec![(7, 1); 16],
                on_processes: vec![(8, 1), (9, 1), (8, 2), (9, 2)],
            }),
        }
    }

    #[test]
    fn on_a_quiet_machine_with_a_lock_every_claim_holds() {
        for claim in claims(&measured(1.95, 0.98)) {
            assert_eq!(claim.held, Held::Holds, "{claim:?}");
        }
    }

    #[rstest]
    #[case::no_lock(1.95, 1.9, "threads: the GIL", Held::DoesNot)]
    #[case::blurred(1.33, 0.98, "threads: native", Held::CantTell)]
    #[case::one_core(0.99, 0.98, "threads: native", Held::DoesNot)]
    fn what_does_not_hold_is_said(#[case] native: f64, #[case] python: f64, #[case] about: &str, #[case] expected: Held) {
        let claims = claims(&measured(native, python));
        let others = claims.iter().filter(|claim| claim.about != about);
        assert!(others.into_iter().all(|claim| claim.held == Held::Holds));
        assert_eq!(claims.iter().find(|claim| claim.about == about).unwrap().held, expected);
    }

    #[test]
    fn cores_that_were_used_show_what_a_blurred_speed_up_can_t() {
        let mut measured = measured(1.95, 0.98);
        let Some(Python { cpu, .. }) = &mut measured.python else { panic!("there is Python") };
        for report in [&mut measured.native_cpu, cpu] {
            report.pressure = Pressure { others_share: Some(0.6), ..report.pressure };
            for row in report.matrix.iter_mut().filter(|row| row.executor != Executor::Processes) {
                row.spread = Some(Spread { low: 0.6, high: 1.9, confidence: 0.96, repetitions: 8 });
            }
        }
        for claim in claims(&measured) {
            assert_eq!(claim.held, Held::Holds, "{claim:?}");
        }
    }

    #[test]
    fn one_core_shows_nothing_where_others_had_two_in_some_repetition_only() {
        let mut measured = measured(1.0, 1.0);
        for report in [&mut measured.native_cpu, &mut measured.python.as_mut().unwrap().cpu] {
            report.pressure = Pressure { others_share: Some(0.5), ..report.pressure };
            for row in &mut report.matrix {
                row.spread = Some(Spread { low: 0.91, high: 2.49, confidence: 0.96, repetitions: 8 });
            }
        }
        let claims = claims(&measured);
        let held = |about| claims.iter().find(|claim| claim.about == about).unwrap().held;
        assert_eq!(["event loop: computing", "threads: the GIL", "threads: native"].map(held), [Held::CantTell; 3]);
        assert_eq!(held("processes: computing"), Held::Holds);
    }

    #[test]
    fn what_others_left_no_core_for_can_t_be_told() {
        let mut measured = measured(0.9, 0.9);
        for report in [&mut measured.native_cpu, &mut measured.python.as_mut().unwrap().cpu] {
            *report =
                Report { pressure: Pressure { others_share: Some(0.9), ..report.pressure }, ..self::report([0.8, 0.9, 0.7]) };
        }
        let claims = claims(&measured);
        let blind: Vec<_> = claims.iter().filter(|claim| claim.held == Held::CantTell).map(|claim| claim.about).collect();
        assert_eq!(blind, ["event loop: computing", "threads: the GIL", "threads: native", "processes: computing"]);
        assert!(claims.iter().all(|claim| claim.held != Held::DoesNot));
    }

    #[test]
    fn without_python_its_claims_can_t_be_told() {
        let found = claims(&Measured { python: None, ..measured(1.95, 0.98) });
        let told = |about| found.iter().find(|claim| claim.about == about).unwrap().held;
        assert_eq!(told("threads: the GIL"), Held::CantTell);
        assert_eq!(told("threads: waiting"), Held::Holds);
    }

    #[test]
    fn a_race_that_was_not_lost_is_no_race() {
        let python = measured(1.95, 0.98).python.unwrap();
        let counted = Python { on_threads: (1..=16).map(|count| (7, count)).collect(), ..python };
        assert_eq!(shared(Some(&counted)).0, Held::DoesNot);
    }

    #[test]
    fn a_neighbour_that_does_not_notice_was_not_blocked() {
        let mut report = report([0.99, 1.9, 1.9]);
        for row in &mut report.matrix {
            row.bystander_us = Some(Bystander { p50: 1_210, p99: 1_930, longest: 2_400, count: 290 });
        }
        assert_eq!(blocked(&report).0, Held::DoesNot);
    }
}
