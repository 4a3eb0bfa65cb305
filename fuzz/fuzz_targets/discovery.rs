//! Decodes and merges any two discovery documents, writes the merged ones in every form, and expects that nothing is lost
//! and nothing invented.
//!
//! Input: one byte; where it is odd the documents themselves, else changes to two valid ones.
#![no_main]

use std::collections::BTreeSet;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use mvproxy::discovery::document::{ApiVersion, GroupList};
use mvproxy::discovery::merge::merge;
use mvproxy::discovery::page::{Encoding, Form, Page};
use mvproxy::discovery::view::Name;
use mvproxy::discovery::{Document, Part, Served, Snapshot};
use mvproxy::steering::Steering;
use mvproxy::upstream::{Role, Upstream};
use serde_json::Value;

mod patched;
#[path = "../../tests/tests/discovery_support/protobuf.rs"]
mod protobuf;

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

/// The documents of a node whose server says the first list and whose peer says the second.
fn snapshot(local: &GroupList, peer: &GroupList) -> Snapshot {
    static UPSTREAMS: LazyLock<[Upstream; 2]> = LazyLock::new(|| {
        let counters = Steering::off("fuzzing").counters();
        [(1_u16, Role::Local), (2, Role::Peer)].map(|(port, role)| {
            let address = ([127, 0, 0, 1], port).into();
            Upstream { address, role, slot: counters.slot(address) }
        })
    });
    let served = |list: &GroupList| Served {
        groups: Part { etag: Some(list.etag()), list: list.clone() },
        ..Served::default()
    };
    let (local, peer) = (served(local), served(peer));
    Snapshot::new(&[(UPSTREAMS[0], Some(&local)), (UPSTREAMS[1], Some(&peer))], true)
}

/// In protobuf and YAML it says what it says in JSON.
fn says_the_same_in_every_form(page: &Page) {
    let of = |encoding, version| &page.body(Form { encoding, version }).plain;
    for version in [ApiVersion::V2, ApiVersion::V2beta1] {
        let json: Value = serde_json::from_slice(of(Encoding::Json, version)).expect("JSON");
        let pretty: Value = serde_json::from_slice(of(Encoding::PrettyJson, version)).expect("JSON");
        assert_eq!(pretty, json);
        let yaml = std::str::from_utf8(of(Encoding::Yaml, version)).expect("text");
        assert_eq!(serde_saphyr::from_str::<Value>(yaml).expect("YAML"), json, "{yaml}");
        assert_eq!(without_nulls(protobuf::decoded(of(Encoding::Protobuf, version))), without_nulls(json));
    }
}

/// Protobuf does not tell an empty list from none.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.into_iter().filter(|(_, value)| !value.is_null() && *value != Value::Array(vec![]));
            kept.map(|(name, value)| (name, without_nulls(value))).collect()
        }
        Value::Array(values) => values.into_iter().map(without_nulls).collect(),
        value => value,
    }
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

    let (on_first, on_second) = (snapshot(&first, &second), snapshot(&second, &first));
    let mut names = vec![Name::Aggregated(Document::Groups), Name::GroupList];
    for group in &merged.items {
        let name = group.metadata.name.as_str();
        names.push(Name::Group(name));
        names.extend(group.versions.iter().map(|one| Name::Resources { group: name, version: &one.version }));
    }
    for name in names {
        let pages = [&on_first, &on_second].map(|snapshot| snapshot.view().find(name));
        pages.into_iter().flatten().for_each(|page| says_the_same_in_every_form(page));
        if let [Some(a), Some(b)] = pages {
            assert_eq!(a.body(Form::USUAL).plain, b.body(Form::USUAL).plain, "{name:?}");
        }
    }
});
