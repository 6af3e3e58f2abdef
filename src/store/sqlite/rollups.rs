//! Counts and sketches of the results. They are written once a second; what was counted since stands in a log, a row a transaction,
//! so that they are exact after a crash too.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use sqlx::{Row as _, SqliteConnection};

use super::codes::Code;
use super::many::{MOST, Many, make, marks};
use crate::job::Owner;
use crate::store::tally;
pub(super) use crate::store::tally::{Count, Rollups, count, logged};
use crate::store::{StoreError, SummaryKey};

/// Logs counts, if there are any, by a statement of its own.
pub(super) async fn log(connection: &mut SqliteConnection, counts: &[Count]) -> Result<(), StoreError> {
    if !counts.is_empty() {
        sqlx::query("INSERT INTO counted (results) VALUES (?)").bind(logged(counts)).execute(connection).await?;
    }
    Ok(())
}

/// All of them, and those that the log has changed since they were written.
pub(super) async fn load(connection: &mut SqliteConnection) -> Result<(Rollups, BTreeSet<SummaryKey>), StoreError> {
    let text = "SELECT type, bound, executor, ending, owner, sketches FROM rollups";
    let rows = sqlx::query(text).fetch_all(&mut *connection).await?;
    let mut rollups = rows.iter().map(tally::read_rollup).collect::<Result<Rollups, _>>()?;
    let mut changed = BTreeSet::new();
    for row in sqlx::query("SELECT results FROM counted ORDER BY n").fetch_all(connection).await? {
        count(&tally::read(row.try_get(0)?)?, &mut rollups, &mut changed);
    }
    Ok((rollups, changed))
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
    let trips = changed.chunks(MOST).map(|rollups| {
        WRITE.trip(rollups.len(), move |values, size| {
            values.rows(rollups, size, COLUMNS, |values, (key, sketches)| {
                values.push(&*key.workload)?;
                values.push(key.bound.code())?;
                values.push(key.executor.code())?;
                values.push(key.ending.code())?;
                values.push(key.owner.map_or(-1, Owner::code))?;
                values.push(&sketches[..])
            })
        })
    });
    make(connection, trips.collect(), true).await
}
