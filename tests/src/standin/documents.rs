//! Holds what one kube-apiserver version serves: its recorded discovery documents, typed.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::clock;

/// The recorded answers of one kube-apiserver.
#[derive(Clone, Debug)]
pub struct Documents {
    /// The recording's name, such as `v1.34`.
    pub name: String,
    pub(super) core: Recorded,
    pub(super) groups: Recorded,
    pub(super) core_resources: CoreResources,
    pub(super) version: &'static str,
    pub(super) readyz: &'static str,
    pub(super) aggregation: Aggregation,
}

/// Which form of aggregated discovery a server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregation {
    /// v2, from 1.30 on.
    V2,
    /// Only v2beta1: 1.27 to 1.29.
    V2Beta1,
    /// None, as before.
    Absent,
}

/// One aggregated document.
#[derive(Clone, Debug)]
pub(super) struct Recorded {
    pub(super) list: GroupDiscoveryList,
    /// The recorded protobuf form; absent once the list was changed.
    pub(super) protobuf: Option<&'static [u8]>,
}

/// `/api/v1`: as recorded, or made from the changed list.
#[derive(Clone, Debug)]
pub(super) enum CoreResources {
    Recorded(&'static str),
    Generated,
}

/// A name that no recording has.
#[derive(Clone, Debug, thiserror::Error)]
#[error("no recorded documents named {name:?}; there are {}", NAMES.join(", "))]
pub struct UnknownDocuments {
    /// The name.
    pub name: String,
}

/// The recordings that [`Documents::load`] knows.
pub const NAMES: [&str; 5] = ["v1.33", "v1.34", "v1.35", "v1.36", "v1.36-all"];

macro_rules! recorded {
    ($name:literal) => {
        Documents::from_recording(
            $name,
            [
                include_str!(concat!("../../fixtures/kube-apiserver/", $name, "/api.v2.json")),
                include_str!(concat!("../../fixtures/kube-apiserver/", $name, "/apis.v2.json")),
                include_str!(concat!("../../fixtures/kube-apiserver/", $name, "/api-v1.legacy.json")),
                include_str!(concat!("../../fixtures/kube-apiserver/", $name, "/version.json")),
                include_str!(concat!("../../fixtures/kube-apiserver/", $name, "/readyz-verbose.txt")),
            ],
            [
                include_bytes!(concat!("../../fixtures/kube-apiserver/", $name, "/api.v2.pb")),
                include_bytes!(concat!("../../fixtures/kube-apiserver/", $name, "/apis.v2.pb")),
            ],
        )
    };
}

impl Documents {
    /// The recording `name`, one of [`NAMES`].
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn load(name: &str) -> Result<Self, UnknownDocuments> {
        match name {
            "v1.33" => Ok(recorded!("v1.33")),
            "v1.34" => Ok(recorded!("v1.34")),
            "v1.35" => Ok(recorded!("v1.35")),
            "v1.36" => Ok(recorded!("v1.36")),
            "v1.36-all" => Ok(recorded!("v1.36-all")),
            _ => Err(UnknownDocuments { name: name.to_owned() }),
        }
    }

    /// The same without `version` of `group`, to make a skew that was not recorded.
    #[must_use]
    pub fn without_version(self, group: &str, version: &str) -> Self {
        self.changed(group, |group| group.versions.retain(|one| one.version != version))
    }

    /// The same without `resource`, which may be `RESOURCE/SUBRESOURCE`, of one group version.
    #[must_use]
    pub fn without_resource(self, group: &str, version: &str, resource: &str) -> Self {
        let (resource, subresource) = match resource.split_once('/') {
            Some((resource, subresource)) => (resource, Some(subresource)),
            None => (resource, None),
        };
        self.changed(group, |group| {
            for version in group.versions.iter_mut().filter(|one| one.version == version) {
                match subresource {
                    None => version.resources.retain(|one| one.resource != resource),
                    Some(name) => {
                        for resource in version.resources.iter_mut().filter(|one| one.resource == resource) {
                            resource.subresources.retain(|one| one.subresource != name);
                        }
                    }
                }
            }
        })
    }

    /// The same with `number` more groups of one version, two resources each, as custom resources make them.
    #[must_use]
    pub fn with_custom_resources(mut self, number: usize) -> Self {
        let resource = |name: &str, kind: &str| ResourceDiscovery {
            short_names: vec![name[..2].to_owned()],
            categories: vec!["all".to_owned()],
            ..custom_resource(name, kind)
        };
        let groups = (0..number).map(|number| GroupDiscovery {
            metadata: GroupName { name: format!("group-{number:05}.example.com") },
            versions: vec![VersionDiscovery {
                version: "v1".to_owned(),
                resources: vec![resource("gadgets", "Gadget"), resource("widgets", "Widget")],
                freshness: "Current".to_owned(),
            }],
        });
        self.groups.protobuf = None;
        self.groups.list.items.extend(groups);
        self
    }

    /// The same with a namespaced `resource` more, of `kind`, as after a `CustomResourceDefinition`.
    #[must_use]
    pub fn with_resource(mut self, group: &str, version: &str, resource: &str, kind: &str) -> Self {
        let version = VersionDiscovery {
            version: version.to_owned(),
            resources: Vec::new(),
            freshness: "Current".to_owned(),
        };
        let items = &mut self.groups.list.items;
        let place = items.iter().position(|one| one.metadata.name == group).unwrap_or_else(|| {
            items.push(GroupDiscovery {
                metadata: GroupName { name: group.to_owned() },
                versions: Vec::new(),
            });
            items.len() - 1
        });
        let versions = &mut items[place].versions;
        let place = versions.iter().position(|one| one.version == version.version).unwrap_or_else(|| {
            versions.push(version);
            versions.len() - 1
        });
        versions[place].resources.push(custom_resource(resource, kind));
        self.groups.protobuf = None;
        self
    }

    /// The same with an older form of aggregated discovery.
    #[must_use]
    pub fn with_aggregation(self, aggregation: Aggregation) -> Self {
        Self { aggregation, ..self }
    }

    /// The same with another `/version`, kept as long as recorded ones.
    #[must_use]
    pub fn with_version_info(self, json: String) -> Self {
        Self { version: json.leak(), ..self }
    }

    fn changed(mut self, group: &str, change: impl FnOnce(&mut GroupDiscovery)) -> Self {
        let recorded = if group.is_empty() {
            self.core_resources = CoreResources::Generated;
            &mut self.core
        } else {
            &mut self.groups
        };
        recorded.protobuf = None;
        if let Some(found) = recorded.list.items.iter_mut().find(|one| one.metadata.name == group) {
            change(found);
        }
        recorded.list.items.retain(|group| !group.versions.is_empty());
        self
    }

    fn from_recording(name: &str, json: [&'static str; 5], protobuf: [&'static [u8]; 2]) -> Self {
        let [core, groups, core_resources, version, readyz] = json;
        let [core_protobuf, groups_protobuf] = protobuf;
        let parse = |text, protobuf| Recorded {
            list: serde_json::from_str(text).expect("the recorded documents are aggregated discovery"),
            protobuf: Some(protobuf),
        };
        Self {
            name: name.to_owned(),
            core: parse(core, core_protobuf),
            groups: parse(groups, groups_protobuf),
            core_resources: CoreResources::Recorded(core_resources),
            version,
            readyz,
            aggregation: Aggregation::V2,
        }
    }

    /// Whether the recorded server announces its peer address on its identity lease, as 1.36 and newer do.
    pub(super) fn announces_peer_address(&self) -> bool {
        self.name.starts_with("v1.36")
    }

    /// The versions of `group`, preferred first; `None` when the group is not served.
    pub(super) fn group(&self, group: &str) -> Option<&GroupDiscovery> {
        let list = if group.is_empty() { &self.core.list } else { &self.groups.list };
        list.items.iter().find(|one| one.metadata.name == group)
    }

    /// The resources of a group version.
    pub(super) fn version(&self, group: &str, version: &str) -> Option<&VersionDiscovery> {
        self.group(group)?.versions.iter().find(|one| one.version == version)
    }

    /// One resource.
    pub(super) fn resource(&self, group: &str, version: &str, resource: &str) -> Option<&ResourceDiscovery> {
        self.version(group, version)?.resources.iter().find(|one| one.resource == resource)
    }
}

/// `APIGroupDiscoveryList` with its fields in Go's order, which the `ETag` depends on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct GroupDiscoveryList {
    pub(super) kind: String,
    #[serde(rename = "apiVersion")]
    pub(super) api_version: String,
    pub(super) metadata: Map<String, Value>,
    pub(super) items: Vec<GroupDiscovery>,
}

impl GroupDiscoveryList {
    /// The tag kube-apiserver gives this document: SHA-512 of the Go JSON without kind and apiVersion, in upper-case
    /// hexadecimal and quotes (apiserver's `discovery/aggregated/etag.go`).
    pub(super) fn etag(&self) -> String {
        #[derive(Serialize)]
        struct Hashed<'a> {
            metadata: &'a Map<String, Value>,
            items: &'a [GroupDiscovery],
        }
        let text = serde_json::to_vec(&Hashed { metadata: &self.metadata, items: &self.items })
            .expect("derived structs with string keys always serialise");
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA512, &text);
        format!("\"{}\"", clock::hex(digest.as_ref()).to_ascii_uppercase())
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct GroupDiscovery {
    pub(super) metadata: GroupName,
    pub(super) versions: Vec<VersionDiscovery>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct GroupName {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) name: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct VersionDiscovery {
    pub(super) version: String,
    pub(super) resources: Vec<ResourceDiscovery>,
    pub(super) freshness: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ResourceDiscovery {
    pub(super) resource: String,
    pub(super) response_kind: ResponseKind,
    pub(super) scope: String,
    pub(super) singular_resource: String,
    pub(super) verbs: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) short_names: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) categories: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) subresources: Vec<SubresourceDiscovery>,
}

impl ResourceDiscovery {
    pub(super) fn is_namespaced(&self) -> bool {
        self.scope == "Namespaced"
    }

    pub(super) fn subresource(&self, name: &str) -> Option<&SubresourceDiscovery> {
        self.subresources.iter().find(|one| one.subresource == name)
    }

    /// Whether objects of this resource are stored; review resources only know `create`.
    pub(super) fn is_stored(&self) -> bool {
        self.verbs.iter().any(|verb| verb == "get")
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SubresourceDiscovery {
    pub(super) subresource: String,
    pub(super) response_kind: ResponseKind,
    pub(super) verbs: Vec<String>,
}

/// A kind; group and version are empty where they are those of the list it stands in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ResponseKind {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) kind: String,
}

/// A namespaced resource as the API server announces that of a `CustomResourceDefinition`.
fn custom_resource(resource: &str, kind: &str) -> ResourceDiscovery {
    let verbs = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
    ResourceDiscovery {
        resource: resource.to_owned(),
        response_kind: ResponseKind { group: String::new(), version: String::new(), kind: kind.to_owned() },
        scope: "Namespaced".to_owned(),
        singular_resource: kind.to_ascii_lowercase(),
        verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
        short_names: Vec::new(),
        categories: Vec::new(),
        subresources: Vec::new(),
    }
}

/// The protobuf bytes of `recorded`.
pub(super) fn protobuf(recorded: &Recorded) -> Option<Bytes> {
    recorded.protobuf.map(Bytes::from_static)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `sha512sum` over the recorded document with its kind and apiVersion cut off, computed outside this program.
    const TAGS: [(&str, &str); 2] = [
        (
            "v1.34",
            "36EB20B532B5E2220EA305AA35A76130E48B4367FAC435B022F3FC7CC8651F2B\
             53D6FFAE2CCFF66A7C4FE55F0C3C444469D951C312B0B0CA6E39D25226A5541F",
        ),
        (
            "v1.36-all",
            "8290C3472C27890F9FD7A0D8EDB129C8F8C3812F5D96F60EE512B15A19C57A51\
             D5AC9218F86612D24DF9BD55C9634B8D75DE655751374170931164A71F1E1C94",
        ),
    ];

    #[test]
    fn every_recording_survives_being_parsed_byte_for_byte() {
        for name in NAMES {
            let documents = Documents::load(name).unwrap();
            for (file, list) in [("api", &documents.core.list), ("apis", &documents.groups.list)] {
                let path =
                    format!("{}/fixtures/kube-apiserver/{name}/{file}.v2.json", env!("CARGO_MANIFEST_DIR"));
                let recorded = std::fs::read_to_string(&path).unwrap();
                assert_eq!(serde_json::to_string(list).unwrap(), recorded.trim_end(), "{path}");
            }
        }
    }

    #[test]
    fn etag_is_the_hash_of_the_document_without_its_kind() {
        for (name, tag) in TAGS {
            let documents = Documents::load(name).unwrap();
            assert_eq!(documents.groups.list.etag(), format!("\"{tag}\""), "{name}");
        }
    }

    #[test]
    fn removed_apis_are_gone() {
        let documents = Documents::load("v1.36-all")
            .unwrap()
            .without_version("batch", "v1")
            .without_resource("", "v1", "pods/resize")
            .without_resource("apps", "v1", "daemonsets");
        assert!(documents.version("batch", "v1").is_none() && documents.group("batch").is_none());
        let pods = documents.resource("", "v1", "pods").unwrap();
        assert!(pods.subresource("resize").is_none() && pods.subresource("exec").is_some());
        assert!(documents.resource("apps", "v1", "daemonsets").is_none());
        assert!(documents.resource("apps", "v1", "deployments").is_some());
        assert!(documents.groups.protobuf.is_none() && documents.core.protobuf.is_none());
    }
}
