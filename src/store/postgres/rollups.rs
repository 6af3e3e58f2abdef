//! Counts and sketches of the results. They are written now and then; what was counted since stands in a log, a row a transaction, so
//! that they are exact at any time.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{PgConnection, Row as _};

use crate::job::Owner;
use crate::store::kept::code;
use crate::store::tally::{self, Rollups};
use crate::store::{Sketches, StoreError, SummaryKey};

/// All of them; those that the log has changed since they were written; and how far the log was read. In a transaction of one snapshot.
pub(super) async fn load(connection: &mut PgConnection) -> Result<(Rollups, BTreeSet<SummaryKey>, i64), StoreError> {
    let mut rollups = BTreeMap::new();
    let text = "SELECT type, bound, executor, ending, owner, sketches FROM rollups";
    for row in sqlx::query(text).fetch_all(&mut *connection).await? {
        let code = |at: usize| row.try_get::<i16, _>(at).map(i64::from);
        let key = tally::key(row.try_get(0)?, code(1)?, code(2)?, code(3)?, Owner::from_code(row.try_get(4)?))?;
        let sketches = Sketches::from_bytes(row.try_get(5)?)
            .map_err(|error| StoreError::Corrupt(format!("the rollup of {}: {error}", key.workload)))?;
        rollups.insert(key, sketches);
    }
    let (mut changed, mut last) = (BTreeSet::new(), 0);
    for row in sqlx::query("SELECT n, results FROM counted ORDER BY n").fetch_all(connection).await? {
        last = row.try_get(0)?;
        tally::count(&tally::read(row.try_get(1)?)?, &mut rollups, &mut changed);
    }
    Ok((rollups, changed, last))
}

/// Takes what is logged into the rollups; under the lock of all nodes, so that nothing is taken twice.
pub(super) async fn write(connection: &mut PgConnection) -> Result<(), StoreError> {
    let (rollups, changed, last) = match load(connection).await {
        Err(StoreError::Corrupt(why)) => {
            tracing::warn!(why, "this version can't read what was counted; other nodes take it into the rollups");
            return Ok(());
        }
        loaded => loaded?,
    };
    if changed.is_empty() {
        return Ok(());
    }
    let text = "INSERT INTO rollups (type, bound, executor, ending, owner, sketches) \
                SELECT * FROM unnest($1::TEXT[], $2::SMALLINT[], $3::SMALLINT[], $4::SMALLINT[], $5::BIGINT[], $6::BYTEA[]) \
                ON CONFLICT (type, bound, executor, ending, owner) DO UPDATE SET sketches = excluded.sketches";
    let sketches: Vec<Vec<u8>> = changed.iter().filter_map(|key| rollups.get(key)).map(Sketches::to_bytes).collect();
    sqlx::query(text)
        .bind(changed.iter().map(|key| key.workload.to_string()).collect::<Vec<_>>())
        .bind(changed.iter().map(|key| code(key.bound)).collect::<Vec<_>>())
        .bind(changed.iter().map(|key| code(key.executor)).collect::<Vec<_>>())
        .bind(changed.iter().map(|key| code(key.ending)).collect::<Vec<_>>())
        .bind(changed.iter().map(|key| key.owner.map_or(-1, Owner::code)).collect::<Vec<_>>())
        .bind(sketches)
        .execute(&mut *connection)
        .await?;
    sqlx::query("DELETE FROM counted WHERE n <= $1").bind(last).execute(connection).await?;
    Ok(())
}
