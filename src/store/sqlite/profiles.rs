//! Profiles, as the writer changes them and as they are read.

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::SqliteStore;
use super::codes::Code;
use super::rows::Cells;
use crate::job::ProfileKey;
use crate::store::kept::profile;
use crate::store::{DayRow, DayTotals, ProfileChanges, ProfileRow, ProfileStore, StoreError};

#[async_trait]
impl ProfileStore for SqliteStore {
    async fn profiles(&self) -> Result<Vec<ProfileRow>, StoreError> {
        let text = "SELECT key, 0, changed_at, figures, sketches FROM profiles";
        sqlx::query(text).fetch_all(&self.readers).await?.iter().map(profile::read).collect()
    }

    async fn profile_days(&self, first: i64, last: i64) -> Result<Vec<DayRow>, StoreError> {
        let text = "SELECT day, key, executor, bound, totals FROM profile_days WHERE day BETWEEN ? AND ?";
        let rows = sqlx::query(text).bind(first).bind(last).fetch_all(&self.readers).await?;
        rows.iter()
            .map(|row| {
                let mut cells = Cells::new(row);
                Ok(DayRow {
                    day: cells.take()?,
                    key: ProfileKey::from(cells.take::<String>()?),
                    executor: cells.code()?,
                    bound: cells.code()?,
                    totals: totals_of(cells.take()?)?,
                })
            })
            .collect()
    }

    async fn keep_profiles(&self, changes: ProfileChanges) -> Result<Vec<ProfileKey>, StoreError> {
        self.edit(changes, |changes, connection| Box::pin(keep(connection, changes))).await?;
        Ok(Vec::new())
    }
}

async fn keep(connection: &mut SqliteConnection, changes: &ProfileChanges) -> Result<(), StoreError> {
    for key in &changes.gone {
        sqlx::query("DELETE FROM profiles WHERE key = ?").bind(key.as_str()).execute(&mut *connection).await?;
    }
    for ProfileRow { key, changed_at, figures, sketches, .. } in &changes.profiles {
        sqlx::query("INSERT OR REPLACE INTO profiles (key, changed_at, figures, sketches) VALUES (?, ?, ?, ?)")
            .bind(key.as_str())
            .bind(changed_at.as_micros())
            .bind(figures)
            .bind(sketches)
            .execute(&mut *connection)
            .await?;
    }
    for DayRow { day, key, executor, bound, totals } in &changes.days {
        let text = "SELECT totals FROM profile_days WHERE day = ? AND key = ? AND executor = ? AND bound = ?";
        let query = sqlx::query_scalar(text).bind(day).bind(key.as_str()).bind(executor.code()).bind(bound.code());
        let before: Option<String> = query.fetch_optional(&mut *connection).await?;
        let mut sums = before.as_deref().map_or(Ok(DayTotals::default()), totals_of)?;
        sums.merge(totals);
        // Integers with names can always be written as JSON.
        let totals = serde_json::to_string(&sums).unwrap_or_default();
        sqlx::query("INSERT OR REPLACE INTO profile_days (day, key, executor, bound, totals) VALUES (?, ?, ?, ?, ?)")
            .bind(day)
            .bind(key.as_str())
            .bind(executor.code())
            .bind(bound.code())
            .bind(totals)
            .execute(&mut *connection)
            .await?;
    }
    sqlx::query("DELETE FROM profile_days WHERE day < ?").bind(changes.first_day).execute(connection).await?;
    Ok(())
}

fn totals_of(text: &str) -> Result<DayTotals, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Corrupt(error.to_string()))
}
