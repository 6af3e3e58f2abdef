//! Removing results, a few at a time: everything else waits meanwhile.

use async_trait::async_trait;
use sqlx::PgConnection;

use super::PostgresStore;
use super::connect::in_time;
use super::edges;
use super::read::first_id;
use super::rows::{Cells, uuid, uuids};
use super::writer::Command;
use crate::clock::Timestamp;
use crate::job::JobId;
use crate::store::kept::number;
use crate::store::{Removal, Removed, RetentionStore, Sketches, Store as _, StoreError};

/// The most bytes of workloads and outputs of one step.
const MOST_BYTES: i64 = 4 << 20;
/// The most events of one step.
const MOST_EVENTS: u64 = 500;

#[async_trait]
impl RetentionStore for PostgresStore {
    async fn kept(&self) -> Result<u64, StoreError> {
        let removed: i64 = sqlx::query_scalar("SELECT removed FROM retention").fetch_one(&self.pool).await?;
        let ended: u64 = self.summary().await?.values().map(Sketches::count).sum();
        Ok(ended.saturating_sub(u64::try_from(removed).unwrap_or(0)))
    }

    async fn remove_results(&self, ended_before: Option<Timestamp>, most: usize) -> Result<Removed, StoreError> {
        let ids = self.removable(ended_before, most).await?;
        if ids.is_empty() {
            return Ok(Removed::default());
        }
        let results = self.ask(|reply| Command::Remove(ids, reply)).await?;
        Ok(Removed { results, any: true })
    }

    async fn gone(&self, jobs: &[JobId]) -> Result<Vec<JobId>, StoreError> {
        in_time(async { edges::unknown(&mut *self.pool.begin().await?, jobs).await }).await
    }

    async fn remove_result(&self, id: JobId) -> Result<Removal, StoreError> {
        loop {
            let text = "SELECT EXISTS (SELECT 1 FROM results WHERE id = $1), EXISTS (SELECT 1 FROM work WHERE id = $1)";
            match sqlx::query_as(text).bind(uuid(id)).fetch_one(&self.pool).await? {
                // Its events may be too many for one step.
                (true, _) if self.ask(|reply| Command::Remove(vec![id], reply)).await? == 0 => {}
                (true, _) => return Ok(Removal::Removed),
                (false, true) => return Ok(Removal::Unfinished),
                (false, false) => return Ok(Removal::Unknown),
            }
        }
    }
}

impl PostgresStore {
    /// The oldest results that may be removed, by their ids: as many as one step can take.
    async fn removable(&self, ended_before: Option<Timestamp>, most: usize) -> Result<Vec<JobId>, StoreError> {
        // Whose output an unfinished job may ask for is kept. What ended before a moment was accepted before it, so few others are looked at.
        let text = "SELECT r.id, octet_length(j.workload)::BIGINT + coalesce(octet_length(r.output), 0) FROM results r \
                    JOIN jobs j ON j.id = r.id WHERE r.id < $1 AND r.finished_at < $2 \
                    AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.job = r.id AND d.state = 0) \
                    AND NOT EXISTS (SELECT 1 FROM edges e JOIN work w ON w.id = e.child WHERE e.parent = r.id) \
                    ORDER BY r.id LIMIT $3";
        let (last, moment) = match ended_before {
            Some(moment) => (first_id(moment.as_micros()), moment.as_micros()),
            None => (JobId::from_bytes([0xff; 16]), i64::MAX),
        };
        let query = sqlx::query(text).bind(uuid(last)).bind(moment).bind(number(most));
        let (mut ids, mut bytes) = (Vec::new(), 0);
        for row in query.fetch_all(&self.pool).await? {
            let mut cells = Cells::new(&row);
            let id = cells.id()?;
            bytes += cells.take::<i64>()?;
            if bytes > MOST_BYTES && !ids.is_empty() {
                break;
            }
            ids.push(id);
        }
        Ok(ids)
    }
}

/// Removes these results, unless they have too many events: then some of those. How many results are gone.
pub(super) async fn remove(connection: &mut PgConnection, ids: &[JobId]) -> Result<u64, StoreError> {
    // A job that was run again in the meantime is no result any more, and keeps what belongs to it.
    // So does one of which not all children have heard.
    let text = "SELECT id FROM results WHERE id = ANY($1) AND NOT EXISTS (SELECT 1 FROM releases WHERE parent = id)";
    let rows = sqlx::query(text).bind(uuids(ids)).fetch_all(&mut *connection).await?;
    let ids = rows.iter().map(|row| Cells::new(row).id()).collect::<Result<Vec<_>, _>>()?;
    let ids = uuids(&ids);
    let text = "DELETE FROM events WHERE at IN (SELECT at FROM events WHERE job = ANY($1) LIMIT $2)";
    let query = sqlx::query(text).bind(&ids).bind(i64::try_from(MOST_EVENTS).unwrap_or(i64::MAX));
    if query.execute(&mut *connection).await?.rows_affected() == MOST_EVENTS {
        return Ok(0);
    }
    let steps = [
        "DELETE FROM tags WHERE id = ANY($1)",
        "DELETE FROM edges WHERE child = ANY($1)",
        "DELETE FROM deliveries WHERE job = ANY($1)",
        "DELETE FROM results WHERE id = ANY($1)",
        "DELETE FROM jobs WHERE id = ANY($1)",
    ];
    let mut removed = 0;
    for step in steps {
        removed = sqlx::query(step).bind(&ids).execute(&mut *connection).await?.rows_affected();
    }
    let text = "UPDATE retention SET removed = removed + $1";
    sqlx::query(text).bind(i64::try_from(removed).unwrap_or(0)).execute(connection).await?;
    Ok(removed)
}
