//! The API keys in memory: a request is checked without a look into the database. Whatever changes them here goes through here, so that a
//! key that is revoked is good for nothing from the next request on; what other servers change is followed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use tokio::sync::watch;

use crate::api::problem::{Kind, Problem};
use crate::auth::{Key, KeyId, KeyRule, KeyState, Presented, Quota, Scope, Scopes, Secret};
use crate::clock::Timestamp;
use crate::dispatch::Quotas;
use crate::job::Owner;
use crate::store::{Age, Copied, Looks, Store, StoreError};

/// How old the note of a key's last use may be.
const USE_NOTED_EVERY: Duration = Duration::from_mins(1);
/// How often it is looked for keys that are not known: a guess must not make the database work.
const LOOKED_EVERY: Duration = Duration::from_millis(200);

/// All keys, and whether requests need one.
pub struct Keyring {
    store: Arc<dyn Store>,
    rule: KeyRule,
    quotas: Arc<Quotas>,
    entries: RwLock<HashMap<KeyId, Arc<Entry>>>,
    age: Age,
    /// For keys that are not known.
    looks: Looks,
    /// Tells those who have let somebody in for longer that keys have changed.
    changed: watch::Sender<()>,
}

struct Entry {
    key: Key,
    /// When its last use was noted, in microseconds.
    used: AtomicI64,
}

/// Who makes a request that came with a key.
#[derive(Clone, Debug)]
pub(in crate::api) struct Holder {
    /// The key.
    pub(in crate::api) key: KeyId,
    /// What may be done with it.
    pub(in crate::api) scopes: Scopes,
    /// Whose things it is for.
    pub(in crate::api) owner: Owner,
}

/// A key that was just made, with the text that is shown this once.
pub(in crate::api) struct Created {
    pub(in crate::api) key: Key,
    pub(in crate::api) secret: Secret,
}

impl Keyring {
    /// The keys that are stored; `quotas` learn of theirs.
    pub async fn load(store: Arc<dyn Store>, rule: KeyRule, quotas: Arc<Quotas>) -> Result<Self, StoreError> {
        let age = Age::new(Arc::clone(&store), Copied::Keys);
        let keyring = Self {
            store,
            rule,
            quotas,
            entries: RwLock::default(),
            age,
            looks: Looks::new(LOOKED_EVERY),
            changed: watch::Sender::new(()),
        };
        keyring.catch_up().await?;
        Ok(keyring)
    }

    /// Takes over what other servers change, until the `end`.
    pub async fn follow(self: Arc<Self>, end: impl Future<Output = ()>) {
        let following = async {
            loop {
                self.age.changed().await;
                if let Err(error) = self.catch_up().await {
                    self.age.rest(&error).await;
                }
            }
        };
        tokio::select! {
            () = end => {}
            () = following => {}
        }
    }

    /// Takes over what other servers have changed up to now.
    async fn catch_up(&self) -> Result<(), StoreError> {
        self.age.catch_up(self.refresh()).await
    }

    /// Whether requests are let in without a key.
    pub fn is_open(&self) -> bool {
        match self.rule {
            KeyRule::Off => true,
            KeyRule::Required => false,
            KeyRule::Auto => self.entries().is_empty(),
        }
    }

    /// Whether there is a key that is good for anything.
    pub fn has_live(&self) -> bool {
        let now = self.store.now();
        self.entries().values().any(|entry| entry.key.state(now) == KeyState::Live)
    }

    /// Who makes a request with these headers, where a key is asked for.
    pub(in crate::api) fn holder(&self, headers: &HeaderMap) -> Result<Holder, Problem> {
        let presented = presented(headers)?;
        let entry = self.entries().get(&presented.id).map(Arc::clone);
        // One answer for a key that is not there and one that does not prove itself: ids are no secret, but nobody's business either.
        let entry = entry.filter(|entry| entry.key.hash.is(&presented.hash)).ok_or_else(unknown)?;
        let now = self.store.now();
        live(&entry.key, now)?;
        self.note_use(&entry, now);
        let Key { id, scopes, owner, .. } = &entry.key;
        Ok(Holder { key: id.clone(), scopes: *scopes, owner: *owner })
    }

    /// Whether a key with which a request came is still good for its answer.
    pub(in crate::api) fn still(&self, id: &KeyId) -> Result<(), Problem> {
        let now = self.store.now();
        self.entries().get(id).map_or_else(|| Err(unknown()), |entry| live(&entry.key, now))
    }

    /// Whether a request comes with a key that is not known here, and that another server may have made just now.
    pub(in crate::api) fn may_be_new(&self, headers: &HeaderMap) -> bool {
        self.store.is_shared()
            && !self.is_open()
            && presented(headers).is_ok_and(|presented| !self.entries().contains_key(&presented.id))
    }

    /// Looks for keys that are not known: a few times a second, and once for all who ask meanwhile.
    pub(in crate::api) async fn look_again(&self) -> Result<(), StoreError> {
        self.looks.look(self.catch_up()).await
    }

    /// Resolves when a key is good for nothing any more.
    pub(in crate::api) async fn gone(self: Arc<Self>, id: KeyId) {
        let mut changed = self.changed.subscribe();
        loop {
            let now = self.store.now();
            let Some(key) = self.get(&id).filter(|key| key.state(now) == KeyState::Live) else { return };
            let expired = async {
                match key.expires_at {
                    Some(expires_at) => tokio::time::sleep(expires_at.since(now)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Ok(()) = changed.changed() => {}
                () = expired => {}
                else => return,
            }
        }
    }

    /// Resolves when requests are not let in without a key any more.
    pub(in crate::api) async fn closed(self: Arc<Self>) {
        let mut changed = self.changed.subscribe();
        while self.is_open() && changed.changed().await.is_ok() {}
    }

    /// All keys, the oldest first.
    pub(in crate::api) fn list(&self) -> Vec<Key> {
        let mut keys: Vec<_> = self.entries().values().map(|entry| entry.key()).collect();
        keys.sort_by(|a, b| (a.created_at, a.id.as_str()).cmp(&(b.created_at, b.id.as_str())));
        keys
    }

    /// One key.
    pub(in crate::api) fn get(&self, id: &KeyId) -> Option<Key> {
        self.entries().get(id).map(|entry| entry.key())
    }

    /// Makes a key. The first one closes an open server, so it has to be one with which others can be made.
    pub(in crate::api) async fn create(
        &self,
        name: String,
        scopes: Scopes,
        expires_at: Option<Timestamp>,
        quota: Quota,
    ) -> Result<Created, Problem> {
        self.catch_up().await?;
        let _turn = self.age.turn().await;
        if self.entries().is_empty() && !scopes.allow(Scope::Admin) {
            return Err(
                Problem::new(Kind::InvalidKey, "the first key has to be an admin's, or nobody could make another").at("/scopes")
            );
        }
        let (key, secret) = Key::new(name, scopes, expires_at).map_err(Problem::internal)?;
        let key = Key { quota, created_at: self.store.now(), ..key };
        self.store.add_key(key.clone(), None).await?;
        self.age.renew(self.refresh()).await?;
        Ok(Created { key, secret })
    }

    /// Makes a key like another one, which is good until `until`. `None` if that one is not there, or is revoked.
    pub(in crate::api) async fn rotate(&self, id: &KeyId, until: Timestamp) -> Result<Option<Created>, Problem> {
        self.catch_up().await?;
        let _turn = self.age.turn().await;
        let Some(old) = self.get(id).filter(|old| old.revoked_at.is_none()) else { return Ok(None) };
        // As long a life as the old one had. If that was rotated before, its own was cut short then, and the one that took its place has it.
        let now = self.store.now();
        let latest = self.list().into_iter().rfind(|key| key.owner == old.owner);
        let expires_at = latest.and_then(|key| Some(now.after(key.expires_at?.since(key.created_at))));
        let (key, secret) = Key::new(old.name, old.scopes, expires_at).map_err(Problem::internal)?;
        let key = Key { owner: old.owner, quota: old.quota, created_at: now, ..key };
        let kept = self.store.add_key(key.clone(), Some((old.id, until))).await?;
        self.age.renew(self.refresh()).await?;
        Ok(kept.then_some(Created { key, secret }))
    }

    /// Gives a quota to a key and to all that have the same owner. `None` if it is not there.
    pub(in crate::api) async fn set_quota(&self, id: &KeyId, quota: Quota) -> Result<Option<Key>, Problem> {
        let _turn = self.age.turn().await;
        self.store.set_quota(id.clone(), quota).await?;
        self.age.renew(self.refresh()).await?;
        Ok(self.get(id))
    }

    /// Makes a key good for nothing. `None` if it is not there.
    pub(in crate::api) async fn revoke(&self, id: &KeyId) -> Result<Option<Key>, Problem> {
        let _turn = self.age.turn().await;
        self.store.revoke_key(id.clone()).await?;
        self.age.renew(self.refresh()).await?;
        Ok(self.get(id))
    }

    /// Takes over what is stored.
    async fn refresh(&self) -> Result<(), StoreError> {
        let keys = self.store.keys().await?;
        // What administrators make is nobody's.
        let owned = keys.iter().filter(|key| !key.scopes.allow(Scope::Admin));
        let set = self.quotas.set(owned.map(|key| (key.owner, key.quota))).await;
        let fresh = entries(keys);
        *self.entries.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        self.changed.send_replace(());
        // A key that is revoked is good for nothing, also where the store can't go by the quotas now.
        set
    }

    fn entries(&self) -> std::sync::RwLockReadGuard<'_, HashMap<KeyId, Arc<Entry>>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes now and then that a key is used; the request does not wait for it.
    fn note_use(&self, entry: &Arc<Entry>, now: Timestamp) {
        let noted = entry.used.load(Ordering::Relaxed);
        if now.since(Timestamp::from_micros(noted)) < USE_NOTED_EVERY {
            return;
        }
        if entry.used.compare_exchange(noted, now.as_micros(), Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            let (store, id) = (Arc::clone(&self.store), entry.key.id.clone());
            tokio::spawn(async move {
                if let Err(error) = store.key_used(id, now).await {
                    tracing::debug!(%error, "the use of a key could not be noted");
                }
            });
        }
    }
}

impl Entry {
    fn key(&self) -> Key {
        let used = self.used.load(Ordering::Relaxed);
        Key { last_used_at: (used > 0).then(|| Timestamp::from_micros(used)), ..self.key.clone() }
    }
}

fn wrong(detail: &str) -> Problem {
    Problem::new(Kind::Unauthenticated, detail)
}

fn unknown() -> Problem {
    wrong("the API key is not known")
}

/// Whether a key is good for anything.
fn live(key: &Key, now: Timestamp) -> Result<(), Problem> {
    match key.state(now) {
        KeyState::Live => Ok(()),
        KeyState::Expired => Err(wrong("the API key has expired")),
        KeyState::Revoked => Err(wrong("the API key was revoked")),
    }
}

/// The key that a request comes with.
fn presented(headers: &HeaderMap) -> Result<Presented, Problem> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let sent = all.next().ok_or_else(|| wrong("send an API key as `Authorization: Bearer trine_…`"))?;
    if all.next().is_some() {
        return Err(wrong("the header Authorization is there more than once"));
    }
    let token =
        sent.to_str().ok().and_then(|text| text.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let presented = token.and_then(|(_, token)| Presented::parse(token.trim()));
    presented.ok_or_else(|| wrong("the header Authorization has no API key, `Bearer trine_…`"))
}

fn entries(keys: Vec<Key>) -> HashMap<KeyId, Arc<Entry>> {
    let entry = |key: Key| {
        let used = AtomicI64::new(key.last_used_at.map_or(0, Timestamp::as_micros));
        (key.id.clone(), Arc::new(Entry { key, used }))
    };
    keys.into_iter().map(entry).collect()
}
