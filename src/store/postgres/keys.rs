//! API keys and the acts of administrators, as they are kept and read.

use async_trait::async_trait;
use sqlx::PgConnection;

use super::PostgresStore;
use crate::auth::{Act, Key, KeyId, NewAct, Quota};
use crate::clock::Timestamp;
use crate::store::kept::{key, number};
use crate::store::{Copied, KeyStore, StoreError};

#[async_trait]
impl KeyStore for PostgresStore {
    async fn add_key(&self, key: Key, in_place_of: Option<(KeyId, Timestamp)>) -> Result<bool, StoreError> {
        self.change(Copied::Keys, (key, in_place_of), |(key, replaced), connection| {
            Box::pin(add(connection, key, replaced.as_ref()))
        })
        .await
    }

    async fn revoke_key(&self, id: KeyId) -> Result<bool, StoreError> {
        self.change(Copied::Keys, (self.published.now(), id), |(now, id), connection| Box::pin(revoke(connection, *now, id)))
            .await
    }

    async fn set_quota(&self, id: KeyId, quota: Quota) -> Result<bool, StoreError> {
        self.change(Copied::Keys, (id, quota), |(id, quota), connection| Box::pin(set_quota(connection, id, *quota))).await
    }

    async fn key_used(&self, id: KeyId, at: Timestamp) -> Result<(), StoreError> {
        self.edit((id, at), |(id, at), connection| Box::pin(used(connection, id, *at))).await
    }

    async fn keys(&self) -> Result<Vec<Key>, StoreError> {
        sqlx::query(key::ALL).fetch_all(&self.pool).await?.iter().map(key::read).collect()
    }

    async fn begin_act(&self, act: NewAct) -> Result<i64, StoreError> {
        self.edit((self.published.now(), act), |(now, act), connection| Box::pin(begin(connection, *now, act))).await
    }

    async fn end_act(&self, id: i64, status: u16) -> Result<(), StoreError> {
        self.edit((id, status), |(id, status), connection| Box::pin(end(connection, *id, *status))).await
    }

    async fn acts(&self, before: Option<i64>, limit: usize) -> Result<Vec<Act>, StoreError> {
        let query = sqlx::query(key::ACTS).bind(before.unwrap_or(i64::MAX)).bind(number(limit));
        query.fetch_all(&self.pool).await?.iter().map(key::read_act).collect()
    }
}

pub(super) async fn add(
    connection: &mut PgConnection,
    key: &Key,
    in_place_of: Option<&(KeyId, Timestamp)>,
) -> Result<bool, StoreError> {
    if let Some((replaced, until)) = in_place_of {
        let text = "UPDATE keys SET expires_at = least(coalesce(expires_at, $1), $1) WHERE id = $2 AND revoked_at IS NULL";
        let changed = sqlx::query(text).bind(until.as_micros()).bind(replaced.as_str()).execute(&mut *connection).await?;
        if changed.rows_affected() == 0 {
            return Ok(false);
        }
    }
    let query = sqlx::query(key::ADD)
        .bind(key.id.as_str())
        .bind(&key.name)
        .bind(i64::from(key.scopes.code()))
        .bind(key.owner.code())
        .bind(key::text_of(key.quota))
        .bind(&key.hash.as_bytes()[..])
        .bind(key.created_at.as_micros())
        .bind(key.expires_at.map(Timestamp::as_micros));
    query.execute(connection).await?;
    Ok(true)
}

async fn revoke(connection: &mut PgConnection, now: Timestamp, id: &KeyId) -> Result<bool, StoreError> {
    let changed = sqlx::query(key::REVOKE).bind(now.as_micros()).bind(id.as_str()).execute(connection).await?;
    Ok(changed.rows_affected() > 0)
}

async fn set_quota(connection: &mut PgConnection, id: &KeyId, quota: Quota) -> Result<bool, StoreError> {
    let changed = sqlx::query(key::SET_QUOTA).bind(key::text_of(quota)).bind(id.as_str()).execute(connection).await?;
    Ok(changed.rows_affected() > 0)
}

async fn used(connection: &mut PgConnection, id: &KeyId, at: Timestamp) -> Result<(), StoreError> {
    sqlx::query(key::USED).bind(at.as_micros()).bind(id.as_str()).execute(connection).await?;
    Ok(())
}

async fn begin(connection: &mut PgConnection, now: Timestamp, act: &NewAct) -> Result<i64, StoreError> {
    let query = sqlx::query_scalar(key::BEGIN_ACT)
        .bind(now.as_micros())
        .bind(act.key.as_ref().map(KeyId::as_str))
        .bind(&act.operation)
        .bind(&act.target);
    Ok(query.fetch_one(connection).await?)
}

async fn end(connection: &mut PgConnection, id: i64, status: u16) -> Result<(), StoreError> {
    sqlx::query(key::END_ACT).bind(i64::from(status)).bind(id).execute(connection).await?;
    Ok(())
}
