//! Counts and sketches of the results. They are written once a second; what was counted since stands in a log, a row a transaction,
//! so that they are exact after a crash too.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use sqlx::{Row as _, SqliteConnection};

use super::codes::Code;
use super::many::{MOST, Many, make, marks};
use super::statements::json;
use crate::job::{Owner, Timing};
use crate::store::{Sketches, StoreError, SummaryKey};

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
    json(&groups.into_iter().map(|(_, logged)| logged).collect::<Vec<_>>())
}

/// Logs counts, if there are any, by a statement of its own.
pub(super) async fn log(connection: &mut SqliteConnection, counts: &[Count]) -> Result<(), StoreError> {
    if !counts.is_empty() {
        sqlx::query("INSERT INTO counted (results) VALUES (?)").bind(logged(counts)).execute(connection).await?;
    }
    Ok(())
}

/// All of them, and those that the log has changed since they were written.
pub(super) async fn load(connection: &mut SqliteConnection) -> Result<(Rollups, BTreeSet<SummaryKey>), StoreError> {
    let mut rollups = Rollups::new();
    for row in
        sqlx::query("SELECT type, bound, executor, ending, owner, sketches FROM rollups").fetch_all(&mut *connection).await?
    {
        let owner = Owner::from_code(row.try_get(4)?);
        let key = key(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?, owner)?;
        let sketches = Sketches::from_bytes(row.try_get(5)?)
            .map_err(|error| StoreError::Corrupt(format!("the rollup of {}: {error}", key.workload)))?;
        rollups.insert(key, sketches);
    }
    let mut changed = BTreeSet::new();
    for row in sqlx::query("SELECT results FROM counted ORDER BY n").fetch_all(connection).await? {
        let corrupt = |error: serde_json::Error| StoreError::Corrupt(format!("the log of counted results: {error}"));
        let groups: Vec<Logged<'_>> = serde_json::from_str(row.try_get(0)?).map_err(corrupt)?;
        for Logged(workload, bound, executor, ending, taken_out, all, owner) in groups {
            let key = key(&workload, bound, executor, ending, owner)?;
            let counts = all.into_iter().map(|figures| Count { key: key.clone(), figures, taken_out });
            count(&counts.collect::<Vec<_>>(), &mut rollups, &mut changed);
        }
    }
    Ok((rollups, changed))
}

fn key(workload: &str, bound: i64, executor: i64, ending: i64, owner: Option<Owner>) -> Result<SummaryKey, StoreError> {
    Ok(SummaryKey {
        workload: workload.into(),
        bound: Code::from_code(bound)?,
        executor: Code::from_code(executor)?,
        ending: Code::from_code(ending)?,
        owner,
    })
}

static WRITE: LazyLock<Many> = LazyLock::new(|| {
    Many::new(|rows| {
        format!(
            "INSERT INTO rollups (type, bound, executor, ending, owner, sketches) \
             SELECT * FROM (VALUES {}) WHERE column1 IS NOT NULL ON CONFLICT DO UPDATE SET sketches = excluded.sketches; \
             DELETE FROM counted;",
            marks(COLUMNS, rows)
        )
    })
});
const COLUMNS: usize = 6;

/// Writes those that have changed, as a transaction of its own. After that, nothing of what is logged is missing in any of them.
pub(super) async fn write(connection: &mut SqliteConnection, changed: &[(SummaryKey, Vec<u8>)]) -> Result<(), StoreError> {
    let trip = |rollups: &[(SummaryKey, Vec<u8>)]| {
        WRITE.trip(rollups.len(), |values, size| {
            values.rows(rollups, size, COLUMNS, |values, (key, sketches)| {
                values.push(&*key.workload)?;
                values.push(key.bound.code())?;
                values.push(key.executor.code())?;
                values.push(key.ending.code())?;
                values.push(key.owner.map_or(-1, Owner::code))?;
                values.push(&sketches[..])
            })
        })
    };
    make(connection, changed.chunks(MOST).map(trip), true).await
}
