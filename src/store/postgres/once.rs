//! What is accepted once: requests with a key, and unique jobs.

use std::collections::HashMap;

use async_trait::async_trait;
use sqlx::PgConnection;

use super::PostgresStore;
use super::rows::uuid;
use super::writer::{Acceptance, Command, With};
use crate::clock::Timestamp;
use crate::job::NewJob;
use crate::store::kept::once::{self, MOST_FORGOTTEN, REMEMBERED_US};
use crate::store::{Answered, Digest, Once, OnceStore, StoreError, Twin, Unique};

#[async_trait]
impl OnceStore for PostgresStore {
    async fn answered(&self, key: &str) -> Result<Option<Answered>, StoreError> {
        let now = self.published.now().as_micros();
        let row = sqlx::query(once::ONE).bind(key).bind(now).fetch_optional(&self.pool).await?;
        if row.is_some() {
            self.published.synced.all(&self.pool).await?;
        }
        row.as_ref().map(|row| once::read(key, row)).transpose()
    }

    async fn twins(&self, digests: &[Digest]) -> Result<HashMap<Digest, Twin>, StoreError> {
        let text = "SELECT u.digest, u.job, u.at, EXISTS (SELECT 1 FROM work WHERE work.id = u.job) FROM uniques u \
                    JOIN jobs ON jobs.id = u.job WHERE u.digest = ANY($1)";
        let mut twins = HashMap::with_capacity(digests.len());
        let digests: Vec<&[u8]> = digests.iter().map(|digest| &digest[..]).collect();
        for row in sqlx::query(text).bind(digests).fetch_all(&self.pool).await? {
            let (digest, twin) = once::read_twin(&row)?;
            twins.insert(digest, twin);
        }
        if !twins.is_empty() {
            self.published.synced.all(&self.pool).await?;
        }
        Ok(twins)
    }

    async fn accept_once(&self, jobs: Vec<NewJob>, once: Once) -> Result<Vec<NewJob>, StoreError> {
        let with = With::Once(once);
        if jobs.is_empty() {
            self.ask(|reply| Command::With(with, reply)).await?;
            return Ok(jobs);
        }
        self.ask(|reply| Command::Accept(Acceptance { jobs, with: Some(with), reply })).await
    }

    async fn forget_once(&self, now: Timestamp) -> Result<bool, StoreError> {
        self.edit(now, |now, connection| Box::pin(forget(connection, *now))).await
    }
}

/// Whether a node has meanwhile accepted the same: a request with this key, or a job like one of these that counts, and that was not seen.
pub(super) async fn is_taken(connection: &mut PgConnection, once: &Once, now: Timestamp) -> Result<bool, StoreError> {
    let text = "SELECT EXISTS (SELECT 1 FROM answers WHERE key = $1 AND until > $2) OR \
                EXISTS (SELECT 1 FROM unnest($3::BYTEA[], $4::UUID[], $5::BIGINT[]) AS new (digest, beside, since) \
                JOIN uniques u ON u.digest = new.digest WHERE \
                u.job IS DISTINCT FROM new.beside AND EXISTS (SELECT 1 FROM work WHERE work.id = u.job) OR \
                u.at > new.since AND EXISTS (SELECT 1 FROM jobs WHERE jobs.id = u.job))";
    let digests: Vec<&[u8]> = once.unique.iter().map(|unique| &unique.digest[..]).collect();
    let beside: Vec<Option<_>> = once.unique.iter().map(|unique| unique.beside.map(uuid)).collect();
    let key = once.request.as_ref().map(|request| request.key.as_str());
    // One that was seen and is too old was too old when it was seen.
    let since: Vec<Option<_>> = once.unique.iter().map(|unique| Some(now.before(unique.within?).as_micros())).collect();
    let query = sqlx::query_scalar(text).bind(key).bind(now.as_micros()).bind(digests).bind(beside).bind(since);
    Ok(query.fetch_one(connection).await?)
}

/// Keeps what was answered, and which jobs are unique: those are there by now.
pub(super) async fn note(connection: &mut PgConnection, once: &Once) -> Result<(), StoreError> {
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
        let note = sqlx::query(once::ADD_UNIQUE).bind(&digest[..]).bind(uuid(*job)).bind(REMEMBERED_US);
        note.execute(&mut *connection).await?;
    }
    Ok(())
}

async fn forget(connection: &mut PgConnection, now: Timestamp) -> Result<bool, StoreError> {
    // What was written anew since a statement looked is looked at again by its first condition, which is of the row itself.
    let answers = sqlx::query(once::FORGET).bind(now.as_micros()).bind(MOST_FORGOTTEN).execute(&mut *connection).await?;
    // A job that has not ended for so long is looked at again later.
    let text = "UPDATE uniques SET look_at = $1 + $3 WHERE look_at <= $1 AND EXISTS (SELECT 1 FROM work WHERE work.id = job) \
                AND digest IN (SELECT digest FROM uniques WHERE look_at <= $1 ORDER BY look_at LIMIT $2)";
    let update = sqlx::query(text).bind(now.as_micros()).bind(MOST_FORGOTTEN).bind(REMEMBERED_US);
    let kept = update.execute(&mut *connection).await?;
    let text = "DELETE FROM uniques WHERE look_at <= $1 AND NOT EXISTS (SELECT 1 FROM work WHERE work.id = job) \
                AND digest IN (SELECT digest FROM uniques WHERE look_at <= $1 ORDER BY look_at LIMIT $2)";
    let uniques = sqlx::query(text).bind(now.as_micros()).bind(MOST_FORGOTTEN).execute(connection).await?;
    let most = u64::try_from(MOST_FORGOTTEN).unwrap_or(u64::MAX);
    Ok(answers.rows_affected() == most || kept.rows_affected() + uniques.rows_affected() >= most)
}
