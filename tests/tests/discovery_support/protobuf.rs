//! Decodes discovery documents in protobuf into what the same documents are in JSON.
//!
//! Field numbers: `apidiscovery/v2/generated.proto`, `meta/v1/generated.proto` and `runtime/generated.proto` of Kubernetes.

use prost::Message;
use serde_json::{Value, json};

#[derive(Clone, PartialEq, Message)]
struct Unknown {
    #[prost(message, optional, tag = "1")]
    type_meta: Option<TypeMeta>,
    #[prost(bytes = "vec", tag = "2")]
    raw: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct TypeMeta {
    #[prost(string, tag = "1")]
    api_version: String,
    #[prost(string, tag = "2")]
    kind: String,
}

#[derive(Clone, PartialEq, Message)]
struct DiscoveryList {
    #[prost(message, repeated, tag = "2")]
    items: Vec<Discovery>,
}

#[derive(Clone, PartialEq, Message)]
struct Discovery {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Metadata>,
    #[prost(message, repeated, tag = "2")]
    versions: Vec<VersionDiscovery>,
}

#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct VersionDiscovery {
    #[prost(string, tag = "1")]
    version: String,
    #[prost(message, repeated, tag = "2")]
    resources: Vec<ResourceDiscovery>,
    #[prost(string, tag = "3")]
    freshness: String,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceDiscovery {
    #[prost(string, tag = "1")]
    resource: String,
    #[prost(message, optional, tag = "2")]
    response_kind: Option<GroupVersionKind>,
    #[prost(string, tag = "3")]
    scope: String,
    #[prost(string, tag = "4")]
    singular_resource: String,
    #[prost(string, repeated, tag = "5")]
    verbs: Vec<String>,
    #[prost(string, repeated, tag = "6")]
    short_names: Vec<String>,
    #[prost(string, repeated, tag = "7")]
    categories: Vec<String>,
    #[prost(message, repeated, tag = "8")]
    subresources: Vec<SubresourceDiscovery>,
}

#[derive(Clone, PartialEq, Message)]
struct SubresourceDiscovery {
    #[prost(string, tag = "1")]
    subresource: String,
    #[prost(message, optional, tag = "2")]
    response_kind: Option<GroupVersionKind>,
    #[prost(message, repeated, tag = "3")]
    accepted_types: Vec<GroupVersionKind>,
    #[prost(string, repeated, tag = "4")]
    verbs: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct GroupVersionKind {
    #[prost(string, tag = "1")]
    group: String,
    #[prost(string, tag = "2")]
    version: String,
    #[prost(string, tag = "3")]
    kind: String,
}

#[derive(Clone, PartialEq, Message)]
struct GroupList {
    #[prost(message, repeated, tag = "1")]
    groups: Vec<Group>,
}

#[derive(Clone, PartialEq, Message)]
struct Group {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    versions: Vec<GroupVersion>,
    #[prost(message, optional, tag = "3")]
    preferred_version: Option<GroupVersion>,
}

#[derive(Clone, PartialEq, Message)]
struct GroupVersion {
    #[prost(string, tag = "1")]
    group_version: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceList {
    #[prost(string, tag = "1")]
    group_version: String,
    #[prost(message, repeated, tag = "2")]
    resources: Vec<Resource>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bool, tag = "2")]
    namespaced: bool,
    #[prost(string, tag = "3")]
    kind: String,
    #[prost(message, optional, tag = "4")]
    verbs: Option<Verbs>,
    #[prost(string, repeated, tag = "5")]
    short_names: Vec<String>,
    #[prost(string, tag = "6")]
    singular_name: String,
    #[prost(string, repeated, tag = "7")]
    categories: Vec<String>,
    #[prost(string, tag = "8")]
    group: String,
    #[prost(string, tag = "9")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct Verbs {
    #[prost(string, repeated, tag = "1")]
    items: Vec<String>,
}

/// The object as JSON has it.
pub(crate) fn decoded(body: &[u8]) -> Value {
    let unknown = Unknown::decode(body.strip_prefix(b"k8s\0").expect("the magic")).unwrap();
    let TypeMeta { api_version, kind } = unknown.type_meta.unwrap();
    let raw = &*unknown.raw;
    let mut object = match kind.as_str() {
        "APIGroupDiscoveryList" => {
            let items = DiscoveryList::decode(raw).unwrap().items;
            json!({"metadata": {}, "items": all(items, discovery)})
        }
        "APIGroupList" => json!({"groups": all(GroupList::decode(raw).unwrap().groups, group)}),
        "APIGroup" => group(Group::decode(raw).unwrap()),
        "APIResourceList" => {
            let list = ResourceList::decode(raw).unwrap();
            json!({"groupVersion": list.group_version, "resources": all(list.resources, resource)})
        }
        other => panic!("{other}"),
    };
    object["kind"] = kind.into();
    filled(&mut object, [("apiVersion", api_version.into())]);
    object
}

fn all<T>(list: Vec<T>, one: impl Fn(T) -> Value) -> Value {
    list.into_iter().map(one).collect()
}

/// Sets the fields that Go leaves out when they are empty, unless they are.
fn filled(object: &mut Value, fields: impl IntoIterator<Item = (&'static str, Value)>) {
    for (name, value) in fields {
        if value != "" && value != json!([]) && value != Value::Null {
            object[name] = value;
        }
    }
}

fn discovery(group: Discovery) -> Value {
    let mut metadata = json!({});
    filled(&mut metadata, [("name", group.metadata.unwrap().name.into())]);
    let mut object = json!({"metadata": metadata});
    filled(&mut object, [("versions", all(group.versions, version_discovery))]);
    object
}

fn version_discovery(version: VersionDiscovery) -> Value {
    let mut object = json!({"version": version.version});
    let resources = all(version.resources, resource_discovery);
    filled(&mut object, [("resources", resources), ("freshness", version.freshness.into())]);
    object
}

fn resource_discovery(resource: ResourceDiscovery) -> Value {
    let mut object = json!({
        "resource": resource.resource, "scope": resource.scope, "singularResource": resource.singular_resource,
        "verbs": resource.verbs,
    });
    filled(
        &mut object,
        [
            ("responseKind", resource.response_kind.map(kind).into()),
            ("shortNames", resource.short_names.into()),
            ("categories", resource.categories.into()),
            ("subresources", all(resource.subresources, subresource_discovery)),
        ],
    );
    object
}

fn subresource_discovery(subresource: SubresourceDiscovery) -> Value {
    let mut object = json!({"subresource": subresource.subresource, "verbs": subresource.verbs});
    filled(
        &mut object,
        [
            ("responseKind", subresource.response_kind.map(kind).into()),
            ("acceptedTypes", all(subresource.accepted_types, kind)),
        ],
    );
    object
}

fn kind(GroupVersionKind { group, version, kind }: GroupVersionKind) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

fn group(group: Group) -> Value {
    let version = |one: GroupVersion| json!({"groupVersion": one.group_version, "version": one.version});
    json!({
        "name": group.name, "versions": all(group.versions, version),
        "preferredVersion": group.preferred_version.map(version),
    })
}

fn resource(resource: Resource) -> Value {
    let mut object = json!({
        "name": resource.name, "singularName": resource.singular_name, "namespaced": resource.namespaced,
        "kind": resource.kind, "verbs": resource.verbs.map(|verbs| verbs.items),
    });
    filled(
        &mut object,
        [
            ("group", resource.group.into()),
            ("version", resource.version.into()),
            ("shortNames", resource.short_names.into()),
            ("categories", resource.categories.into()),
        ],
    );
    object
}
