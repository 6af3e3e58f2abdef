//! What a client may fill in.

use std::fmt;

use regex::Regex;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use super::argument::LONGEST;

/// The longest text if no other length is said, in characters.
const USUAL_LENGTH: usize = 256;

/// A value that a client gives, and what it may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameter {
    /// What kind of value.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// What it is good for: a sentence for clients.
    #[serde(default)]
    pub about: String,
    /// Whether it may be left out. The argument that it belongs to is left out as well.
    #[serde(default)]
    pub optional: bool,
    /// Its value if it is left out.
    #[serde(default)]
    pub default: Option<Value>,
    /// What the whole of a text must match.
    #[serde(default)]
    pub pattern: Option<Pattern>,
    /// The longest text, in characters.
    #[serde(default)]
    pub max_length: Option<usize>,
    /// The smallest number.
    #[serde(default)]
    pub min: Option<i64>,
    /// The largest number.
    #[serde(default)]
    pub max: Option<i64>,
    /// What may be chosen.
    #[serde(default)]
    pub choices: Vec<String>,
    /// What a flag stands for.
    #[serde(default)]
    pub argument: Option<String>,
    /// Whether an argument may begin with a `-` that comes from this value, and so become an option.
    #[serde(default)]
    pub dash: bool,
}

/// The kinds of value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Any text within `pattern` and `max_length`.
    Text,
    /// A whole number from `min` to `max`.
    Integer,
    /// One of the `choices`.
    Choice,
    /// `true` stands for `argument`, `false` for nothing.
    Flag,
}

/// A regular expression that the whole of a text must match.
#[derive(Clone, Debug)]
pub struct Pattern {
    written: String,
    whole: Regex,
}

impl Parameter {
    /// The value as text; `None` if it is left out.
    pub(super) fn text(&self, value: Option<&Value>) -> Result<Option<String>, String> {
        let Some(value) = value.or(self.default.as_ref()) else {
            return if self.is_required() { Err("must be given".into()) } else { Ok(None) };
        };
        let text = match self.kind {
            Kind::Text => self.check_text(value.as_str().ok_or("must be a text")?)?.to_owned(),
            Kind::Integer => self.check_number(value.as_i64().ok_or("must be a whole number")?)?.to_string(),
            Kind::Choice => self.check_choice(value)?.to_owned(),
            Kind::Flag => {
                let set = value.as_bool().ok_or("must be true or false")?;
                return Ok(self.argument.clone().filter(|_| set));
            }
        };
        // A program's arguments end with it.
        if text.contains('\0') { Err("must not hold a NUL".into()) } else { Ok(Some(text)) }
    }

    /// Whether a client must give it.
    pub(super) fn is_required(&self) -> bool {
        !self.optional && self.default.is_none() && self.kind != Kind::Flag
    }

    /// Whether an argument may become an option by it. What the operator wrote may be one.
    pub(super) fn may_begin_with_dash(&self) -> bool {
        self.dash || matches!(self.kind, Kind::Choice | Kind::Flag)
    }

    /// The JSON Schema of its values, which begin with a `-` only if they may.
    pub(super) fn schema(&self, may_begin_with_dash: bool) -> Value {
        let min = if may_begin_with_dash || self.kind != Kind::Integer { self.min } else { Some(self.min.unwrap_or(0).max(0)) };
        let no_dash = (self.kind == Kind::Text && !may_begin_with_dash).then(|| json!({ "pattern": "^-" }));
        let mut schema = match self.kind {
            Kind::Text => json!({ "type": "string", "maxLength": self.longest() }),
            Kind::Integer => json!({ "type": "integer" }),
            Kind::Choice => json!({ "type": "string", "enum": self.choices }),
            Kind::Flag => json!({ "type": "boolean", "default": false }),
        };
        let further = [
            ("description", Some(&self.about).filter(|about| !about.is_empty()).map(|about| json!(about))),
            ("pattern", self.pattern.as_ref().map(|pattern| json!(pattern.whole.as_str()))),
            ("not", no_dash),
            ("minimum", min.map(|min| json!(min))),
            ("maximum", self.max.map(|max| json!(max))),
            ("default", self.default.clone()),
        ];
        for (name, value) in further {
            if let (Some(fields), Some(value)) = (schema.as_object_mut(), value) {
                fields.insert(name.into(), value);
            }
        }
        schema
    }

    /// Whether it makes sense.
    pub(super) fn check(&self) -> Result<(), String> {
        let (text, number, choice, flag) = (Kind::Text, Kind::Integer, Kind::Choice, Kind::Flag);
        let given = [
            ("pattern", self.pattern.is_some(), text, "a text"),
            ("max_length", self.max_length.is_some(), text, "a text"),
            ("min", self.min.is_some(), number, "an integer"),
            ("max", self.max.is_some(), number, "an integer"),
            ("choices", !self.choices.is_empty(), choice, "a choice"),
            ("argument", self.argument.is_some(), flag, "a flag"),
        ];
        if let Some((name, .., whose)) = given.iter().find(|(_, given, kind, _)| *given && *kind != self.kind) {
            return Err(format!("`{name}` is for {whose}"));
        }
        if self.kind == flag && self.argument.is_none() {
            return Err("a flag needs an `argument`".into());
        }
        if self.kind == choice && self.choices.is_empty() {
            return Err("a choice needs `choices`".into());
        }
        if !(1..=LONGEST).contains(&self.longest()) {
            return Err(format!("max_length must be 1 to {LONGEST}, the most bytes that an argument can have"));
        }
        if let (Some(min), Some(max)) = (self.min, self.max)
            && min > max
        {
            return Err(format!("no number is at least {min} and at most {max}"));
        }
        self.text(None).map(drop).or_else(|reason| match self.default {
            Some(_) => Err(format!("the default {reason}")),
            None => Ok(()),
        })
    }

    fn longest(&self) -> usize {
        self.max_length.unwrap_or(USUAL_LENGTH)
    }

    fn check_text<'a>(&self, text: &'a str) -> Result<&'a str, String> {
        if text.chars().count() > self.longest() {
            return Err(format!("must have at most {} characters", self.longest()));
        }
        match &self.pattern {
            Some(pattern) if !pattern.whole.is_match(text) => Err(format!("must match {}", pattern.written)),
            _ => Ok(text),
        }
    }

    fn check_number(&self, number: i64) -> Result<i64, String> {
        match (self.min, self.max) {
            (Some(min), _) if number < min => Err(format!("must be at least {min}")),
            (_, Some(max)) if number > max => Err(format!("must be at most {max}")),
            _ => Ok(number),
        }
    }

    fn check_choice<'a>(&self, value: &'a Value) -> Result<&'a str, String> {
        let chosen = value.as_str().filter(|chosen| self.choices.iter().any(|choice| choice == chosen));
        chosen.ok_or_else(|| format!("must be one of {}", self.choices.join(", ")))
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Eq for Pattern {}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = String::deserialize(deserializer)?;
        // As it is written first: what is wrong with it is told of that.
        let whole = Regex::new(&written).and_then(|_| Regex::new(&format!("^(?:{written})$")));
        let whole = whole.map_err(serde::de::Error::custom)?;
        Ok(Self { written, whole })
    }
}
