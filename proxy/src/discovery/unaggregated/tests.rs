use serde_json::{Value, json};

use super::*;
use crate::discovery::document::GroupList;

fn made(document: &impl Serialize) -> Value {
    serde_json::to_value(document).expect("a document")
}

fn read(json: &str) -> Value {
    serde_json::from_str(json).expect("a recorded document")
}

fn decode(json: &str) -> GroupList {
    GroupList::decode(json.as_bytes()).expect("a recorded document")
}

/// The hash of the storage version is the one thing that the aggregated document does not tell.
fn without_hashes(mut list: Value) -> Value {
    for resource in list["resources"].as_array_mut().expect("resources") {
        resource.as_object_mut().expect("an object").remove("storageVersionHash");
    }
    list
}

macro_rules! fixture {
    ($version:literal, $file:literal) => {
        include_str!(concat!("../../../../tests/fixtures/kube-apiserver/", $version, "/", $file))
    };
}

#[test]
fn documents_made_from_recorded_ones_equal_the_recorded_ones() {
    macro_rules! compare {
        ($($version:literal)*) => {$(
            let groups = decode(fixture!($version, "apis.v2.json"));
            let core = decode(fixture!($version, "api.v2.json"));
            assert_eq!(made(&group_list(&groups.items)), read(fixture!($version, "apis.legacy.json")), $version);
            assert_eq!(
                made(&resource_list(&core.items[0], &core.items[0].versions[0])),
                without_hashes(read(fixture!($version, "api-v1.legacy.json"))),
                $version
            );
        )*};
    }
    compare!("v1.33" "v1.34" "v1.35" "v1.36" "v1.36-all");
    let groups = decode(fixture!("v1.36-all", "apis.v2.json"));
    let storage = groups.items.iter().find(|group| group.metadata.name == "storage.k8s.io").expect("storage");
    assert_eq!(made(&group(storage)), read(fixture!("v1.36-all", "group-storage.k8s.io.legacy.json")));
    let beta = storage.versions.iter().find(|version| version.version == "v1beta1").expect("v1beta1");
    let recorded = read(fixture!("v1.36-all", "groupversion-storage.k8s.io-v1beta1.legacy.json"));
    assert_eq!(made(&resource_list(storage, beta)), without_hashes(recorded));
}

#[test]
fn a_kind_of_the_same_group_version_is_named_alone() {
    let list = decode(
        &json!({"kind": "APIGroupDiscoveryList", "items": [{"metadata": {"name": "g"}, "versions": [{
            "version": "v1", "resources": [
                {"resource": "widgets", "responseKind": {"group": "g", "version": "v1", "kind": "Widget"},
                 "scope": "Namespaced", "singularResource": "widget", "verbs": ["get"], "subresources": [
                    {"subresource": "scale", "verbs": ["get"],
                     "responseKind": {"group": "autoscaling", "version": "v1", "kind": "Scale"}},
                    {"subresource": "other", "verbs": ["get"],
                     "responseKind": {"group": "g", "version": "v2", "kind": "Widget"}}]},
                {"resource": "gadgets", "responseKind": {"group": "", "version": "", "kind": ""}, "scope": "Cluster",
                 "verbs": null, "subresources": [{"subresource": "status", "verbs": null}]}]}]}]})
        .to_string(),
    );
    assert_eq!(
        made(&resource_list(&list.items[0], &list.items[0].versions[0])),
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "g/v1", "resources": [
            {"name": "widgets", "singularName": "widget", "namespaced": true, "kind": "Widget", "verbs": ["get"]},
            {"name": "widgets/scale", "singularName": "", "namespaced": true, "group": "autoscaling", "version": "v1",
             "kind": "Scale", "verbs": ["get"]},
            {"name": "widgets/other", "singularName": "", "namespaced": true, "group": "g", "version": "v2",
             "kind": "Widget", "verbs": ["get"]},
            // Of gadgets only the subresource is served.
            {"name": "gadgets/status", "singularName": "", "namespaced": false, "kind": "", "verbs": null}]})
    );
}

#[test]
fn a_group_without_versions_prefers_none() {
    let empty = Group::default();
    assert_eq!(
        made(&group(&empty)),
        json!({"kind": "APIGroup", "apiVersion": "v1", "name": "", "versions": [],
            "preferredVersion": {"groupVersion": "", "version": ""}})
    );
}
