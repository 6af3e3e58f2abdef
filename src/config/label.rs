use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::job::wrong_label;

/// What an operator says of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Of what it is.
    pub name: String,
    /// What is said of it.
    pub value: String,
}

/// Labels that each server gives itself.
const OWN: [&str; 3] = ["node", "os", "arch"];

impl FromStr for Label {
    type Err = String;

    /// Reads `NAME=VALUE`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.trim().split_once('=').ok_or("a label is written as NAME=VALUE")?;
        if OWN.contains(&name) || name.contains(':') {
            return Err(format!("the label {name:?} is one that a server gives itself"));
        }
        wrong_label(name, value).map_or_else(|| Ok(Self { name: name.into(), value: value.into() }), Err)
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.value)
    }
}

impl Serialize for Label {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_has_a_name_and_a_value() {
        assert_eq!(" gpu=a100=b".parse(), Ok(Label { name: "gpu".into(), value: "a100=b".into() }));
        assert!("gpu".parse::<Label>().is_err() && "gpu=".parse::<Label>().is_err() && "=a".parse::<Label>().is_err());
        assert!("node=me".parse::<Label>().is_err() && "python:py=yes".parse::<Label>().is_err());
    }
}
