//! Merges `OpenAPI` v2 documents in JSON; descriptions are copied as they are written, never looked into.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::described::Api;
use super::{DocumentError, MAX_DEPTH, MOST_NAMES};
use crate::discovery::bounds;

/// A document, as far as merging looks at it.
#[derive(Debug)]
pub(super) struct Swagger<'a> {
    paths: Named<'a>,
    definitions: Named<'a>,
    rest: Named<'a>,
}

/// Names of what a document describes.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) paths: BTreeSet<String>,
    pub(super) definitions: BTreeSet<String>,
}

/// How a description refers to a type, as Go writes it.
const REFERENCE: &str = "\"#/definitions/";

/// Descriptions by name.
#[derive(Debug, Default)]
struct Named<'a>(BTreeMap<String, &'a RawValue>);

impl<'a> Swagger<'a> {
    /// Reads a document.
    ///
    /// # Errors
    /// When it is none, or beyond the bounds.
    pub(super) fn parse(json: &'a [u8]) -> Result<Self, DocumentError> {
        if bounds::is_deeper_than(MAX_DEPTH, json) {
            return Err(DocumentError::Depth { limit: MAX_DEPTH });
        }
        let mut rest: Named<'a> = serde_json::from_slice(json)?;
        if rest.0.get("swagger").is_none_or(|version| version.get() != "\"2.0\"") {
            return Err(DocumentError::NotVersion2);
        }
        let mut part = |name| match rest.0.remove(name) {
            Some(part) => Named::of_objects(part),
            None => Ok(Named::default()),
        };
        Ok(Self { paths: part("paths")?, definitions: part("definitions")?, rest })
    }

    /// The APIs that it describes, in order and each once.
    pub(super) fn apis(&self) -> Vec<Api> {
        let apis: BTreeSet<Api> = self.paths.0.keys().filter_map(|path| Api::of_path(path)).collect();
        apis.into_iter().collect()
    }

    /// Takes out the paths of these APIs, and the types that only those need. What was taken out: for all forms of a document
    /// that is the same.
    pub(super) fn take_out(&mut self, apis: &[Api]) -> Names {
        let is_gone = |path: &str| Api::of_path(path).is_some_and(|api| apis.binary_search(&api).is_ok());
        let (gone, kept): (BTreeMap<_, _>, _) =
            std::mem::take(&mut self.paths.0).into_iter().partition(|(path, _)| is_gone(path));
        self.paths.0 = kept;
        let mut definitions = self.needed_by(gone.values().copied());
        let others = self.definitions.0.iter().filter(|(name, _)| !definitions.contains(*name));
        let others = others.map(|(_, description)| *description);
        let needed = self.needed_by(self.paths.0.values().copied().chain(others));
        definitions.retain(|name| !needed.contains(name));
        self.definitions.0.retain(|name, _| !definitions.contains(name));
        Names { paths: gone.into_keys().collect(), definitions }
    }

    /// The types to which descriptions refer, also by other types.
    fn needed_by(&self, descriptions: impl Iterator<Item = &'a RawValue>) -> BTreeSet<String> {
        let mut needed = BTreeSet::new();
        let mut open: Vec<&RawValue> = descriptions.collect();
        while let Some(description) = open.pop() {
            for rest in description.get().split(REFERENCE).skip(1) {
                let name = rest.split('"').next().unwrap_or_default();
                if let Some(description) = self.definitions.0.get(name).filter(|_| !needed.contains(name)) {
                    needed.insert(name.to_owned());
                    open.push(description);
                }
            }
        }
        needed
    }

    /// Bytes of its paths and types.
    pub(super) fn size(&self) -> usize {
        self.paths.size() + self.definitions.size()
    }

    /// By how many bytes another document makes it larger.
    pub(super) fn growth(&self, other: &Self) -> usize {
        self.paths.growth(&other.paths) + self.definitions.growth(&other.definitions)
    }

    /// Adds what another document describes and this one does not. Whether there was any.
    pub(super) fn add(&mut self, other: &Self) -> bool {
        let paths = self.paths.add(&other.paths);
        let definitions = self.definitions.add(&other.definitions);
        paths || definitions
    }

    /// Writes it.
    pub(super) fn write(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Whole<'a> {
            definitions: &'a Named<'a>,
            paths: &'a Named<'a>,
            #[serde(flatten)]
            rest: &'a BTreeMap<String, &'a RawValue>,
        }
        let Self { paths, definitions, rest } = self;
        serde_json::to_vec(&Whole { definitions, paths, rest: &rest.0 })
            .expect("maps with names as keys serialise")
    }
}

impl<'a> Named<'a> {
    fn of_objects(part: &'a RawValue) -> Result<Self, DocumentError> {
        let part: Self = serde_json::from_str(part.get())?;
        match part.0.iter().find(|(_, description)| !description.get().starts_with('{')) {
            Some((name, _)) => Err(DocumentError::NoObject { name: name.chars().take(64).collect() }),
            None => Ok(part),
        }
    }

    fn size(&self) -> usize {
        self.0.iter().map(|(name, description)| name.len() + description.get().len()).sum()
    }

    fn growth(&self, other: &Self) -> usize {
        let missing = other.0.iter().filter(|(name, _)| !self.0.contains_key(*name));
        missing.map(|(name, description)| name.len() + description.get().len()).sum()
    }

    fn add(&mut self, other: &Self) -> bool {
        let before = self.0.len();
        for (name, description) in &other.0 {
            if !self.0.contains_key(name) {
                self.0.insert(name.clone(), description);
            }
        }
        self.0.len() > before
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Named<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = BTreeMap<String, &'de RawValue>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut named = BTreeMap::new();
                while let Some((name, description)) = map.next_entry()? {
                    named.insert(name, description);
                    if named.len() > MOST_NAMES {
                        return Err(A::Error::custom(format_args!("more than {MOST_NAMES} names")));
                    }
                }
                Ok(named)
            }
        }
        deserializer.deserialize_map(Names).map(Self)
    }
}

impl Serialize for Named<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

#[cfg(test)]
mod tests;
