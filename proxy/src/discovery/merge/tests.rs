use serde_json::{Value, json};

use super::*;

type Versions<'a> = &'a [(&'a str, &'a [&'a str])];

/// A document of `(group, [(version, [resource])])`.
fn list(groups: &[(&str, Versions<'_>)]) -> GroupList {
    let groups: Vec<Value> = groups
        .iter()
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|(version, resources)| {
                    let resources: Vec<Value> = resources
                        .iter()
                        .map(|resource| json!({"resource": resource, "verbs": ["get"]}))
                        .collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            json!({"metadata": {"name": group}, "versions": versions})
        })
        .collect();
    decode(&json!({"kind": "APIGroupDiscoveryList", "items": groups}))
}

fn decode(document: &Value) -> GroupList {
    GroupList::decode(document.to_string().as_bytes()).expect("a document")
}

fn groups(list: &GroupList) -> Vec<&str> {
    list.items.iter().map(|group| group.metadata.name.as_str()).collect()
}

fn versions(list: &GroupList) -> Vec<&str> {
    list.items[0].versions.iter().map(|version| version.version.as_str()).collect()
}

#[test]
fn groups_keep_every_lists_order_where_that_is_possible() {
    for (a, b, expected) in [
        (vec!["apps", "batch"], vec!["apps", "zeta"], vec!["apps", "batch", "zeta"]),
        (vec!["zeta", "apps"], vec!["zeta", "apps"], vec!["zeta", "apps"]),
        (vec!["zeta", "apps"], vec!["zeta", "mid", "apps"], vec!["zeta", "mid", "apps"]),
        // A contradiction: only the alphabet is left.
        (vec!["zeta", "apps"], vec!["apps", "zeta", "mm"], vec!["apps", "zeta", "mm"]),
        (vec!["zeta", "apps", "a"], vec!["apps", "zeta", "mm"], vec!["a", "apps", "mm", "zeta"]),
    ] {
        let document = |names: &[&str]| list(&names.iter().map(|name| (*name, &[][..])).collect::<Vec<_>>());
        let merged = merge(&[&document(&a), &document(&b)]);
        assert_eq!(groups(&merged), expected, "{a:?} and {b:?}");
    }
}

#[test]
fn versions_are_ordered_by_kubernetes_priority_where_the_lists_do_not_say() {
    for (a, b, expected) in [
        (vec!["v1"], vec!["v2"], vec!["v2", "v1"]),
        (vec!["v1alpha1"], vec!["v1beta1"], vec!["v1beta1", "v1alpha1"]),
        (vec!["v1beta1"], vec!["v1beta2"], vec!["v1beta2", "v1beta1"]),
        (vec!["v1", "v2"], vec!["v1"], vec!["v1", "v2"]),
    ] {
        let document = |names: &[&str]| {
            let versions: Vec<(&str, &[&str])> = names.iter().map(|name| (*name, &["things"][..])).collect();
            list(&[("g", &versions)])
        };
        let merged = merge(&[&document(&a), &document(&b)]);
        assert_eq!(versions(&merged), expected, "{a:?} and {b:?}");
    }
}

#[test]
fn verbs_and_subresources_are_united_and_metadata_is_the_first_lists() {
    let document = |kind: &str, verbs: &[&str], subresources: Value| {
        decode(&json!({"kind": "APIGroupDiscoveryList", "items": [{"metadata": {"name": ""}, "versions": [{
            "version": "v1", "freshness": "Current",
            "resources": [{"resource": "pods", "singularResource": kind, "scope": "Namespaced", "verbs": verbs,
                "subresources": subresources}]}]}]}))
    };
    let new = document("newer", &["list", "get"], json!([{"subresource": "status", "verbs": ["get"]}]));
    let old = document(
        "older",
        &["create", "get"],
        json!([{"subresource": "status", "verbs": ["patch"]}, {"subresource": "log", "verbs": ["get"]}]),
    );
    let merged = merge(&[&new, &old]);
    let pods = &merged.items[0].versions[0].resources[0];
    assert_eq!(pods.singular_resource, "newer");
    assert_eq!(pods.verbs.as_deref(), Some(&["create".to_owned(), "get".to_owned(), "list".to_owned()][..]));
    let subresources: Vec<_> = pods
        .subresources
        .iter()
        .map(|sub| (sub.subresource.as_str(), sub.verbs.clone().unwrap_or_default().join(",")))
        .collect();
    assert_eq!(subresources, [("log", "get".to_owned()), ("status", "get,patch".to_owned())]);
}

#[test]
fn a_current_answer_beats_a_stale_one() {
    let document = |freshness: &str| {
        decode(&json!({"kind": "APIGroupDiscoveryList", "items": [{"metadata": {"name": "g"}, "versions": [
            {"version": "v1", "resources": [{"resource": "things", "verbs": ["get"]}], "freshness": freshness}]}]}))
    };
    let merged = merge(&[&document("Stale"), &document("Current")]);
    assert_eq!(merged.items[0].versions[0].freshness, "Current");
}

#[test]
fn a_recorded_document_survives_decoding_and_has_the_recorded_shape() {
    for recorded in [
        include_str!("../../../../tests/fixtures/kube-apiserver/v1.34/apis.v2.json"),
        include_str!("../../../../tests/fixtures/kube-apiserver/v1.36-all/apis.v2.json"),
        include_str!("../../../../tests/fixtures/kube-apiserver/v1.36-all/api.v2.json"),
    ] {
        let list = GroupList::decode(recorded.as_bytes()).expect("a recorded document");
        assert_eq!(String::from_utf8(list.encode()).expect("JSON is text").trim_end(), recorded.trim_end());
    }
}

#[test]
fn what_a_current_answer_says_of_a_resource_beats_what_a_stale_one_says() {
    let document = |freshness: &str, singular: &str| {
        decode(&json!({"kind": "APIGroupDiscoveryList", "items": [{"metadata": {"name": "g"}, "versions": [
            {"version": "v1", "freshness": freshness,
             "resources": [{"resource": "things", "singularResource": singular, "verbs": ["get"]}]}]}]}))
    };
    let merged = merge(&[&document("Stale", "newer"), &document("Current", "older")]);
    assert_eq!(merged.items[0].versions[0].resources[0].singular_resource, "older");
}

/// The first document that every node merges, of a server of version `a` and one of version `b`.
fn newer_of<'a>(a: &'a str, b: &'a str) -> &'a str {
    let served = |version: &str| {
        let singular = json!({"resource": "things", "singularResource": version});
        let list = decode(&json!({"kind": "APIGroupDiscoveryList", "items": [{"metadata": {"name": "g"},
            "versions": [{"version": "v1", "resources": [singular]}]}]}));
        Served { groups: Part { list, etag: None }, version: version.to_owned(), ..Served::default() }
    };
    let (first, second) = (served(a), served(b));
    let seen = inputs(&[&first, &second], Document::Groups)[0];
    assert_eq!(inputs(&[&second, &first], Document::Groups)[0], seen, "{a} {b}");
    if *seen == first.groups.list { a } else { b }
}

#[test]
fn the_newest_server_comes_first() {
    for (newer, older) in [
        ("v1.36.0", "v1.35.9"),
        ("v1.36.10", "v1.36.9"),
        ("v2.0.0", "v1.99.99"),
        ("v1.36.0", "v1.36.0-rc.1"),
        ("v1.36.0-beta.0", "v1.35.4"),
        ("v1.30.2-gke.1", "v1.30.1-gke.2000"),
        ("v1.30.1+k3s1", "v1.30.0+k3s9"),
        ("v1.26.0", ""),
    ] {
        assert_eq!(newer_of(older, newer), newer);
    }
}

#[test]
fn servers_without_tags_are_merged_alike_on_every_node() {
    let served = |singular: &str, resources: &[&str]| {
        let resources: Vec<_> = resources
            .iter()
            .map(|name| json!({"resource": name, "singularResource": singular, "verbs": ["get"]}))
            .collect();
        let list = decode(&json!({"kind": "APIGroupDiscoveryList", "items": [{"metadata": {"name": "g"},
            "versions": [{"version": "v1", "freshness": "Current", "resources": resources}]}]}));
        Served { groups: Part { list, etag: None }, version: "v1.34.2".to_owned(), ..Served::default() }
    };
    let (a, b) = (served("a", &["things", "as"]), served("b", &["things", "bs"]));
    let on_a = merge(&inputs(&[&a, &b], Document::Groups));
    let on_b = merge(&inputs(&[&b, &a], Document::Groups));
    assert_eq!(on_a.encode(), on_b.encode());
}

#[test]
fn a_server_that_says_what_another_says_adds_nothing() {
    let list = list(&[("apps", &[("v1", &["deployments"])])]);
    let served = |version: &str| Served {
        groups: Part { etag: Some(list.etag()), list: list.clone() },
        version: version.to_owned(),
        ..Served::default()
    };
    let (a, b) = (served("v1.34.0"), served("v1.36.0"));
    assert_eq!(inputs(&[&a, &b], Document::Groups), [&list]);
}

#[test]
fn merging_recorded_versions_loses_nothing() {
    let old = include_str!("../../../../tests/fixtures/kube-apiserver/v1.34/apis.v2.json");
    let new = include_str!("../../../../tests/fixtures/kube-apiserver/v1.36-all/apis.v2.json");
    let old = GroupList::decode(old.as_bytes()).expect("a recorded document");
    let new = GroupList::decode(new.as_bytes()).expect("a recorded document");
    let merged = merge(&[&new, &old]);
    let resources = |list: &GroupList| -> BTreeSet<(String, String, String)> {
        list.resources().map(|(g, v, r)| (g.to_owned(), v.to_owned(), r.to_owned())).collect()
    };
    let both: BTreeSet<_> = resources(&old).union(&resources(&new)).cloned().collect();
    assert_eq!(resources(&merged), both);
    assert!(both.len() > resources(&old).len(), "the fixtures must differ for this test to mean anything");
}
