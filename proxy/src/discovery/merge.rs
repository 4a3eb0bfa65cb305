//! Merges what several API servers serve into one document.
//!
//! Unlike the built-in proxy, versions are ordered by Kubernetes' own priority where the servers' lists do not settle
//! it, a `Current` answer beats a `Stale` one, and conflicting metadata comes from the newest server.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;
use http::HeaderValue;
use kube::core::Version as KubeVersion;

use super::document::{Group, GroupList, Resource, Subresource, Version};
use super::{Document, Part, Served};

mod order;

/// The servers' documents in the order in which every node merges them: newest first; of equal version by tag. What two
/// servers say alike is in it once.
pub(super) fn inputs<'a>(servers: &[&'a Served], document: Document) -> Vec<&'a GroupList> {
    let mut newest_first = servers.to_vec();
    newest_first.sort_by_cached_key(|served| (Reverse(numbers(&served.version)), tag(served.part(document))));
    let mut inputs: Vec<&GroupList> = Vec::new();
    for list in newest_first.into_iter().map(|served| &served.part(document).list) {
        if !inputs.contains(&list) {
            inputs.push(list);
        }
    }
    inputs
}

/// Merges documents; on conflict the earlier one's metadata counts.
pub fn merge(lists: &[&GroupList]) -> GroupList {
    let groups: Vec<&[Group]> = lists.iter().map(|list| list.items.as_slice()).collect();
    GroupList::of(merge_by(&groups, |group| &group.metadata.name, Ord::cmp, merge_groups))
}

fn merge_groups(groups: &[&Group]) -> Group {
    let versions: Vec<&[Version]> = groups.iter().map(|group| group.versions.as_slice()).collect();
    Group {
        metadata: groups[0].metadata.clone(),
        versions: merge_by(&versions, |version| &version.version, by_priority, merge_versions),
    }
}

/// A server that can ask the aggregated API server behind a version knows better than one that remembers what it said.
fn merge_versions(versions: &[&Version]) -> Version {
    let mut versions = versions.to_vec();
    versions.sort_by_key(|version| version.freshness != "Current");
    let resources: Vec<&[Resource]> = versions.iter().map(|version| version.resources.as_slice()).collect();
    Version {
        version: versions[0].version.clone(),
        resources: merge_by(&resources, |resource| &resource.resource, Ord::cmp, merge_resources),
        freshness: versions[0].freshness.clone(),
    }
}

fn merge_resources(resources: &[&Resource]) -> Resource {
    if resources.iter().all(|resource| resource == &resources[0]) {
        return resources[0].clone();
    }
    let mut subresources: BTreeMap<&str, Subresource> = BTreeMap::new();
    for subresource in resources.iter().flat_map(|resource| &resource.subresources) {
        subresources
            .entry(&subresource.subresource)
            .and_modify(|known| known.verbs = union(&[&known.verbs, &subresource.verbs]))
            .or_insert_with(|| subresource.clone());
    }
    let verbs: Vec<&Option<Vec<String>>> = resources.iter().map(|resource| &resource.verbs).collect();
    Resource {
        verbs: union(&verbs),
        subresources: subresources.into_values().collect(),
        ..resources[0].clone()
    }
}

fn union(verbs: &[&Option<Vec<String>>]) -> Option<Vec<String>> {
    let all: BTreeSet<&String> = verbs.iter().copied().flatten().flatten().collect();
    (!all.is_empty()).then(|| all.into_iter().cloned().collect())
}

/// Merges lists of named items: order first, then the items of each name, in the lists' order.
fn merge_by<T: Clone>(
    lists: &[&[T]],
    name: impl Fn(&T) -> &String,
    tie_break: impl Fn(&str, &str) -> Ordering,
    merge_items: impl Fn(&[&T]) -> T,
) -> Vec<T> {
    let names: Vec<Vec<&str>> =
        lists.iter().map(|list| list.iter().map(|item| name(item).as_str()).collect()).collect();
    let mut by_name: HashMap<&str, Vec<&T>> = HashMap::new();
    for item in lists.iter().copied().flatten() {
        by_name.entry(name(item).as_str()).or_default().push(item);
    }
    order::merge_order(&names, tie_break).into_iter().map(|name| merge_items(&by_name[name])).collect()
}

/// Kubernetes' version priority: v2 before v1, v1 before v1beta2, v1beta2 before v1beta1, beta before alpha.
fn by_priority(a: &str, b: &str) -> Ordering {
    KubeVersion::parse(b).priority().cmp(&KubeVersion::parse(a).priority()).then_with(|| a.cmp(b))
}

/// Major, minor, patch, and whether it is released. What distributions append to a release says nothing.
pub(super) fn numbers(version: &str) -> (u32, u32, u32, bool) {
    let mut parts =
        version.trim_start_matches('v').split(['.', '-', '+']).map_while(|part| part.parse().ok());
    let mut next = || parts.next().unwrap_or_default();
    let is_released = !["-alpha", "-beta", "-rc"].iter().any(|mark| version.contains(mark));
    (next(), next(), next(), is_released)
}

/// The server's tag; where it sends none the one its content has, for every node has to find the same order.
fn tag(part: &Part) -> HeaderValue {
    part.etag.clone().unwrap_or_else(|| part.list.etag())
}

#[cfg(test)]
mod tests;
