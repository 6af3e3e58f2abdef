//! Counts of results before they are in the sketches: as drivers log them, so that they are exact after a crash too.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::codes::Code;
use super::kept::{Cells, Row};
use super::{Sketches, StoreError, SummaryKey};
use crate::job::{Owner, Timing};

/// The sketches of all kinds of results.
pub(super) type Rollups = BTreeMap<SummaryKey, Sketches>;

/// A result that is counted, or taken out again.
#[derive(Debug)]
pub(super) struct Count {
    key: SummaryKey,
    figures: Figures,
    taken_out: bool,
}

/// The time in the queue, the wall time and the CPU time, as far as they were measured.
type Figures = Option<(u64, u64, Option<u64>)>;

/// Results of a kind in a row of the log: type, bound, executor, ending, whether they are taken out, their figures, whose they are.
#[derive(Serialize, Deserialize)]
struct Logged<'a>(#[serde(borrow)] Cow<'a, str>, i64, i64, i64, bool, Vec<Figures>, #[serde(default)] Option<Owner>);

impl Count {
    /// A result that is new.
    pub(super) fn new(key: SummaryKey, timing: Option<&Timing>) -> Self {
        Self { key, figures: timing.map(|timing| (timing.queue_us, timing.wall_us, timing.cpu_us())), taken_out: false }
    }

    /// A result that is no longer there.
    pub(super) fn taken_out(key: SummaryKey, timing: Option<&Timing>) -> Self {
        Self { taken_out: true, ..Self::new(key, timing) }
    }

    /// Of which kind the result is.
    pub(super) const fn key(&self) -> &SummaryKey {
        &self.key
    }

    fn apply(&self, sketches: &mut Sketches) {
        let timing = self.figures.map(|(queue_us, wall_us, cpu_us)| Timing {
            queue_us,
            wall_us,
            cpu_user_us: cpu_us,
            cpu_system_us: cpu_us.map(|_| 0),
            ..Timing::default()
        });
        if self.taken_out {
            sketches.remove(timing.as_ref());
        } else {
            sketches.add(timing.as_ref());
        }
    }
}

/// Counts what was committed; whose sketches that changes is noted in `changed`.
pub(super) fn count(counts: &[Count], rollups: &mut Rollups, changed: &mut BTreeSet<SummaryKey>) {
    for alike in counts.chunk_by(|one, other| one.key == other.key) {
        let key = &alike[0].key;
        let sketches = rollups.entry(key.clone()).or_default();
        for count in alike {
            count.apply(sketches);
        }
        changed.insert(key.clone());
    }
}

/// A row of the log.
pub(super) fn logged<'c>(counts: impl IntoIterator<Item = &'c Count>) -> String {
    let mut groups: Vec<(&SummaryKey, Logged<'_>)> = Vec::new();
    for Count { key, figures, taken_out } in counts {
        match groups.last_mut() {
            Some((last, Logged(.., out, all, _))) if *last == key && *out == *taken_out => all.push(*figures),
            _ => {
                let (bound, executor, ending) = (key.bound.code(), key.executor.code(), key.ending.code());
                let (workload, figures) = (Cow::Borrowed(&*key.workload), vec![*figures]);
                let logged = Logged(workload, bound, executor, ending, *taken_out, figures, key.owner);
                groups.push((key, logged));
            }
        }
    }
    // Strings and numbers can always be written as JSON.
    serde_json::to_string(&groups.into_iter().map(|(_, logged)| logged).collect::<Vec<_>>()).unwrap_or_default()
}

/// The counts of a row of the log.
pub(super) fn read(row: &str) -> Result<Vec<Count>, StoreError> {
    let corrupt = |error: serde_json::Error| StoreError::Corrupt(format!("the log of counted results: {error}"));
    let groups: Vec<Logged<'_>> = serde_json::from_str(row).map_err(corrupt)?;
    let mut counts = Vec::new();
    for Logged(workload, bound, executor, ending, taken_out, all, owner) in groups {
        let (bound, executor, ending) = (Code::from_code(bound)?, Code::from_code(executor)?, Code::from_code(ending)?);
        let key = SummaryKey { workload: (*workload).into(), bound, executor, ending, owner };
        counts.extend(all.into_iter().map(|figures| Count { key: key.clone(), figures, taken_out }));
    }
    Ok(counts)
}

/// From the columns `type, bound, executor, ending, owner, sketches` of a rollup.
pub(super) fn read_rollup(row: &impl Row) -> Result<(SummaryKey, Sketches), StoreError> {
    let mut cells = Cells::new(row);
    let key = SummaryKey {
        workload: cells.take::<&str>()?.into(),
        bound: cells.code()?,
        executor: cells.code()?,
        ending: cells.code()?,
        owner: cells.owner()?,
    };
    let corrupt = |error| StoreError::Corrupt(format!("the rollup of {}: {error}", key.workload));
    let sketches = Sketches::from_bytes(cells.take()?).map_err(corrupt)?;
    Ok((key, sketches))
}
