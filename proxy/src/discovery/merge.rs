//! Merges what several API servers serve into one document.
//!
//! Unlike the built-in proxy, versions are ordered by Kubernetes' own priority where the servers' lists do not settle
//! it, a `Current` answer beats a `Stale` one, and conflicting metadata comes from the newest server.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet};

use http::HeaderValue;
use kube::core::Version as KubeVersion;

use super::document::{Group, GroupList, Resource, Subresource, Version};
use super::{Document, Merged, Part, Served};
use crate::upstream::Upstream;

/// The merged document, unless all servers' documents are the local one.
pub(super) fn merged(servers: &[(Upstream, Option<&Served>)], document: Document) -> Option<Merged> {
    let (_, Some(local)) = servers.first()? else { return None };
    let local = local.part(document);
    // Newest first; documents of equal version by tag, so that every node merges in the same order.
    let mut inputs: Vec<&Served> = servers.iter().filter_map(|(_, served)| *served).collect();
    inputs.sort_by_cached_key(|served| (Reverse(numbers(&served.version)), tag(served.part(document))));

    let lists: Vec<&GroupList> = inputs.iter().map(|served| &served.part(document).list).collect();
    let list = merge(&lists);
    if list == local.list {
        return None;
    }
    Some(Merged { json: list.encode().into(), etag: list.etag(), local_etag: local.etag.clone() })
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

fn merge_versions(versions: &[&Version]) -> Version {
    let resources: Vec<&[Resource]> = versions.iter().map(|version| version.resources.as_slice()).collect();
    let current = versions.iter().find(|version| version.freshness == "Current");
    Version {
        version: versions[0].version.clone(),
        resources: merge_by(&resources, |resource| &resource.resource, Ord::cmp, merge_resources),
        freshness: current.unwrap_or(&versions[0]).freshness.clone(),
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
    let mut by_name: BTreeMap<&str, Vec<&T>> = BTreeMap::new();
    for item in lists.iter().copied().flatten() {
        by_name.entry(name(item).as_str()).or_default().push(item);
    }
    merge_order(&names, tie_break).into_iter().map(|name| merge_items(&by_name[name])).collect()
}

/// Orders the union of lists so that each list's own order is kept where that is possible (UPSTREAM merge rule: a list
/// that has everything wins, else a topological order, else the tie-break alone).
fn merge_order<'a>(lists: &[Vec<&'a str>], tie_break: impl Fn(&str, &str) -> Ordering) -> Vec<&'a str> {
    let all: BTreeSet<&str> = lists.iter().flatten().copied().collect();
    let is_complete = |list: &&Vec<&'a str>| list.iter().collect::<BTreeSet<_>>().len() == all.len();
    if let Some(complete) = lists.iter().find(is_complete) {
        let mut seen = BTreeSet::new();
        return complete.iter().copied().filter(|name| seen.insert(*name)).collect();
    }
    let mut sorted: Vec<&str> = all.into_iter().collect();
    sorted.sort_by(|a, b| tie_break(a, b));
    topological(lists, &sorted).unwrap_or(sorted)
}

/// Kahn's algorithm over neighbouring pairs, taking the first free name of `sorted`; `None` when the lists contradict.
fn topological<'a>(lists: &[Vec<&'a str>], sorted: &[&'a str]) -> Option<Vec<&'a str>> {
    let mut after: BTreeSet<(&str, &str)> =
        lists.iter().flat_map(|list| list.windows(2).map(|pair| (pair[0], pair[1]))).collect();
    let mut waiting = sorted.to_vec();
    let mut order = Vec::with_capacity(waiting.len());
    while !waiting.is_empty() {
        let blocked: BTreeSet<&str> = after.iter().map(|(_, later)| *later).collect();
        let next = waiting.iter().position(|name| !blocked.contains(name))?;
        let name = waiting.remove(next);
        after.retain(|(earlier, _)| *earlier != name);
        order.push(name);
    }
    Some(order)
}

/// Kubernetes' version priority: v2 before v1, v1 before v1beta2, v1beta2 before v1beta1, beta before alpha.
fn by_priority(a: &str, b: &str) -> Ordering {
    KubeVersion::parse(b).priority().cmp(&KubeVersion::parse(a).priority()).then_with(|| a.cmp(b))
}

fn numbers(version: &str) -> (u32, u32, u32) {
    let mut parts =
        version.trim_start_matches('v').split(['.', '-', '+']).map_while(|part| part.parse().ok());
    let mut next = || parts.next().unwrap_or_default();
    (next(), next(), next())
}

/// The server's tag; where it sends none the one its content has, for every node has to find the same order.
fn tag(part: &Part) -> HeaderValue {
    part.etag.clone().unwrap_or_else(|| part.list.etag())
}

#[cfg(test)]
mod tests;
