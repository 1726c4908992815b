//! Schemas that the types alone do not give.

use std::collections::BTreeMap;

use utoipa::openapi::schema::{AdditionalProperties, Components};
use utoipa::openapi::{RefOr, Schema};

/// The schema of a merge patch (RFC 7396) of an object: the same fields, none required.
pub fn merge_patch(mut schema: RefOr<Schema>) -> RefOr<Schema> {
    if let RefOr::T(Schema::Object(object)) = &mut schema {
        object.required.clear();
    }
    schema
}

/// Opens up what is composed of closed objects.
///
/// A request refuses unknown fields, so its schema is closed. An answer that has all its fields and
/// some more (a guest: its configuration, and its state) cannot refer to a closed schema: no object
/// would fit both parts. It gets an open copy instead.
pub fn open_compositions(components: &mut Components) {
    let closed: BTreeMap<String, RefOr<Schema>> = components
        .schemas
        .iter()
        .filter_map(|(name, schema)| Some((reference(name), opened(schema)?)))
        .collect();
    for schema in components.schemas.values_mut() {
        if let RefOr::T(Schema::AllOf(all)) = schema {
            for item in &mut all.items {
                if let RefOr::Ref(part) = item
                    && let Some(open) = closed.get(&part.ref_location)
                {
                    *item = open.clone();
                }
            }
        }
    }
}

fn reference(name: &str) -> String {
    format!("#/components/schemas/{name}")
}

/// An open copy of a closed object; `None` for anything else.
fn opened(schema: &RefOr<Schema>) -> Option<RefOr<Schema>> {
    let RefOr::T(Schema::Object(object)) = schema else {
        return None;
    };
    match object.additional_properties.as_deref() {
        Some(AdditionalProperties::FreeForm(false)) => {
            let mut object = object.clone();
            object.additional_properties = None;
            Some(RefOr::T(Schema::Object(object)))
        }
        _ => None,
    }
}
