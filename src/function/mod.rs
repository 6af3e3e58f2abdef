//! Functions: users' own code, registered under a name, in versions that are known by their content.

mod archive;

pub use archive::{BadArchive, open as open_archive};

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::job::{Bound, Choice, Form};

/// One version of a function: all that is known of it but its content. Of the versions of a name, the one that was deployed last is its
/// latest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// By what jobs name it.
    pub name: String,
    /// SHA-256, in hexadecimal, of its content and of what else decides about what runs.
    pub version: String,
    /// When it was deployed first.
    pub created_at: Timestamp,
    /// When it was deployed last.
    pub deployed_at: Timestamp,
    /// What its content is.
    pub kind: Kind,
    /// How long its content is.
    pub bytes: u64,
    /// What to call: a name, dotted for a member; with the module and a colon before it for a zip.
    pub entrypoint: String,
    /// How it is written.
    pub form: Form,
    /// The interpreter that runs it; without one, the server's default.
    pub interpreter: Option<String>,
    /// What a job of it is where the job does not say otherwise.
    pub defaults: Defaults,
    /// What one call of it may use.
    pub limits: Limits,
}

/// The least memory that a call may be limited to, in bytes: an interpreter needs about half of it for itself.
pub const LEAST_MEMORY: u64 = 64 << 20;

/// The most that one call of a function may use, as far as that is less than what every call may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Resident memory of the process that runs it, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// CPU time, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
    /// What it returns, in bytes of JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<u64>,
}

impl Limits {
    /// Whether only a process that it has to itself can keep a call within them.
    pub const fn need_a_process(&self) -> bool {
        self.memory_bytes.is_some() || self.cpu_ms.is_some()
    }
}

/// What a job of a function is where the job does not say otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Defaults {
    /// What it does most of the time.
    pub bound: Option<Bound>,
    /// The executor.
    pub executor: Choice,
    /// The longest that one attempt may run.
    pub deadline: Option<Duration>,
}

/// What the content of a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The source of one module.
    Source,
    /// A zip with several modules.
    Zip,
}

impl Function {
    /// Whether it was deployed just once.
    pub fn is_new(&self) -> bool {
        self.created_at == self.deployed_at
    }
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Source, Self::Zip];

    /// The name that the API uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Zip => "zip",
        }
    }

    /// The media type of such content.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Source => "text/x-python",
            Self::Zip => "application/zip",
        }
    }
}

/// The longest name.
const LONGEST_NAME: usize = 64;

/// Whether a function may have this name: lower-case letters, digits, `_` and `-`, of which the last two are not the first.
pub fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut bytes = text.bytes();
    text.len() <= LONGEST_NAME && bytes.next().is_some_and(plain) && bytes.all(|byte| plain(byte) || matches!(byte, b'_' | b'-'))
}

/// Whether this is the name of something in Python, with dots for members.
pub fn is_dotted(text: &str) -> bool {
    let identifier = |part: &str| {
        let mut letters = part.chars();
        letters.next().is_some_and(|first| first == '_' || first.is_alphabetic())
            && letters.all(|letter| letter == '_' || letter.is_alphanumeric())
    };
    text.split('.').all(identifier)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        let longest = "a".repeat(LONGEST_NAME);
        assert!(["a", "9", "resize-2_x", &longest].into_iter().all(is_name));
        let too_long = format!("{longest}a");
        assert!(!["", "-a", "_a", "A", "a.b", "a/b", "ä", &too_long].into_iter().any(is_name));
        assert!(["main", "Tool.run", "_x1", "é"].into_iter().all(is_dotted));
        assert!(!["", "a.", "1a", "a b", "a:b", "a-b"].into_iter().any(is_dotted));
    }
}
