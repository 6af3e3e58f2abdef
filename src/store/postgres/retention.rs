//! Removing results, a few at a time: everything else waits meanwhile. Where they are in partitions by day, those of a day together.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::PgConnection;
use uuid::Uuid;

use super::PostgresStore;
use super::connect::{in_time, within};
use super::edges;
use super::partitions::{self, Dropped, Partition};
use super::rows::{Cells, uuid, uuids};
use super::webhooks;
use super::writer::Command;
use crate::clock::Timestamp;
use crate::job::JobId;
use crate::store::kept::{first_id, number};
use crate::store::{Removal, Removed, RetentionStore, Sketches, Store as _, StoreError};

/// How long steps may take that read a whole day: longer than the database lets them (`partitions/drop.rs`).
const LONGEST: Duration = Duration::from_mins(25);
/// The most bytes of workloads and outputs of one step.
const MOST_BYTES: i64 = 4 << 20;
/// The most events of one step.
const MOST_EVENTS: u64 = 500;

/// Why results are removed.
#[derive(Clone, Copy)]
pub(super) enum Why {
    /// Somebody asked for it.
    Asked,
    /// They are not to be kept any more, if nothing needs them; and, if it is said, if so many have been removed in all and no more.
    Old(Option<i64>),
}

/// Of a result `r`, that nobody is to be told of it any more, and that no unfinished job may ask for its output.
macro_rules! not_needed {
    () => {
        "NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.job = r.id AND d.state = 0) \
         AND NOT EXISTS (SELECT 1 FROM edges e JOIN work w ON w.id = e.child WHERE e.parent = r.id)"
    };
}

#[async_trait]
impl RetentionStore for PostgresStore {
    async fn kept(&self) -> Result<u64, StoreError> {
        let removed: i64 = sqlx::query_scalar("SELECT removed FROM retention").fetch_one(&self.pool).await?;
        let ended: u64 = self.summary().await?.values().map(Sketches::count).sum();
        Ok(ended.saturating_sub(u64::try_from(removed).unwrap_or(0)))
    }

    async fn remove_results(&self, ended_before: Option<Timestamp>, most: usize) -> Result<Removed, StoreError> {
        self.remove_old(ended_before, most, None).await
    }

    async fn remove_beyond(&self, count: u64, most: usize) -> Result<Removed, StoreError> {
        // Before it is counted what is kept.
        let removed = sqlx::query_scalar("SELECT removed FROM retention").fetch_one(&self.pool).await?;
        let excess = usize::try_from(self.kept().await?.saturating_sub(count)).unwrap_or(usize::MAX);
        if excess == 0 { Ok(Removed::default()) } else { self.remove_old(None, most.min(excess), Some(removed)).await }
    }

    async fn gone(&self, jobs: &[JobId]) -> Result<Vec<JobId>, StoreError> {
        in_time(async { edges::unknown(&mut *self.pool.acquire().await?, jobs).await }).await
    }

    async fn look_ahead(&self) -> Result<(), StoreError> {
        in_time(async {
            let mut connection = self.pool.acquire().await?;
            partitions::look_ahead(&mut connection, &self.ends, self.published.now()).await?;
            Ok::<_, StoreError>(connection.keep().await?)
        })
        .await?;
        let note_owners = async || {
            let mut connection = self.pool.acquire().await?;
            let any = webhooks::note_owners(&mut connection).await?;
            connection.keep().await?;
            Ok::<_, StoreError>(any)
        };
        while in_time(note_owners()).await? {}
        Ok(())
    }

    async fn remove_result(&self, id: JobId) -> Result<Removal, StoreError> {
        loop {
            let text = "SELECT EXISTS (SELECT 1 FROM results WHERE id = $1), EXISTS (SELECT 1 FROM work WHERE id = $1)";
            match sqlx::query_as(text).bind(uuid(id)).fetch_one(&self.pool).await? {
                // Its events may be too many for one step.
                (true, _) if self.ask(|reply| Command::Remove(vec![id], Why::Asked, reply)).await? == 0 => {}
                (true, _) => return Ok(Removal::Removed),
                (false, true) => return Ok(Removal::Unfinished),
                (false, false) => return Ok(Removal::Unknown),
            }
        }
    }
}

impl PostgresStore {
    /// [`RetentionStore::remove_results`]; nothing, if more has been removed in all than that since it was counted.
    async fn remove_old(
        &self,
        ended_before: Option<Timestamp>,
        most: usize,
        removed: Option<i64>,
    ) -> Result<Removed, StoreError> {
        let mut connection = self.pool.acquire().await?;
        let partitions = if self.pool.keeps_sessions() {
            in_time(partitions::list(&mut connection)).await?.unwrap_or_default()
        } else {
            // To drop one takes several transactions. Others may have divided the tables; then it goes row by row here.
            Vec::new()
        };
        if within(LONGEST, partitions::tidy(&mut connection, &partitions)).await? {
            return Ok(Removed { results: 0, any: true });
        }
        let (mut before, moment) = match ended_before {
            // What ended before a moment was accepted before it, so few others are looked at.
            Some(moment) => (uuid(first_id(moment)), moment.as_micros()),
            None => (Uuid::max(), i64::MAX),
        };
        let of_days = if ended_before.is_some() { partitions.as_slice() } else { &[] };
        for partition in of_days {
            if !partition.is_over(Timestamp::from_micros(moment)) {
                match partition.first_of_day() {
                    // It goes as a whole when it is over, if it can.
                    Some(first) => before = before.min(first),
                    None => continue,
                }
                break;
            }
            match within(LONGEST, partitions::drop_day(&mut connection, *partition, moment)).await? {
                Dropped::Gone(results) => return Ok(Removed { results, any: true }),
                Dropped::Part => return Ok(Removed { results: 0, any: true }),
                Dropped::Later => {
                    before = before.min(partition.first_of_day().unwrap_or_default());
                    break;
                }
                Dropped::Stays => {}
            }
        }
        let ids = in_time(removable(&mut connection, before, moment, most)).await?;
        let Some(first) = ids.first() else { return Ok(Removed::default()) };
        if ended_before.is_none() {
            // Nothing that may be removed is left of the days before.
            let now = self.published.now();
            let is_past = |partition: &&Partition| partition.is_over(now) && partition.ends_before(uuid(*first));
            within(LONGEST, partitions::drop_empty(&mut connection, partitions.iter().filter(is_past).copied())).await?;
        }
        drop(connection);
        let results = self.ask(|reply| Command::Remove(ids, Why::Old(removed), reply)).await?;
        Ok(Removed { results, any: true })
    }
}

/// The oldest results that may be removed, by their ids, of those with an id before one that ended before a moment: as many as one step can
/// take.
async fn removable(connection: &mut PgConnection, before: Uuid, moment: i64, most: usize) -> Result<Vec<JobId>, StoreError> {
    let text = concat!(
        "SELECT r.id, octet_length(j.workload)::BIGINT + coalesce(octet_length(r.output), 0) FROM results r \
         JOIN jobs j ON j.id = r.id WHERE r.id < $1 AND j.id < $1 AND r.finished_at < $2 AND ",
        not_needed!(),
        " ORDER BY r.id LIMIT $3"
    );
    let query = sqlx::query(text).bind(before).bind(moment).bind(number(most));
    let (mut ids, mut bytes) = (Vec::new(), 0);
    for row in query.fetch_all(connection).await? {
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

/// Removes these results, unless they have too many events: then some of those. How many results are gone.
pub(super) async fn remove(connection: &mut PgConnection, ids: &[JobId], why: Why) -> Result<u64, StoreError> {
    // A job that was run again in the meantime is no result any more, and keeps what belongs to it.
    // So does one of which not all children have heard.
    let asked = "SELECT r.id FROM results r WHERE r.id = ANY($1) AND NOT EXISTS (SELECT 1 FROM releases WHERE parent = r.id)";
    // Some may be needed, since they were looked for; and others may have been removed instead.
    let old = concat!(
        "SELECT r.id FROM results r WHERE r.id = ANY($1) AND NOT EXISTS (SELECT 1 FROM releases WHERE parent = r.id) AND ",
        not_needed!(),
        " AND coalesce((SELECT removed FROM retention) = $2, true)"
    );
    let query = match why {
        Why::Asked => sqlx::query(asked).bind(uuids(ids)),
        Why::Old(removed) => sqlx::query(old).bind(uuids(ids)).bind(removed),
    };
    let rows = query.fetch_all(&mut *connection).await?;
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
        // What is still to be told is told; what is left of it goes then.
        "DELETE FROM deliveries WHERE job = ANY($1) AND state <> 0",
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
