//! Makes the unaggregated documents, which clients older than 1.26 ask for, from the aggregated one.
//!
//! Fields in Go's order (k8s.io/apimachinery `meta/v1`). What the aggregated document does not tell is left out: the
//! optional hash of a resource's storage version.

use std::borrow::Cow;

use serde::Serialize;

use super::document::{Group, GroupVersionKind, Resource, Subresource, Version};

/// `APIGroupList`, the answer of `/apis`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ApiGroupList<'a> {
    kind: &'static str,
    api_version: &'static str,
    pub(super) groups: Vec<ApiGroup<'a>>,
}

/// `APIGroup`, the answer of `/apis/GROUP`; without kind and apiVersion inside a list.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ApiGroup<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_version: Option<&'static str>,
    pub(super) name: &'a str,
    pub(super) versions: Vec<GroupVersion<'a>>,
    pub(super) preferred_version: GroupVersion<'a>,
}

/// `GroupVersionForDiscovery`.
#[derive(Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GroupVersion<'a> {
    pub(super) group_version: Cow<'a, str>,
    pub(super) version: &'a str,
}

/// `APIResourceList`, the answer of `/api/VERSION` and `/apis/GROUP/VERSION`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ApiResourceList<'a> {
    kind: &'static str,
    /// kube-apiserver leaves it out for the core group, and only there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) api_version: Option<&'static str>,
    pub(super) group_version: Cow<'a, str>,
    pub(super) resources: Vec<ApiResource<'a>>,
}

/// `APIResource`; a subresource is one by itself.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ApiResource<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) singular_name: &'a str,
    pub(super) namespaced: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) group: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) version: &'a str,
    pub(super) kind: &'a str,
    pub(super) verbs: Option<&'a [String]>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(super) short_names: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(super) categories: &'a [String],
}

/// Version of these documents.
pub(super) const API_VERSION: &str = "v1";

/// The answer of `/apis`.
pub(super) fn group_list(groups: &[Group]) -> ApiGroupList<'_> {
    ApiGroupList {
        kind: "APIGroupList",
        api_version: API_VERSION,
        groups: groups.iter().map(|one| ApiGroup { kind: None, api_version: None, ..group(one) }).collect(),
    }
}

/// The answer of `/apis/GROUP`.
pub(super) fn group(group: &Group) -> ApiGroup<'_> {
    let name = group.metadata.name.as_str();
    let versions: Vec<_> = group
        .versions
        .iter()
        .map(|one| GroupVersion { group_version: group_version(name, &one.version), version: &one.version })
        .collect();
    ApiGroup {
        kind: Some("APIGroup"),
        api_version: Some(API_VERSION),
        name,
        preferred_version: versions.first().cloned().unwrap_or_default(),
        versions,
    }
}

/// The answer of `/apis/GROUP/VERSION`.
pub(super) fn resource_list<'a>(group: &'a Group, version: &'a Version) -> ApiResourceList<'a> {
    let own = GroupVersion {
        group_version: group_version(&group.metadata.name, &version.version),
        version: &version.version,
    };
    let resources = version.resources.iter().flat_map(|resource| {
        let subresources = resource.subresources.iter().map(|sub| subresource(resource, sub));
        plain_resource(resource).into_iter().chain(subresources)
    });
    let mut resources: Vec<ApiResource<'a>> = resources.collect();
    for resource in &mut resources {
        // Said only where it is not that of the list.
        if resource.version == own.version && resource.group == group.metadata.name {
            (resource.group, resource.version) = ("", "");
        }
    }
    ApiResourceList {
        kind: "APIResourceList",
        api_version: (!group.metadata.name.is_empty()).then_some(API_VERSION),
        group_version: own.group_version,
        resources,
    }
}

/// None for a resource of which only subresources are served: the aggregated document has it to hang them on.
fn plain_resource(resource: &Resource) -> Option<ApiResource<'_>> {
    let kind = resource.response_kind.as_ref().filter(|kind| !kind.kind.is_empty())?;
    Some(ApiResource {
        name: Cow::Borrowed(&resource.resource),
        singular_name: &resource.singular_resource,
        short_names: &resource.short_names,
        categories: &resource.categories,
        ..entry(resource, Some(kind), resource.verbs.as_deref())
    })
}

fn subresource<'a>(resource: &'a Resource, subresource: &'a Subresource) -> ApiResource<'a> {
    let name = format!("{}/{}", resource.resource, subresource.subresource);
    let kind = subresource.response_kind.as_ref();
    ApiResource { name: Cow::Owned(name), ..entry(resource, kind, subresource.verbs.as_deref()) }
}

fn entry<'a>(
    resource: &Resource,
    kind: Option<&'a GroupVersionKind>,
    verbs: Option<&'a [String]>,
) -> ApiResource<'a> {
    ApiResource {
        name: Cow::default(),
        singular_name: "",
        namespaced: resource.scope == "Namespaced",
        group: kind.map_or("", |kind| &kind.group),
        version: kind.map_or("", |kind| &kind.version),
        kind: kind.map_or("", |kind| &kind.kind),
        verbs,
        short_names: &[],
        categories: &[],
    }
}

/// `v1` or `batch/v1`.
fn group_version<'a>(group: &str, version: &'a str) -> Cow<'a, str> {
    if group.is_empty() { Cow::Borrowed(version) } else { Cow::Owned(format!("{group}/{version}")) }
}

#[cfg(test)]
mod tests;
