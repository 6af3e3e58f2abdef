//! The committed OpenAPI document is the one that the code makes, and it is complete.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on fails")]

use std::collections::BTreeSet;

use serde_json::Value;
use trine::command::Commands;
use trine::outbound::OutboundSettings;
use trine::workload::{Environment, PythonRules, Registry, WorkloadSettings};

const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/openapi.json");

/// What is no text, and can't be shown as such.
const BINARY: [&str; 3] = ["application/octet-stream", "application/zip", "image/png"];

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

/// What a reference refers to; anything else is that.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let target = value.get("$ref").and_then(Value::as_str).and_then(|target| document.pointer(target.strip_prefix('#')?));
    target.unwrap_or(value)
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
fn every_schema_that_is_spoken_of_exists() {
    // Of what looks like the name of one.
    const HEADERS: [&str; 5] = ["Accept", "Authorization", "Cookie", "ETag", "Range"];
    let document: Value = serde_json::from_str(&document()).unwrap();
    let is_name = |word: &&str| {
        let letters = word.chars().all(|letter| letter.is_ascii_alphabetic());
        letters && word.starts_with(char::is_uppercase) && word.contains(char::is_lowercase) && !HEADERS.contains(word)
    };
    let (mut named, mut missing) = (0, BTreeSet::new());
    walk(&document, &mut |value| {
        let words =
            value.get("description").and_then(Value::as_str).into_iter().flat_map(|text| text.split('`').skip(1).step_by(2));
        for word in words.filter(is_name) {
            named += 1;
            missing.extend(document["components"]["schemas"].get(word).is_none().then_some(word));
        }
    });
    assert!(named > 0 && missing.is_empty(), "{missing:?}");
}

#[test]
fn lists_refer_to_what_is_on_them() {
    let document: Value = serde_json::from_str(&document()).unwrap();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let lists: Vec<_> = schemas.iter().filter_map(|(name, list)| Some((name.strip_prefix("List_")?, list))).collect();
    assert!(!lists.is_empty());
    for (item, list) in lists {
        assert_eq!(list["properties"]["items"]["items"]["$ref"], format!("#/components/schemas/{item}"));
    }
}

#[test]
fn generators_of_clients_can_make_a_type_of_every_schema() {
    let document: Value = serde_json::from_str(&document()).unwrap();
    walk(&document, &mut |value| {
        // The sum of something and a choice is none.
        for part in value.get("allOf").and_then(Value::as_array).into_iter().flatten().map(|part| resolved(&document, part)) {
            assert!(part.get("oneOf").or(part.get("anyOf")).is_none(), "{value}");
        }
        // What is within one of several variants has a name of its own, or would have one that is made up, and more than once.
        for variant in value.get("oneOf").and_then(Value::as_array).into_iter().flatten() {
            for (name, property) in variant["properties"].as_object().into_iter().flatten() {
                assert!(property.get("additionalProperties").is_none(), "{name} in {variant}");
            }
        }
    });
}

#[test]
fn what_is_no_text_is_no_list_of_numbers() {
    let text = document();
    assert!(!text.chars().any(|letter| letter.is_control() && letter != '\n'));
    let document: Value = serde_json::from_str(&text).unwrap();
    let mut found = 0;
    walk(&document, &mut |value| {
        for media_type in BINARY {
            if let Some(content) = value.get(media_type) {
                let schema = resolved(&document, &content["schema"]);
                assert_eq!((&schema["type"], &schema["format"]), (&"string".into(), &"binary".into()), "{media_type}");
                assert!(content["example"].is_null(), "bytes can't be written there");
                found += 1;
            }
        }
    });
    assert!(found > 0);
}

#[test]
fn nothing_is_filled_in_that_was_not_asked_for() {
    let document: Value = serde_json::from_str(&document()).unwrap();
    for (name, operation) in operations(&document) {
        for parameter in
            operation["parameters"].as_array().into_iter().flatten().filter(|parameter| parameter["required"] != true)
        {
            // Swagger UI sends the examples of optional parameters with each request that it tries.
            let schema = resolved(&document, &parameter["schema"]);
            assert!(parameter["example"].is_null() && schema["example"].is_null(), "{name}: {}", parameter["name"]);
        }
    }
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
            let is_binary = BINARY.contains(&media_type.as_str());
            assert!(is_binary || !content["example"].is_null(), "{name} has no example of {media_type}");
        }
    }
}
