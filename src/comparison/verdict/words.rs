//! Why, in words: a sentence for each thing that a reader would ask.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::{BUSY, Best, ENOUGH, EQUAL, Evidence, HELD_US, WIDE, had_room, hop_share, is_disturbed};
use crate::clock::readable;
use crate::comparison::report::{Choice, PARALLEL, Pressure, Row, SERIAL};
use crate::job::{Bound, Executor, Runtime};

/// From this share of a core on, work computes.
const COMPUTES: f64 = 0.7;
/// So many times slower is no chance, and worth a word where it only takes more at once. Some repetitions may have gone well.
const COLLAPSE: f64 = 4.0;
/// Of what is known no better than this nothing is said.
const VAGUE: f64 = 0.3;

/// Why the winner is it.
pub(super) fn reasons(evidence: &Evidence<'_>, bests: &[Best<'_>], winner: &Best<'_>, equals: &[&Best<'_>]) -> Vec<String> {
    let mut said = vec![gain(evidence, winner)];
    said.extend(nature(evidence));
    said.extend(beaten(evidence, bests, winner, equals));
    said.extend(equals.iter().map(|equal| as_fast(evidence, winner, equal)));
    said.extend(bests.iter().filter_map(|best| collapse(evidence, best)));
    said.extend(hop(evidence, winner));
    said.extend(held(evidence, bests));
    said
}

fn gain(evidence: &Evidence<'_>, winner: &Best<'_>) -> String {
    let Best { row, speedup, gain, .. } = winner;
    format!(
        "{} ran it {speedup:.2} times as fast as one after the other, {} at once ({:.2} to {:.2} with {:.0} % confidence).",
        sentence(&winner.name(evidence)),
        row.at_once,
        gain.low,
        gain.high,
        gain.confidence * 100.0
    )
}

/// What it does, by its share of a core, and whether that is what it is tagged as.
pub(super) fn nature(evidence: &Evidence<'_>) -> Option<String> {
    let share = evidence.cpu_share?;
    let percent = share * 100.0;
    let (does, tag) = if evidence.crowded && share < COMPUTES {
        (format!("It computes, but other programs left it {percent:.0} % of a core."), Some(Bound::Cpu))
    } else if share >= COMPUTES {
        (format!("It computes: {percent:.0} % of a core while it runs."), Some(Bound::Cpu))
    } else if share <= 0.3 {
        (format!("It waits: {percent:.0} % of a core while it runs."), Some(Bound::Io))
    } else {
        (format!("It does both, waits and computes: {percent:.0} % of a core while it runs."), None)
    };
    Some(match tag {
        Some(tag) if tag != evidence.bound => {
            format!("{does} But it is tagged {}: tag it {tag}, or leave it to `routing` measured.", evidence.bound)
        }
        _ => does,
    })
}

/// Whether it computes, whatever share of a core others left it.
pub(super) fn computes(evidence: &Evidence<'_>) -> bool {
    evidence.crowded || evidence.cpu_share.is_some_and(|share| share >= COMPUTES)
}

/// How the others did, and why.
fn beaten(evidence: &Evidence<'_>, bests: &[Best<'_>], winner: &Best<'_>, equals: &[&Best<'_>]) -> Vec<String> {
    let computes = computes(evidence);
    let slower = |other: &&Best<'_>| {
        let is_behind = winner.versus(other).is_some_and(|interval| interval.estimate > EQUAL);
        other.row.executor != winner.row.executor && is_behind && !other.is_among(equals)
    };
    let are_fewer = |other: &Best<'_>| has_no_more(evidence, other.row) && other.row.at_once < winner.row.at_once;
    let why = |other: &Best<'_>| match other.row.executor {
        Executor::Threads if evidence.gil && computes && is_locked(evidence, other.row) => {
            ": the interpreter's lock lets one of them compute at a time"
        }
        Executor::Async if computes || other.row.cores_used.is_some_and(|used| used >= COMPUTES) => {
            ": an event loop computes one thing at a time"
        }
        Executor::Async if evidence.blocked_us.is_some_and(|us| us.saturating_mul(2) >= evidence.wall_us) => {
            ": its waits held the event loop, since they are not awaited"
        }
        Executor::Processes if are_fewer(other) => ": there are fewer of them",
        Executor::Threads if are_fewer(other) => ": there are fewer of them for this tag",
        _ => "",
    };
    let mut said: Vec<String> = bests
        .iter()
        .filter(slower)
        .map(|other| format!("{} reached {:.2}{}.", sentence(&other.name(evidence)), other.speedup, why(other)))
        .collect();
    if evidence.runtime == Runtime::Python && evidence.gil && computes {
        said.extend(released(evidence));
    }
    said
}

/// Whether all of an executor's slots were in use. Its best row may have fewer at once only because more were no faster.
fn has_no_more(evidence: &Evidence<'_>, row: &Row) -> bool {
    let is_full =
        |other: &Row| other.executor == row.executor && other.interpreter == row.interpreter && other.at_once < other.concurrency;
    evidence.rows.iter().any(|(other, _)| is_full(other) && other.at_once == row.at_once)
}

/// Whether it was an interpreter's lock that kept threads from computing at once: not if they did, nor if it may be that they had no core.
fn is_locked(evidence: &Evidence<'_>, row: &Row) -> bool {
    let one_at_a_time = [row.cores_used, evidence.lock_cores].into_iter().flatten().all(|used| used <= SERIAL);
    one_at_a_time && known(evidence).map_or_else(|| had_room(evidence), |released| released.start() + released.end() < 1.0)
}

/// Between what it lies how much of the lock is released, if that says something.
fn known<'a>(evidence: &'a Evidence<'_>) -> Option<&'a RangeInclusive<f64>> {
    evidence.released.as_ref().filter(|released| released.end() - released.start() <= VAGUE)
}

/// How much of the lock is released, as far as that is known: by the gain, unless that is at odds with the cores used, or else by these.
fn released(evidence: &Evidence<'_>) -> Option<String> {
    let used = evidence.lock_cores.unwrap_or(0.0);
    match known(evidence).filter(|released| *released.start() > 0.0 || used <= SERIAL) {
        Some(released) => {
            let [least, most] = [released.start(), released.end()].map(|share| (share * 100.0).clamp(0.0, 100.0));
            let (least, most) = (format!("{least:.0}"), format!("{most:.0}"));
            let range = if least == most { most } else { format!("{least} to {most}") };
            Some(format!("It releases the lock for {range} % of what could be gained."))
        }
        None if used >= PARALLEL => Some(format!("It releases the lock: on threads it used up to {used:.2} cores at once.")),
        None => None,
    }
}

/// Of one that is as fast, why it was not chosen.
fn as_fast(evidence: &Evidence<'_>, winner: &Best<'_>, equal: &Best<'_>) -> String {
    let costs_more = || equal.row.handover.zip(winner.row.handover).is_some_and(|(own, least)| own.cost_us > least.cost_us);
    let dear = if equal.holds_the_loop(evidence) {
        "held the event loop meanwhile"
    } else if equal.row.executor == Executor::Threads {
        "took a thread for each task"
    } else if costs_more() {
        "cost more for each task, and more memory"
    } else {
        "took a process for each task"
    };
    format!("{} came as far ({:.2}), but {dear}.", sentence(&equal.name(evidence)), equal.speedup)
}

/// Where more under way at once than in its best row has made an executor slower by far.
fn collapse(evidence: &Evidence<'_>, best: &Best<'_>) -> Option<String> {
    let is_wider = |row: &Row| {
        row.executor == best.row.executor && row.interpreter == best.row.interpreter && row.concurrency > best.row.concurrency
    };
    let wider =
        evidence.rows.iter().filter(|(row, _)| is_wider(row)).filter_map(|(row, _)| Some((row.concurrency, row.speedup?)));
    let (concurrency, speedup) = wider.min_by(|(_, a), (_, b)| a.total_cmp(b))?;
    let fell = || format!("With {concurrency} under way at once, {} fell to {speedup:.2}.", best.name(evidence));
    (speedup * COLLAPSE <= best.speedup).then(fell)
}

fn hop(evidence: &Evidence<'_>, winner: &Best<'_>) -> Option<String> {
    let (handover, share) = (winner.row.handover?, hop_share(evidence, winner.row)?);
    let (cost, wall) = (readable(handover.cost_us), readable(evidence.wall_us));
    Some(if share < 0.01 {
        format!("Handing a task over costs {cost}, next to nothing of its {wall}.")
    } else {
        format!("Handing a task over costs {cost}, and a task takes {wall}.")
    })
}

/// What the event loop's other tasks would have had to bear.
fn held(evidence: &Evidence<'_>, bests: &[Best<'_>]) -> Option<String> {
    let on_loop = bests.iter().find(|best| best.row.executor == Executor::Async && best.holds_the_loop(evidence))?;
    let us = on_loop.row.longest_poll_us.filter(|us| *us >= HELD_US)?;
    Some(format!("On the event loop, one task kept all others waiting for {}.", readable(us)))
}

/// Why it is not surer, as far as that can be helped.
pub(super) fn doubt(evidence: &Evidence<'_>, winner: &Best<'_>, rivals: &[&Best<'_>]) -> Vec<String> {
    let mut doubts: Vec<String> = rivals.iter().map(|rival| format!("{} may be as fast", rival.name(evidence))).collect();
    if winner.gain.confidence < ENOUGH.0 {
        doubts.extend((!winner.had_time()).then(|| "there was time for few repetitions".to_owned()));
        doubts.extend(winner.lost());
    } else if winner.gain.half_width() > WIDE.0 {
        doubts.push("its repetitions differ much".into());
    }
    let (doubts, remedy) = (doubts.join(", and "), remedy(evidence, winner));
    if doubts.is_empty() { Vec::new() } else { vec![format!("It is less sure because {doubts}: {remedy} helps.")] }
}

/// What would make it surer: more repetitions, where there were few for lack of time; of others, on a busy machine each is as uncertain as
/// those before.
pub(super) fn remedy(evidence: &Evidence<'_>, of: &Best<'_>) -> &'static str {
    match (of.gain.confidence < ENOUGH.0, is_disturbed(evidence)) {
        (true, _) if of.had_time() => "work that fails less",
        (_, false) => "a larger budget",
        (true, true) => "a larger budget on a quieter machine",
        (false, true) => "a quieter machine",
    }
}

/// Where tasks failed, which tells nothing of how fast they would have been.
pub(super) fn failed(evidence: &Evidence<'_>) -> Vec<String> {
    let mut failed = BTreeMap::<String, (u64, u64)>::new();
    for (row, _) in evidence.rows {
        let (failures, tasks) = failed.entry(name(evidence, row)).or_default();
        *failures += row.failures;
        *tasks += row.tasks;
    }
    let some = failed.into_iter().filter(|(_, (failures, _))| *failures > 0);
    some.map(|(name, (failures, tasks))| format!("{failures} of {tasks} tasks failed on {name}.")).collect()
}

/// An executor, and its interpreter if several are compared.
pub(super) fn name(evidence: &Evidence<'_>, row: &Row) -> String {
    let name = Choice::from(row.executor).in_words();
    match &row.interpreter {
        Some(interpreter) if evidence.interpreters => format!("{name} of {interpreter}"),
        _ => name.into(),
    }
}

/// What makes the figures less sure.
pub(super) fn under_pressure(evidence: &Evidence<'_>) -> Vec<String> {
    let Pressure { others_share, stolen_share, jobs } = evidence.pressure;
    let others = others_share.filter(|share| *share >= BUSY.0);
    let stolen = stolen_share.filter(|share| *share >= 0.05);
    let said = [
        others.map(|share| format!("Other programs used {:.0} % of the machine meanwhile.", share * 100.0)),
        stolen.map(|share| format!("A hypervisor kept {:.0} % of it back.", share * 100.0)),
        (jobs > 0).then(|| "Jobs of this server ran meanwhile.".to_owned()),
    ];
    said.into_iter().flatten().collect()
}

/// With a capital letter, as a sentence begins.
pub(in crate::comparison) fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
