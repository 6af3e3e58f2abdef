use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::Ending;

/// Whom to tell of the end of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    /// Where to.
    pub url: String,
    /// The host of that, by which deliveries are limited.
    pub host: String,
    /// What the message is signed with; without one, the server's own secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// Of which endings; without any, of all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Ending>,
}

/// The start of a secret's text.
const PREFIX: &str = "whsec_";
/// How many bytes the key in a secret may have.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// What messages are signed with: as text `whsec_` and a key in Base64, as Standard Webhooks has it. Debugging does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Secret(Vec<u8>);

/// The text is no secret.
#[derive(Debug, thiserror::Error)]
#[error("must be whsec_ and 24 to 64 bytes in Base64")]
pub struct BadSecret;

impl Secret {
    /// With this key.
    pub fn of(key: [u8; 32]) -> Self {
        Self(key.to_vec())
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        &self.0
    }

    /// Its text, which is for those alone who verify what it signed.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}", STANDARD.encode(&self.0))
    }
}

impl std::str::FromStr for Secret {
    type Err = BadSecret;

    fn from_str(text: &str) -> Result<Self, BadSecret> {
        let key = text.strip_prefix(PREFIX).and_then(|key| STANDARD.decode(key).ok());
        key.filter(|key| KEY_BYTES.contains(&key.len())).map(Self).ok_or(BadSecret)
    }
}

impl TryFrom<String> for Secret {
    type Error = BadSecret;

    fn try_from(text: String) -> Result<Self, BadSecret> {
        text.parse()
    }
}

impl From<Secret> for String {
    fn from(secret: Secret) -> Self {
        secret.reveal()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("whsec_…")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn a_secret_comes_back_and_is_not_shown() {
        let text = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let secret: Secret = text.parse().unwrap();
        assert_eq!(secret.reveal(), text);
        assert_eq!(format!("{secret:?}"), "whsec_…");
        assert_eq!(Secret::of([7; 32]).reveal().parse::<Secret>().unwrap(), Secret::of([7; 32]));
    }

    #[rstest]
    #[case("")]
    #[case("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]
    #[case("whsec_")]
    #[case("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS!")]
    #[case("whsec_c2hvcnQ=")]
    fn what_is_no_secret_is_refused(#[case] text: &str) {
        assert!(text.parse::<Secret>().is_err());
    }
}
