//! What is accepted once: requests with a key, and unique jobs.

use std::collections::HashMap;

use async_trait::async_trait;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};
use tokio::sync::oneshot;

use super::SqliteStore;
use super::edit::OneStep;
use super::writer::{Acceptance, Command};
use crate::clock::Timestamp;
use crate::job::NewJob;
use crate::store::kept::once::{self, MOST_FORGOTTEN, REMEMBERED_US};
use crate::store::{Answered, Digest, Once, OnceStore, StoreError, Twin, Unique};

/// The most digests that one statement looks for.
const LOOKED_FOR: usize = 500;

#[async_trait]
impl OnceStore for SqliteStore {
    async fn answered(&self, key: &str) -> Result<Option<Answered>, StoreError> {
        let now = self.clock.now().as_micros();
        let row = sqlx::query(once::ONE).bind(key).bind(now).fetch_optional(&self.readers).await?;
        row.as_ref().map(|row| once::read(key, row)).transpose()
    }

    async fn twins(&self, digests: &[Digest]) -> Result<HashMap<Digest, Twin>, StoreError> {
        let mut twins = HashMap::with_capacity(digests.len());
        for some in digests.chunks(LOOKED_FOR) {
            let mut query = QueryBuilder::<Sqlite>::new(
                "SELECT digest, job, at, EXISTS (SELECT 1 FROM jobs WHERE jobs.id = job) FROM uniques \
                 WHERE (EXISTS (SELECT 1 FROM jobs WHERE jobs.id = job) OR EXISTS (SELECT 1 FROM results WHERE results.id = job)) \
                 AND digest IN (",
            );
            let mut values = query.separated(", ");
            for digest in some {
                values.push_bind(digest.to_vec());
            }
            values.push_unseparated(")");
            for row in query.build().fetch_all(&self.readers).await? {
                let (digest, twin) = once::read_twin(&row)?;
                twins.insert(digest, twin);
            }
        }
        Ok(twins)
    }

    async fn accept_once(&self, jobs: Vec<NewJob>, once: Once) -> Result<Vec<NewJob>, StoreError> {
        if jobs.is_empty() {
            self.edit(once, |once, connection| Box::pin(note(connection, once))).await?;
            return Ok(jobs);
        }
        // Both are answered alike, so one answer is enough.
        let step = OneStep::new(once, |once, connection| Box::pin(note(connection, once)), oneshot::channel().0);
        self.ask(|reply| Command::Accept(Acceptance { jobs, with: Some(Box::new(step)), reply })).await
    }

    async fn forget_once(&self, now: Timestamp) -> Result<bool, StoreError> {
        self.edit(now, |now, connection| Box::pin(forget(connection, *now))).await
    }
}

/// Keeps what was answered, and which jobs are unique: those are there by now.
async fn note(connection: &mut SqliteConnection, once: &Once) -> Result<(), StoreError> {
    if let Some(Answered { key, digest, jobs, until }) = &once.request {
        sqlx::query(once::ADD)
            .bind(key)
            .bind(&digest[..])
            .bind(once::bytes_of(jobs))
            .bind(until.as_micros())
            .execute(&mut *connection)
            .await?;
    }
    for Unique { digest, job, .. } in &once.unique {
        let note = sqlx::query(once::ADD_UNIQUE).bind(&digest[..]).bind(&job.as_bytes()[..]).bind(REMEMBERED_US);
        note.execute(&mut *connection).await?;
    }
    Ok(())
}

async fn forget(connection: &mut SqliteConnection, now: Timestamp) -> Result<bool, StoreError> {
    let answers = sqlx::query(once::FORGET).bind(now.as_micros()).bind(MOST_FORGOTTEN).execute(&mut *connection).await?;
    // A job that has not ended for so long is looked at again later.
    let text = "UPDATE uniques SET look_at = ?1 + ?3 WHERE EXISTS (SELECT 1 FROM jobs WHERE jobs.id = job) \
                AND digest IN (SELECT digest FROM uniques WHERE look_at <= ?1 ORDER BY look_at LIMIT ?2)";
    let update = sqlx::query(text).bind(now.as_micros()).bind(MOST_FORGOTTEN).bind(REMEMBERED_US);
    let kept = update.execute(&mut *connection).await?;
    let text = "DELETE FROM uniques WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.id = job) \
                AND digest IN (SELECT digest FROM uniques WHERE look_at <= ? ORDER BY look_at LIMIT ?)";
    let uniques = sqlx::query(text).bind(now.as_micros()).bind(MOST_FORGOTTEN).execute(connection).await?;
    let most = u64::try_from(MOST_FORGOTTEN).unwrap_or(u64::MAX);
    Ok(answers.rows_affected() == most || kept.rows_affected() + uniques.rows_affected() >= most)
}
