//! The committed OpenAPI document is the one that the code makes, and it is complete.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on fails")]

use std::collections::BTreeSet;

use serde_json::Value;
use trine::command::Commands;
use trine::outbound::OutboundSettings;
use trine::workload::{Environment, PythonRules, Registry, WorkloadSettings};

const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/openapi.json");

fn document() -> String {
    let folder = tempfile::tempdir().unwrap();
    let settings = WorkloadSettings {
        outbound: OutboundSettings::default(),
        http_max_bytes: 0,
        workspace: folder.path().to_owned(),
        python: PythonRules::default(),
        commands: Commands::default(),
    };
    let registry = Registry::native(Environment::open(&settings).unwrap());
    trine::api::openapi(&registry).to_pretty_json().unwrap()
}

/// Each operation with its method and path.
fn operations(document: &Value) -> Vec<(String, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    paths
        .iter()
        .flat_map(|(path, item)| {
            item.as_object().unwrap().iter().map(move |(method, operation)| (format!("{method} {path}"), operation))
        })
        .collect()
}

/// Every object in the document, the innermost last.
fn walk<'a>(value: &'a Value, visit: &mut impl FnMut(&'a Value)) {
    visit(value);
    match value {
        Value::Object(fields) => fields.values().for_each(|value| walk(value, visit)),
        Value::Array(values) => values.iter().for_each(|value| walk(value, visit)),
        _ => {}
    }
}

#[test]
fn the_committed_document_is_the_one_that_the_code_makes() {
    let committed = std::fs::read_to_string(COMMITTED).unwrap_or_default();
    assert!(committed.trim_end() == document(), "openapi/openapi.json is old: cargo run -- openapi > openapi/openapi.json");
}

#[test]
fn every_reference_leads_somewhere() {
    let document: Value = serde_json::from_str(&document()).unwrap();
    let mut dangling = Vec::new();
    walk(&document, &mut |value| {
        let target = value.get("$ref").and_then(Value::as_str).and_then(|target| target.strip_prefix('#'));
        dangling.extend(target.filter(|target| document.pointer(target).is_none()));
    });
    assert!(dangling.is_empty(), "{dangling:?}");
}

#[test]
fn no_schema_contradicts_itself() {
    let document: Value = serde_json::from_str(&document()).unwrap();
    // What an inlined type and what its field says of it come to as a sum: a string that is an object.
    let mut contradictions = Vec::new();
    walk(&document, &mut |value| {
        let parts = value.get("allOf").and_then(Value::as_array).into_iter().flatten();
        let types: BTreeSet<_> = parts.filter_map(|part| part["type"].as_str()).collect();
        if types.len() > 1 {
            contradictions.push(value);
        }
    });
    assert!(contradictions.is_empty(), "{contradictions:?}");
}

#[test]
fn every_operation_is_told_of_with_examples() {
    let document: Value = serde_json::from_str(&document()).unwrap();
    let operations = operations(&document);
    assert!(!operations.is_empty());
    for (name, operation) in operations {
        for field in ["summary", "description", "operationId"] {
            assert!(operation[field].as_str().is_some_and(|text| !text.is_empty()), "{name} has no {field}");
        }
        let responses = operation["responses"].as_object().unwrap();
        assert!(responses.contains_key("500"), "{name}");
        let contents = responses.values().chain(operation.get("requestBody")).filter_map(|part| part["content"].as_object());
        for (media_type, content) in contents.flatten() {
            assert!(!content["example"].is_null(), "{name} has no example of {media_type}");
        }
    }
}
