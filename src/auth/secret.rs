use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::KeyId;

/// What every key starts with, so that it is known for one wherever it turns up.
const PREFIX: &str = "trine_";
const SECRET_BYTES: usize = 32;

/// The text of a key, `trine_ID_SECRET`: shown once, to whoever made it, and kept nowhere.
pub struct Secret(String);

/// What is kept of a secret: its SHA-256.
///
/// Slow hashes protect what people think up, which can be guessed. A secret here is 256 random bits: whoever has its hash can't find it
/// by trying, however fast a try is. So the fast hash does, and a request costs no time.
#[derive(Clone, Copy)]
pub struct SecretHash([u8; 32]);

/// A key as somebody presents it: which it claims to be, and what proves it.
pub struct Presented {
    /// The key's id.
    pub id: KeyId,
    /// The hash of the secret.
    pub hash: SecretHash,
}

impl Secret {
    /// The secret of a key, which nobody can guess.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn random(id: &KeyId) -> Result<Self, getrandom::Error> {
        let mut bytes = [0; SECRET_BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Self(format!("{PREFIX}{id}_{}", URL_SAFE_NO_PAD.encode(bytes))))
    }

    /// The text, for whoever made the key.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    pub fn hash(&self) -> SecretHash {
        SecretHash::of(&self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl SecretHash {
    fn of(text: &str) -> Self {
        Self(Sha256::digest(text).into())
    }

    /// Whether it is the same, in a time that does not tell where they differ.
    pub fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    /// The bytes, to be stored.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// From what was stored.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(…)")
    }
}

impl Presented {
    /// Reads the text of a key; `None` if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, _) = text.strip_prefix(PREFIX)?.split_once('_')?;
        Some(Self { id: id.parse().ok()?, hash: SecretHash::of(text) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_proves_itself_and_no_other_does() {
        let id = KeyId::random().unwrap();
        let (secret, other) = (Secret::random(&id).unwrap(), Secret::random(&id).unwrap());
        let presented = Presented::parse(secret.reveal()).unwrap();
        assert_eq!(presented.id, id);
        assert!(presented.hash.is(&secret.hash()) && !presented.hash.is(&other.hash()));
        assert_eq!(secret.reveal().len(), PREFIX.len() + 12 + 1 + 43);
        assert!(!format!("{secret:?} {:?}", secret.hash()).contains(&secret.reveal()[20..]));
        let mut changed = secret.reveal().to_owned();
        changed.pop();
        assert!(!Presented::parse(&changed).unwrap().hash.is(&secret.hash()));
    }

    #[test]
    fn another_text_is_no_key() {
        for text in
            ["", "trine_", "trine_abc", "trine__x", "trine_0123456789AB_x", "trine_0123456789abc_x", "other_0123456789ab_x"]
        {
            assert!(Presented::parse(text).is_none(), "{text}");
        }
    }
}
