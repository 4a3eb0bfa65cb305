//! Decodes and merges any two discovery documents, and expects that nothing is lost and nothing invented.
//!
//! Input: one byte; where it is odd the documents themselves, else changes to two valid ones.
#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use mvproxy::discovery::document::GroupList;
use mvproxy::discovery::merge::merge;

mod patched;

/// What an old and a new server might say, as short as can be: most changes leave it valid.
const VALID: &[u8] = b"{\"kind\":\"APIGroupDiscoveryList\",\"items\":[\
    {\"metadata\":{\"name\":\"aa\"},\"versions\":[{\"version\":\"v1\",\"freshness\":\"Current\",\"resources\":[\
    {\"resource\":\"r1\",\"verbs\":[\"get\",\"list\"],\"subresources\":[{\"subresource\":\"s1\",\"verbs\":[\"get\"]}]},\
    {\"resource\":\"r2\",\"verbs\":[\"get\"]}]},{\"version\":\"v2\",\"resources\":[]}]},\
    {\"metadata\":{\"name\":\"bb\"},\"versions\":[]},{\"metadata\":{\"name\":\"cc\"}}]}\0\
    {\"kind\":\"APIGroupDiscoveryList\",\"items\":[{\"metadata\":{\"name\":\"cc\"}},\
    {\"metadata\":{\"name\":\"aa\"},\"versions\":[{\"version\":\"v3\",\"freshness\":\"Stale\",\"resources\":[\
    {\"resource\":\"r2\",\"verbs\":[\"put\",\"get\"],\"subresources\":[{\"subresource\":\"s2\",\"verbs\":null}]},\
    {\"resource\":\"r3\",\"verbs\":[\"get\"]}]},{\"version\":\"v1\",\"resources\":[{\"resource\":\"r1\"}]}]}]}";

fn resources(list: &GroupList) -> BTreeSet<(&str, &str, &str)> {
    list.resources().collect()
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, data)) = data.split_first() else { return };
    let data = if kind % 2 == 1 { data.to_vec() } else { patched::patched(VALID, data) };
    // A zero byte separates the documents: JSON has none.
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let decoded = |part: Option<&[u8]>| part.and_then(|json| GroupList::decode(json).ok());
    let Some(first) = decoded(parts.next()) else { return };
    assert_eq!(GroupList::decode(&first.encode()).expect("what was encoded can be decoded"), first);
    let second = decoded(parts.next()).unwrap_or_default();

    let merged = merge(&[&first, &second]);
    let union: BTreeSet<_> = resources(&first).union(&resources(&second)).copied().collect();
    assert_eq!(resources(&merged), union);
    assert_eq!(merge(&[&merged]), merged);
    assert_eq!(resources(&merge(&[&second, &first])), union);
});
