//! API keys and the acts of administrators, as the writer changes them and as they are read.

use async_trait::async_trait;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::SqliteStore;
use super::rows::Cells;
use super::statements::json;
use crate::auth::{Act, Key, KeyId, NewAct, Quota, Scopes, SecretHash};
use crate::clock::Timestamp;
use crate::job::Owner;
use crate::store::{KeyStore, StoreError};

/// In the order in which [`key`] reads them.
const KEYS: &str = "SELECT id, name, scopes, owner, quota, hash, created_at, expires_at, revoked_at, last_used_at FROM keys \
    ORDER BY created_at, id";
/// In the order in which [`act`] reads them.
const ACTS: &str = "SELECT id, at, key, operation, target, status FROM acts WHERE id < ? ORDER BY id DESC LIMIT ?";

#[async_trait]
impl KeyStore for SqliteStore {
    async fn add_key(&self, key: Key, in_place_of: Option<(KeyId, Timestamp)>) -> Result<bool, StoreError> {
        self.edit((key, in_place_of), |(key, replaced), connection| Box::pin(add(connection, key, replaced.as_ref()))).await
    }

    async fn revoke_key(&self, id: KeyId) -> Result<bool, StoreError> {
        self.edit(id, |id, connection| Box::pin(revoke(connection, id))).await
    }

    async fn set_quota(&self, id: KeyId, quota: Quota) -> Result<bool, StoreError> {
        self.edit((id, quota), |(id, quota), connection| Box::pin(set_quota(connection, id, *quota))).await
    }

    async fn key_used(&self, id: KeyId, at: Timestamp) -> Result<(), StoreError> {
        self.edit((id, at), |(id, at), connection| Box::pin(used(connection, id, *at))).await
    }

    async fn keys(&self) -> Result<Vec<Key>, StoreError> {
        sqlx::query(KEYS).fetch_all(&self.readers).await?.iter().map(key).collect()
    }

    async fn begin_act(&self, act: NewAct) -> Result<i64, StoreError> {
        self.edit(act, |act, connection| Box::pin(begin(connection, act))).await
    }

    async fn end_act(&self, id: i64, status: u16) -> Result<(), StoreError> {
        self.edit((id, status), |(id, status), connection| Box::pin(end(connection, *id, *status))).await
    }

    async fn acts(&self, before: Option<i64>, limit: usize) -> Result<Vec<Act>, StoreError> {
        let query = sqlx::query(ACTS).bind(before.unwrap_or(i64::MAX)).bind(i64::try_from(limit).unwrap_or(i64::MAX));
        query.fetch_all(&self.readers).await?.iter().map(act).collect()
    }
}

pub(super) async fn add(
    connection: &mut SqliteConnection,
    key: &Key,
    in_place_of: Option<&(KeyId, Timestamp)>,
) -> Result<bool, StoreError> {
    if let Some((replaced, until)) = in_place_of {
        let text = "UPDATE keys SET expires_at = min(coalesce(expires_at, ?1), ?1) WHERE id = ?2 AND revoked_at IS NULL";
        let changed = sqlx::query(text).bind(until.as_micros()).bind(replaced.as_str()).execute(&mut *connection).await?;
        if changed.rows_affected() == 0 {
            return Ok(false);
        }
    }
    let text = "INSERT INTO keys (id, name, scopes, owner, quota, hash, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
    let query = sqlx::query(text)
        .bind(key.id.as_str())
        .bind(&key.name)
        .bind(key.scopes.code())
        .bind(key.owner.code())
        .bind(text_of(key.quota))
        .bind(&key.hash.as_bytes()[..])
        .bind(key.created_at.as_micros())
        .bind(key.expires_at.map(Timestamp::as_micros));
    query.execute(connection).await?;
    Ok(true)
}

async fn revoke(connection: &mut SqliteConnection, id: &KeyId) -> Result<bool, StoreError> {
    let text = "UPDATE keys SET revoked_at = coalesce(revoked_at, ?) WHERE id = ?";
    let changed = sqlx::query(text).bind(Timestamp::now().as_micros()).bind(id.as_str()).execute(connection).await?;
    Ok(changed.rows_affected() > 0)
}

async fn set_quota(connection: &mut SqliteConnection, id: &KeyId, quota: Quota) -> Result<bool, StoreError> {
    // Of keys that were made before there were owners, each is its own.
    let text = "UPDATE keys SET quota = ?1 WHERE id = ?2 OR owner = (SELECT owner FROM keys WHERE id = ?2)";
    let changed = sqlx::query(text).bind(text_of(quota)).bind(id.as_str()).execute(connection).await?;
    Ok(changed.rows_affected() > 0)
}

/// As it is stored.
fn text_of(quota: Quota) -> Option<String> {
    (!quota.is_none()).then(|| json(&quota))
}

async fn used(connection: &mut SqliteConnection, id: &KeyId, at: Timestamp) -> Result<(), StoreError> {
    sqlx::query("UPDATE keys SET last_used_at = ? WHERE id = ?")
        .bind(at.as_micros())
        .bind(id.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

async fn begin(connection: &mut SqliteConnection, act: &NewAct) -> Result<i64, StoreError> {
    let text = "INSERT INTO acts (at, key, operation, target) VALUES (?, ?, ?, ?)";
    let query = sqlx::query(text)
        .bind(Timestamp::now().as_micros())
        .bind(act.key.as_ref().map(KeyId::as_str))
        .bind(&act.operation)
        .bind(&act.target);
    Ok(query.execute(connection).await?.last_insert_rowid())
}

async fn end(connection: &mut SqliteConnection, id: i64, status: u16) -> Result<(), StoreError> {
    sqlx::query("UPDATE acts SET status = ? WHERE id = ?").bind(status).bind(id).execute(connection).await?;
    Ok(())
}

fn key(row: &SqliteRow) -> Result<Key, StoreError> {
    let mut cells = Cells::new(row);
    let id = id(&cells.take::<String>()?)?;
    Ok(Key {
        name: cells.take()?,
        scopes: Scopes::from_code(cells.take()?),
        owner: cells.take::<Option<i64>>()?.and_then(Owner::from_code).unwrap_or_else(|| id.owner()),
        id,
        quota: cells.json()?.unwrap_or_default(),
        hash: hash(&cells.take::<Vec<u8>>()?)?,
        created_at: cells.time()?,
        expires_at: cells.take::<Option<i64>>()?.map(Timestamp::from_micros),
        revoked_at: cells.take::<Option<i64>>()?.map(Timestamp::from_micros),
        last_used_at: cells.take::<Option<i64>>()?.map(Timestamp::from_micros),
    })
}

fn act(row: &SqliteRow) -> Result<Act, StoreError> {
    let mut cells = Cells::new(row);
    Ok(Act {
        id: cells.take()?,
        at: cells.time()?,
        key: cells.take::<Option<String>>()?.as_deref().map(id).transpose()?,
        operation: cells.take()?,
        target: cells.take()?,
        status: cells.take()?,
    })
}

fn id(text: &str) -> Result<KeyId, StoreError> {
    text.parse().map_err(|_| StoreError::Corrupt(format!("a key with the id {text:?}")))
}

fn hash(bytes: &[u8]) -> Result<SecretHash, StoreError> {
    bytes.try_into().map(SecretHash::from_bytes).map_err(|_| StoreError::Corrupt("a key without a hash".into()))
}
