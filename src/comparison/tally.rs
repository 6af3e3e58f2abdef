//! From attempts to figures.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::batch::{Batch, Sample};
use super::control::Kind;
use super::plan::{Cell, Controlled, What};
use super::report::{
    Bystander, Control, ControlRow, Controls, GilRelease, Handover, Inline, Pressure, Report, Row, Spans, Spread,
};
use super::request::{Request, Subject};
use super::statistics::{Interval, interval, median, quantile};
use super::verdict::{Evidence, verdict};
use crate::job::{Executor, Runtime, Timing};

/// What every cell has shown in every repetition.
pub(super) type Runs = BTreeMap<Cell, Vec<Batch>>;

/// Controls that are closer than this can't have anything placed between them.
const APART: f64 = 0.25;

/// The speed-up of a cell over another inline, repetition by repetition; not a number where one of them failed.
fn speedups(runs: &Runs, cell: Cell, over: Cell) -> Vec<f64> {
    let (Some(own), Some(serial)) = (runs.get(&cell), runs.get(&over)) else { return Vec::new() };
    let ratio = |(own, serial): (&Batch, &Batch)| {
        let own = if cell.executor.is_none() { own.serial_us() } else { own.per_task_us() };
        serial.serial_us().zip(own).map_or(f64::NAN, |(serial, own)| serial / own.max(0.001))
    };
    own.iter().zip(serial).map(ratio).collect()
}

/// Of how many attempts there are figures.
pub(super) fn attempts(runs: &Runs) -> usize {
    runs.values().flatten().map(|batch| batch.samples.len()).sum()
}

/// How precise the least precise of the best rows is.
pub(super) fn half_width(runs: &Runs) -> Option<f64> {
    let mut best = BTreeMap::<(Executor, usize), Interval>::new();
    for cell in runs.keys().filter(|cell| cell.what == What::Workload) {
        let Some(executor) = cell.executor else { continue };
        let Some(found) = interval(&speedups(runs, *cell, Cell::inline(cell.what, cell.variant))) else { continue };
        let known = best.entry((executor, cell.variant)).or_insert(found);
        if found.estimate > known.estimate {
            *known = found;
        }
    }
    best.values().map(Interval::half_width).max_by(f64::total_cmp)
}

/// Everything that was found, and what follows from it.
pub(super) fn report(
    request: &Request,
    subject: &Subject,
    controls: &[Controlled],
    probe: u32,
    runs: &Runs,
    pressure: Pressure,
) -> Report {
    let tally = Tally { request, subject, probe, runs };
    let inline: Vec<Inline> = (0..subject.variants.len()).filter_map(|variant| tally.inline(variant)).collect();
    let rows = tally.rows();
    let gil = tally.gil();
    let [waiting, computing] = [Kind::Waiting, Kind::Computing].map(|kind| tally.control(kind, controls));
    let evidence = Evidence {
        runtime: subject.runtime,
        bound: request.bound,
        wall_us: inline.first().map_or(0, |inline| inline.wall_us.p50),
        cpu_share: demand(tally.alone()),
        crowded: crowded(tally.alone()),
        computing: computing.rows.iter().map(|row| row.spread.low).max_by(f64::total_cmp),
        blocked_us: tally.blocked_us(),
        calm_us: inline.first().and_then(|inline| inline.bystander_us).map(|bystander| bystander.p99),
        rows: &rows,
        interpreters: subject.variants.len() > 1,
        gil: subject.variants.first().is_some_and(|variant| variant.gil),
        released: tally.released(),
        lock_cores: tally.lock_cores(),
        pressure,
    };
    let verdict = verdict(&evidence);
    let workloads = || runs.iter().filter(|(cell, _)| cell.what == What::Workload);
    Report {
        runtime: subject.runtime,
        form: subject.form,
        cores: super::cores(),
        repetitions: workloads().map(|(_, batches)| count(batches.len())).max().unwrap_or(0),
        tasks_per_repetition: workloads().filter_map(|(_, batches)| batches.first()).map(tasks).min().unwrap_or(0),
        inline,
        matrix: rows.into_iter().map(|(row, _)| row).collect(),
        controls: Controls { concurrency: probe, waiting, computing },
        gil,
        pressure,
        verdict,
    }
}

struct Tally<'a> {
    request: &'a Request,
    subject: &'a Subject,
    probe: u32,
    runs: &'a Runs,
}

impl Tally<'_> {
    fn inline(&self, variant: usize) -> Option<Inline> {
        let batches = self.runs.get(&Cell::inline(What::Workload, variant))?;
        let serial = median(&batches.iter().filter_map(Batch::serial_us).collect::<Vec<_>>())?;
        let python = self.subject.runtime == Runtime::Python;
        Some(Inline {
            interpreter: self.interpreter(variant),
            throughput_per_s: thousandths(1e6 / serial),
            wall_us: spans(batches, |sample| sample.timing.wall_us)?,
            cpu_share: cpu_share(batches),
            max_rss_bytes: samples(batches).filter_map(|sample| sample.timing.max_rss_bytes).max().filter(|_| python),
            bystander_us: bystander(batches),
        })
    }

    /// The workload's own attempts, one after the other.
    fn alone(&self) -> &[Batch] {
        self.runs.get(&Cell::inline(What::Workload, 0)).map_or(&[], Vec::as_slice)
    }

    /// How long half of the tasks waited on the event loop at the most without giving it back.
    fn blocked_us(&self) -> Option<u64> {
        let on_loop = self.runs.iter().filter(|(cell, _)| cell.what == What::Workload && cell.executor == Some(Executor::Async));
        let mut blocked: Vec<u64> = on_loop.flat_map(|(_, batches)| samples(batches)).filter_map(blocked_us).collect();
        blocked.sort_unstable();
        quantile(&blocked, 0.5)
    }

    /// The rows that were asked for, each with its speed-up of every repetition.
    fn rows(&self) -> Vec<(Row, Vec<f64>)> {
        let asked = |cell: &Cell| cell.what == What::Workload && self.request.concurrency.contains(&cell.concurrency);
        let rows = self.runs.iter().filter(|(cell, _)| asked(cell));
        let mut rows: Vec<_> = rows.filter_map(|(cell, batches)| self.row(*cell, cell.executor?, batches)).collect();
        rows.sort_by_key(|(row, _)| (row.executor, row.concurrency));
        rows
    }

    fn row(&self, cell: Cell, executor: Executor, batches: &[Batch]) -> Option<(Row, Vec<f64>)> {
        let base = Cell::inline(cell.what, 0);
        let ratios = speedups(self.runs, cell, base);
        let gain = interval(&ratios);
        let per_task = median(&batches.iter().filter_map(Batch::per_task_us).collect::<Vec<_>>());
        let serial = median(&self.runs.get(&base)?.iter().filter_map(Batch::serial_us).collect::<Vec<_>>());
        let cost = match executor {
            // While others hold the loop, the way takes as long as they do: one that finds it free shows what the way itself costs.
            Executor::Async => free_way(batches),
            // So they do with a global lock.
            Executor::Threads if self.subject.variants.get(cell.variant).is_some_and(|variant| variant.gil) => free_way(batches),
            _ => spans(batches, |sample| sample.handover_us).map(|spans| spans.p50),
        };
        #[expect(clippy::cast_possible_truncation, reason = "microseconds")]
        let handover = cost
            .zip(serial.zip(per_task))
            .map(|(cost_us, (serial, own))| Handover { cost_us, gained_us: (serial - own).round() as i64 });
        let runners = batches.iter().map(|batch| batch.runners).max().unwrap_or_default();
        let slots = self.subject.slots.get(&executor).copied().unwrap_or(u32::MAX);
        let row = Row {
            executor,
            interpreter: self.interpreter(cell.variant),
            concurrency: cell.concurrency,
            at_once: cell.concurrency.min(slots),
            tasks: batches.iter().map(|batch| u64::from(tasks(batch))).sum(),
            failures: batches.iter().map(|batch| u64::from(batch.failures)).sum(),
            failure: batches.iter().find_map(|batch| batch.failure.clone()),
            throughput_per_s: per_task.map(|us| thousandths(1e6 / us.max(0.001))),
            speedup: gain.map(|gain| thousandths(gain.estimate)),
            spread: gain.map(|gain| spread(gain, &ratios)),
            between_controls: self.between(cell),
            latency_us: spans(batches, |sample| sample.latency_us),
            wall_us: spans(batches, |sample| sample.timing.wall_us),
            cpu_share: cpu_share(batches),
            cores_used: batches.iter().filter_map(cores_used).max_by(f64::total_cmp).map(thousandths),
            longest_poll_us: samples(batches).filter_map(|sample| sample.timing.longest_poll_us).max(),
            max_rss_bytes: samples(batches).filter_map(|sample| sample.timing.max_rss_bytes).max(),
            runners_pss_bytes: runners.0,
            runners: runners.1,
            handover,
            bystander_us: bystander(batches),
        };
        Some((row, ratios))
    }

    /// Where a cell's speed-up lies between those of the controls, at the same place and concurrency.
    fn between(&self, cell: Cell) -> Option<f64> {
        let [computing, own, waiting] = self.gains(cell)?.map(|gain| gain.estimate);
        ((waiting - computing).abs() >= APART).then_some(())?;
        Some(thousandths((own - computing) / (waiting - computing)))
    }

    /// What pure computing, the workload and pure waiting gain in a cell, each over itself inline.
    fn gains(&self, cell: Cell) -> Option<[Interval; 3]> {
        let gain = |what| {
            let cell = Cell { what, ..cell };
            interval(&speedups(self.runs, cell, Cell::inline(cell.what, cell.variant)))
        };
        Some([gain(What::Control(Kind::Computing))?, gain(What::Workload)?, gain(What::Control(Kind::Waiting))?])
    }

    /// Threads where the controls are, which shows how much of a global lock is released.
    fn on_threads(&self, variant: usize) -> Cell {
        Cell { what: What::Workload, variant, executor: Some(Executor::Threads), concurrency: self.probe }
    }

    /// Between what it lies how much of the first interpreter's lock is released.
    fn released(&self) -> Option<RangeInclusive<f64>> {
        between_intervals(self.gains(self.on_threads(0))?)
    }

    /// How many cores its threads used at once, in the repetition where that was the most.
    fn lock_cores(&self) -> Option<f64> {
        let threads = |cell: Cell| Cell { concurrency: self.probe, ..cell } == self.on_threads(0);
        let cells = self.runs.iter().filter(|(cell, _)| threads(**cell));
        cells.flat_map(|(_, batches)| batches).filter_map(cores_used).max_by(f64::total_cmp)
    }

    fn control(&self, kind: Kind, controls: &[Controlled]) -> Control {
        let what = What::Control(kind);
        let rows = self.runs.keys().filter(|cell| cell.what == what).filter_map(|cell| {
            let ratios = speedups(self.runs, *cell, Cell::inline(cell.what, cell.variant));
            let gain = interval(&ratios)?;
            Some(ControlRow {
                executor: cell.executor?,
                interpreter: self.interpreter(cell.variant),
                speedup: thousandths(gain.estimate),
                spread: spread(gain, &ratios),
            })
        });
        let alone = self.runs.get(&Cell::inline(what, 0));
        Control {
            workload: controls.first().map(|control| control.workload(kind).clone()).unwrap_or_default(),
            wall_us: alone.and_then(|batches| spans(batches, |sample| sample.timing.wall_us)).map(|spans| spans.p50),
            rows: rows.collect(),
        }
    }

    fn gil(&self) -> Vec<GilRelease> {
        if self.subject.runtime != Runtime::Python {
            return Vec::new();
        }
        let released = |(variant, named): (usize, &super::request::Variant)| {
            let cell = self.on_threads(variant);
            let [computing, speedup, waiting] = self.gains(cell)?.map(|gain| thousandths(gain.estimate));
            Some(GilRelease {
                interpreter: named.interpreter.clone()?,
                gil: named.gil,
                concurrency: self.probe,
                speedup,
                computing,
                waiting,
                released: self.between(cell),
            })
        };
        self.subject.variants.iter().enumerate().filter_map(released).collect()
    }

    fn interpreter(&self, variant: usize) -> Option<String> {
        self.subject.variants.get(variant)?.interpreter.clone()
    }
}

/// Between what a gain's place between the controls lies, if each of the three may be anywhere in its interval; `None` if the controls may
/// be as good as equal.
fn between_intervals([computing, own, waiting]: [Interval; 3]) -> Option<RangeInclusive<f64>> {
    let ends = |interval: Interval| [interval.low, interval.high];
    let place = |own: f64, computing: f64, waiting: f64| (own - computing) / (waiting - computing);
    // Whichever end of a control makes it least depends on which side of that it lies.
    let of_own = |own| ends(computing).map(|computing| ends(waiting).map(|waiting| place(own, computing, waiting)));
    let places = ends(own).map(of_own);
    let (least, most) = places
        .as_flattened()
        .as_flattened()
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), place| (place.min(least), place.max(most)));
    (waiting.low - computing.high >= APART).then_some(least..=most)
}

fn samples(batches: &[Batch]) -> impl Iterator<Item = &Sample> {
    batches.iter().flat_map(|batch| &batch.samples)
}

fn tasks(batch: &Batch) -> u32 {
    count(batch.samples.len()) + batch.failures
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn spans(batches: &[Batch], figure: impl Fn(&Sample) -> u64) -> Option<Spans> {
    let mut figures: Vec<u64> = samples(batches).map(figure).collect();
    figures.sort_unstable();
    Some(Spans { p50: quantile(&figures, 0.5)?, p90: quantile(&figures, 0.9)?, p99: quantile(&figures, 0.99)? })
}

/// How long a task waited at the least while it held the event loop: all that it computed may have been meanwhile.
fn blocked_us(sample: &Sample) -> Option<u64> {
    Some(sample.timing.held_us()?.saturating_sub(sample.timing.cpu_us()?))
}

/// The shortest way there and back of each repetition, and of these the middle.
fn free_way(batches: &[Batch]) -> Option<u64> {
    let mut shortest: Vec<u64> =
        batches.iter().filter_map(|batch| samples(std::slice::from_ref(batch)).map(|sample| sample.handover_us).min()).collect();
    shortest.sort_unstable();
    quantile(&shortest, 0.5)
}

fn bystander(batches: &[Batch]) -> Option<Bystander> {
    let mut waits: Vec<u64> = batches.iter().flat_map(|batch| batch.bystanders.iter().copied()).collect();
    waits.sort_unstable();
    let (p50, p99, longest) = (quantile(&waits, 0.5)?, quantile(&waits, 0.99)?, waits.last().copied()?);
    Some(Bystander { p50, p99, longest, count: waits.len() as u64 })
}

/// What was measured of the tasks whose share of a core can be told, with their CPU time: not of those that are too short for that.
fn shares(batches: &[Batch]) -> impl Iterator<Item = (&Timing, u64)> {
    samples(batches).filter_map(|sample| sample.timing.cpu_share().and(Some((&sample.timing, sample.timing.cpu_us()?))))
}

/// CPU time over wall time, of all of them together.
#[expect(clippy::cast_precision_loss, reason = "microseconds stay far below 2^53")]
fn cpu_share(batches: &[Batch]) -> Option<f64> {
    let (cpu, wall) = shares(batches).fold((0, 0), |(cpu, wall), (timing, used)| (cpu + used, wall + timing.wall_us));
    (wall > 0).then(|| thousandths(cpu as f64 / wall as f64))
}

/// CPU time of all tasks over the time in which others did not keep them from running.
#[expect(clippy::cast_precision_loss, reason = "microseconds stay far below 2^53")]
fn demand(batches: &[Batch]) -> Option<f64> {
    // With several cores at once it is more than there was time for.
    let own = |timing: &Timing| timing.own_us().min(timing.wall_us);
    let (cpu, own) = shares(batches).fold((0, 0), |(cpu, all), (timing, used)| (cpu + used, all + own(timing)));
    (own > 0).then(|| thousandths(cpu as f64 / own as f64))
}

/// Where nobody tells how long tasks had no core: whether the kernel took it away more often than they gave it back by themselves.
fn crowded(batches: &[Batch]) -> bool {
    let sum = |count: fn(&Sample) -> Option<u64>| samples(batches).filter_map(count).sum::<u64>();
    samples(batches).any(|sample| sample.timing.core_wait_us.is_none())
        && sum(|sample| sample.timing.ctx_involuntary) > sum(|sample| sample.timing.ctx_voluntary)
}

/// How many cores the tasks of a batch used at once, on average over its time.
#[expect(clippy::cast_precision_loss, reason = "microseconds stay far below 2^53")]
fn cores_used(batch: &Batch) -> Option<f64> {
    let cpu: u64 = batch.samples.iter().map(|sample| sample.timing.cpu_us()).sum::<Option<u64>>()?;
    let elapsed = batch.elapsed.as_secs_f64() * 1e6;
    (elapsed > 0.0 && batch.failures == 0).then(|| cpu as f64 / elapsed)
}

fn spread(gain: Interval, ratios: &[f64]) -> Spread {
    let Interval { low, high, confidence, .. } = gain;
    let repetitions = count(ratios.iter().filter(|ratio| ratio.is_finite()).count());
    Spread { low: thousandths(low), high: thousandths(high), confidence: thousandths(confidence), repetitions }
}

fn thousandths(figure: f64) -> f64 {
    (figure * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_for_a_core_is_not_what_the_work_does() {
        let batch = |cpu_us, core_wait_us| {
            let timing = Timing {
                wall_us: 100_000,
                cpu_user_us: Some(cpu_us),
                cpu_system_us: Some(0),
                core_wait_us,
                ctx_voluntary: Some(5),
                ctx_involuntary: Some(9),
                ..Default::default()
            };
            [Batch { samples: vec![Sample { latency_us: 0, handover_us: 0, timing }], ..Batch::default() }]
        };
        let found = |cpu_us, core_wait_us| {
            let batch = batch(cpu_us, core_wait_us);
            (demand(&batch), crowded(&batch))
        };
        assert_eq!(found(30_000, Some(40_000)), (Some(0.5), false));
        assert_eq!(found(30_000, None), (Some(0.3), true));
        assert_eq!(found(195_000, Some(0)), (Some(1.95), false));
    }

    #[test]
    fn of_tasks_that_are_too_short_no_share_of_a_core_is_made_up() {
        let timing = Timing { wall_us: 1, cpu_user_us: Some(101), cpu_system_us: Some(0), ..Default::default() };
        let short = [Batch { samples: vec![Sample { latency_us: 0, handover_us: 0, timing }], ..Batch::default() }];
        assert_eq!((cpu_share(&short), demand(&short)), (None, None));
    }

    #[test]
    fn what_a_task_computes_on_the_loop_and_a_core_that_it_lost_are_no_waits_that_hold_it() {
        let blocked = |cpu_us, longest_hold_us| {
            let timing = Timing {
                wall_us: 30_000,
                cpu_user_us: Some(cpu_us),
                cpu_system_us: Some(0),
                longest_poll_us: Some(25_000),
                longest_hold_us: Some(longest_hold_us),
                ..Default::default()
            };
            blocked_us(&Sample { latency_us: 0, handover_us: 0, timing })
        };
        assert_eq!([blocked(4_000, 4_100), blocked(4_100, 4_000), blocked(300, 20_300)], [100, 0, 20_000].map(Some));
    }

    #[test]
    fn a_place_between_controls_is_as_uncertain_as_they_are() {
        let about = |estimate: f64, by: f64| Interval { estimate, low: estimate - by, high: estimate + by, confidence: 0.95 };
        let between = |by| between_intervals([about(1.0, by), about(1.5, by), about(2.0, by)]);
        assert_eq!(between(0.0), Some(0.5..=0.5));
        assert!(between(0.1).is_some_and(|range| *range.start() < 0.35 && *range.end() > 0.65), "{:?}", between(0.1));
        assert_eq!(between(0.4), None);
        // Beyond the controls as well.
        let [computing, own, waiting] =
            [(0.95, 1.05), (0.6, 0.7), (1.6, 2.0)].map(|(low, high)| Interval { low, high, ..about(low, 0.0) });
        let below = between_intervals([computing, own, waiting]).unwrap();
        assert!(*below.start() < -0.81 && *below.end() > -0.24, "{below:?}");
    }

    #[test]
    fn what_holds_the_loop_is_no_part_of_the_way_to_it() {
        // Of four that compute for 20 ms each, every one but the first waits for those before it.
        let batch = |way: u64| {
            let sample = |n: u64| Sample { latency_us: 80_000, handover_us: way + n * 20_000, timing: Timing::default() };
            Batch { samples: (0..4).map(sample).collect(), ..Batch::default() }
        };
        assert_eq!(free_way(&[batch(70), batch(60), batch(90)]), Some(70));
        assert_eq!(free_way(&[Batch::default()]), None);
    }
}
