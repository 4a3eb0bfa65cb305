//! Finds who serves a resource, subresource and verb, without allocating.

use hashbrown::{Equivalent, HashMap};

use super::ServerSet;
use super::document::GroupList;
use crate::classify::RequestInfo;

/// What all servers of a snapshot serve.
#[derive(Debug, Default)]
pub(super) struct Index(HashMap<Key, Servers>);

/// A resource, or with a non-empty subresource one of its subresources.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) group: Box<str>,
    pub(super) version: Box<str>,
    pub(super) resource: Box<str>,
    pub(super) subresource: Box<str>,
}

/// The same, borrowed from a request path.
#[derive(PartialEq, Eq, Hash)]
struct KeyRef<'a> {
    group: &'a str,
    version: &'a str,
    resource: &'a str,
    subresource: &'a str,
}

impl Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        *self.group == *key.group
            && *self.version == *key.version
            && *self.resource == *key.resource
            && *self.subresource == *key.subresource
    }
}

/// Who serves a key: at all, and with each verb of [`VERBS`].
#[derive(Debug, Default)]
struct Servers {
    any: ServerSet,
    by_verb: [ServerSet; VERBS.len()],
}

/// One key and who serves it.
pub(super) struct Entry<'a> {
    pub(super) key: &'a Key,
    /// With any verb.
    pub(super) any: ServerSet,
    by_verb: &'a [ServerSet; VERBS.len()],
}

impl Entry<'_> {
    /// Who serves it with each verb.
    pub(super) fn by_verb(&self) -> impl Iterator<Item = (&'static str, ServerSet)> {
        VERBS.into_iter().zip(*self.by_verb)
    }
}

/// Verbs that discovery documents list. Any other (legacy `proxy`, none for unusual methods) is not told apart.
const VERBS: [&str; 8] = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];

impl Index {
    /// Adds what server number `server` serves.
    pub(super) fn add(&mut self, server: usize, list: &GroupList) {
        for group in &list.items {
            for version in &group.versions {
                for resource in &version.resources {
                    let mut add = |subresource: &str, verbs: Option<&Vec<String>>| {
                        let key = Key {
                            group: group.metadata.name.as_str().into(),
                            version: version.version.as_str().into(),
                            resource: resource.resource.as_str().into(),
                            subresource: subresource.into(),
                        };
                        self.0.entry(key).or_default().add(server, verbs);
                    };
                    add("", resource.verbs.as_ref());
                    for subresource in &resource.subresources {
                        add(&subresource.subresource, subresource.verbs.as_ref());
                    }
                }
            }
        }
    }

    /// Who serves a request; with a verb that documents do not list, who serves its resource and subresource at all.
    pub(super) fn servers_of(&self, info: &RequestInfo<'_>) -> ServerSet {
        let key = KeyRef {
            group: info.group,
            version: info.version,
            resource: info.resource,
            subresource: info.subresource,
        };
        let Some(servers) = self.0.get(&key) else { return ServerSet::default() };
        match VERBS.iter().position(|verb| *verb == info.verb) {
            Some(verb) => servers.by_verb[verb],
            None => servers.any,
        }
    }

    /// Whether anybody has a resource.
    pub(super) fn has(&self, group: &str, version: &str, resource: &str) -> bool {
        self.0.contains_key(&KeyRef { group, version, resource, subresource: "" })
    }

    /// The peers that serve some key or verb which the local server lacks.
    pub(super) fn richer(&self) -> ServerSet {
        let sets = self.0.values().flat_map(|servers| servers.by_verb.iter().chain([&servers.any]));
        let lacking = sets.filter(|servers| !servers.has_local());
        lacking.fold(ServerSet::default(), |all, servers| all.union(*servers))
    }

    /// Every key, in no particular order.
    pub(super) fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.0.iter().map(|(key, servers)| Entry { key, any: servers.any, by_verb: &servers.by_verb })
    }

    /// Number of resources and subresources.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Servers {
    fn add(&mut self, server: usize, verbs: Option<&Vec<String>>) {
        self.any = self.any.with(server);
        for verb in verbs.into_iter().flatten() {
            if let Some(known) = VERBS.iter().position(|known| known == verb) {
                self.by_verb[known] = self.by_verb[known].with(server);
            }
        }
    }
}
