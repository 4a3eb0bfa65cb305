//! The merged view: every discovery document in which peers have more to say than the local server.

use std::sync::Arc;

use hashbrown::{Equivalent, HashMap};
use http::HeaderValue;

use super::document::{Group, GroupList, Resource, Version};
use super::merge::{inputs, merge};
use super::page::Page;
use super::{Document, Served, ServerSet};
use crate::upstream::Upstream;

/// A discovery document, by what it lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Name<'a> {
    /// `/api` or `/apis`, aggregated.
    Aggregated(Document),
    /// `/apis`, unaggregated.
    GroupList,
    /// `/apis/GROUP`.
    Group(&'a str),
    /// `/api/VERSION` or `/apis/GROUP/VERSION`.
    Resources {
        /// Empty for the core group.
        group: &'a str,
        /// Version.
        version: &'a str,
    },
}

/// The documents of one snapshot. Those that all servers word alike are not in it: they pass through untouched.
#[derive(Debug, Default)]
pub struct View {
    core: Option<Arc<Page>>,
    groups: Option<Arc<Page>>,
    group_list: Option<Arc<Page>>,
    group: HashMap<Box<str>, Option<Arc<Page>>>,
    version: HashMap<GroupVersion, Listed>,
    fullest: Fullest,
    /// Tags of the local server's own `/api` and `/apis`: asking with one costs it a 304.
    local_etags: [Option<HeaderValue>; 2],
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct GroupVersion {
    group: Box<str>,
    version: Box<str>,
}

#[derive(PartialEq, Eq, Hash)]
struct GroupVersionRef<'a> {
    group: &'a str,
    version: &'a str,
}

impl Equivalent<GroupVersion> for GroupVersionRef<'_> {
    fn equivalent(&self, key: &GroupVersion) -> bool {
        *self.group == *key.group && *self.version == *key.version
    }
}

/// A group version that somebody serves.
#[derive(Debug, Default)]
struct Listed {
    servers: ServerSet,
    fullest: Fullest,
    page: Option<Arc<Page>>,
}

/// The servers that list most.
#[derive(Debug, Default)]
struct Fullest {
    servers: ServerSet,
    resources: usize,
}

impl Fullest {
    fn add(&mut self, server: usize, resources: usize) {
        if self.servers.is_empty() || resources > self.resources {
            *self = Self { servers: ServerSet::default().with(server), resources };
        } else if resources == self.resources {
            self.servers = self.servers.with(server);
        }
    }
}

impl View {
    /// Merges what servers say; `servers[0]` is the local one. While that has not said anything, nothing is merged.
    pub(super) fn of(servers: &[(Upstream, Option<&Served>)]) -> Self {
        let mut view = Self::default();
        for (number, (_, served)) in servers.iter().enumerate().take(ServerSet::CAPACITY - 1) {
            if let Some(served) = served {
                let resources = Document::ALL.map(|document| view.list(number, &served.part(document).list));
                view.fullest.add(number, resources.iter().sum());
            }
        }
        let known: Vec<&Served> = servers.iter().filter_map(|(_, served)| *served).collect();
        if let Some((_, Some(local))) = servers.first() {
            for document in Document::ALL {
                view.local_etags[document as usize].clone_from(&local.part(document).etag);
                let inputs = inputs(&known, document);
                if inputs.len() > 1 {
                    view.merge(document, &inputs);
                }
            }
        }
        view
    }

    /// The document that is to be served in place of the local server's.
    pub fn find(&self, name: Name<'_>) -> Option<&Arc<Page>> {
        match name {
            Name::Aggregated(Document::Core) => self.core.as_ref(),
            Name::Aggregated(Document::Groups) => self.groups.as_ref(),
            Name::GroupList => self.group_list.as_ref(),
            Name::Group(group) => self.group.get(group)?.as_ref(),
            Name::Resources { group, version } => {
                self.version.get(&GroupVersionRef { group, version })?.page.as_ref()
            }
        }
    }

    /// Whether some server has such a document.
    pub fn is_listed(&self, name: Name<'_>) -> bool {
        match name {
            Name::Aggregated(_) | Name::GroupList => true,
            Name::Group(group) => self.group.contains_key(group),
            Name::Resources { group, version } => !self.fullest_of(group, version).is_empty(),
        }
    }

    /// Who serves a group version.
    pub fn servers_of(&self, group: &str, version: &str) -> ServerSet {
        let listed = self.version.get(&GroupVersionRef { group, version });
        listed.map_or_else(ServerSet::default, |listed| listed.servers)
    }

    /// Who serves most of a group version; empty when nobody serves it.
    pub fn fullest_of(&self, group: &str, version: &str) -> ServerSet {
        let listed = self.version.get(&GroupVersionRef { group, version });
        listed.map_or_else(ServerSet::default, |listed| listed.fullest.servers)
    }

    /// Who serves most of all.
    pub fn fullest(&self) -> ServerSet {
        self.fullest.servers
    }

    /// The group versions of which peers serve more than the local server.
    pub fn elsewhere(&self) -> impl Iterator<Item = (&str, &str)> {
        let elsewhere = self.version.iter().filter(|(_, listed)| !listed.fullest.servers.has_local());
        elsewhere.map(|(name, _)| (&*name.group, &*name.version))
    }

    /// The local server's own tag of `/api` or `/apis`.
    pub fn local_etag(&self, document: Document) -> Option<&HeaderValue> {
        self.local_etags[document as usize].as_ref()
    }

    /// Notes who lists what; the number of resources and subresources.
    fn list(&mut self, server: usize, list: &GroupList) -> usize {
        let mut all = 0;
        for group in &list.items {
            let name = &group.metadata.name;
            if !self.group.contains_key(name.as_str()) {
                self.group.insert(name.as_str().into(), None);
            }
            for version in &group.versions {
                let resources =
                    version.resources.iter().map(|resource| 1 + resource.subresources.len()).sum();
                let entry = self.entry(name, &version.version);
                entry.servers = entry.servers.with(server);
                entry.fullest.add(server, resources);
                all += resources;
            }
        }
        all
    }

    fn entry(&mut self, group: &str, version: &str) -> &mut Listed {
        let key = || GroupVersion { group: group.into(), version: version.into() };
        self.version.entry(key()).or_default()
    }

    /// Also where the local server says all there is: while it is down a peer answers, and what exists must not vanish.
    fn merge(&mut self, document: Document, inputs: &[&GroupList]) {
        let merged = Arc::new(merge(inputs));
        let aggregated = || Some(Page::aggregated(Arc::clone(&merged)));
        match document {
            _ if inputs.iter().all(|list| **list == *merged) => {}
            Document::Core => self.core = aggregated(),
            Document::Groups => self.groups = aggregated(),
        }
        if document == Document::Groups {
            self.add_groups(&merged, inputs);
        }
        let named: Vec<_> = inputs.iter().map(|list| by_name(list)).collect();
        for (group_number, group) in merged.items.iter().enumerate() {
            let name = &group.metadata.name;
            for (number, version) in group.versions.iter().enumerate() {
                let is_alike = |groups: &HashMap<&str, &Group>| {
                    let group = groups.get(name.as_str());
                    group
                        .and_then(|group| group.versions.iter().find(|one| one.version == version.version))
                        .is_some_and(|one| lists_the_same(one, version))
                };
                if !named.iter().all(is_alike) {
                    let page = Page::resources(Arc::clone(&merged), group_number, number);
                    self.entry(name, &version.version).page = Some(page);
                }
            }
        }
    }

    /// The unaggregated lists of groups and versions.
    ///
    /// kube-apiserver makes them from `APIService` objects, which all servers share and each changes when it starts, so that
    /// not even the server that has everything lists everything. They are replaced wherever the servers differ.
    fn add_groups(&mut self, merged: &Arc<GroupList>, inputs: &[&GroupList]) {
        let named: Vec<_> = inputs.iter().map(|list| by_name(list)).collect();
        let mut differ =
            inputs.iter().any(|list| !list.items.iter().map(name).eq(merged.items.iter().map(name)));
        for (number, group) in merged.items.iter().enumerate() {
            let name = group.metadata.name.as_str();
            let is_alike = |groups: &HashMap<&str, &Group>| {
                groups.get(name).is_some_and(|one| versions(one).eq(versions(group)))
            };
            if !named.iter().all(is_alike) {
                differ = true;
                self.group.insert(name.into(), Some(Page::group(Arc::clone(merged), number)));
            }
        }
        if differ {
            self.group_list = Some(Page::group_list(Arc::clone(merged)));
        }
    }
}

fn by_name(list: &GroupList) -> HashMap<&str, &Group> {
    list.items.iter().map(|group| (name(group), group)).collect()
}

fn name(group: &Group) -> &str {
    &group.metadata.name
}

fn versions(group: &Group) -> impl Iterator<Item = &str> {
    group.versions.iter().map(|version| version.version.as_str())
}

/// Whether a server lists all that is merged, in whatever order.
fn lists_the_same(one: &Version, merged: &Version) -> bool {
    if one.resources == merged.resources {
        return true;
    }
    let named: HashMap<&str, &Resource> =
        one.resources.iter().map(|resource| (resource.resource.as_str(), resource)).collect();
    one.resources.len() == merged.resources.len()
        && merged.resources.iter().all(|resource| named.get(resource.resource.as_str()) == Some(&resource))
}

#[cfg(test)]
mod tests;
