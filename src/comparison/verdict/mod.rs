//! From figures to a verdict: a pure function, so that it can be asked about any matrix.

#[cfg(test)]
mod tests;
mod words;

use std::ops::RangeInclusive;

pub(super) use self::words::sentence;
use self::words::{computes, doubt, failed, name, nature, reasons, remedy, under_pressure};
use super::report::{Choice, Confidence, PARALLEL, Pressure, Row, Verdict};
use super::statistics::{Interval, interval};
use crate::clock::readable;
use crate::job::{Bound, Executor, Runtime};

/// A gain below this is not worth a hop.
const WORTH: f64 = 1.1;
/// Executors that are this close are as fast as each other.
const EQUAL: f64 = 1.07;
/// From here on other tasks notice that the event loop is held.
const HELD_US: u64 = 20_000;
/// So long a task is worth a hop, if the hop costs this share of it.
const CHEAP_HOP: f64 = 0.25;
/// How wide half an interval may be until the gain is less sure, and until it is not sure at all.
const WIDE: (f64, f64) = (0.1, 0.35);
/// The confidence that an interval has of enough repetitions, and of some.
const ENOUGH: (f64, f64) = (0.9, 0.8);
/// So many repetitions are enough for the higher one.
const MANY: usize = 5;
/// What other programs may use of the machine until its figures are less sure, and until they are not sure at all.
const BUSY: (f64, f64) = (0.15, 0.5);

/// What a verdict is made of.
pub(super) struct Evidence<'a> {
    /// What the workload is written in.
    pub(super) runtime: Runtime,
    /// What it is tagged as.
    pub(super) bound: Bound,
    /// How long half of the tasks take inline at the most.
    pub(super) wall_us: u64,
    /// CPU time inline over the time in which there was a core for it.
    pub(super) cpu_share: Option<f64>,
    /// Whether it was kept from its core more often than it waited for anything: then it wanted to compute, whatever its share says.
    pub(super) crowded: bool,
    /// How many times as fast pure computing surely was, where it gained most.
    pub(super) computing: Option<f64>,
    /// How long a task waited on the event loop without giving it back: half of them at the most.
    pub(super) blocked_us: Option<u64>,
    /// The worst of the bystander's waits while nothing is in its way.
    pub(super) calm_us: Option<u64>,
    /// The rows of the matrix, each with its speed-up of every repetition.
    pub(super) rows: &'a [(Row, Vec<f64>)],
    /// Whether several interpreters are compared.
    pub(super) interpreters: bool,
    /// Whether an interpreter's global lock is in the way of threads.
    pub(super) gil: bool,
    /// Between what it lies how much of its lock is released.
    pub(super) released: Option<RangeInclusive<f64>>,
    /// How many cores that interpreter's threads used at once, at the most.
    pub(super) lock_cores: Option<f64>,
    /// What else the machine had to do.
    pub(super) pressure: Pressure,
}

/// The executor that should run it, or why none should.
pub(super) fn verdict(evidence: &Evidence<'_>) -> Verdict {
    let bests = bests(evidence.rows);
    // One that surely gains goes before one that may gain more, or nothing.
    let surely = bests.iter().filter(|best| best.gains());
    let fastest = |a: &&Best<'_>, b: &&Best<'_>| a.speedup.total_cmp(&b.speedup);
    let Some(best) = surely.max_by(fastest).or_else(|| bests.iter().max_by(fastest)) else {
        return without(evidence, Choice::Inconclusive, "no executor ran it without failures.", Confidence::Low);
    };
    // An interval of one or two repetitions is as good as none.
    if best.gain.confidence <= 0.5 {
        let because = best.lost().map_or_else(
            || "there was time for a repetition or two only: give it a larger budget.".to_owned(),
            |lost| format!("{lost}, so the others are too few to tell how fast it is."),
        );
        return without(evidence, Choice::Inconclusive, &because, Confidence::Low);
    }
    if best.gain.high < WORTH || (!best.gains() && best.speedup < WORTH && best.gain.half_width() < 0.15) {
        return none_gains(evidence, best);
    }
    if !best.gains() {
        if one_at_a_time(evidence) || hop_share(evidence, best.row).is_some_and(|share| share >= 1.0) {
            return none_gains(evidence, best);
        }
        let because = format!(
            "the best of them, {}, gained somewhere between {:.2} and {:.2}: too wide to tell it from none; {} narrows it.",
            best.name(evidence),
            best.gain.low,
            best.gain.high,
            remedy(evidence, best),
        );
        return without(evidence, Choice::Inconclusive, &with_nature(evidence, because), Confidence::Low);
    }
    let (winner, equals) = cheapest(evidence, &bests, best);
    let rivals = rivals(&bests, winner, &equals);
    let because = [reasons(evidence, &bests, winner, &equals), doubt(evidence, winner, &rivals), failed(evidence)];
    Verdict {
        executor: winner.row.executor.into(),
        interpreter: winner.row.interpreter.clone().filter(|_| evidence.interpreters),
        concurrency: Some(winner.row.concurrency),
        speedup: Some(winner.speedup),
        because: because.into_iter().flatten().chain(under_pressure(evidence)).collect::<Vec<_>>().join(" "),
        confidence: confidence(evidence, winner, &rivals),
    }
}

/// The best row of an executor and an interpreter.
struct Best<'a> {
    row: &'a Row,
    speedups: &'a [f64],
    speedup: f64,
    gain: Interval,
}

impl Best<'_> {
    /// Whether it is surely faster than no executor by what is worth having.
    fn gains(&self) -> bool {
        self.gain.low > WORTH
    }

    /// How many times as fast it was as the other, repetition by repetition.
    fn versus(&self, other: &Self) -> Option<Interval> {
        let ratios: Vec<f64> = self.speedups.iter().zip(other.speedups).map(|(own, others)| own / others).collect();
        interval(&ratios)
    }

    /// Whether there would have been enough repetitions if no tasks had failed.
    fn had_time(&self) -> bool {
        self.speedups.len() >= MANY
    }

    /// Of how many repetitions failures have left nothing, if there are such.
    fn lost(&self) -> Option<String> {
        let lost = self.speedups.iter().filter(|speedup| !speedup.is_finite()).count();
        (lost > 0).then(|| format!("in {lost} of {} repetitions too many tasks failed", self.speedups.len()))
    }

    fn is_among(&self, others: &[&Self]) -> bool {
        others.iter().any(|other| std::ptr::eq::<Row>(other.row, self.row))
    }

    fn name(&self, evidence: &Evidence<'_>) -> String {
        name(evidence, self.row)
    }

    /// Whether tasks kept the event loop from others while it ran them.
    fn holds_the_loop(&self, evidence: &Evidence<'_>) -> bool {
        let late = self.row.bystander_us.zip(evidence.calm_us);
        self.row.executor == Executor::Async
            && (self.row.longest_poll_us.is_some_and(|us| us >= HELD_US)
                || late.is_some_and(|(late, calm)| late.p99 >= calm.saturating_mul(5).max(calm + HELD_US)))
    }
}

/// Of each executor and interpreter the row with the largest speed-up; of those that are as good, the one with the fewest at once.
fn bests(rows: &[(Row, Vec<f64>)]) -> Vec<Best<'_>> {
    let mut bests: Vec<Best<'_>> = Vec::new();
    for (row, speedups) in rows {
        // The speed-up as it is shown: who rounds it for words rounds the same.
        let Some((gain, speedup)) = interval(speedups).zip(row.speedup) else { continue };
        let new = Best { row, speedups, speedup, gain };
        let same = bests.iter_mut().find(|best| best.row.executor == row.executor && best.row.interpreter == row.interpreter);
        match same {
            Some(best) => {
                let better = if row.concurrency > best.row.concurrency { EQUAL } else { 1.0 / EQUAL };
                if new.speedup > best.speedup * better {
                    *best = new;
                }
            }
            None => bests.push(new),
        }
    }
    bests
}

/// Of those that are as fast as the best one, the one that costs least; and the others.
fn cheapest<'a, 'b>(evidence: &Evidence<'_>, bests: &'a [Best<'b>], best: &'a Best<'b>) -> (&'a Best<'b>, Vec<&'a Best<'b>>) {
    let as_fast = |other: &&Best<'_>| other.gains() && best.versus(other).is_some_and(|interval| interval.estimate <= EQUAL);
    let mut equals: Vec<&Best<'_>> = bests.iter().filter(as_fast).collect();
    equals.sort_by_key(|other| (other.holds_the_loop(evidence), other.row.executor, other.row.concurrency));
    if equals.is_empty() {
        return (best, equals);
    }
    let winner = equals.remove(0);
    equals.retain(|other| other.row.executor != winner.row.executor);
    (winner, equals)
}

/// How much of a task's time its hand-over costs.
#[expect(clippy::cast_precision_loss, reason = "microseconds")]
fn hop_share(evidence: &Evidence<'_>, row: &Row) -> Option<f64> {
    row.handover.map(|handover| handover.cost_us as f64 / evidence.wall_us.max(1) as f64)
}

fn none_gains(evidence: &Evidence<'_>, best: &Best<'_>) -> Verdict {
    let cheapest =
        evidence.rows.iter().filter_map(|(row, _)| row.handover.map(|handover| (handover.cost_us, row.executor))).min();
    let confidence = if best.gain.confidence < 0.8 || busy(evidence) >= BUSY.1 {
        Confidence::Low
    } else if best.gain.high < WORTH && !is_disturbed(evidence) {
        Confidence::High
    } else {
        Confidence::Medium
    };
    let gained = format!("the best of them, {}, reached {:.2} times the speed", best.name(evidence), best.speedup);
    let share = hop_share(evidence, best.row).unwrap_or(0.0);
    match cheapest {
        #[expect(clippy::cast_precision_loss, reason = "microseconds")]
        Some((cost, executor)) if share >= CHEAP_HOP || cost as f64 >= evidence.wall_us as f64 * CHEAP_HOP => {
            let because = format!(
                "a task takes {}, and handing it over takes {} at the least ({}): {gained}.",
                readable(evidence.wall_us),
                readable(cost),
                Choice::from(executor).in_words()
            );
            without(evidence, Choice::TooShort, &because, confidence)
        }
        _ if one_at_a_time(evidence) => {
            let because = "no more than one task ran at once, which can't be faster than one after the other: compare at a higher \
                           concurrency, or where executors have more slots.";
            without(evidence, Choice::Inconclusive, because, Confidence::Low)
        }
        _ if lacked_cores(evidence) => {
            let because = format!(
                "{gained}, but pure computing did not surely gain there either: while others had the cores it can't be told whether a \
                 second task would have run beside the first; a quieter machine shows it."
            );
            without(evidence, Choice::Inconclusive, &with_nature(evidence, because), Confidence::Low)
        }
        _ => {
            let is_compared = |executor| evidence.rows.iter().any(|(row, _)| row.executor == executor);
            let none =
                if Executor::ALL.into_iter().all(is_compared) { "no executor" } else { "none of those that were compared" };
            let because = format!("{none} is faster than one task after the other: {gained}.");
            without(evidence, Choice::Inline, &with_nature(evidence, because), confidence)
        }
    }
}

/// What the workload does is known also where no executor is named.
fn with_nature(evidence: &Evidence<'_>, because: String) -> String {
    [because].into_iter().chain(nature(evidence)).collect::<Vec<_>>().join(" ")
}

fn without(evidence: &Evidence<'_>, executor: Choice, because: &str, confidence: Confidence) -> Verdict {
    let because = [vec![sentence(because)], failed(evidence), under_pressure(evidence)].concat().join(" ");
    Verdict { executor, interpreter: None, concurrency: None, speedup: None, because, confidence }
}

/// The others that are not surely behind, though they seem to be.
fn rivals<'a, 'b>(bests: &'a [Best<'b>], winner: &Best<'b>, equals: &[&Best<'b>]) -> Vec<&'a Best<'b>> {
    let behind = bests.iter().filter(|other| other.row.executor != winner.row.executor && !other.is_among(equals));
    behind.filter(|other| winner.versus(other).is_some_and(|interval| interval.low <= 1.0)).collect()
}

fn confidence(evidence: &Evidence<'_>, winner: &Best<'_>, rivals: &[&Best<'_>]) -> Confidence {
    let Interval { confidence, .. } = winner.gain;
    let width = winner.gain.half_width();
    if !rivals.is_empty() || width > WIDE.1 || confidence < ENOUGH.1 || busy(evidence) >= BUSY.1 {
        Confidence::Low
    } else if width > WIDE.0 || confidence < ENOUGH.0 || is_disturbed(evidence) {
        Confidence::Medium
    } else {
        Confidence::High
    }
}

/// Whether no tasks were ever worked on side by side.
fn one_at_a_time(evidence: &Evidence<'_>) -> bool {
    evidence.rows.iter().all(|(row, _)| row.at_once <= 1)
}

/// Whether others may have had the cores that would have made it faster: where pure computing gained, there was one, and an event loop
/// computes one thing at a time anyway.
fn lacked_cores(evidence: &Evidence<'_>) -> bool {
    let wants_cores = computes(evidence) && evidence.rows.iter().any(|(row, _)| row.executor != Executor::Async);
    wants_cores && !had_room(evidence) && evidence.computing.is_none_or(|gain| gain <= WORTH)
}

/// Whether there was surely a second core: nobody else wanted it, or somebody got it.
fn had_room(evidence: &Evidence<'_>) -> bool {
    !is_disturbed(evidence) || evidence.rows.iter().any(|(row, _)| row.cores_used.is_some_and(|used| used >= PARALLEL))
}

/// How much of the machine was not there for the comparison.
fn busy(evidence: &Evidence<'_>) -> f64 {
    evidence.pressure.others_share.unwrap_or(0.0) + evidence.pressure.stolen_share.unwrap_or(0.0)
}

/// Whether the machine was not quiet.
fn is_disturbed(evidence: &Evidence<'_>) -> bool {
    busy(evidence) >= BUSY.0 || evidence.pressure.jobs > 0
}
