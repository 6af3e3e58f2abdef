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

/// Reads `key=value` with a value that is JSON if it can be read as JSON, else text.
pub(super) fn parameter(text: &str) -> Result<(String, Value), &'static str> {
    let (key, value) = tag(text)?;
    let value = serde_json::from_str(&value).unwrap_or(Value::String(value));
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

/// The workload that a command line describes: as a whole, or by its name and parameters.
pub(super) fn workload(kind: Option<&str>, parameters: &[(String, Value)], whole: Option<&str>) -> Result<Value, CliError> {
    let Some(text) = whole else {
        let mut fields: Map<String, Value> = parameters.iter().cloned().collect();
        fields.insert("type".into(), kind.into());
        return Ok(fields.into());
    };
    let workload: Value =
        serde_json::from_str(text).map_err(|error| CliError::Usage(format!("--workload is not JSON: {error}")))?;
    if workload["type"].is_string() {
        Ok(workload)
    } else {
        Err(CliError::Usage("--workload takes an object with a `type`, such as {\"type\": \"sleep\", \"ms\": 5}".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("below=1000", "below", json!(1000))]
    #[case("url=http://localhost/?a=b", "url", json!("http://localhost/?a=b"))]
    #[case("path=\"12\"", "path", json!("12"))]
    #[case("headers={\"a\": [1, 2]}", "headers", json!({ "a": [1, 2] }))]
    #[case("body=", "body", json!(""))]
    #[case("on=true", "on", json!(true))]
    fn values_are_json_or_text(#[case] text: &str, #[case] key: &str, #[case] value: Value) {
        assert_eq!(parameter(text), Ok((key.to_owned(), value)));
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
    fn a_key_is_needed() {
        assert!(parameter("below").is_err());
        assert!(tag("=x").is_err());
    }
}
