//! Profiles, as the writer changes them and as they are read.

use async_trait::async_trait;
use sqlx::PgConnection;

use super::PostgresStore;
use super::rows::{Cells, code};
use crate::job::ProfileKey;
use crate::store::{DayRow, ProfileChanges, ProfileRow, ProfileStore, StoreError};

#[async_trait]
impl ProfileStore for PostgresStore {
    async fn profiles(&self) -> Result<Vec<ProfileRow>, StoreError> {
        let rows = sqlx::query("SELECT key, changed_at, figures, sketches FROM profiles").fetch_all(&self.pool).await?;
        rows.iter()
            .map(|row| {
                let mut cells = Cells::new(row);
                Ok(ProfileRow {
                    key: ProfileKey::from(cells.take::<String>()?),
                    changed_at: cells.time()?,
                    figures: cells.take()?,
                    sketches: cells.take()?,
                })
            })
            .collect()
    }

    async fn profile_days(&self, first: i64, last: i64) -> Result<Vec<DayRow>, StoreError> {
        let text = "SELECT day, key, executor, bound, totals FROM profile_days WHERE day BETWEEN $1 AND $2";
        let rows = sqlx::query(text).bind(first).bind(last).fetch_all(&self.pool).await?;
        rows.iter()
            .map(|row| {
                let mut cells = Cells::new(row);
                Ok(DayRow {
                    day: cells.take()?,
                    key: ProfileKey::from(cells.take::<String>()?),
                    executor: cells.code()?,
                    bound: cells.code()?,
                    totals: serde_json::from_str(cells.take()?).map_err(|error| StoreError::Corrupt(error.to_string()))?,
                })
            })
            .collect()
    }

    async fn keep_profiles(&self, changes: ProfileChanges) -> Result<(), StoreError> {
        self.edit(changes, |changes, connection| Box::pin(keep(connection, changes))).await
    }
}

async fn keep(connection: &mut PgConnection, changes: &ProfileChanges) -> Result<(), StoreError> {
    for key in &changes.gone {
        sqlx::query("DELETE FROM profiles WHERE key = $1").bind(key.as_str()).execute(&mut *connection).await?;
    }
    for ProfileRow { key, changed_at, figures, sketches } in &changes.profiles {
        sqlx::query(
            "INSERT INTO profiles (key, changed_at, figures, sketches) VALUES ($1, $2, $3, $4) ON CONFLICT (key) DO UPDATE \
                     SET changed_at = excluded.changed_at, figures = excluded.figures, sketches = excluded.sketches",
        )
        .bind(key.as_str())
        .bind(changed_at.as_micros())
        .bind(figures)
        .bind(sketches)
        .execute(&mut *connection)
        .await?;
    }
    for DayRow { day, key, executor, bound, totals } in &changes.days {
        // Integers with names can always be written as JSON.
        let totals = serde_json::to_string(totals).unwrap_or_default();
        sqlx::query(
            "INSERT INTO profile_days (day, key, executor, bound, totals) VALUES ($1, $2, $3, $4, $5) \
                     ON CONFLICT (day, key, executor, bound) DO UPDATE SET totals = excluded.totals",
        )
        .bind(day)
        .bind(key.as_str())
        .bind(code(*executor))
        .bind(code(*bound))
        .bind(totals)
        .execute(&mut *connection)
        .await?;
    }
    sqlx::query("DELETE FROM profile_days WHERE day < $1").bind(changes.first_day).execute(connection).await?;
    Ok(())
}
