//! Shows that merging discovery documents loses nothing, adds nothing, and comes out the same on every node.

use std::collections::BTreeSet;
use std::sync::Arc;

use mvproxy::discovery::document::{
    ApiVersion, Group, GroupList, GroupMeta, GroupVersionKind, Resource, Subresource, Version,
};
use mvproxy::discovery::merge::merge;
use mvproxy::discovery::page::{Encoding, Form, Page};
use mvproxy::discovery::view::Name;
use mvproxy::discovery::{Document, Part, Served, Snapshot};
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};
use serde_json::Value;

use crate::cases;
use crate::cluster::{UPSTREAMS, VERBS};
use crate::protobuf::decoded;

fn name(names: &'static [&'static str]) -> impl Strategy<Value = String> {
    select(names).prop_map(str::to_owned)
}

/// Sorted, as kube-apiserver lists them, or absent.
fn verbs() -> impl Strategy<Value = Option<Vec<String>>> {
    let some = subsequence(&VERBS[..], 1..=VERBS.len());
    option::weighted(0.9, some.prop_map(|verbs| verbs.into_iter().map(str::to_owned).collect()))
}

fn kind() -> impl Strategy<Value = Option<GroupVersionKind>> {
    let kind =
        name(&["Thing", "Scale"]).prop_map(|kind| GroupVersionKind { kind, ..GroupVersionKind::default() });
    option::of(kind)
}

fn resource() -> impl Strategy<Value = Resource> {
    let subresource = (name(&["log", "scale", "status"]), kind(), verbs()).prop_map(
        |(subresource, response_kind, verbs)| Subresource {
            subresource,
            accepted_types: response_kind.iter().cloned().collect(),
            response_kind,
            verbs,
        },
    );
    let words = || vec(name(&["po", "all"]), 0..2);
    let names = (name(&["as", "pods", "zs"]), name(&["Cluster", "Namespaced"]), words(), words());
    (names, kind(), verbs(), vec(subresource, 0..3)).prop_map(
        |((resource, scope, short_names, categories), response_kind, verbs, subresources)| Resource {
            singular_resource: resource.trim_end_matches('s').to_owned(),
            resource,
            response_kind,
            scope,
            verbs,
            short_names,
            categories,
            subresources,
        },
    )
}

/// A document in any order, with names that may come twice.
fn list() -> impl Strategy<Value = GroupList> {
    let version = (
        name(&["v1", "v2", "v1beta1", "v1alpha1", "odd"]),
        vec(resource(), 0..4),
        name(&["Current", "Stale", ""]),
    )
        .prop_map(|(version, resources, freshness)| Version { version, resources, freshness });
    let group = (name(&["", "apps", "batch", "zeta"]), vec(version, 0..3))
        .prop_map(|(name, versions)| Group { metadata: GroupMeta { name }, versions });
    vec(group, 0..4).prop_map(GroupList::of)
}

/// Everything that somebody could look for in a document, one line each.
fn facts(lists: &[&GroupList]) -> BTreeSet<String> {
    let mut facts = BTreeSet::new();
    for group in lists.iter().flat_map(|list| &list.items) {
        let name = &group.metadata.name;
        facts.insert(format!("{name}."));
        for version in &group.versions {
            let gv = format!("{name}/{}", version.version);
            facts.insert(gv.clone());
            for resource in &version.resources {
                let key = format!("{gv}/{}", resource.resource);
                facts.extend(resource.verbs.iter().flatten().map(|verb| format!("{verb} {key}")));
                for sub in &resource.subresources {
                    let key = format!("{key}/{}", sub.subresource);
                    facts.extend(sub.verbs.iter().flatten().map(|verb| format!("{verb} {key}")));
                    facts.insert(key);
                }
                facts.insert(key);
            }
        }
    }
    facts
}

fn resources(list: &GroupList) -> BTreeSet<(&str, &str, &str)> {
    list.resources().collect()
}

/// The documents that a node with server `local` shows, its peers in the given order: the aggregated one, and the
/// unaggregated list of groups.
fn shown(servers: &[Served], order: &[usize]) -> (String, Option<String>) {
    let pairs: Vec<_> =
        UPSTREAMS.iter().copied().zip(order.iter().map(|number| Some(&servers[*number]))).collect();
    let snapshot = Snapshot::new(&pairs, true);
    let found = |name| snapshot.view().find(name);
    let text = |page: &Arc<Page>| String::from_utf8(page.body(Form::USUAL).plain.to_vec()).unwrap();
    let aggregated = match found(Name::Aggregated(Document::Groups)) {
        Some(page) => {
            let list = GroupList::decode(&page.body(Form::USUAL).plain)
                .expect("what the proxy encodes it can decode");
            assert_eq!(page.etag(), Some(&list.etag()), "the tag is that of the content");
            text(page)
        }
        None => String::from_utf8(servers[order[0]].groups.list.encode()).unwrap(),
    };
    (aggregated, found(Name::GroupList).map(text))
}

fn server() -> impl Strategy<Value = Served> {
    (list(), name(&["v1.34.2", "v1.36.0", "v1.36.0-rc.1", ""]), prop::bool::weighted(0.8)).prop_map(
        |(list, version, has_tag)| Served {
            groups: Part { etag: has_tag.then(|| list.etag()), list },
            version,
            ..Served::default()
        },
    )
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn a_merged_document_says_what_its_sources_say_and_nothing_else(lists in vec(list(), 0..5)) {
        let lists: Vec<&GroupList> = lists.iter().collect();
        let merged = merge(&lists);
        prop_assert_eq!(facts(&[&merged]), facts(&lists));
        let union: BTreeSet<_> = lists.iter().flat_map(|list| list.resources()).collect();
        prop_assert_eq!(resources(&merged), union);
    }

    #[test]
    fn a_name_comes_once_in_a_merged_document(lists in vec(list(), 1..4)) {
        let merged = merge(&lists.iter().collect::<Vec<_>>());
        prop_assert_eq!(merged.resources().count(), resources(&merged).len());
        let groups: BTreeSet<_> = merged.items.iter().map(|group| &group.metadata.name).collect();
        prop_assert_eq!(merged.items.len(), groups.len());
    }

    #[test]
    fn merging_again_changes_nothing(lists in vec(list(), 1..4), again in any::<Index>()) {
        let lists: Vec<&GroupList> = lists.iter().collect();
        let merged = merge(&lists);
        prop_assert_eq!(&merge(&[&merged]), &merged);
        prop_assert_eq!(&merge(&[&merged, &merged]), &merged);
        prop_assert_eq!(&merge(&[&merged, lists[again.index(lists.len())]]), &merged);
    }

    #[test]
    fn every_node_shows_the_same_document(
        servers in vec(server(), 1..=UPSTREAMS.len()),
        order in Just((0..UPSTREAMS.len()).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let straight: Vec<usize> = (0..servers.len()).collect();
        let shuffled: Vec<usize> = order.into_iter().filter(|number| *number < servers.len()).collect();
        prop_assert_eq!(shown(&servers, &straight), shown(&servers, &shuffled));
    }

    #[test]
    fn a_version_is_stale_only_where_no_server_is_current(states in vec(name(&["Current", "Stale"]), 1..5)) {
        let lists: Vec<GroupList> = states.iter().map(|freshness| {
            let version = Version { version: "v1".to_owned(), freshness: freshness.clone(), ..Version::default() };
            GroupList::of(vec![Group { metadata: GroupMeta::default(), versions: vec![version] }])
        }).collect();
        let merged = merge(&lists.iter().collect::<Vec<_>>());
        let is_current = states.iter().any(|state| state == "Current");
        prop_assert_eq!(merged.items[0].versions[0].freshness == "Current", is_current);
    }

    #[test]
    fn orders_that_do_not_contradict_are_kept(
        all in Just(vec!["a", "b", "c", "d", "e", "f"]).prop_shuffle(),
        parts in vec(btree_set(0..6_usize, 0..6), 1..5),
    ) {
        let lists: Vec<GroupList> = parts.iter().map(|part| {
            let group = |at: &usize| Group { metadata: GroupMeta { name: all[*at].to_owned() }, versions: Vec::new() };
            GroupList::of(part.iter().map(group).collect())
        }).collect();
        let merged = merge(&lists.iter().collect::<Vec<_>>());
        let place = |name: &str| merged.items.iter().position(|group| group.metadata.name == name);
        for list in &lists {
            let places: Vec<_> = list.items.iter().map(|group| place(&group.metadata.name)).collect();
            prop_assert!(places.is_sorted(), "{:?} of {:?}", places, merged);
        }
    }

    #[test]
    fn a_document_survives_encoding(list in list()) {
        prop_assert_eq!(GroupList::decode(&list.encode()).unwrap(), list);
    }
    /// A name can be any text, as far as JSON goes: what an aggregated API server calls its resources is not checked.
    #[test]
    fn every_form_says_the_same_whatever_the_names(
        mut list in list(),
        texts in vec(prop_oneof![any::<String>(), odd_text()], 8),
    ) {
        let mut texts = texts.into_iter().cycle();
        let mut next = || texts.next().unwrap();
        for group in &mut list.items {
            group.metadata.name = next();
            for resource in group.versions.iter_mut().flat_map(|version| &mut version.resources) {
                resource.singular_resource = next();
                resource.short_names = vec![next(), next()];
                resource.scope = next();
            }
        }
        let local = Served::default();
        let peer = Served { groups: Part { etag: None, list }, ..Served::default() };
        let pairs = [(UPSTREAMS[0], Some(&local)), (UPSTREAMS[1], Some(&peer))];
        let snapshot = Snapshot::new(&pairs, true);
        let Some(page) = snapshot.view().find(Name::Aggregated(Document::Groups)) else { return Ok(()) };
        let of = |encoding| &page.body(Form { encoding, version: ApiVersion::V2 }).plain;
        let json: Value = serde_json::from_slice(of(Encoding::Json)).unwrap();
        prop_assert_eq!(&serde_json::from_slice::<Value>(of(Encoding::PrettyJson)).unwrap(), &json);
        let yaml = std::str::from_utf8(of(Encoding::Yaml)).unwrap();
        prop_assert_eq!(&serde_saphyr::from_str::<Value>(yaml).unwrap(), &json, "{}", yaml);
        prop_assert_eq!(decoded(of(Encoding::Protobuf)), without_empty_verbs(json));
    }
}

/// Texts that mean something else in YAML.
fn odd_text() -> impl Strategy<Value = String> {
    name(&[
        "",
        " ",
        "~",
        "null",
        "yes",
        "off",
        "y",
        "1",
        "0x1f",
        "1e3",
        ".inf",
        "1:20",
        "2001-01-01",
        "- a",
        "a: b",
        "#",
        "a #b",
        "&a",
        "*a",
        "!a",
        "%a",
        "@a",
        "`",
        "'",
        "\"",
        "{",
        "[",
        "|",
        ">",
        "? a",
        "---",
        "...",
        "a\nb",
        "a\n",
        "\t",
        "\r\n",
        "\u{85}",
        "\u{2028}",
        "\u{feff}",
        "\u{0}",
        "\u{7f}",
        "<a>&",
        "=",
        "<<",
    ])
}

/// Protobuf does not tell no verbs from an empty list of them.
fn without_empty_verbs(mut json: Value) -> Value {
    for_each_object(&mut json, &mut |object| {
        if let Some(verbs @ Value::Null) = object.get_mut("verbs") {
            *verbs = Value::Array(Vec::new());
        }
    });
    json
}

fn for_each_object(value: &mut Value, change: &mut impl FnMut(&mut serde_json::Map<String, Value>)) {
    match value {
        Value::Object(fields) => {
            change(fields);
            fields.values_mut().for_each(|value| for_each_object(value, change));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| for_each_object(value, change)),
        _ => {}
    }
}
