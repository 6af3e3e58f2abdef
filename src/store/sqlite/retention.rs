//! Removing results, a few at a time: everything else waits meanwhile.

use std::sync::LazyLock;

use async_trait::async_trait;
use sqlx::{Row as _, SqliteConnection};

use super::SqliteStore;
use super::edges;
use super::moves::array;
use super::rows::{Cells, OUTCOME_BYTES, WORKLOAD_BYTES};
use crate::clock::Timestamp;
use crate::job::JobId;
use crate::store::kept::{first_id, number};
use crate::store::{Removal, Removed, RetentionStore, StoreError};

/// The most bytes of workloads and outputs of one step: what lies behind a row is freed page by page.
const MOST_BYTES: i64 = 4 << 20;
/// The most events of one step.
const MOST_EVENTS: u64 = 500;

#[async_trait]
impl RetentionStore for SqliteStore {
    async fn kept(&self) -> Result<u64, StoreError> {
        let removed: i64 = sqlx::query_scalar("SELECT removed FROM retention").fetch_one(&self.readers).await?;
        let ended: u64 = self.published.rollups().values().map(crate::store::Sketches::count).sum();
        Ok(ended.saturating_sub(u64::try_from(removed).unwrap_or(0)))
    }

    async fn remove_results(&self, ended_before: Option<Timestamp>, most: usize) -> Result<Removed, StoreError> {
        let ids = self.removable(ended_before, most).await?;
        if ids.is_empty() {
            return Ok(Removed::default());
        }
        let results = self.edit(ids, |ids, connection| Box::pin(remove_old(connection, ids))).await?;
        Ok(Removed { results, any: true })
    }

    async fn remove_beyond(&self, count: u64, most: usize) -> Result<Removed, StoreError> {
        let excess = usize::try_from(self.kept().await?.saturating_sub(count)).unwrap_or(usize::MAX);
        if excess == 0 { Ok(Removed::default()) } else { self.remove_results(None, most.min(excess)).await }
    }

    async fn gone(&self, jobs: &[JobId]) -> Result<Vec<JobId>, StoreError> {
        edges::unknown(&mut *self.readers.acquire().await?, jobs).await
    }

    async fn remove_result(&self, id: JobId) -> Result<Removal, StoreError> {
        loop {
            match self.job_is_finished(id).await? {
                None => return Ok(Removal::Unknown),
                Some(false) => return Ok(Removal::Unfinished),
                // Its events may be too many for one step.
                Some(true) if self.edit(vec![id], |ids, connection| Box::pin(remove(connection, ids))).await? == 0 => {}
                Some(true) => return Ok(Removal::Removed),
            }
        }
    }
}

impl SqliteStore {
    /// The oldest results that may be removed, by their ids: as many as one step can take.
    async fn removable(&self, ended_before: Option<Timestamp>, most: usize) -> Result<Vec<JobId>, StoreError> {
        // What ended before a moment was accepted before it, so few others are looked at.
        static TEXT: LazyLock<String> = LazyLock::new(|| {
            format!(
                "SELECT id, {WORKLOAD_BYTES} + {OUTCOME_BYTES} FROM results \
                 WHERE id < ?1 AND finished_at < ?2 AND {NOT_NEEDED} ORDER BY id LIMIT ?3"
            )
        });
        let (last, moment) = match ended_before {
            Some(moment) => (first_id(moment).as_bytes().to_vec(), moment.as_micros()),
            None => (vec![0xff; 16], i64::MAX),
        };
        let query = sqlx::query(TEXT.as_str()).bind(last).bind(moment).bind(number(most));
        let (mut ids, mut bytes) = (Vec::new(), 0);
        for row in query.fetch_all(&self.readers).await? {
            bytes += row.try_get::<i64, _>(1)?;
            if bytes > MOST_BYTES && !ids.is_empty() {
                break;
            }
            ids.push(Cells::new(&row).id()?);
        }
        Ok(ids)
    }

    /// Whether a job has ended; `None` if there is none.
    async fn job_is_finished(&self, id: JobId) -> Result<Option<bool>, StoreError> {
        let text = "SELECT EXISTS (SELECT 1 FROM results WHERE id = ?1), EXISTS (SELECT 1 FROM jobs WHERE id = ?1)";
        let row = sqlx::query(text).bind(&id.as_bytes()[..]).fetch_one(&self.readers).await?;
        let (finished, unfinished): (bool, bool) = (row.try_get(0)?, row.try_get(1)?);
        Ok((finished || unfinished).then_some(finished))
    }
}

/// Of a result, that nobody is to be told of it any more, and that no unfinished job may ask for its output. The deliveries of a job are few;
/// those that wait need not be.
const NOT_NEEDED: &str = "NOT EXISTS (SELECT 1 FROM deliveries WHERE job = results.id AND +state = 0) \
     AND NOT EXISTS (SELECT 1 FROM edges CROSS JOIN jobs ON jobs.id = edges.child WHERE edges.parent = results.id)";

/// Removes those of these results that are not needed: some may be, since they were looked for.
async fn remove_old(connection: &mut SqliteConnection, ids: &[JobId]) -> Result<u64, StoreError> {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        format!("SELECT results.id FROM json_each(?) CROSS JOIN results ON results.id = unhex(value) WHERE {NOT_NEEDED}")
    });
    let rows = sqlx::query(TEXT.as_str()).bind(array(ids)).fetch_all(&mut *connection).await?;
    let ids = rows.iter().map(|row| Cells::new(row).id()).collect::<Result<Vec<_>, _>>()?;
    remove(connection, &ids).await
}

/// Removes these results, unless they have too many events: then some of those. How many results are gone.
async fn remove(connection: &mut SqliteConnection, ids: &[JobId]) -> Result<u64, StoreError> {
    // A job that was run again in the meantime is no result any more, and keeps what belongs to it.
    // So does one of which not all children have heard.
    let text = "SELECT json_group_array(lower(hex(id))) FROM results WHERE id IN (SELECT unhex(value) FROM json_each(?)) \
                AND id NOT IN (SELECT parent FROM releases)";
    let ids: String = sqlx::query_scalar(text).bind(array(ids)).fetch_one(&mut *connection).await?;
    let text = "DELETE FROM events WHERE at IN \
                (SELECT at FROM events WHERE job IN (SELECT unhex(value) FROM json_each(?)) LIMIT ?)";
    let query = sqlx::query(text).bind(&ids).bind(i64::try_from(MOST_EVENTS).unwrap_or(i64::MAX));
    if query.execute(&mut *connection).await?.rows_affected() == MOST_EVENTS {
        return Ok(0);
    }
    let steps = [
        "DELETE FROM tags WHERE (key, value, id) IN (SELECT tag.key, tag.value, results.id FROM results, \
         json_each(results.options, '$.tags') AS tag WHERE results.id IN (SELECT unhex(value) FROM json_each(?)))",
        "DELETE FROM edges WHERE child IN (SELECT unhex(value) FROM json_each(?))",
        // What is still to be told is told; what is left of it goes then.
        "DELETE FROM deliveries WHERE job IN (SELECT unhex(value) FROM json_each(?)) AND +state <> 0",
        "DELETE FROM payloads WHERE n IN (SELECT payload FROM results WHERE id IN (SELECT unhex(value) FROM json_each(?1)) \
         UNION ALL SELECT outcome_payload FROM results WHERE id IN (SELECT unhex(value) FROM json_each(?1)))",
        "DELETE FROM results WHERE id IN (SELECT unhex(value) FROM json_each(?))",
    ];
    let mut removed = 0;
    for step in steps {
        removed = sqlx::query(step).bind(&ids).execute(&mut *connection).await?.rows_affected();
    }
    let text = "UPDATE retention SET removed = removed + ?";
    sqlx::query(text).bind(i64::try_from(removed).unwrap_or(0)).execute(connection).await?;
    Ok(removed)
}
