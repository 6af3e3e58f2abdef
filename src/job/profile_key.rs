use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Which runs a profile sums up, as text such as `primes:below~2^20`; a workload's `Likeness` says it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct ProfileKey(Arc<str>);

impl ProfileKey {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The workload's `type`, with which the text begins.
    pub fn kind(&self) -> &str {
        self.0.split(':').next().unwrap_or_default()
    }
}

impl From<String> for ProfileKey {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<ProfileKey> for String {
    fn from(key: ProfileKey) -> Self {
        key.as_str().to_owned()
    }
}

/// Maps by key can be asked with text.
impl std::borrow::Borrow<str> for ProfileKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProfileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
