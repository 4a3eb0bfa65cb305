//! Merges `OpenAPI` v2 documents in protobuf: field by field as they are on the wire, never looked into.
//!
//! Source of the numbers: `openapiv2/OpenAPIv2.proto` of github.com/google/gnostic-models.

use std::collections::BTreeMap;

use prost::encoding::{decode_varint, encode_varint};

use super::swagger::Names;
use super::{DocumentError, MAX_DEPTH, MOST_NAMES};

/// `Document.paths` and `Document.definitions`.
const PATHS: u64 = 8;
const DEFINITIONS: u64 = 9;
/// `Paths.path`, whose field 1 are extensions, and `Definitions.additional_properties`.
const PATH: u64 = 2;
const SCHEMA: u64 = 1;
/// `NamedPathItem.name` and `NamedSchema.name`.
const NAME: u64 = 1;
/// One level of JSON is up to two messages here.
const MAX_MESSAGES: usize = 2 * MAX_DEPTH;
/// Wire type of everything that has a length.
const LENGTH_DELIMITED: u64 = 2;

/// A document, as far as merging looks at it.
#[derive(Debug)]
pub(super) struct Gnostic<'a> {
    /// The fields before the paths, and those after the definitions.
    head: Vec<&'a [u8]>,
    tail: Vec<&'a [u8]>,
    paths: Named<'a>,
    definitions: Named<'a>,
}

/// A map: whole fields by name.
#[derive(Debug, Default)]
struct Named<'a> {
    named: BTreeMap<&'a str, &'a [u8]>,
    rest: Vec<&'a [u8]>,
}

impl<'a> Gnostic<'a> {
    /// Reads a document.
    ///
    /// # Errors
    /// When it is none, or beyond the bounds.
    pub(super) fn parse(document: &'a [u8]) -> Result<Self, DocumentError> {
        if is_deeper_than(MAX_MESSAGES, document) {
            return Err(DocumentError::Depth { limit: MAX_MESSAGES });
        }
        let (mut paths, mut definitions) = (Named::default(), Named::default());
        let (mut head, mut tail) = (Vec::new(), Vec::new());
        let mut swagger = None;
        for field in fields(document) {
            let field = field?;
            match field.number {
                PATHS => paths.take(field, PATH)?,
                DEFINITIONS => definitions.take(field, SCHEMA)?,
                number if number < PATHS => head.push(field.whole),
                _ => tail.push(field.whole),
            }
            if field.number == 1 {
                swagger = field.content;
            }
        }
        if swagger != Some(b"2.0") {
            return Err(DocumentError::NotVersion2);
        }
        Ok(Self { head, tail, paths, definitions })
    }

    /// Takes out what was taken out of the same document's other form.
    pub(super) fn take_out(&mut self, names: &Names) {
        self.paths.named.retain(|name, _| !names.paths.contains(*name));
        self.definitions.named.retain(|name, _| !names.definitions.contains(*name));
    }

    /// Bytes of its paths and types.
    pub(super) fn size(&self) -> usize {
        self.paths.fields().chain(self.definitions.fields()).map(<[u8]>::len).sum()
    }

    /// By how many bytes another document makes it larger.
    pub(super) fn growth(&self, other: &Self) -> usize {
        self.paths.growth(&other.paths) + self.definitions.growth(&other.definitions)
    }

    /// Adds what another document describes and this one does not.
    pub(super) fn add(&mut self, other: &Self) {
        self.paths.add(&other.paths);
        self.definitions.add(&other.definitions);
    }

    /// Writes it.
    pub(super) fn write(&self) -> Vec<u8> {
        let mut document = self.head.concat();
        for (number, named) in [(PATHS, &self.paths), (DEFINITIONS, &self.definitions)] {
            encode_varint(number << 3 | LENGTH_DELIMITED, &mut document);
            encode_varint(named.fields().map(|field| field.len() as u64).sum(), &mut document);
            named.fields().for_each(|field| document.extend_from_slice(field));
        }
        self.tail.iter().for_each(|field| document.extend_from_slice(field));
        document
    }
}

impl<'a> Named<'a> {
    /// Takes a field of the document whose fields of one number are entries.
    fn take(&mut self, part: Field<'a>, entries: u64) -> Result<(), DocumentError> {
        for field in fields(part.content.ok_or(DocumentError::Wire)?) {
            let field = field?;
            if field.number != entries {
                self.rest.push(field.whole);
                continue;
            }
            let mut name = "";
            for part in fields(field.content.ok_or(DocumentError::Wire)?) {
                let part = part?;
                if part.number == NAME {
                    name =
                        str::from_utf8(part.content.unwrap_or_default()).map_err(|_| DocumentError::Wire)?;
                }
            }
            self.named.insert(name, field.whole);
            if self.named.len() > MOST_NAMES {
                return Err(DocumentError::Names);
            }
        }
        Ok(())
    }

    fn growth(&self, other: &Self) -> usize {
        let missing = other.named.iter().filter(|(name, _)| !self.named.contains_key(*name));
        missing.map(|(_, field)| field.len()).sum()
    }

    fn add(&mut self, other: &Self) {
        for (name, field) in &other.named {
            self.named.entry(name).or_insert(field);
        }
    }

    fn fields(&self) -> impl Iterator<Item = &'a [u8]> {
        self.rest.iter().chain(self.named.values()).copied()
    }
}

/// One field of a message.
#[derive(Clone, Copy)]
struct Field<'a> {
    number: u64,
    /// With key and length.
    whole: &'a [u8],
    /// Of fields that have a length.
    content: Option<&'a [u8]>,
}

/// Whether messages are in each other at more levels than these. What can be read as a message is taken for one: which
/// fields are texts is not known here, and no text that somebody wrote is many messages in each other. Each byte is looked at
/// twice at most.
fn is_deeper_than(levels: usize, message: &[u8]) -> bool {
    let mut open = vec![message];
    while let Some(rest) = open.last_mut() {
        let Some(found) = Some(rest).filter(|rest| !rest.is_empty()).and_then(field) else {
            open.pop();
            continue;
        };
        let is_message = |content: &&[u8]| !content.is_empty() && fields(content).all(|field| field.is_ok());
        if let Some(content) = found.content.filter(is_message) {
            if open.len() >= levels {
                return true;
            }
            open.push(content);
        }
    }
    false
}

/// The fields of a message up to the first mistake. Groups, which gnostic's messages do not have, are one.
fn fields(message: &[u8]) -> impl Iterator<Item = Result<Field<'_>, DocumentError>> {
    let mut rest = message;
    let mut is_broken = false;
    std::iter::from_fn(move || {
        if rest.is_empty() || is_broken {
            return None;
        }
        let field = field(&mut rest);
        is_broken = field.is_none();
        Some(field.ok_or(DocumentError::Wire))
    })
}

fn field<'a>(rest: &mut &'a [u8]) -> Option<Field<'a>> {
    let start = *rest;
    let key = decode_varint(rest).ok()?;
    let length = match key & 7 {
        0 => {
            decode_varint(rest).ok()?;
            0
        }
        1 => 8,
        LENGTH_DELIMITED => usize::try_from(decode_varint(rest).ok()?).ok()?,
        5 => 4,
        _ => return None,
    };
    let (content, after) = rest.split_at_checked(length)?;
    *rest = after;
    let whole = &start[..start.len() - after.len()];
    Some(Field { number: key >> 3, whole, content: (key & 7 == LENGTH_DELIMITED).then_some(content) })
}

#[cfg(test)]
mod tests;
