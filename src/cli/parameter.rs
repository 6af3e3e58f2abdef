//! What is written on a command line, as the API has it. JSON stays as it was written: a long number would not survive being read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};

use super::error::CliError;
use super::human::duration;

/// Reads `key=value`.
pub(super) fn tag(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err("expected key=value"),
    }
}

/// The labels that were given for an option, if any were; none of them twice.
pub(super) fn labels(option: &str, labels: &[(String, String)]) -> Result<Option<Value>, CliError> {
    let mut found = Map::new();
    for (name, value) in labels {
        if found.insert(name.clone(), value.as_str().into()).is_some() {
            return Err(CliError::Usage(format!("{option} {name} is there twice")));
        }
    }
    Ok((!found.is_empty()).then(|| found.into()))
}

/// Reads `key=value` with a value that is JSON if it can be read as JSON, else text.
pub(super) fn parameter(text: &str) -> Result<(String, Box<RawValue>), &'static str> {
    let (key, value) = tag(text)?;
    let value = serde_json::from_str(&value).or_else(|_| to_raw_value(&value)).map_err(|_| "the value is no text")?;
    Ok((key, value))
}

/// Reads `id` or `id=rule`: a job that another one comes after, as the API has it.
pub(super) fn after(text: &str) -> Result<Value, &'static str> {
    let (id, rule) = text.split_once('=').map_or((text, None), |(id, rule)| (id, Some(rule)));
    match rule {
        None => Ok(json!({ "job": id })),
        Some("cancel" | "fail" | "run") => Ok(json!({ "job": id, "on_failure": rule })),
        Some(_) => Err("expected id, or id=cancel, id=fail or id=run"),
    }
}

/// Reads `key=limit`: how many run at once, as the API has it.
pub(super) fn concurrency(text: &str) -> Result<Value, &'static str> {
    let limit = text.rsplit_once('=').and_then(|(key, limit)| Some((key, limit.parse::<u32>().ok()?)));
    limit.map(|(key, limit)| json!({ "key": key, "limit": limit })).ok_or("expected key=limit, such as customer-7=3")
}

/// Reads `key=limit/period`: how many start in a time, as the API has it.
pub(super) fn rate(text: &str) -> Result<Value, &'static str> {
    let rate = text.rsplit_once('=').and_then(|(key, rate)| {
        let (limit, period) = rate.split_once('/')?;
        // A period without a number is one of it.
        let period =
            if period.starts_with(|first: char| first.is_ascii_digit()) { period.to_owned() } else { format!("1{period}") };
        Some((key, limit.parse::<u32>().ok()?, duration(&period).ok()?))
    });
    rate.map(|(key, limit, period)| json!({ "key": key, "limit": limit, "per_ms": period.as_millis() }))
        .ok_or("expected key=limit/time, such as api.example.org=10/1s")
}

/// A workload, and its type.
pub(super) struct Described {
    pub(super) kind: String,
    pub(super) json: Box<RawValue>,
}

/// A workload and what is sent with it.
#[derive(Serialize)]
pub(super) struct WithWorkload {
    pub(super) workload: Box<RawValue>,
    #[serde(flatten)]
    pub(super) fields: Map<String, Value>,
}

impl WithWorkload {
    /// How many bytes it takes on its way.
    pub(super) fn bytes(&self) -> usize {
        serde_json::to_vec(self).map_or(1, |text| text.len())
    }
}

/// The workload that a command line describes: as a whole, or by its name and parameters.
pub(super) fn workload(
    kind: Option<&str>,
    parameters: &[(String, Box<RawValue>)],
    whole: Option<&str>,
) -> Result<Described, CliError> {
    #[derive(Deserialize)]
    struct Head {
        r#type: String,
    }
    let Some(text) = whole else {
        return described(kind.unwrap_or_default(), parameters.iter().cloned());
    };
    let json: Box<RawValue> = raw("--workload", text)?;
    match serde_json::from_str(text) {
        Ok(Head { r#type: kind }) => Ok(Described { kind, json }),
        Err(_) => {
            Err(CliError::Usage("--workload takes an object with a `type`, such as {\"type\": \"sleep\", \"ms\": 5}".into()))
        }
    }
}

/// The workload of this type with these parameters.
pub(super) fn described(kind: &str, parameters: impl Iterator<Item = (String, Box<RawValue>)>) -> Result<Described, CliError> {
    let unwritable = |error: serde_json::Error| CliError::Usage(error.to_string());
    let mut fields = BTreeMap::new();
    for (key, value) in parameters {
        if fields.insert(key.clone(), value).is_some() {
            return Err(CliError::Usage(format!("{key}= is there twice")));
        }
    }
    fields.insert("type".into(), to_raw_value(kind).map_err(unwritable)?);
    Ok(Described { kind: kind.into(), json: to_raw_value(&fields).map_err(unwritable)? })
}

/// The JSON that was given for an option.
pub(super) fn raw(option: &str, text: &str) -> Result<Box<RawValue>, CliError> {
    serde_json::from_str(text).map_err(|error| CliError::Usage(format!("{option} is not JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("below=1000", "below", "1000")]
    #[case("seed=12345678901234567890123", "seed", "12345678901234567890123")]
    #[case("url=http://localhost/?a=b", "url", r#""http://localhost/?a=b""#)]
    #[case("path=\"12\"", "path", r#""12""#)]
    #[case("headers={\"a\": [1, 2]}", "headers", r#"{"a": [1, 2]}"#)]
    #[case("body=", "body", r#""""#)]
    #[case("on=true", "on", "true")]
    fn values_are_json_or_text(#[case] text: &str, #[case] key: &str, #[case] value: &str) {
        let (name, read) = parameter(text).unwrap();
        assert_eq!((name.as_str(), read.get()), (key, value));
    }

    #[test]
    fn a_long_number_stays_as_it_is() {
        let whole = r#"{"type":"function","name":"f","args":[12345678901234567890123]}"#;
        let Described { kind, json } = workload(None, &[], Some(whole)).unwrap();
        assert_eq!((kind.as_str(), json.get()), ("function", whole));
        let parameters = [parameter("args=[1e400]").unwrap()];
        let workload = workload(Some("python"), &parameters, None).unwrap().json;
        let sent = serde_json::to_string(&WithWorkload { workload, fields: Map::from_iter([("bound".to_owned(), json!("io"))]) })
            .unwrap();
        assert_eq!(sent, r#"{"workload":{"args":[1e400],"type":"python"},"bound":"io"}"#);
    }

    #[test]
    fn limits_are_read() {
        assert_eq!(concurrency("a=b=3"), Ok(json!({ "key": "a=b", "limit": 3 })));
        assert_eq!(rate("api=10/1m 30s"), Ok(json!({ "key": "api", "limit": 10, "per_ms": 90_000 })));
        assert_eq!(rate("api=10/s"), rate("api=10/1s"));
        assert!(["a", "a=", "a=b"].iter().all(|text| concurrency(text).is_err()));
        assert!(["a=1", "a=1/", "a=x/1s", "a=1/x"].iter().all(|text| rate(text).is_err()));
        assert_eq!(after("7"), Ok(json!({ "job": "7" })));
        assert_eq!(after("7=run"), Ok(json!({ "job": "7", "on_failure": "run" })));
        assert!(after("7=stop").is_err());
    }

    #[test]
    fn what_is_said_twice_is_refused() {
        let twice = [tag("a=b").unwrap(), tag("a=c").unwrap()];
        assert_eq!(labels("--tag", &twice[..1]).unwrap(), Some(json!({ "a": "b" })));
        assert_eq!(labels("--tag", &twice).unwrap_err().to_string(), "--tag a is there twice");
        let parameters = ["ms=1", "ms=2"].map(|text| parameter(text).unwrap());
        assert!(workload(Some("sleep"), &parameters, None).is_err());
    }

    #[test]
    fn a_key_is_needed() {
        assert!(parameter("below").is_err());
        assert!(tag("=x").is_err());
    }
}
