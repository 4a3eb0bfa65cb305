//! Shows objects in the form a client accepts: whole, as metadata only, or as rows of a Table.

use serde_json::{Value, json};

use super::object;
use super::target::Target;
use crate::standin::clock;
use crate::standin::discovery::accept;
use crate::standin::status::Status;
use crate::store::Entry;

/// The form of the objects in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::standin) enum View {
    Whole,
    Metadata,
    Table(Include),
}

/// What the rows of a Table carry besides their cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::standin) enum Include {
    Nothing,
    Metadata,
    Object,
}

impl View {
    /// The first acceptable clause decides; JSON is the only format there is.
    pub(in crate::standin) fn choose(
        accept: &str,
        include_object: Option<&str>,
    ) -> Result<Self, Box<Status>> {
        let include = match include_object {
            Some("None") => Include::Nothing,
            Some("Object") => Include::Object,
            _ => Include::Metadata,
        };
        let clauses = accept::clauses(accept);
        if clauses.is_empty() {
            return Ok(Self::Whole);
        }
        let mut json = clauses
            .iter()
            .filter(|clause| matches!(clause.media_type, "application/json" | "application/*" | "*/*"));
        json.find_map(|clause| match (clause.parameter("as"), clause.parameter("g")) {
            (None, None) => Some(Self::Whole),
            (Some("Table"), Some("meta.k8s.io")) => Some(Self::Table(include)),
            (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some("meta.k8s.io")) => {
                Some(Self::Metadata)
            }
            _ => None,
        })
        .ok_or_else(|| Status::not_acceptable("application/json"))
    }

    /// One object on its own.
    pub(in crate::standin) fn one(self, target: &Target, entry: &Entry) -> Value {
        let whole = whole(target, entry);
        match self {
            Self::Whole => whole,
            Self::Metadata => partial(&whole),
            Self::Table(include) => {
                let mut table = table(include, std::slice::from_ref(&whole), &columns());
                table["metadata"]["resourceVersion"] = entry.revision.to_string().into();
                table
            }
        }
    }

    /// The same as one event of a watch, where only the first Table carries its columns.
    pub(in crate::standin) fn event(self, target: &Target, entry: &Entry, first: bool) -> Value {
        let mut shown = self.one(target, entry);
        if !first && matches!(self, Self::Table(_)) {
            shown["columnDefinitions"] = Value::Null;
        }
        shown
    }

    /// A list with `metadata`.
    pub(in crate::standin) fn list(self, target: &Target, entries: &[Entry], metadata: Value) -> Value {
        let objects = entries.iter().map(|entry| whole(target, entry));
        match self {
            Self::Whole => {
                let items: Vec<Value> = objects.map(without_type).collect();
                json!({"kind": format!("{}List", target.kind), "apiVersion": target.api_version(),
                       "metadata": metadata, "items": items})
            }
            Self::Metadata => {
                let items: Vec<Value> = objects.map(|one| partial(&one)).collect();
                json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                       "metadata": metadata, "items": items})
            }
            Self::Table(include) => {
                let objects: Vec<Value> = objects.collect();
                let mut table = table(include, &objects, &columns());
                table["metadata"] = metadata;
                table
            }
        }
    }

    /// The kind and apiVersion of a bookmark's object.
    pub(in crate::standin) fn bookmark_type(self, target: &Target) -> (String, String) {
        match self {
            Self::Whole => (target.kind.clone(), target.api_version()),
            Self::Metadata => ("PartialObjectMetadata".to_owned(), "meta.k8s.io/v1".to_owned()),
            Self::Table(_) => ("Table".to_owned(), "meta.k8s.io/v1".to_owned()),
        }
    }
}

/// The object in the version that was asked for; the store keeps none.
pub(in crate::standin) fn whole(target: &Target, entry: &Entry) -> Value {
    let mut shown = entry.value.as_ref().clone();
    shown["apiVersion"] = target.api_version().into();
    shown["kind"] = target.kind.as_str().into();
    shown["metadata"]["resourceVersion"] = entry.revision.to_string().into();
    shown
}

/// Items of a typed list carry neither kind nor apiVersion.
fn without_type(mut object: Value) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.remove("kind");
        fields.remove("apiVersion");
    }
    object
}

fn partial(whole: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": whole["metadata"]})
}

fn columns() -> Value {
    json!([
        {"name": "Name", "type": "string", "format": "name", "description": "Name of the object.", "priority": 0},
        {"name": "Age", "type": "string", "format": "", "description": "Time since its creation.", "priority": 0},
    ])
}

fn table(include: Include, objects: &[Value], columns: &Value) -> Value {
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let mut row = json!({"cells": [object::text(object, "name"), age(object)]});
            match include {
                Include::Nothing => {}
                Include::Metadata => row["object"] = partial(object),
                Include::Object => row["object"] = object.clone(),
            }
            row
        })
        .collect();
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "columnDefinitions": columns, "rows": rows})
}

/// The age as kubectl prints it, in the largest fitting unit.
fn age(object: &Value) -> String {
    match clock::seconds_since(object::text(object, "creationTimestamp")) {
        None => "<unknown>".to_owned(),
        Some(seconds @ 0..120) => format!("{seconds}s"),
        Some(seconds @ 120..7_200) => format!("{}m", seconds / 60),
        Some(seconds @ 7_200..172_800) => format!("{}h", seconds / 3_600),
        Some(seconds) => format!("{}d", seconds / 86_400),
    }
}
