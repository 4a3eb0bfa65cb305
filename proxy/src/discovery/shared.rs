//! Knows which APIs come from objects that all servers share, and which of these objects changed a moment ago.
//!
//! `CustomResourceDefinitions` and `APIServices` live in etcd: once one is deleted no server serves its resources any more,
//! but what was learned from a server before may still list them. So an answer counts for such a resource only when the
//! question was put after the latest change. What is built into a server is not concerned, also in the same group and
//! version.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::document::GroupList;
use super::{Part, Served};

pub mod watch;

/// What an object brings about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SharedApi {
    /// A resource, in whatever versions: of a `CustomResourceDefinition`.
    Resource {
        /// API group.
        group: String,
        /// Plural name.
        resource: String,
    },
    /// A whole group version: of an `APIService` that names another server.
    GroupVersion {
        /// API group.
        group: String,
        /// Version.
        version: String,
    },
}

impl SharedApi {
    /// From a `CustomResourceDefinition`'s name, `<plural>.<group>`.
    pub fn of_definition(name: &str) -> Option<Self> {
        let (resource, group) = name.split_once('.')?;
        Some(Self::Resource { group: group.to_owned(), resource: resource.to_owned() })
    }

    /// From an `APIService`'s name, `<version>.<group>`.
    pub fn of_service(name: &str) -> Option<Self> {
        let (version, group) = name.split_once('.')?;
        Some(Self::GroupVersion { group: group.to_owned(), version: version.to_owned() })
    }

    fn covers(&self, in_group: &str, in_version: &str, name: &str) -> bool {
        match self {
            Self::Resource { group, resource } => group == in_group && resource == name,
            Self::GroupVersion { group, version } => group == in_group && version == in_version,
        }
    }

    /// Which of the two kinds it is.
    fn kind(&self) -> usize {
        match self {
            Self::Resource { .. } => 0,
            Self::GroupVersion { .. } => 1,
        }
    }
}

/// All APIs from shared objects.
#[derive(Clone, Debug, Default)]
pub struct SharedApis {
    entries: HashMap<SharedApi, Entry>,
    /// Lists that are being read, by [`SharedApi::kind`], with each object's generation.
    listing: [Option<HashMap<SharedApi, i64>>; 2],
    /// Whether objects of the kind were ever listed as a whole.
    is_read: [bool; 2],
    /// How long answers are believed: for that long deletions have to be remembered.
    keep: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    is_live: bool,
    generation: i64,
    /// Since when it is as it is; `None` when that was so before anybody looked.
    changed: Option<Instant>,
}

/// Time after a deletion for which servers are not believed that they still serve what was deleted: their own watches may
/// lag. The built-in proxy takes 5 minutes, because it does not ask again.
const DELETION_GRACE: Duration = Duration::from_mins(1);

/// Answers are forgotten a little after their time.
const SLACK: Duration = Duration::from_mins(1);

impl SharedApis {
    /// What was known when the process ended before this one began: what a first list no longer has was deleted meanwhile.
    /// `keep` is how long answers are believed.
    pub fn remembered(keep: Duration, apis: impl IntoIterator<Item = (SharedApi, i64)>) -> Self {
        let entries = apis
            .into_iter()
            .map(|(api, generation)| (api, Entry { is_live: true, generation, changed: None }))
            .collect();
        Self { entries, keep, ..Self::default() }
    }

    /// What exists now, with the generation of each object.
    pub fn live(&self) -> impl Iterator<Item = (&SharedApi, i64)> {
        self.entries.iter().filter(|(_, entry)| entry.is_live).map(|(api, entry)| (api, entry.generation))
    }

    /// A list of one kind of objects begins.
    fn begin(&mut self, kind: usize) {
        self.listing[kind] = Some(HashMap::new());
    }

    /// An object is there; whether that is news.
    fn put(&mut self, api: SharedApi, generation: i64, now: Instant) -> bool {
        match &mut self.listing[api.kind()] {
            Some(listing) => {
                listing.insert(api, generation);
                false
            }
            None => self.set(api, generation, Some(now)),
        }
    }

    fn set(&mut self, api: SharedApi, generation: i64, changed: Option<Instant>) -> bool {
        let known = self.entries.get(&api);
        if known.is_some_and(|entry| entry.is_live && entry.generation == generation) {
            return false;
        }
        self.entries.insert(api, Entry { is_live: true, generation, changed });
        true
    }

    /// An object was deleted; whether that is news.
    fn remove(&mut self, api: &SharedApi, now: Instant) -> bool {
        let Some(entry) = self.entries.get_mut(api).filter(|entry| entry.is_live) else { return false };
        (entry.is_live, entry.changed) = (false, Some(now));
        self.prune(now);
        true
    }

    /// A list is complete: what is not in it is not there. Whether that is news.
    fn complete(&mut self, kind: usize, now: Instant) -> bool {
        let Some(listing) = self.listing[kind].take() else { return false };
        let missing: Vec<SharedApi> = self
            .entries
            .iter()
            .filter(|(api, entry)| api.kind() == kind && entry.is_live && !listing.contains_key(*api))
            .map(|(api, _)| api.clone())
            .collect();
        let mut is_news = false;
        for api in missing {
            is_news |= self.remove(&api, now);
        }
        for (api, generation) in listing {
            // What the very first list has may have been there for ever, but not as it is where it is remembered otherwise.
            let changed = (self.is_read[kind] || self.entries.contains_key(&api)).then_some(now);
            is_news |= self.set(api, generation, changed) && changed.is_some();
        }
        self.is_read[kind] = true;
        is_news
    }

    /// Forgets deletions that lie before every answer that is still believed.
    fn prune(&mut self, now: Instant) {
        let Some(oldest) = now.checked_sub(self.keep + SLACK) else { return };
        self.entries.retain(|_, entry| entry.is_live || entry.hides(oldest));
    }

    /// What a server's answer says, without what may have been deleted since the question was put.
    pub fn visible<'a>(&self, served: &'a Served, asked: Instant) -> Cow<'a, Served> {
        let doubted: Vec<&SharedApi> =
            self.entries.iter().filter(|(_, entry)| entry.hides(asked)).map(|(api, _)| api).collect();
        if doubted.is_empty()
            || !served.groups.list.resources().any(|resource| is_doubted(&doubted, resource))
        {
            return Cow::Borrowed(served);
        }
        let groups = Part { list: without(&served.groups.list, &doubted), etag: None };
        Cow::Owned(Served { core: served.core.clone(), groups, version: served.version.clone() })
    }
}

impl Entry {
    /// Whether an answer to a question of that time is too old for this.
    fn hides(&self, asked: Instant) -> bool {
        let grace = if self.is_live { Duration::ZERO } else { DELETION_GRACE };
        self.changed.is_some_and(|changed| asked < changed + grace)
    }
}

fn is_doubted(doubted: &[&SharedApi], (group, version, resource): (&str, &str, &str)) -> bool {
    doubted.iter().any(|api| api.covers(group, version, resource))
}

fn without(list: &GroupList, doubted: &[&SharedApi]) -> GroupList {
    let mut groups = list.items.clone();
    for group in &mut groups {
        let name = &group.metadata.name;
        for version in &mut group.versions {
            let of = &version.version;
            version.resources.retain(|resource| !is_doubted(doubted, (name, of, &resource.resource)));
        }
        group.versions.retain(|version| !version.resources.is_empty());
    }
    groups.retain(|group| !group.versions.is_empty());
    GroupList::of(groups)
}

#[cfg(test)]
mod tests;
