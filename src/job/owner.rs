use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The digits of a key's id.
const DIGITS: usize = 12;

/// Whose something is: whoever has the key, or one that took its place. What nobody owns is for those who may see everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Owner(i64);

/// It names no owner.
#[derive(Debug, thiserror::Error)]
#[error("an owner has 12 hexadecimal digits")]
pub struct BadOwner;

impl Owner {
    /// Whose key has an id of these hexadecimal digits.
    pub fn of_digits(digits: &str) -> Self {
        let digits = digits.chars().filter_map(|digit| digit.to_digit(16)).take(DIGITS);
        Self(digits.fold(0, |code, digit| code << 4 | i64::from(digit)))
    }

    /// As a number that is not negative, to be stored.
    pub const fn code(self) -> i64 {
        self.0
    }

    /// From what was stored: `None` for a negative number, which stands for nobody.
    pub const fn from_code(code: i64) -> Option<Self> {
        if code < 0 { None } else { Some(Self(code)) }
    }
}

impl FromStr for Owner {
    type Err = BadOwner;

    fn from_str(digits: &str) -> Result<Self, BadOwner> {
        let plain = digits.len() == DIGITS && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if plain { Ok(Self::of_digits(digits)) } else { Err(BadOwner) }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_written_as_it_is_read() {
        let owner: Owner = "00ff9c3e1a2b".parse().unwrap();
        assert_eq!((owner.to_string().as_str(), Owner::from_code(owner.code())), ("00ff9c3e1a2b", Some(owner)));
        for text in ["", "+0ff9c3e1a2b", "00FF9C3E1A2B", "0ff9c3e1a2b"] {
            assert!(text.parse::<Owner>().is_err(), "{text}");
        }
    }
}
