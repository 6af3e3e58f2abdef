//! Counts and sketches of the results. They are written now and then; what was counted since stands in a log, a row a transaction, so
//! that they are exact at any time.

use std::collections::BTreeSet;

use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres, Row as _};

use crate::job::Owner;
use crate::store::kept::code;
use crate::store::tally::{self, Count, Rollups};
use crate::store::{Sketches, StoreError, SummaryKey};

/// The most rows of the log that are taken into the rollups at once: turns of other nodes wait meanwhile.
const MOST_ROWS: i64 = 256;

/// What was counted so far, with what is in the log; in a transaction of one snapshot.
pub(super) async fn load(connection: &mut PgConnection) -> Result<Rollups, StoreError> {
    let text = "SELECT type, bound, executor, ending, owner, sketches FROM rollups";
    let rows = sqlx::query(text).fetch_all(&mut *connection).await?;
    let mut rollups = rows.iter().map(tally::read_rollup).collect::<Result<Rollups, _>>()?;
    let (counts, _) = logged(connection, i64::MAX).await?;
    tally::count(&counts, &mut rollups, &mut BTreeSet::new());
    Ok(rollups)
}

/// Takes the oldest rows of the log into the rollups; under the lock of all nodes, so that nothing is taken twice. Whether there may be more.
pub(super) async fn write(connection: &mut PgConnection) -> Result<bool, StoreError> {
    match take_in(connection).await {
        Err(StoreError::Corrupt(why)) => {
            tracing::warn!(why, "this version can't read what was counted; other nodes take it into the rollups");
            Ok(false)
        }
        taken => taken,
    }
}

async fn take_in(connection: &mut PgConnection) -> Result<bool, StoreError> {
    let (counts, rows) = logged(connection, MOST_ROWS).await?;
    let Some(last) = rows.last() else { return Ok(false) };
    let (mut rollups, mut changed) = (of_kinds(connection, &counts).await?, BTreeSet::new());
    tally::count(&counts, &mut rollups, &mut changed);
    let text = "INSERT INTO rollups (type, bound, executor, ending, owner, sketches) \
                SELECT * FROM unnest($1::TEXT[], $2::SMALLINT[], $3::SMALLINT[], $4::SMALLINT[], $5::BIGINT[], $6::BYTEA[]) \
                ON CONFLICT (type, bound, executor, ending, owner) DO UPDATE SET sketches = excluded.sketches";
    let sketches: Vec<Vec<u8>> = changed.iter().filter_map(|key| rollups.get(key)).map(Sketches::to_bytes).collect();
    of(sqlx::query(text), &changed.iter().collect()).bind(sketches).execute(&mut *connection).await?;
    sqlx::query("DELETE FROM counted WHERE n <= $1").bind(last).execute(connection).await?;
    Ok(i64::try_from(rows.len()).is_ok_and(|rows| rows == MOST_ROWS))
}

/// What is in the oldest rows of the log, up to so many; and their numbers.
async fn logged(connection: &mut PgConnection, most: i64) -> Result<(Vec<Count>, Vec<i64>), StoreError> {
    let (mut counts, mut rows) = (Vec::new(), Vec::new());
    for row in sqlx::query("SELECT n, results FROM counted ORDER BY n LIMIT $1").bind(most).fetch_all(connection).await? {
        rows.push(row.try_get(0)?);
        counts.extend(tally::read(row.try_get(1)?)?);
    }
    Ok((counts, rows))
}

/// The rollups of what was counted, as far as there are any: those of the others are not looked at, however many they are.
async fn of_kinds(connection: &mut PgConnection, counts: &[Count]) -> Result<Rollups, StoreError> {
    let kinds: BTreeSet<&SummaryKey> = counts.iter().map(Count::key).collect();
    let text = "SELECT r.type, r.bound, r.executor, r.ending, r.owner, r.sketches \
                FROM unnest($1::TEXT[], $2::SMALLINT[], $3::SMALLINT[], $4::SMALLINT[], $5::BIGINT[]) AS k(type, bound, executor, ending, owner) \
                JOIN rollups r USING (type, bound, executor, ending, owner)";
    of(sqlx::query(text), &kinds).fetch_all(connection).await?.iter().map(tally::read_rollup).collect()
}

/// A query with the columns of these kinds as its first arguments.
fn of<'q>(query: Query<'q, Postgres, PgArguments>, kinds: &BTreeSet<&SummaryKey>) -> Query<'q, Postgres, PgArguments> {
    let kinds = || kinds.iter();
    query
        .bind(kinds().map(|key| key.workload.to_string()).collect::<Vec<_>>())
        .bind(kinds().map(|key| code(key.bound)).collect::<Vec<_>>())
        .bind(kinds().map(|key| code(key.executor)).collect::<Vec<_>>())
        .bind(kinds().map(|key| code(key.ending)).collect::<Vec<_>>())
        .bind(kinds().map(|key| key.owner.map_or(-1, Owner::code)).collect::<Vec<_>>())
}
