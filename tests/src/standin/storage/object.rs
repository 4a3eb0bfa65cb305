//! Reads and changes the metadata of stored objects.

use serde_json::{Map, Value, json};

use crate::standin::clock;

/// The object's `metadata.FIELD` if it is text.
pub(in crate::standin) fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get("metadata").and_then(|metadata| metadata.get(field)?.as_str()).unwrap_or_default()
}

/// The object's metadata, made where it is missing; `None` when object or metadata are no JSON objects.
pub(in crate::standin) fn metadata(object: &mut Value) -> Option<&mut Map<String, Value>> {
    object.as_object_mut()?.entry("metadata").or_insert_with(|| json!({})).as_object_mut()
}

/// Sets what the server sets on a new object.
pub(in crate::standin) fn stamp_new(object: &mut Value, has_status: bool) {
    let has_spec = object.get("spec").is_some();
    if has_status && let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    let Some(metadata) = metadata(object) else { return };
    for field in
        ["resourceVersion", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"]
    {
        metadata.remove(field);
    }
    metadata.insert("uid".to_owned(), clock::uuid().into());
    metadata.insert("creationTimestamp".to_owned(), clock::timestamp().into());
    if has_spec {
        metadata.insert("generation".to_owned(), 1.into());
    }
}

/// Carries over from `old` what a client cannot change by writing `new` through `subresource`.
pub(in crate::standin) fn stamp_changed(old: &Value, new: &mut Value, subresource: &str, has_status: bool) {
    if subresource == "status" {
        let status = new.get("status").cloned();
        let annotations_and_labels = new.get("metadata").cloned();
        *new = old.clone();
        set(new, "status", status);
        if let (Some(from), Some(to)) = (annotations_and_labels, metadata(new)) {
            for field in ["annotations", "labels"] {
                set_in(to, field, from.get(field).cloned());
            }
        }
    } else if has_status {
        set(new, "status", old.get("status").cloned());
    }
    let generation = next_generation(old, new);
    let Some(metadata) = metadata(new) else { return };
    metadata.remove("resourceVersion");
    let kept =
        ["uid", "creationTimestamp", "name", "namespace", "deletionTimestamp", "deletionGracePeriodSeconds"];
    for field in kept {
        set_in(metadata, field, old.pointer(&format!("/metadata/{field}")).cloned());
    }
    set_in(metadata, "generation", generation);
}

/// Marks an object that waits for its finalizers.
pub(in crate::standin) fn mark_deleted(object: &mut Value) {
    if let Some(metadata) = metadata(object) {
        metadata.insert("deletionTimestamp".to_owned(), clock::timestamp().into());
        metadata.insert("deletionGracePeriodSeconds".to_owned(), 0.into());
    }
}

pub(in crate::standin) fn has_finalizers(object: &Value) -> bool {
    object.pointer("/metadata/finalizers").and_then(Value::as_array).is_some_and(|list| !list.is_empty())
}

pub(in crate::standin) fn is_being_deleted(object: &Value) -> bool {
    !text(object, "deletionTimestamp").is_empty()
}

/// One more when the spec changed.
fn next_generation(old: &Value, new: &Value) -> Option<Value> {
    let generation = old.pointer("/metadata/generation")?;
    if old.get("spec") == new.get("spec") {
        return Some(generation.clone());
    }
    Some((generation.as_u64().unwrap_or_default() + 1).into())
}

fn set(object: &mut Value, field: &str, value: Option<Value>) {
    if let Some(fields) = object.as_object_mut() {
        set_in(fields, field, value);
    }
}

fn set_in(fields: &mut Map<String, Value>, field: &str, value: Option<Value>) {
    match value {
        Some(value) => fields.insert(field.to_owned(), value),
        None => fields.remove(field),
    };
}
