//! Encodes discovery documents as kube-apiserver's protobuf media type wants them.
//!
//! Fields that Go's generated code always writes are `required` here, so that the bytes are the same.

use prost::Message as _;

use self::messages as message;
use super::document::{ApiVersion, GroupList, GroupVersionKind, KIND, Resource, Subresource};
use super::unaggregated::{API_VERSION, ApiGroup, ApiGroupList, ApiResource, ApiResourceList, GroupVersion};

mod messages;

/// First bytes of every encoded object.
const MAGIC: &[u8] = b"k8s\0";

/// An aggregated document.
pub(super) fn aggregated(list: &GroupList, version: ApiVersion) -> Vec<u8> {
    let groups = list.items.iter().map(|group| message::GroupDiscovery {
        metadata: message::ObjectMeta { name: group.metadata.name.clone(), ..message::ObjectMeta::default() },
        versions: group
            .versions
            .iter()
            .map(|version| message::VersionDiscovery {
                version: version.version.clone(),
                resources: version.resources.iter().map(resource).collect(),
                freshness: version.freshness.clone(),
            })
            .collect(),
    });
    let list =
        message::GroupDiscoveryList { metadata: message::ListMeta::default(), items: groups.collect() };
    object(version.name(), KIND, list.encode_to_vec())
}

/// The unaggregated `/apis`.
pub(super) fn group_list(list: &ApiGroupList<'_>) -> Vec<u8> {
    let groups = list.groups.iter().map(api_group).collect();
    object(API_VERSION, "APIGroupList", message::ApiGroupList { groups }.encode_to_vec())
}

/// The unaggregated `/apis/GROUP`.
pub(super) fn group(group: &ApiGroup<'_>) -> Vec<u8> {
    object(API_VERSION, "APIGroup", api_group(group).encode_to_vec())
}

/// The unaggregated `/apis/GROUP/VERSION`.
pub(super) fn resource_list(list: &ApiResourceList<'_>) -> Vec<u8> {
    let message = message::ApiResourceList {
        group_version: list.group_version.clone().into_owned(),
        resources: list.resources.iter().map(api_resource).collect(),
    };
    object(list.api_version.unwrap_or_default(), "APIResourceList", message.encode_to_vec())
}

fn object(api_version: &str, kind: &str, raw: Vec<u8>) -> Vec<u8> {
    let unknown = message::Unknown {
        type_meta: message::TypeMeta { api_version: api_version.to_owned(), kind: kind.to_owned() },
        raw,
        ..message::Unknown::default()
    };
    let mut bytes = Vec::with_capacity(MAGIC.len() + unknown.encoded_len());
    bytes.extend_from_slice(MAGIC);
    unknown.encode_raw(&mut bytes);
    bytes
}

fn resource(resource: &Resource) -> message::ResourceDiscovery {
    message::ResourceDiscovery {
        resource: resource.resource.clone(),
        response_kind: resource.response_kind.as_ref().map(kind),
        scope: resource.scope.clone(),
        singular_resource: resource.singular_resource.clone(),
        verbs: resource.verbs.clone().unwrap_or_default(),
        short_names: resource.short_names.clone(),
        categories: resource.categories.clone(),
        subresources: resource.subresources.iter().map(subresource).collect(),
    }
}

fn subresource(subresource: &Subresource) -> message::SubresourceDiscovery {
    message::SubresourceDiscovery {
        subresource: subresource.subresource.clone(),
        response_kind: subresource.response_kind.as_ref().map(kind),
        accepted_types: subresource.accepted_types.iter().map(kind).collect(),
        verbs: subresource.verbs.clone().unwrap_or_default(),
    }
}

fn kind(kind: &GroupVersionKind) -> message::GroupVersionKind {
    message::GroupVersionKind {
        group: kind.group.clone(),
        version: kind.version.clone(),
        kind: kind.kind.clone(),
    }
}

fn api_group(group: &ApiGroup<'_>) -> message::ApiGroup {
    let version = |one: &GroupVersion<'_>| message::GroupVersion {
        group_version: one.group_version.clone().into_owned(),
        version: one.version.to_owned(),
    };
    message::ApiGroup {
        name: group.name.to_owned(),
        versions: group.versions.iter().map(version).collect(),
        preferred_version: version(&group.preferred_version),
    }
}

fn api_resource(resource: &ApiResource<'_>) -> message::ApiResource {
    message::ApiResource {
        name: resource.name.clone().into_owned(),
        namespaced: resource.namespaced,
        kind: resource.kind.to_owned(),
        verbs: resource.verbs.map(|items| message::Verbs { items: items.to_vec() }),
        short_names: resource.short_names.to_vec(),
        singular_name: resource.singular_name.to_owned(),
        categories: resource.categories.to_vec(),
        group: resource.group.to_owned(),
        version: resource.version.to_owned(),
        storage_version_hash: String::new(),
    }
}

#[cfg(test)]
mod tests;
