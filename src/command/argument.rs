//! What a program is given, with places for what a client fills in.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize, Serializer};

use super::BadValue;

/// The longest argument, in bytes: what Linux takes, less the NUL behind it.
pub(super) const LONGEST: usize = (128 << 10) - 1;

/// One argument, or some that belong together. They are left out if one of them holds a parameter that is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, try_from = "Written")]
pub enum Argument {
    /// One, such as `--size={size}`.
    One(Template),
    /// Some, such as an option and its value.
    Some(Vec<Template>),
}

/// An argument as it is written down.
#[derive(Deserialize)]
#[serde(untagged, expecting = "must be a text, or a list of texts that belong together")]
enum Written {
    One(String),
    Some(Vec<String>),
}

/// Text with places for parameters: `{name}`. A brace that is meant as such is written twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Parameter(String),
}

/// The values of the parameters as text; `None` for those that are left out.
type Texts<'a> = BTreeMap<&'a str, Option<String>>;

impl TryFrom<Written> for Argument {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, &'static str> {
        Ok(match written {
            Written::One(text) => Self::One(Template::parse(&text)?),
            Written::Some(texts) => Self::Some(texts.iter().map(|text| Template::parse(text)).collect::<Result<_, _>>()?),
        })
    }
}

impl Argument {
    /// The parameters that it holds.
    pub(super) fn parameters(&self) -> impl Iterator<Item = &str> {
        self.templates().iter().flat_map(|template| &template.0).filter_map(|piece| match piece {
            Piece::Parameter(name) => Some(name.as_str()),
            Piece::Text(_) => None,
        })
    }

    /// Those of them with which an argument begins.
    pub(super) fn leading(&self) -> impl Iterator<Item = &str> {
        self.templates().iter().filter_map(|template| match template.0.first() {
            Some(Piece::Parameter(name)) => Some(name.as_str()),
            _ => None,
        })
    }

    /// Adds what becomes of it to `filled`.
    pub(super) fn fill(
        &self,
        texts: &Texts<'_>,
        may_begin_with_dash: impl Fn(&str) -> bool,
        filled: &mut Vec<String>,
    ) -> Result<(), BadValue> {
        if self.parameters().any(|name| texts.get(name).is_none_or(Option::is_none)) {
            return Ok(());
        }
        for template in self.templates() {
            filled.push(template.fill(texts, &may_begin_with_dash)?);
        }
        Ok(())
    }

    fn templates(&self) -> &[Template] {
        match self {
            Self::One(template) => std::slice::from_ref(template),
            Self::Some(templates) => templates,
        }
    }
}

impl Template {
    fn fill(&self, texts: &Texts<'_>, may_begin_with_dash: impl Fn(&str) -> bool) -> Result<String, BadValue> {
        let (mut filled, mut latest) = (String::new(), None);
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => filled.push_str(text),
                Piece::Parameter(name) => {
                    let text = texts.get(name.as_str()).and_then(Option::as_deref).unwrap_or_default();
                    if filled.is_empty() && text.starts_with('-') && !may_begin_with_dash(name) {
                        return Err(BadValue { parameter: name.clone(), reason: "must not begin with `-`".into() });
                    }
                    filled.push_str(text);
                    latest = Some(name);
                }
            }
        }
        // Without a parameter it is the operator's own, and that has been looked at.
        match latest {
            Some(name) if filled.len() > LONGEST => {
                let reason = format!("makes an argument of more than {LONGEST} bytes, which no program can be given");
                Err(BadValue { parameter: name.clone(), reason })
            }
            _ => Ok(filled),
        }
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        if text.contains('\0') {
            return Err("an argument can't hold a NUL");
        }
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let (brace, behind) = rest[at..].split_at(1);
            if let Some(behind) = behind.strip_prefix(brace) {
                plain.push_str(brace);
                rest = behind;
            } else if brace == "}" {
                return Err("a brace is not opened; write }} for a brace");
            } else {
                let (name, behind) = behind.split_once('}').ok_or("a brace is not closed; write {{ for a brace")?;
                if !plain.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut plain)));
                }
                pieces.push(Piece::Parameter(name.to_owned()));
                rest = behind;
            }
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self(pieces))
    }
}

impl Serialize for Template {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = String::new();
        for piece in &self.0 {
            // Writing to memory does not fail.
            let _ = match piece {
                Piece::Text(plain) => write!(text, "{}", plain.replace('{', "{{").replace('}', "}}")),
                Piece::Parameter(name) => write!(text, "{{{name}}}"),
            };
        }
        serializer.serialize_str(&text)
    }
}
