//! The aggregated discovery document (`apidiscovery.k8s.io/v2`), field for field in Go's order.
//!
//! The order matters: the `ETag` is a hash of the Go encoding.

use std::fmt::Write as _;

use aws_lc_rs::digest;
use http::HeaderValue;
use serde::{Deserialize, Serialize};

/// Media type of the document, written as kube-apiserver writes it.
pub const CONTENT_TYPE: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// `APIGroupDiscoveryList` without kind and apiVersion.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupList {
    #[serde(default)]
    metadata: ListMeta,
    /// Groups, most important first.
    #[serde(default)]
    pub items: Vec<Group>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct ListMeta {}

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
struct Incoming {
    kind: String,
    #[serde(flatten)]
    list: GroupList,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Outgoing<'a> {
    kind: &'static str,
    api_version: &'static str,
    #[serde(flatten)]
    list: &'a GroupList,
}

/// Why a discovery answer is not usable.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not JSON of the right shape.
    #[error("not an aggregated discovery document")]
    Malformed(#[from] serde_json::Error),
    /// Another kind, such as the unaggregated `APIGroupList` of servers before 1.26.
    #[error("kind is {kind:?}, not APIGroupDiscoveryList")]
    Kind {
        /// Kind.
        kind: String,
    },
}

impl GroupList {
    /// A list of these groups.
    pub fn of(items: Vec<Group>) -> Self {
        Self { metadata: ListMeta {}, items }
    }

    /// Decodes an answer; v2 and v2beta1 have the same shape.
    ///
    /// # Errors
    /// When it is something else.
    pub fn decode(json: &[u8]) -> Result<Self, DocumentError> {
        let incoming: Incoming = serde_json::from_slice(json)?;
        if incoming.kind != "APIGroupDiscoveryList" {
            return Err(DocumentError::Kind { kind: incoming.kind.chars().take(64).collect() });
        }
        Ok(incoming.list)
    }

    /// Encodes as `apidiscovery.k8s.io/v2` JSON, with the newline Go's encoder ends with.
    pub fn encode(&self) -> Vec<u8> {
        let outgoing =
            Outgoing { kind: "APIGroupDiscoveryList", api_version: "apidiscovery.k8s.io/v2", list: self };
        let mut json = serde_json::to_vec(&outgoing).expect("a struct of strings serialises");
        json.push(b'\n');
        json
    }

    /// The tag kube-apiserver gives this content: SHA-512 of its JSON without kind and apiVersion, upper-case hex.
    pub fn etag(&self) -> HeaderValue {
        let json = serde_json::to_vec(self).expect("a struct of strings serialises");
        let hash = digest::digest(&digest::SHA512, &json);
        let mut tag = String::from("\"");
        for byte in hash.as_ref() {
            // Writing to a String cannot fail.
            let _ = write!(tag, "{byte:02X}");
        }
        tag.push('"');
        HeaderValue::from_str(&tag).expect("hex digits in quotes")
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
