//! Puts together what a server without aggregated discovery serves: `/api`, `/apis` and one document per group version.
//!
//! Converts as kube-apiserver does where it serves both forms (k8s.io/apiserver
//! `endpoints/discovery/aggregated/..`, `ConvertGroupVersionIntoToDiscovery`).

use std::collections::HashMap;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::StatusCode;
use serde::Deserialize;

use super::super::document::{Group, GroupList, GroupMeta, GroupVersionKind, Resource, Subresource, Version};
use super::super::{Part, Served};
use super::{Budget, FetchError, Fetcher};
use crate::upstream::Upstream;

/// Group versions that are asked for at once.
const AT_ONCE: usize = 8;
/// Group versions of one server; a cluster with a thousand CRDs has fewer.
const MOST_GROUP_VERSIONS: usize = 2000;

/// `APIVersions`.
#[derive(Deserialize)]
struct CoreVersions {
    #[serde(default)]
    versions: Vec<String>,
}

/// `APIGroupList`.
#[derive(Deserialize)]
struct ApiGroupList {
    #[serde(default)]
    groups: Vec<ApiGroup>,
}

#[derive(Deserialize)]
struct ApiGroup {
    #[serde(default)]
    name: String,
    #[serde(default)]
    versions: Vec<ApiVersion>,
}

#[derive(Deserialize)]
struct ApiVersion {
    #[serde(default)]
    version: String,
}

/// `APIResourceList`.
#[derive(Default, Deserialize)]
struct ApiResourceList {
    #[serde(default)]
    resources: Vec<ApiResource>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ApiResource {
    /// `pods` or `pods/status`.
    #[serde(default)]
    name: String,
    #[serde(default)]
    singular_name: String,
    #[serde(default)]
    namespaced: bool,
    #[serde(default)]
    group: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    verbs: Option<Vec<String>>,
    #[serde(default)]
    short_names: Vec<String>,
    #[serde(default)]
    categories: Vec<String>,
}

impl Fetcher {
    pub(super) async fn fetch_legacy(
        &self,
        upstream: &Upstream,
        known: Option<&Served>,
    ) -> Result<Served, FetchError> {
        let budget = &Budget::default();
        let core: CoreVersions = self.get_json(upstream, "/api", budget).await?;
        let groups: ApiGroupList = self.get_json(upstream, "/apis", budget).await?;
        let count =
            core.versions.len() + groups.groups.iter().map(|group| group.versions.len()).sum::<usize>();
        if count > MOST_GROUP_VERSIONS {
            return Err(FetchError::TooLarge { path: "/apis".to_owned() });
        }
        let core = vec![(String::new(), core.versions)];
        let groups = groups.groups.into_iter().map(|group| {
            (group.name, group.versions.into_iter().map(|version| version.version).collect::<Vec<_>>())
        });
        Ok(Served {
            core: self.fetch_groups(upstream, core, known.map(|known| &known.core), budget).await?,
            groups: self
                .fetch_groups(upstream, groups.collect(), known.map(|known| &known.groups), budget)
                .await?,
            version: self.fetch_version(upstream, budget).await?,
        })
    }

    async fn fetch_groups(
        &self,
        upstream: &Upstream,
        groups: Vec<(String, Vec<String>)>,
        known: Option<&Part>,
        budget: &Budget,
    ) -> Result<Part, FetchError> {
        let mut questions = Vec::new();
        for (group, versions) in &groups {
            for version in versions {
                questions.push(self.fetch_group_version(upstream, group, version, known, budget));
            }
        }
        let mut versions = stream::iter(questions).buffered(AT_ONCE);
        let mut items: Vec<Group> = groups
            .iter()
            .map(|(name, _)| Group { metadata: GroupMeta { name: name.clone() }, versions: Vec::new() })
            .collect();
        for (item, (_, of_group)) in items.iter_mut().zip(&groups) {
            for _ in of_group {
                let Some(found) = versions.try_next().await? else { break };
                // Nothing is served of a group version that has no resources, as of an aggregated API that is away.
                if !found.resources.is_empty() {
                    item.versions.push(found);
                }
            }
        }
        items.retain(|group| !group.versions.is_empty());
        Ok(Part { list: GroupList::of(items), etag: None })
    }

    async fn fetch_group_version(
        &self,
        upstream: &Upstream,
        group: &str,
        version: &str,
        known: Option<&Part>,
        budget: &Budget,
    ) -> Result<Version, FetchError> {
        let nothing = || Version { version: version.to_owned(), ..Version::default() };
        if !is_name(group) || !is_name(version) {
            return Ok(nothing());
        }
        let path =
            if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
        let list: ApiResourceList = match self.get_json(upstream, &path, budget).await {
            Ok(list) => list,
            // Listed and not there: an APIService that a server of another version left.
            Err(FetchError::Status { status: StatusCode::NOT_FOUND, .. }) => return Ok(nothing()),
            // An aggregated API whose own server is away; what it served does not cease to exist by that.
            Err(FetchError::Status { status: StatusCode::SERVICE_UNAVAILABLE, .. }) if !group.is_empty() => {
                let known = known.and_then(|known| find(known, group, version)).unwrap_or_else(nothing);
                return Ok(Version { freshness: "Stale".to_owned(), ..known });
            }
            Err(error) => return Err(error),
        };
        Ok(Version {
            version: version.to_owned(),
            resources: aggregate(list.resources),
            freshness: "Current".to_owned(),
        })
    }
}

/// Whether a text can be the name of a group or version, and so part of a path.
fn is_name(text: &str) -> bool {
    text.len() <= 253 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}

fn find(known: &Part, group: &str, version: &str) -> Option<Version> {
    let group = known.list.items.iter().find(|one| one.metadata.name == group)?;
    group.versions.iter().find(|one| one.version == version).cloned()
}

/// Puts subresources under their resources.
fn aggregate(list: Vec<ApiResource>) -> Vec<Resource> {
    let mut resources: Vec<Resource> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for found in list {
        let (name, subresource) = match found.name.split_once('/') {
            Some((name, subresource)) => (name.to_owned(), Some(subresource.to_owned())),
            None => (found.name.clone(), None),
        };
        let kind = GroupVersionKind { group: found.group, version: found.version, kind: found.kind };
        let scope = if found.namespaced { "Namespaced" } else { "Cluster" };
        let place = *places.entry(name).or_insert_with_key(|name| {
            // Of some resources there are only subresources.
            let resource =
                Resource { resource: name.clone(), scope: scope.to_owned(), ..Resource::default() };
            resources.push(resource);
            resources.len() - 1
        });
        let resource = &mut resources[place];
        if let Some(subresource) = subresource {
            resource.subresources.push(Subresource {
                subresource,
                response_kind: Some(kind),
                accepted_types: Vec::new(),
                verbs: found.verbs,
            });
        } else {
            scope.clone_into(&mut resource.scope);
            resource.response_kind = Some(kind);
            resource.singular_resource = found.singular_name;
            resource.verbs = found.verbs;
            resource.short_names = found.short_names;
            resource.categories = found.categories;
        }
    }
    resources
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same server's answers in both forms.
    #[test]
    fn the_recorded_documents_of_one_group_version_are_the_same_in_both_forms() {
        let legacy: ApiResourceList = serde_json::from_str(include_str!(
            "../../../../tests/fixtures/kube-apiserver/v1.36-all/api-v1.legacy.json"
        ))
        .expect("an APIResourceList");
        let aggregated = GroupList::decode(include_bytes!(
            "../../../../tests/fixtures/kube-apiserver/v1.36-all/api.v2.json"
        ))
        .expect("a document");
        let mut found = aggregate(legacy.resources);
        let mut expected = aggregated.items[0].versions[0].resources.clone();
        found.sort_by(|a, b| a.resource.cmp(&b.resource));
        expected.sort_by(|a, b| a.resource.cmp(&b.resource));
        for resource in found.iter_mut().chain(&mut expected) {
            resource.subresources.sort_by(|a, b| a.subresource.cmp(&b.subresource));
            // Only the aggregated form has these.
            resource.subresources.iter_mut().for_each(|subresource| subresource.accepted_types.clear());
        }
        assert_eq!(found, expected);
    }

    #[test]
    fn names_that_would_lead_elsewhere_are_not_asked_for() {
        for name in ["apps", "rbac.authorization.k8s.io", "v1beta1", ""] {
            assert!(is_name(name), "{name}");
        }
        for name in ["../secrets", "v1/secrets", "v1?watch=1", "v1#", "a b", "v1%2F", &"x".repeat(254)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
