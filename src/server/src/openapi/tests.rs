//! The document and the router say the same, and the document is sound.

use std::collections::{BTreeMap, BTreeSet};

use lodge_api::privilege::Privilege;
use serde_json::Value;

use super::document;
use crate::routes::table;

fn json() -> Value {
    serde_json::to_value(document(&table())).unwrap()
}

fn operations(document: &Value) -> BTreeMap<(String, String), Value> {
    let mut found = BTreeMap::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            found.insert((method.clone(), path.clone()), operation.clone());
        }
    }
    found
}

#[test]
fn every_route_is_in_the_document_and_the_other_way_round() {
    let documented: BTreeSet<(String, String)> = operations(&json()).into_keys().collect();
    let table = table();
    let routed: BTreeSet<(String, String)> = table
        .iter()
        .map(|r| (r.method.as_str().to_lowercase(), r.path.to_owned()))
        .collect();
    assert_eq!(routed.len(), table.len(), "a method is declared twice");
    assert_eq!(documented, routed);
}

#[test]
fn every_method_declares_one_known_privilege() {
    let known: BTreeSet<&str> = Privilege::ALL.iter().map(|p| p.as_str()).collect();
    let mut public = Vec::new();
    for ((method, path), operation) in operations(&json()) {
        let privilege = operation["x-privilege"].as_str().unwrap();
        if privilege == "none" {
            assert!(operation.get("security").is_none());
            public.push(format!("{method} {path}"));
        } else {
            assert!(known.contains(privilege), "{method} {path}: {privilege}");
            assert_eq!(operation["security"].as_array().unwrap().len(), 2);
        }
    }
    // Whoever makes another method public has to say so here.
    assert_eq!(
        public,
        [
            "get /",
            "get /v1",
            "get /v1/openapi.json",
            "post /v1/sessions"
        ]
    );
}

#[test]
fn privileges_are_named_as_in_json() {
    for privilege in Privilege::ALL {
        assert_eq!(serde_json::to_value(privilege).unwrap(), privilege.as_str());
    }
}

#[test]
fn operations_are_named_noun_verb_and_explained() {
    let mut ids = BTreeSet::new();
    for (key, operation) in operations(&json()) {
        let id = operation["operationId"].as_str().unwrap().to_owned();
        assert!(id.split('_').count() == 2 || id == "vm_console", "{id}");
        assert!(ids.insert(id), "{key:?}");
        assert!(!operation["summary"].as_str().unwrap().is_empty());
        let responses = operation["responses"].as_object().unwrap();
        assert!(
            responses.keys().any(|s| s.starts_with(['1', '2'])),
            "{key:?}"
        );
        assert!(responses.contains_key("default"));
    }
}

#[test]
fn path_parameters_are_declared() {
    for ((method, path), operation) in operations(&json()) {
        let declared: BTreeSet<String> = operation["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|p| p["in"] == "path")
            .map(|p| format!("{{{}}}", p["name"].as_str().unwrap()))
            .collect();
        assert_eq!(path.matches('{').count(), declared.len(), "{method} {path}");
        assert!(declared.iter().all(|name| path.contains(name.as_str())));
    }
}

#[test]
fn query_parameters_are_in_the_query() {
    for ((method, path), operation) in operations(&json()) {
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let place = parameter["in"].as_str().unwrap();
            assert!(
                ["path", "query", "header"].contains(&place),
                "{method} {path}"
            );
            assert!(
                parameter["schema"].is_object(),
                "{method} {path} {parameter}"
            );
        }
    }
}

#[test]
fn every_reference_leads_somewhere() {
    let document = json();
    let mut references = Vec::new();
    collect_references(&document, &mut references);
    assert!(references.len() > 50);
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

fn collect_references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get("$ref") {
                found.push(reference.clone());
            }
            map.values().for_each(|v| collect_references(v, found));
        }
        Value::Array(items) => items.iter().for_each(|v| collect_references(v, found)),
        _ => {}
    }
}

#[test]
fn compositions_can_be_fulfilled() {
    let document = json();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let closed = |schema: &Value| schema["additionalProperties"] == false;
    let mut composed = 0;
    for (name, schema) in schemas {
        for part in schema["allOf"].as_array().into_iter().flatten() {
            let reference = part["$ref"].as_str().and_then(|r| r.strip_prefix('#'));
            let target = reference.and_then(|r| document.pointer(r)).unwrap_or(part);
            assert!(!closed(target), "{name}");
            composed += 1;
        }
    }
    assert!(composed > 0);
    assert!(closed(&schemas["VmSpec"]));
    assert!(schemas["VmSpec"]["required"].is_array());
    assert!(schemas["VmPatch"].get("required").is_none());
}

#[test]
fn the_version_is_three_one() {
    let document = json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    assert_eq!(document["info"]["title"], "Lodge");
}
