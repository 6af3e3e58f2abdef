//! Places in a workload where another job's output goes: `{"$output": "a", "pointer": "/count"}`.
//!
//! All else stays as it was written, number for number.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::pointer::{name, token};
use super::{Invalid, Stop, depth};
use crate::job::Failure;

const KEY: &str = "$output";
/// The key as it stands in a text.
const QUOTED: &str = "\"$output\"";

/// A place for another job's output.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Placeholder<'a> {
    /// Whose: the name of a job in the batch, or an id.
    #[serde(borrow, rename = "$output")]
    pub(crate) output: Cow<'a, str>,
    /// Which part of it, as a JSON Pointer; the whole of it without.
    #[serde(borrow, default)]
    pub(crate) pointer: Cow<'a, str>,
    /// What to take if the job has no output, or that has no such part.
    #[serde(borrow, default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub(crate) default: Option<&'a RawValue>,
}

/// A `null` that is given is a value like any other.
fn given<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// What goes to a place: given where in the workload that is, by a JSON Pointer, and what it asks for.
pub(crate) type Values<'v, 'a> = dyn FnMut(&str, Placeholder<'a>) -> Result<Cow<'a, str>, Invalid> + 'v;

/// Whether a workload may have placeholders: fast, and never wrong where it has any.
pub(crate) fn may_have_placeholders(workload: &str) -> bool {
    // Few have the sign, and to look for one byte is quick.
    workload.as_bytes().contains(&b'$') && workload.contains(QUOTED)
}

/// Puts in the place of each placeholder the JSON that `value` gives for it and for where it is.
///
/// # Errors
/// What is nested too deeply, what looks like a placeholder and is none, or what `value` refuses: pointing into the workload.
pub(crate) fn fill<'a>(workload: &'a RawValue, value: &mut Values<'_, 'a>) -> Result<Box<RawValue>, Invalid> {
    if !may_have_placeholders(workload.get()) {
        return Ok(workload.to_owned());
    }
    depth::check(workload.get().as_bytes())?;
    let mut filled = String::with_capacity(workload.get().len());
    write(workload, &mut String::new(), &mut filled, value)?;
    RawValue::from_string(filled).map_err(|error| Invalid::new("", error.to_string()))
}

/// The parts of a JSON text that pointers name, in their order; `None` where there is none. However many pointers lead into a value, it
/// is read once.
///
/// # Errors
/// It was told to stop.
pub(crate) fn parts<'a>(json: &'a RawValue, pointers: &[&str], stop: &Stop) -> Result<Vec<Option<&'a RawValue>>, Failure> {
    let mut parts = vec![None; pointers.len()];
    // Values that have yet to be read, with what is left of the pointers that lead into them.
    let mut unread = vec![(json, pointers.iter().copied().enumerate().collect::<Vec<_>>())];
    while let Some((json, pointers)) = unread.pop() {
        stop.check()?;
        let mut inner: HashMap<&str, Vec<(usize, &str)>> = HashMap::new();
        for (at, pointer) in pointers {
            if let Some(rest) = pointer.strip_prefix('/') {
                let (segment, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                inner.entry(segment).or_default().push((at, rest));
            } else if pointer.is_empty() {
                parts[at] = Some(json);
            }
        }
        if inner.is_empty() {
            continue;
        }
        // What can't be read has no parts.
        match json.get().as_bytes().first() {
            Some(b'{') => {
                let entries = serde_json::from_str(json.get()).map(|Entries(entries)| entries).unwrap_or_default();
                // Of a key that is there twice, the last one counts.
                let entries: HashMap<_, _> = entries.into_iter().collect();
                let named = |segment: &str| entries.get(&*name(segment)).copied();
                unread.extend(inner.into_iter().filter_map(|(segment, pointers)| Some((named(segment)?, pointers))));
            }
            Some(b'[') => {
                let elements: Vec<&RawValue> = serde_json::from_str(json.get()).unwrap_or_default();
                let named = |segment: &str| {
                    let index = segment.parse().ok().filter(|index: &usize| index.to_string() == segment)?;
                    elements.get(index).copied()
                };
                unread.extend(inner.into_iter().filter_map(|(segment, pointers)| Some((named(segment)?, pointers))));
            }
            _ => {}
        }
    }
    Ok(parts)
}

fn write<'a>(json: &'a RawValue, pointer: &mut String, filled: &mut String, value: &mut Values<'_, 'a>) -> Result<(), Invalid> {
    let text = json.get();
    let invalid = |pointer: &str, error: serde_json::Error| Invalid::new(pointer, error.to_string());
    if !may_have_placeholders(text) {
        filled.push_str(text);
    } else if text.starts_with('{') {
        let Entries(entries) = serde_json::from_str(text).map_err(|error| invalid(pointer, error))?;
        if entries.iter().any(|(key, _)| key == KEY) {
            let placeholder = serde_json::from_str(text).map_err(|error| {
                let message = error.to_string();
                Invalid::new(&*pointer, message.split(" at line ").next().unwrap_or_default())
            })?;
            filled.push_str(&value(pointer, placeholder)?);
            return Ok(());
        }
        let length = pointer.len();
        for (at, (key, json)) in entries.into_iter().enumerate() {
            filled.push(if at == 0 { '{' } else { ',' });
            filled.push_str(&serde_json::Value::from(&*key).to_string());
            filled.push(':');
            pointer.push('/');
            pointer.push_str(&token(&key));
            write(json, pointer, filled, value)?;
            pointer.truncate(length);
        }
        filled.push('}');
    } else if text.starts_with('[') {
        let elements: Vec<&RawValue> = serde_json::from_str(text).map_err(|error| invalid(pointer, error))?;
        let length = pointer.len();
        for (at, json) in elements.into_iter().enumerate() {
            filled.push(if at == 0 { '[' } else { ',' });
            pointer.push('/');
            pointer.push_str(&at.to_string());
            write(json, pointer, filled, value)?;
            pointer.truncate(length);
        }
        filled.push(']');
    } else {
        filled.push_str(text);
    }
    Ok(())
}

/// The entries of an object in their order.
struct Entries<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

/// A key, without a copy where that is possible.
#[derive(Deserialize)]
#[serde(transparent)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Entries<'de>, A::Error> {
                let mut entries = Vec::new();
                while let Some((Key(key), value)) = object.next_entry()? {
                    entries.push((key, value));
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    /// Each placeholder becomes a text that says where it is and what it asks for.
    fn filled(text: &str) -> Result<String, Invalid> {
        let workload = raw(text);
        let filled = fill(&workload, &mut |at, Placeholder { output, pointer, default }| {
            Ok(format!("\"{at} {output}{pointer} {}\"", default.map_or("-", RawValue::get)).into())
        });
        filled.map(|filled| filled.get().to_owned())
    }

    #[rstest]
    #[case(r#"{ "a": 1.50, "b":[ ] }"#, r#"{ "a": 1.50, "b":[ ] }"#)]
    #[case(r#"{"$output":"a"}"#, r#"" a -""#)]
    #[case(r#"{"n": 1.50, "x/y":[1e3, {"pointer": "/0", "$output":"a"}]}"#, r#"{"n":1.50,"x/y":[1e3,"/x~1y/1 a/0 -"]}"#)]
    #[case(r#"{"n": {"$output":"a", "default":null}}"#, r#"{"n":"/n a null"}"#)]
    #[case(r#"{"q\"": "the \"$output\" of", "n": {"$output":"a"}}"#, r#"{"q\"":"the \"$output\" of","n":"/n a -"}"#)]
    fn placeholders_are_replaced_and_the_rest_is_kept(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(filled(text).unwrap(), expected);
    }

    #[rstest]
    #[case(r#"{"n": {"$output": 7}}"#, "/n")]
    #[case(r#"{"n": [{"$output": "a", "path": "/x"}]}"#, "/n/0")]
    fn what_is_nearly_one_is_refused(#[case] text: &str, #[case] pointer: &str) {
        assert_eq!(filled(text).unwrap_err().pointer, pointer);
    }

    #[test]
    fn depth_has_a_limit_where_it_matters() {
        let nested = |inner: &str| format!("{}{inner}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(filled(&nested("1")).is_ok());
        assert!(filled(&nested(r#"{"$output":"a"}"#)).unwrap_err().message.contains("nested"));
    }

    #[rstest]
    #[case("", Some(r#"{"a":[1.50,{"x/~":7}],"b":1,"b":2}"#))]
    #[case("/a/0", Some("1.50"))]
    #[case("/a/1/x~1~0", Some("7"))]
    #[case("/b", Some("2"))]
    #[case("/a/2", None)]
    #[case("/a/01", None)]
    #[case("/a/0/x", None)]
    #[case("/c", None)]
    fn a_pointer_names_a_part(#[case] pointer: &str, #[case] expected: Option<&str>) {
        let json = raw(r#"{"a":[1.50,{"x/~":7}],"b":1,"b":2}"#);
        let part = parts(&json, &[pointer], &Stop::default()).unwrap()[0];
        assert_eq!(part.map(RawValue::get), expected);
        assert!(crate::workload::is_pointer(pointer));
    }

    #[test]
    fn many_pointers_are_as_quick_as_one() {
        // If each of them read the text, this would take hours.
        let json = raw(&format!(r#"{{"n":[{}0],"s":"x"}}"#, "1234567,".repeat(200_000)));
        let pointers: Vec<String> = (0..100_000).map(|at| format!("/n/{}", 2 * at)).chain(["/s".into(), String::new()]).collect();
        let parts = parts(&json, &pointers.iter().map(String::as_str).collect::<Vec<_>>(), &Stop::default()).unwrap();
        let (whole, parts) = parts.split_last().unwrap();
        let (text, numbers) = parts.split_last().unwrap();
        assert!(numbers.iter().all(|part| part.is_some_and(|part| part.get() == "1234567")));
        assert_eq!((text.unwrap().get(), whole.unwrap().get()), (r#""x""#, json.get()));
    }

    #[test]
    fn whoever_is_told_to_stop_reads_no_further() {
        let stop = Stop::default();
        stop.stop(crate::workload::StopReason::Cancelled);
        assert!(parts(&raw("[1]"), &["/0"], &stop).is_err());
    }
}
