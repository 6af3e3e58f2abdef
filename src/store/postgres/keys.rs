//! API keys and the acts of administrators, as the writer changes them and as they are read.

use async_trait::async_trait;
use sqlx::PgConnection;
use sqlx::postgres::PgRow;

use super::PostgresStore;
use super::rows::{Cells, json};
use crate::auth::{Act, Key, KeyId, NewAct, Quota, Scopes, SecretHash};
use crate::clock::Timestamp;
use crate::job::Owner;
use crate::store::{Copied, KeyStore, StoreError};

/// In the order in which [`key`] reads them.
const KEYS: &str = "SELECT id, name, scopes, owner, quota, hash, created_at, expires_at, revoked_at, last_used_at FROM keys \
    ORDER BY created_at, id";
/// In the order in which [`act`] reads them.
const ACTS: &str = "SELECT id, at, key, operation, target, status FROM acts WHERE id < $1 ORDER BY id DESC LIMIT $2";

#[async_trait]
impl KeyStore for PostgresStore {
    async fn add_key(&self, key: Key, in_place_of: Option<(KeyId, Timestamp)>) -> Result<bool, StoreError> {
        self.change(Copied::Keys, (key, in_place_of), |(key, replaced), connection| {
            Box::pin(add(connection, key, replaced.as_ref()))
        })
        .await
    }

    async fn revoke_key(&self, id: KeyId) -> Result<bool, StoreError> {
        self.change(Copied::Keys, id, |id, connection| Box::pin(revoke(connection, id))).await
    }

    async fn set_quota(&self, id: KeyId, quota: Quota) -> Result<bool, StoreError> {
        self.change(Copied::Keys, (id, quota), |(id, quota), connection| Box::pin(set_quota(connection, id, *quota))).await
    }

    async fn key_used(&self, id: KeyId, at: Timestamp) -> Result<(), StoreError> {
        self.edit((id, at), |(id, at), connection| Box::pin(used(connection, id, *at))).await
    }

    async fn keys(&self) -> Result<Vec<Key>, StoreError> {
        sqlx::query(KEYS).fetch_all(&self.pool).await?.iter().map(key).collect()
    }

    async fn begin_act(&self, act: NewAct) -> Result<i64, StoreError> {
        self.edit(act, |act, connection| Box::pin(begin(connection, act))).await
    }

    async fn end_act(&self, id: i64, status: u16) -> Result<(), StoreError> {
        self.edit((id, status), |(id, status), connection| Box::pin(end(connection, *id, *status))).await
    }

    async fn acts(&self, before: Option<i64>, limit: usize) -> Result<Vec<Act>, StoreError> {
        let query = sqlx::query(ACTS).bind(before.unwrap_or(i64::MAX)).bind(i64::try_from(limit).unwrap_or(i64::MAX));
        query.fetch_all(&self.pool).await?.iter().map(act).collect()
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
    let text =
        "INSERT INTO keys (id, name, scopes, owner, quota, hash, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    let query = sqlx::query(text)
        .bind(key.id.as_str())
        .bind(&key.name)
        .bind(i64::from(key.scopes.code()))
        .bind(key.owner.code())
        .bind(text_of(key.quota))
        .bind(&key.hash.as_bytes()[..])
        .bind(key.created_at.as_micros())
        .bind(key.expires_at.map(Timestamp::as_micros));
    query.execute(connection).await?;
    Ok(true)
}

async fn revoke(connection: &mut PgConnection, id: &KeyId) -> Result<bool, StoreError> {
    let text = "UPDATE keys SET revoked_at = coalesce(revoked_at, $1) WHERE id = $2";
    let changed = sqlx::query(text).bind(Timestamp::now().as_micros()).bind(id.as_str()).execute(connection).await?;
    Ok(changed.rows_affected() > 0)
}

async fn set_quota(connection: &mut PgConnection, id: &KeyId, quota: Quota) -> Result<bool, StoreError> {
    let text = "UPDATE keys SET quota = $1 WHERE id = $2 OR owner = (SELECT owner FROM keys WHERE id = $2)";
    let changed = sqlx::query(text).bind(text_of(quota)).bind(id.as_str()).execute(connection).await?;
    Ok(changed.rows_affected() > 0)
}

/// As it is stored.
fn text_of(quota: Quota) -> Option<String> {
    (!quota.is_none()).then(|| json(&quota))
}

async fn used(connection: &mut PgConnection, id: &KeyId, at: Timestamp) -> Result<(), StoreError> {
    sqlx::query("UPDATE keys SET last_used_at = $1 WHERE id = $2")
        .bind(at.as_micros())
        .bind(id.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

async fn begin(connection: &mut PgConnection, act: &NewAct) -> Result<i64, StoreError> {
    let text = "INSERT INTO acts (at, key, operation, target) VALUES ($1, $2, $3, $4) RETURNING id";
    let query = sqlx::query_scalar(text)
        .bind(Timestamp::now().as_micros())
        .bind(act.key.as_ref().map(KeyId::as_str))
        .bind(&act.operation)
        .bind(&act.target);
    Ok(query.fetch_one(connection).await?)
}

async fn end(connection: &mut PgConnection, id: i64, status: u16) -> Result<(), StoreError> {
    sqlx::query("UPDATE acts SET status = $1 WHERE id = $2").bind(i64::from(status)).bind(id).execute(connection).await?;
    Ok(())
}

fn key(row: &PgRow) -> Result<Key, StoreError> {
    let mut cells = Cells::new(row);
    let id = id(&cells.take::<String>()?)?;
    Ok(Key {
        name: cells.take()?,
        scopes: Scopes::from_code(cells.take()?),
        owner: Owner::from_code(cells.take()?).unwrap_or_else(|| id.owner()),
        id,
        quota: cells.json()?.unwrap_or_default(),
        hash: hash(&cells.take::<Vec<u8>>()?)?,
        created_at: cells.time()?,
        expires_at: cells.time_or_none()?,
        revoked_at: cells.time_or_none()?,
        last_used_at: cells.time_or_none()?,
    })
}

fn act(row: &PgRow) -> Result<Act, StoreError> {
    let mut cells = Cells::new(row);
    Ok(Act {
        id: cells.take()?,
        at: cells.time()?,
        key: cells.take::<Option<String>>()?.as_deref().map(id).transpose()?,
        operation: cells.take()?,
        target: cells.take()?,
        status: cells.take::<Option<i64>>()?.and_then(|status| status.try_into().ok()),
    })
}

fn id(text: &str) -> Result<KeyId, StoreError> {
    text.parse().map_err(|_| StoreError::Corrupt(format!("a key with the id {text:?}")))
}

fn hash(bytes: &[u8]) -> Result<SecretHash, StoreError> {
    bytes.try_into().map(SecretHash::from_bytes).map_err(|_| StoreError::Corrupt("a key without a hash".into()))
}
