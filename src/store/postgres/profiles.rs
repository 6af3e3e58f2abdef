//! Profiles, as nodes change them and as they are read.
//!
//! A node writes a profile over only as it last read it, and adds to days; so no node undoes what another one has learned.

use async_trait::async_trait;
use sqlx::PgConnection;
use sqlx::postgres::PgRow;

use super::PostgresStore;
use super::rows::Cells;
use crate::job::ProfileKey;
use crate::store::kept::{code, profile};
use crate::store::{DayRow, DayTotals, ProfileChanges, ProfileRow, ProfileStore, StoreError};

#[async_trait]
impl ProfileStore for PostgresStore {
    async fn profiles(&self) -> Result<Vec<ProfileRow>, StoreError> {
        self.newer_profiles(Vec::new()).await
    }

    async fn newer_profiles(&self, known: Vec<(ProfileKey, i64)>) -> Result<Vec<ProfileRow>, StoreError> {
        let (keys, versions): (Vec<_>, Vec<_>) = known.iter().map(|(key, version)| (key.as_str(), *version)).unzip();
        let text = "SELECT p.key, p.version, p.changed_at, p.figures, p.sketches \
                    FROM profiles p LEFT JOIN unnest($1::TEXT[], $2::BIGINT[]) AS k(key, version) ON k.key = p.key \
                    WHERE k.version IS DISTINCT FROM p.version";
        let rows = sqlx::query(text).bind(keys).bind(versions).fetch_all(&self.pool).await?;
        rows.iter().map(profile::read).collect()
    }

    async fn profile_days(&self, first: i64, last: i64) -> Result<Vec<DayRow>, StoreError> {
        let text = "SELECT day, key, executor, bound, runs, failed, wall_us, cpu_us, core_wait_us, held_runs, held_us, longest_us, \
                    held_jobs FROM profile_days WHERE day BETWEEN $1 AND $2";
        sqlx::query(text).bind(first).bind(last).fetch_all(&self.pool).await?.iter().map(day).collect()
    }

    async fn keep_profiles(&self, changes: ProfileChanges) -> Result<Vec<ProfileKey>, StoreError> {
        self.edit(changes, |changes, connection| Box::pin(keep(connection, changes))).await
    }
}

/// Nodes do so in the same order, the one of the keys, so that none waits for another that waits for it.
async fn keep(connection: &mut PgConnection, changes: &ProfileChanges) -> Result<Vec<ProfileKey>, StoreError> {
    let mut refused = Vec::new();
    for row in &changes.profiles {
        // One that another node has forgotten is there again.
        let text = "INSERT INTO profiles (key, version, changed_at, figures, sketches) VALUES ($1, $2, $3, $4, $5) \
                    ON CONFLICT (key) DO UPDATE SET version = excluded.version, changed_at = excluded.changed_at, \
                    figures = excluded.figures, sketches = excluded.sketches WHERE profiles.version = $6";
        let query = sqlx::query(text)
            .bind(row.key.as_str())
            .bind(row.next_version())
            .bind(row.changed_at.as_micros())
            .bind(&row.figures)
            .bind(&row.sketches)
            .bind(row.version);
        if query.execute(&mut *connection).await?.rows_affected() == 0 {
            refused.push(row.key.clone());
        }
    }
    if !changes.gone.is_empty() {
        let gone: Vec<&str> = changes.gone.iter().map(ProfileKey::as_str).collect();
        sqlx::query("DELETE FROM profiles WHERE key = ANY($1)").bind(gone).execute(&mut *connection).await?;
    }
    for DayRow { day, key, executor, bound, totals } in &changes.days {
        let text = "INSERT INTO profile_days AS d (day, key, executor, bound, runs, failed, wall_us, cpu_us, core_wait_us, held_runs, \
                    held_us, longest_us, held_jobs) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) \
                    ON CONFLICT (day, key, executor, bound) DO UPDATE SET runs = d.runs + excluded.runs, \
                    failed = d.failed + excluded.failed, wall_us = d.wall_us + excluded.wall_us, cpu_us = d.cpu_us + excluded.cpu_us, \
                    core_wait_us = d.core_wait_us + excluded.core_wait_us, held_runs = d.held_runs + excluded.held_runs, \
                    held_us = d.held_us + excluded.held_us, longest_us = greatest(d.longest_us, excluded.longest_us), \
                    held_jobs = d.held_jobs + excluded.held_jobs";
        let mut query = sqlx::query(text).bind(day).bind(key.as_str()).bind(code(*executor)).bind(code(*bound));
        let DayTotals { runs, failed, wall_us, cpu_us, core_wait_us, held_runs, held_us, longest_us, held_jobs } = *totals;
        for sum in [runs, failed, wall_us, cpu_us, core_wait_us, held_runs, held_us, longest_us, held_jobs] {
            query = query.bind(i64::try_from(sum).unwrap_or(i64::MAX));
        }
        query.execute(&mut *connection).await?;
    }
    sqlx::query("DELETE FROM profile_days WHERE day < $1").bind(changes.first_day).execute(connection).await?;
    Ok(refused)
}

fn day(row: &PgRow) -> Result<DayRow, StoreError> {
    let mut cells = Cells::new(row);
    Ok(DayRow {
        day: cells.take()?,
        key: ProfileKey::from(cells.take::<String>()?),
        executor: cells.code()?,
        bound: cells.code()?,
        totals: DayTotals {
            runs: cells.number()?,
            failed: cells.number()?,
            wall_us: cells.number()?,
            cpu_us: cells.number()?,
            core_wait_us: cells.number()?,
            held_runs: cells.number()?,
            held_us: cells.number()?,
            longest_us: cells.number()?,
            held_jobs: cells.number()?,
        },
    })
}
