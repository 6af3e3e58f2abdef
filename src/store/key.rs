use async_trait::async_trait;

use super::StoreError;
use crate::auth::{Act, Key, KeyId, NewAct, Quota};
use crate::clock::Timestamp;

/// Where API keys are kept, and the record of what administrators did.
#[async_trait]
pub trait KeyStore {
    /// Keeps a new key. If it takes the place of another, that one expires at the given moment, unless it does so earlier; `false`, and
    /// nothing is kept, if that one is not there or revoked.
    async fn add_key(&self, key: Key, in_place_of: Option<(KeyId, Timestamp)>) -> Result<bool, StoreError>;

    /// Marks a key as revoked from now on, unless it is already. Whether it is there.
    async fn revoke_key(&self, id: KeyId) -> Result<bool, StoreError>;

    /// Gives a quota to this key and to all that have the same owner. Whether it is there.
    async fn set_quota(&self, id: KeyId, quota: Quota) -> Result<bool, StoreError>;

    /// Notes that a key was used at this moment.
    async fn key_used(&self, id: KeyId, at: Timestamp) -> Result<(), StoreError>;

    /// All keys that there ever were, the oldest first.
    async fn keys(&self) -> Result<Vec<Key>, StoreError>;

    /// Writes down what is about to be done; its id.
    async fn begin_act(&self, act: NewAct) -> Result<i64, StoreError>;

    /// Writes down how it was answered.
    async fn end_act(&self, id: i64, status: u16) -> Result<(), StoreError>;

    /// Up to `limit` acts before the one with this id, or the latest; the latest first.
    async fn acts(&self, before: Option<i64>, limit: usize) -> Result<Vec<Act>, StoreError>;
}
