//! The messages of discovery, numbered as in Kubernetes' `generated.proto` files: `apidiscovery/v2` (`v2beta1` has the same
//! numbers), `meta/v1` and `pkg/runtime`. Fields that are never set, and that Go does not write then, are left out.

/// `runtime.Unknown`, the envelope of every object.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Unknown {
    #[prost(message, required, tag = "1")]
    pub(super) type_meta: TypeMeta,
    #[prost(bytes = "vec", required, tag = "2")]
    pub(super) raw: Vec<u8>,
    #[prost(string, required, tag = "3")]
    pub(super) content_encoding: String,
    #[prost(string, required, tag = "4")]
    pub(super) content_type: String,
}

/// `runtime.TypeMeta`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TypeMeta {
    #[prost(string, required, tag = "1")]
    pub(super) api_version: String,
    #[prost(string, required, tag = "2")]
    pub(super) kind: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ListMeta {
    #[prost(string, required, tag = "1")]
    pub(super) self_link: String,
    #[prost(string, required, tag = "2")]
    pub(super) resource_version: String,
    #[prost(string, required, tag = "3")]
    pub(super) continue_token: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ObjectMeta {
    #[prost(string, required, tag = "1")]
    pub(super) name: String,
    #[prost(string, required, tag = "2")]
    pub(super) generate_name: String,
    #[prost(string, required, tag = "3")]
    pub(super) namespace: String,
    #[prost(string, required, tag = "4")]
    pub(super) self_link: String,
    #[prost(string, required, tag = "5")]
    pub(super) uid: String,
    #[prost(string, required, tag = "6")]
    pub(super) resource_version: String,
    #[prost(int64, required, tag = "7")]
    pub(super) generation: i64,
    #[prost(message, required, tag = "8")]
    pub(super) creation_timestamp: Time,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Time {}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct GroupVersionKind {
    #[prost(string, required, tag = "1")]
    pub(super) group: String,
    #[prost(string, required, tag = "2")]
    pub(super) version: String,
    #[prost(string, required, tag = "3")]
    pub(super) kind: String,
}

/// `APIGroupDiscoveryList`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct GroupDiscoveryList {
    #[prost(message, required, tag = "1")]
    pub(super) metadata: ListMeta,
    #[prost(message, repeated, tag = "2")]
    pub(super) items: Vec<GroupDiscovery>,
}

/// `APIGroupDiscovery`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct GroupDiscovery {
    #[prost(message, required, tag = "1")]
    pub(super) metadata: ObjectMeta,
    #[prost(message, repeated, tag = "2")]
    pub(super) versions: Vec<VersionDiscovery>,
}

/// `APIVersionDiscovery`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct VersionDiscovery {
    #[prost(string, required, tag = "1")]
    pub(super) version: String,
    #[prost(message, repeated, tag = "2")]
    pub(super) resources: Vec<ResourceDiscovery>,
    #[prost(string, required, tag = "3")]
    pub(super) freshness: String,
}

/// `APIResourceDiscovery`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ResourceDiscovery {
    #[prost(string, required, tag = "1")]
    pub(super) resource: String,
    #[prost(message, optional, tag = "2")]
    pub(super) response_kind: Option<GroupVersionKind>,
    #[prost(string, required, tag = "3")]
    pub(super) scope: String,
    #[prost(string, required, tag = "4")]
    pub(super) singular_resource: String,
    #[prost(string, repeated, tag = "5")]
    pub(super) verbs: Vec<String>,
    #[prost(string, repeated, tag = "6")]
    pub(super) short_names: Vec<String>,
    #[prost(string, repeated, tag = "7")]
    pub(super) categories: Vec<String>,
    #[prost(message, repeated, tag = "8")]
    pub(super) subresources: Vec<SubresourceDiscovery>,
}

/// `APISubresourceDiscovery`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SubresourceDiscovery {
    #[prost(string, required, tag = "1")]
    pub(super) subresource: String,
    #[prost(message, optional, tag = "2")]
    pub(super) response_kind: Option<GroupVersionKind>,
    #[prost(message, repeated, tag = "3")]
    pub(super) accepted_types: Vec<GroupVersionKind>,
    #[prost(string, repeated, tag = "4")]
    pub(super) verbs: Vec<String>,
}

/// `APIGroupList`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ApiGroupList {
    #[prost(message, repeated, tag = "1")]
    pub(super) groups: Vec<ApiGroup>,
}

/// `APIGroup`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ApiGroup {
    #[prost(string, required, tag = "1")]
    pub(super) name: String,
    #[prost(message, repeated, tag = "2")]
    pub(super) versions: Vec<GroupVersion>,
    #[prost(message, required, tag = "3")]
    pub(super) preferred_version: GroupVersion,
}

/// `GroupVersionForDiscovery`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct GroupVersion {
    #[prost(string, required, tag = "1")]
    pub(super) group_version: String,
    #[prost(string, required, tag = "2")]
    pub(super) version: String,
}

/// `APIResourceList`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ApiResourceList {
    #[prost(string, required, tag = "1")]
    pub(super) group_version: String,
    #[prost(message, repeated, tag = "2")]
    pub(super) resources: Vec<ApiResource>,
}

/// `APIResource`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ApiResource {
    #[prost(string, required, tag = "1")]
    pub(super) name: String,
    #[prost(bool, required, tag = "2")]
    pub(super) namespaced: bool,
    #[prost(string, required, tag = "3")]
    pub(super) kind: String,
    #[prost(message, optional, tag = "4")]
    pub(super) verbs: Option<Verbs>,
    #[prost(string, repeated, tag = "5")]
    pub(super) short_names: Vec<String>,
    #[prost(string, required, tag = "6")]
    pub(super) singular_name: String,
    #[prost(string, repeated, tag = "7")]
    pub(super) categories: Vec<String>,
    #[prost(string, required, tag = "8")]
    pub(super) group: String,
    #[prost(string, required, tag = "9")]
    pub(super) version: String,
    #[prost(string, required, tag = "10")]
    pub(super) storage_version_hash: String,
}

/// A list of its own, so that an empty one can be told from none.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Verbs {
    #[prost(string, repeated, tag = "1")]
    pub(super) items: Vec<String>,
}
