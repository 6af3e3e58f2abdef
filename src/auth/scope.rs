use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Submit jobs, comparisons and schedules, and run jobs again.
    Submit,
    /// See jobs, results, events and what the server can run.
    Read,
    /// Cancel jobs and comparisons, and remove results.
    Cancel,
    /// Deploy and remove functions.
    Functions,
    /// Everything, keys and the audit log included.
    Admin,
}

/// It is the name of no scope.
#[derive(Debug, thiserror::Error)]
#[error("must be submit, read, cancel, functions or admin")]
pub struct BadScope;

impl Scope {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Submit, Self::Read, Self::Cancel, Self::Functions, Self::Admin];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Read => "read",
            Self::Cancel => "cancel",
            Self::Functions => "functions",
            Self::Admin => "admin",
        }
    }

    /// Its bit in what is stored; never to be changed.
    const fn bit(self) -> u8 {
        match self {
            Self::Submit => 1,
            Self::Read => 2,
            Self::Cancel => 4,
            Self::Functions => 8,
            Self::Admin => 16,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = BadScope;

    fn from_str(text: &str) -> Result<Self, BadScope> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or(BadScope)
    }
}

/// All that a key may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// Everything.
    pub const ALL: Self = Self(Scope::Admin.bit());

    /// Whether this is among it; an administrator may do everything.
    pub const fn allow(self, scope: Scope) -> bool {
        self.0 & (scope.bit() | Scope::Admin.bit()) != 0
    }

    /// Those that were given, in the order of [`Scope::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.0 & scope.bit() != 0)
    }

    /// As a number, to be stored.
    pub const fn code(self) -> u8 {
        self.0
    }

    /// From what was stored. What only a newer version knows gives no right here.
    pub fn from_code(code: i64) -> Self {
        Scope::ALL.into_iter().filter(|scope| code & i64::from(scope.bit()) != 0).collect()
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

impl Serialize for Scopes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Scopes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::<Scope>::deserialize(deserializer)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_may_do_what_it_was_given_and_an_administrator_everything() {
        for given in Scope::ALL {
            let scopes: Scopes = [given].into_iter().collect();
            for asked in Scope::ALL {
                assert_eq!(scopes.allow(asked), given == asked || given == Scope::Admin, "{given} {asked}");
            }
            assert_eq!(given.as_str().parse::<Scope>().unwrap(), given);
            assert_eq!(Scopes::from_code(scopes.code().into()), scopes);
        }
        assert!(Scope::ALL.iter().all(|&scope| !Scopes::default().allow(scope) && Scopes::ALL.allow(scope)));
        assert_eq!(Scopes::from_code(256 + 32 + 2), [Scope::Read].into_iter().collect());
        assert!("root".parse::<Scope>().is_err());
    }
}
