//! The aggregated discovery document (`apidiscovery.k8s.io/v2`), field for field in Go's order.
//!
//! The order matters: the `ETag` is a hash of the Go encoding.

use http::HeaderValue;
use serde::{Deserialize, Serialize};

use super::bounds::{self, Excess};
use super::{etag, json};

/// `APIGroupDiscoveryList` without kind and apiVersion.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupList {
    /// Groups, most important first.
    pub items: Vec<Group>,
}

/// `APIGroupDiscovery`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Object metadata; only the name is ever set.
    #[serde(default)]
    pub metadata: GroupMeta,
    /// Versions, preferred first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<Version>,
}

/// `ObjectMeta` of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupMeta {
    /// Group name, empty for the core group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
}

/// `APIVersionDiscovery`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Version name.
    pub version: String,
    /// Resources.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<Resource>,
    /// `Current`, or `Stale` when an aggregated API server could not be asked.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub freshness: String,
}

/// `APIResourceDiscovery`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resource {
    /// Plural name.
    pub resource: String,
    /// Kind of the object in requests and responses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_kind: Option<GroupVersionKind>,
    /// `Cluster` or `Namespaced`.
    #[serde(default)]
    pub scope: String,
    /// Singular name.
    #[serde(default)]
    pub singular_resource: String,
    /// Verbs; Go writes an absent list as null.
    #[serde(default)]
    pub verbs: Option<Vec<String>>,
    /// Short names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub short_names: Vec<String>,
    /// Categories.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub categories: Vec<String>,
    /// Subresources.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subresources: Vec<Subresource>,
}

/// `APISubresourceDiscovery`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Subresource {
    /// Name.
    pub subresource: String,
    /// Kind of the object in responses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_kind: Option<GroupVersionKind>,
    /// Kinds accepted in requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepted_types: Vec<GroupVersionKind>,
    /// Verbs; Go writes an absent list as null.
    #[serde(default)]
    pub verbs: Option<Vec<String>>,
}

/// `metav1.GroupVersionKind`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupVersionKind {
    /// Group; empty means that of the document.
    #[serde(default)]
    pub group: String,
    /// Version; empty means that of the document.
    #[serde(default)]
    pub version: String,
    /// Kind.
    #[serde(default)]
    pub kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Incoming {
    kind: String,
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    items: Option<Vec<Group>>,
}

/// A document with its kind and apiVersion.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Outgoing<'a> {
    kind: &'static str,
    api_version: &'static str,
    metadata: ListMeta,
    items: &'a [Group],
}

#[derive(Serialize)]
struct ListMeta {}

/// The kind of the document.
pub(super) const KIND: &str = "APIGroupDiscoveryList";

/// Version of the document; all have the same shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiVersion {
    /// Since 1.30.
    V2,
    /// 1.26 to 1.34.
    V2beta1,
}

impl ApiVersion {
    /// As objects carry it.
    pub fn name(self) -> &'static str {
        match self {
            ApiVersion::V2 => "apidiscovery.k8s.io/v2",
            ApiVersion::V2beta1 => "apidiscovery.k8s.io/v2beta1",
        }
    }
}

/// Why a discovery answer is not usable.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// More than any API server says.
    #[error("beyond the bounds of a discovery document")]
    Excessive(#[from] Excess),
    /// Not JSON of the right shape.
    #[error("not an aggregated discovery document")]
    Malformed(#[from] serde_json::Error),
    /// Another kind, such as the unaggregated `APIGroupList` of servers before 1.26.
    #[error("kind is {kind:?} of {api_version:?}, not an APIGroupDiscoveryList")]
    Kind {
        /// Kind.
        kind: String,
        /// Group and version.
        api_version: String,
    },
}

impl GroupList {
    /// A list of these groups.
    pub fn of(items: Vec<Group>) -> Self {
        Self { items }
    }

    /// Decodes an answer; v2 and v2beta1 have the same shape.
    ///
    /// # Errors
    /// When it is something else, or goes beyond the bounds of [`bounds`].
    pub fn decode(json: &[u8]) -> Result<Self, DocumentError> {
        bounds::check(json)?;
        Self::parse(json)
    }

    /// The same for one that was looked through already.
    ///
    /// # Errors
    /// When it is something else.
    pub(super) fn parse(json: &[u8]) -> Result<Self, DocumentError> {
        let Incoming { kind, api_version, items } = serde_json::from_slice(json)?;
        let known = ["", ApiVersion::V2.name(), ApiVersion::V2beta1.name()];
        if kind != KIND || !known.contains(&api_version.as_str()) {
            let shortened = |text: String| text.chars().take(64).collect();
            return Err(DocumentError::Kind { kind: shortened(kind), api_version: shortened(api_version) });
        }
        Ok(Self::of(items.unwrap_or_default()))
    }

    /// Encodes as `apidiscovery.k8s.io/v2` JSON, with the newline Go's encoder ends with.
    pub fn encode(&self) -> Vec<u8> {
        json::compact(&self.outgoing(ApiVersion::V2))
    }

    /// The document with its kind.
    pub(super) fn outgoing(&self, version: ApiVersion) -> Outgoing<'_> {
        Outgoing { kind: KIND, api_version: version.name(), metadata: ListMeta {}, items: &self.items }
    }

    /// The tag kube-apiserver gives this content.
    pub fn etag(&self) -> HeaderValue {
        etag_of(&self.encode())
    }

    /// Every (group, version, resource).
    pub fn resources(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.items.iter().flat_map(|group| {
            group.versions.iter().flat_map(move |version| {
                version.resources.iter().map(move |resource| {
                    (group.metadata.name.as_str(), version.version.as_str(), resource.resource.as_str())
                })
            })
        })
    }
}

/// The tag kube-apiserver gives an encoded v2 document: that of it without kind and apiVersion.
pub(super) fn etag_of(encoded: &[u8]) -> HeaderValue {
    const HEAD: &[u8] = br#"{"kind":"APIGroupDiscoveryList","apiVersion":"apidiscovery.k8s.io/v2","#;
    let rest = encoded.strip_prefix(HEAD).expect("what `encode` begins with");
    etag::of(&[b"{", rest.strip_suffix(b"\n").unwrap_or(rest)])
}

#[cfg(test)]
mod tests;
