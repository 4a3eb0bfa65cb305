//! Makes the unaggregated discovery documents from the aggregated ones.

use serde::Serialize;

use crate::standin::documents::{Documents, GroupDiscovery, ResponseKind, VersionDiscovery};

/// `APIVersions`, the answer of `/api`.
#[derive(Serialize)]
pub(super) struct CoreVersions {
    kind: &'static str,
    versions: [&'static str; 1],
    #[serde(rename = "serverAddressByClientCIDRs")]
    addresses: [Address; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Address {
    #[serde(rename = "clientCIDR")]
    client_cidr: &'static str,
    server_address: String,
}

/// `APIGroupList`, the answer of `/apis`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GroupList<'a> {
    kind: &'static str,
    api_version: &'static str,
    groups: Vec<Group<'a>>,
}

/// `APIGroup`; kind and apiVersion are left out inside a list.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Group<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_version: Option<&'static str>,
    name: &'a str,
    versions: Vec<Version<'a>>,
    preferred_version: Option<Version<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Version<'a> {
    group_version: String,
    version: &'a str,
}

/// `APIResourceList`, the answer of `/apis/GROUP/VERSION`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ResourceList<'a> {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_version: Option<&'static str>,
    group_version: String,
    resources: Vec<Resource<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Resource<'a> {
    name: String,
    singular_name: &'a str,
    namespaced: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    group: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: &'a str,
    kind: &'a str,
    verbs: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    short_names: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    categories: &'a [String],
}

pub(super) fn versions(address: &str) -> CoreVersions {
    CoreVersions {
        kind: "APIVersions",
        versions: ["v1"],
        addresses: [Address { client_cidr: "0.0.0.0/0", server_address: address.to_owned() }],
    }
}

pub(super) fn group_list(documents: &Documents) -> GroupList<'_> {
    GroupList {
        kind: "APIGroupList",
        api_version: "v1",
        groups: documents.groups.list.items.iter().map(|one| group_of(one, None)).collect(),
    }
}

pub(super) fn group(group: &GroupDiscovery) -> Group<'_> {
    group_of(group, Some(("APIGroup", "v1")))
}

fn group_of<'a>(group: &'a GroupDiscovery, kind: Option<(&'static str, &'static str)>) -> Group<'a> {
    let version = |one: &'a VersionDiscovery| Version {
        group_version: group_version(&group.metadata.name, &one.version),
        version: &one.version,
    };
    Group {
        kind: kind.map(|(kind, _)| kind),
        api_version: kind.map(|(_, version)| version),
        name: &group.metadata.name,
        versions: group.versions.iter().map(version).collect(),
        preferred_version: group.versions.first().map(version),
    }
}

pub(super) fn resource_list<'a>(group: &'a str, version: &'a VersionDiscovery) -> ResourceList<'a> {
    let mut resources = Vec::new();
    for resource in &version.resources {
        resources.push(Resource {
            name: resource.resource.clone(),
            singular_name: &resource.singular_resource,
            namespaced: resource.is_namespaced(),
            short_names: &resource.short_names,
            categories: &resource.categories,
            ..entry(&resource.response_kind, &resource.verbs)
        });
        resources.extend(resource.subresources.iter().map(|subresource| Resource {
            name: format!("{}/{}", resource.resource, subresource.subresource),
            namespaced: resource.is_namespaced(),
            ..entry(&subresource.response_kind, &subresource.verbs)
        }));
    }
    ResourceList {
        kind: "APIResourceList",
        // kube-apiserver leaves it out for the core group, and only there.
        api_version: (!group.is_empty()).then_some("v1"),
        group_version: group_version(group, &version.version),
        resources,
    }
}

fn entry<'a>(kind: &'a ResponseKind, verbs: &'a [String]) -> Resource<'a> {
    Resource {
        name: String::new(),
        singular_name: "",
        namespaced: false,
        group: &kind.group,
        version: &kind.version,
        kind: &kind.kind,
        verbs,
        short_names: &[],
        categories: &[],
    }
}

/// `v1` or `batch/v1`.
pub(in crate::standin) fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::standin::documents::NAMES;

    fn recorded(name: &str, file: &str) -> Value {
        let path = format!("{}/fixtures/kube-apiserver/{name}/{file}", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    fn made(document: &impl Serialize) -> Value {
        serde_json::to_value(document).unwrap()
    }

    /// The hash of the storage version is the one thing that the aggregated document does not tell.
    fn without_hashes(mut list: Value) -> Value {
        for resource in list["resources"].as_array_mut().unwrap() {
            resource.as_object_mut().unwrap().remove("storageVersionHash");
        }
        list
    }

    #[test]
    fn made_documents_equal_the_recorded_ones() {
        for name in NAMES {
            let documents = Documents::load(name).unwrap();
            assert_eq!(made(&group_list(&documents)), recorded(name, "apis.legacy.json"), "{name}");
            let core = documents.version("", "v1").unwrap();
            let api_v1 = without_hashes(recorded(name, "api-v1.legacy.json"));
            assert_eq!(made(&resource_list("", core)), api_v1, "{name}");
            assert_eq!(made(&versions("10.77.0.11:6443")), recorded(name, "api.legacy.json"));
        }
        let documents = Documents::load("v1.36-all").unwrap();
        let storage = documents.group("storage.k8s.io").unwrap();
        assert_eq!(made(&group(storage)), recorded("v1.36-all", "group-storage.k8s.io.legacy.json"));
        let beta = documents.version("storage.k8s.io", "v1beta1").unwrap();
        assert_eq!(
            made(&resource_list("storage.k8s.io", beta)),
            without_hashes(recorded("v1.36-all", "groupversion-storage.k8s.io-v1beta1.legacy.json"))
        );
    }
}
