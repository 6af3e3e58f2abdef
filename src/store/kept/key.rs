//! API keys, and the acts of administrators.

use super::{Cells, Row, json};
use crate::auth::{Act, Key, KeyId, Quota, Scopes, SecretHash};
use crate::store::StoreError;

pub(in crate::store) const ADD: &str =
    "INSERT INTO keys (id, name, scopes, owner, quota, hash, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
pub(in crate::store) const REVOKE: &str = "UPDATE keys SET revoked_at = coalesce(revoked_at, $1) WHERE id = $2";
/// Of keys that were made before there were owners, each is its own.
pub(in crate::store) const SET_QUOTA: &str =
    "UPDATE keys SET quota = $1 WHERE id = $2 OR owner = (SELECT owner FROM keys WHERE id = $2)";
pub(in crate::store) const USED: &str = "UPDATE keys SET last_used_at = $1 WHERE id = $2";
/// In the order in which [`read`] reads them.
pub(in crate::store) const ALL: &str = "SELECT id, name, scopes, owner, quota, hash, created_at, expires_at, revoked_at, last_used_at FROM keys ORDER BY created_at, id";

pub(in crate::store) const BEGIN_ACT: &str = "INSERT INTO acts (at, key, operation, target) VALUES ($1, $2, $3, $4) RETURNING id";
pub(in crate::store) const END_ACT: &str = "UPDATE acts SET status = $1 WHERE id = $2";
/// In the order in which [`read_act`] reads them.
pub(in crate::store) const ACTS: &str =
    "SELECT id, at, key, operation, target, status FROM acts WHERE id < $1 ORDER BY id DESC LIMIT $2";

/// A quota as it is stored.
pub(in crate::store) fn text_of(quota: Quota) -> Option<String> {
    (!quota.is_none()).then(|| json(&quota))
}

pub(in crate::store) fn read(row: &impl Row) -> Result<Key, StoreError> {
    let mut cells = Cells::new(row);
    let id = id(cells.take()?)?;
    Ok(Key {
        name: cells.take()?,
        scopes: Scopes::from_code(cells.take()?),
        owner: cells.owner()?.unwrap_or_else(|| id.owner()),
        id,
        quota: cells.json()?.unwrap_or_default(),
        hash: hash(cells.take()?)?,
        created_at: cells.time()?,
        expires_at: cells.time_or_none()?,
        revoked_at: cells.time_or_none()?,
        last_used_at: cells.time_or_none()?,
    })
}

pub(in crate::store) fn read_act(row: &impl Row) -> Result<Act, StoreError> {
    let mut cells = Cells::new(row);
    Ok(Act {
        id: cells.take()?,
        at: cells.time()?,
        key: cells.take::<Option<&str>>()?.map(id).transpose()?,
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
