//! Merges any two `/openapi/v2` documents in either form and expects that what comes out is one, that nothing of the first
//! is lost, and that adding the second once more changes nothing.
//!
//! Input: one byte; its lowest bit says whether protobuf is meant, and where the next is set the rest are the documents
//! themselves, else changes to valid ones.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};

use libfuzzer_sys::fuzz_target;
use mvproxy::discovery::openapi::{DocumentError, merged_json, merged_protobuf};
use serde_json::value::RawValue;

mod patched;

/// Two documents as short as can be, with a path and a type that both have and some that one has.
const JSON: &[u8] = b"{\"swagger\":\"2.0\",\"info\":{},\"paths\":{\"/a\":{\"get\":[1]},\"/b\":{}},\
    \"definitions\":{\"A\":{},\"B\":{\"$ref\":\"#/definitions/A\"}}}\xff\
    {\"swagger\":\"2.0\",\"paths\":{\"/a\":{},\"/c\":{\"x\":{}}},\"definitions\":{\"A\":{\"y\":1},\"C\":{}}}";
/// The same: `swagger`, `host`, `paths`, `definitions` and `tags`.
const PROTOBUF: &[u8] = b"\x0a\x032.0\x1a\x01h\x42\x10\x12\x06\x0a\x02/a\x12\x00\x12\x06\x0a\x02/b\x12\x00\
    \x4a\x0b\x0a\x03\x0a\x01A\x0a\x04\x0a\x02BB\x72\x03\x0a\x01t\xff\xff\
    \x0a\x032.0\x42\x12\x0a\x00\x12\x06\x0a\x02/a\x12\x00\x12\x06\x0a\x02/c\x12\x00\x4a\x05\x0a\x03\x0a\x01C";

fn names(json: &[u8], part: &str) -> BTreeSet<String> {
    // Descriptions are not looked into, here as there.
    type Object = BTreeMap<String, Box<RawValue>>;
    let document: Object = serde_json::from_slice(json).expect("what was read can be read");
    let of = |part: &RawValue| serde_json::from_str::<Object>(part.get()).expect("an object");
    document.get(part).map(|part| of(part)).into_iter().flatten().map(|(name, _)| name).collect()
}

fn is_merged(
    merge: fn(&[u8], &[u8]) -> Result<Vec<u8>, DocumentError>,
    first: &[u8],
    second: &[u8],
) -> Option<Vec<u8>> {
    let merged = merge(first, second).ok()?;
    assert_eq!(merge(&merged, second).expect("what was written can be read"), merged);
    assert_eq!(merge(&merged, first).expect("what was written can be read"), merged);
    Some(merged)
}

/// Runs one input; whether there was something to merge.
fn merges(is_protobuf: bool, data: &[u8]) -> bool {
    // JSON has no such byte; a protobuf document can have two of them, and is another then.
    let mark: &[u8] = if is_protobuf { b"\xff\xff" } else { b"\xff" };
    let Some(place) = data.windows(mark.len()).position(|bytes| bytes == mark) else { return false };
    let (first, second) = (&data[..place], &data[place + mark.len()..]);
    if is_protobuf {
        return is_merged(merged_protobuf, first, second).is_some();
    }
    let Some(merged) = is_merged(merged_json, first, second) else { return false };
    for part in ["paths", "definitions"] {
        let union: BTreeSet<_> = names(first, part).union(&names(second, part)).cloned().collect();
        assert_eq!(names(&merged, part), union);
    }
    true
}

fuzz_target!(
    init: assert!(merges(false, JSON) && merges(true, PROTOBUF), "the valid ones are"),
    |data: &[u8]| {
        let Some((kind, data)) = data.split_first() else { return };
        let (is_protobuf, is_whole) = (kind & 1 == 1, kind & 2 == 2);
        let valid = if is_protobuf { PROTOBUF } else { JSON };
        merges(is_protobuf, &if is_whole { data.to_vec() } else { patched::patched(valid, data) });
    }
);
