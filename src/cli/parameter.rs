use serde_json::{Map, Value};

use super::error::CliError;

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
    use serde_json::json;

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
    fn a_key_is_needed() {
        assert!(parameter("below").is_err());
        assert!(tag("=x").is_err());
    }
}
