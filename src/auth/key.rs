use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::{Quota, Scopes, Secret, SecretHash};
use crate::clock::Timestamp;
use crate::job::Owner;

const ID_BYTES: usize = 6;
/// The longest name.
const MAX_NAME: usize = 64;

/// By what a key is looked up, and spoken of: twelve hexadecimal digits. No secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyId(String);

/// It is no id of a key.
#[derive(Debug, thiserror::Error)]
#[error("the id of a key has 12 hexadecimal digits")]
pub struct BadKeyId;

impl KeyId {
    /// A new one.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; ID_BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes.iter().fold(String::new(), |mut text, byte| {
            // Writing to memory does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })))
    }

    /// Whoever has the key with this id, if it takes the place of no other.
    pub fn owner(&self) -> Owner {
        Owner::of_digits(&self.0)
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyId {
    type Err = BadKeyId;

    fn from_str(text: &str) -> Result<Self, BadKeyId> {
        let good = text.len() == 2 * ID_BYTES && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if good { Ok(Self(text.to_owned())) } else { Err(BadKeyId) }
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for KeyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// An API key, without its secret.
#[derive(Clone, Debug)]
pub struct Key {
    /// By what it is known.
    pub id: KeyId,
    /// What people call it.
    pub name: String,
    /// What it may do.
    pub scopes: Scopes,
    /// Whose things it is for: those of the first key, if it takes the place of others.
    pub owner: Owner,
    /// How much its owner may have the server do.
    pub quota: Quota,
    /// What proves it.
    pub hash: SecretHash,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is good for nothing.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// When it was used last, give or take a minute.
    pub last_used_at: Option<Timestamp>,
}

/// Whether a key is good for anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// It is.
    Live,
    /// Its time is over.
    Expired,
    /// It was revoked.
    Revoked,
}

/// What is wrong with the name of a key, if anything is.
pub fn wrong_name(name: &str) -> Option<String> {
    let wrong = name.trim().is_empty() || name.chars().count() > MAX_NAME || name.chars().any(char::is_control);
    wrong.then(|| format!("must have 1 to {MAX_NAME} characters, all of them visible"))
}

impl Key {
    /// A new key without a quota of its own, with its secret, which is to be shown once.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new(name: String, scopes: Scopes, expires_at: Option<Timestamp>) -> Result<(Self, Secret), getrandom::Error> {
        let id = KeyId::random()?;
        let secret = Secret::random(&id)?;
        let (hash, created_at) = (secret.hash(), Timestamp::now());
        let owner = id.owner();
        let quota = Quota::default();
        Ok((Self { id, name, scopes, owner, quota, hash, created_at, expires_at, revoked_at: None, last_used_at: None }, secret))
    }

    /// Whether it is good for anything at this moment.
    pub fn state(&self, now: Timestamp) -> KeyState {
        if self.revoked_at.is_some() {
            KeyState::Revoked
        } else if self.expires_at.is_some_and(|expires_at| expires_at <= now) {
            KeyState::Expired
        } else {
            KeyState::Live
        }
    }
}
