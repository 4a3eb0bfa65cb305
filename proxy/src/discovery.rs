//! What every API server serves, as the one value that routing reads.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use http::HeaderValue;

use crate::classify::RequestInfo;
use crate::upstream::Upstream;

pub mod accept;
pub mod answer;
pub mod bounds;
mod difference;
pub mod document;
mod etag;
pub mod fetch;
pub(crate) mod hex;
mod index;
mod json;
pub mod memory;
pub mod merge;
pub mod openapi;
pub mod page;
mod poll;
mod protobuf;
pub mod refresh;
mod servers;
mod settling;
pub mod shared;
pub mod sync;
mod unaggregated;
pub mod view;

pub use difference::{Difference, MissingVerb};

use document::GroupList;
use index::Index;
pub use servers::Freshness;
use view::View;

/// Which of the two aggregated discovery documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Document {
    /// `/api`: the core group.
    Core,
    /// `/apis`: all named groups.
    Groups,
}

impl Document {
    /// Both, in the order they are fetched.
    pub const ALL: [Document; 2] = [Document::Core, Document::Groups];

    /// Its path.
    pub fn path(self) -> &'static str {
        match self {
            Document::Core => "/api",
            Document::Groups => "/apis",
        }
    }
}

/// A set of API servers of one snapshot: bit 0 is the local one, bit n the n-th peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerSet(u64);

impl ServerSet {
    /// Servers one snapshot can hold, the local one included.
    pub const CAPACITY: usize = 64;
    const LOCAL: u64 = 1;

    fn with(self, index: usize) -> Self {
        Self(self.0 | 1 << index)
    }

    /// Whether the local server is in the set.
    pub fn has_local(self) -> bool {
        self.0 & Self::LOCAL != 0
    }

    /// Whether a server is in the set.
    pub fn contains(self, index: usize) -> bool {
        self.0 >> index & 1 == 1
    }

    /// Whether nobody is in the set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The members of either set.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The set without its local member.
    #[must_use]
    pub fn peers(self) -> Self {
        Self(self.0 & !Self::LOCAL)
    }

    /// The set without the members of another.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Number of members.
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Indices of all members, beginning with the `turn`-th (modulo their number) and wrapping around.
    pub fn iter_from(self, turn: usize) -> impl Iterator<Item = usize> {
        let skipped = turn.checked_rem(self.len()).unwrap_or_default();
        self.iter().skip(skipped).chain(self.iter().take(skipped))
    }

    fn iter(self) -> impl Iterator<Item = usize> {
        let mut bits = self.0;
        std::iter::from_fn(move || {
            let next = bits.trailing_zeros() as usize;
            bits &= bits.wrapping_sub(1);
            (next < Self::CAPACITY).then_some(next)
        })
    }
}

impl FromIterator<usize> for ServerSet {
    fn from_iter<I: IntoIterator<Item = usize>>(indices: I) -> Self {
        indices.into_iter().fold(Self::default(), Self::with)
    }
}

/// What all API servers serve at one moment. Written by [`sync::Syncer`] only; a request loads it once.
#[derive(Default)]
pub struct Snapshot {
    enabled: bool,
    upstreams: Vec<Upstream>,
    /// `gitVersion` of each, as far as it is known.
    versions: Vec<Option<String>>,
    /// Servers that never said what they serve.
    unknown: ServerSet,
    /// Peers that serve what the local server does not.
    richer: ServerSet,
    index: Index,
    view: View,
}

/// What one API server serves.
#[derive(Clone, Debug, Default)]
pub struct Served {
    /// `/api`.
    pub core: Part,
    /// `/apis`.
    pub groups: Part,
    /// `gitVersion`, for telling which server is newer.
    pub version: String,
}

/// One document of one server.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// Content.
    pub list: GroupList,
    /// The server's tag.
    pub etag: Option<HeaderValue>,
}

impl Served {
    /// One of the two documents.
    pub fn part(&self, document: Document) -> &Part {
        match document {
            Document::Core => &self.core,
            Document::Groups => &self.groups,
        }
    }

    /// Whether nothing changed, the tags included.
    pub fn serves_the_same(&self, other: &Self) -> bool {
        let is_same = |part: &Part, other: &Part| part.etag == other.etag && part.list == other.list;
        is_same(&self.core, &other.core)
            && is_same(&self.groups, &other.groups)
            && self.version == other.version
    }
}

impl Snapshot {
    /// A snapshot of the local server and its peers. `servers[0]` is the local one; `None` is a server that never answered.
    ///
    /// While the peers are not known, a server without a name counts among those that never answered.
    pub fn new(servers: &[(Upstream, Option<&Served>)], peers_are_known: bool) -> Self {
        let numbered = || servers.iter().enumerate().take(ServerSet::CAPACITY - 1);
        let mut index = Index::default();
        for (number, (_, served)) in numbered() {
            for document in Document::ALL {
                if let Some(served) = served {
                    index.add(number, &served.part(document).list);
                }
            }
        }
        let unnamed = (!peers_are_known).then_some(ServerSet::CAPACITY - 1);
        let unknown = numbered()
            .filter(|(_, (_, served))| served.is_none())
            .map(|(number, _)| number)
            .chain(unnamed)
            .collect();
        Self {
            enabled: true,
            upstreams: servers.iter().map(|(upstream, _)| *upstream).collect(),
            versions: servers.iter().map(|(_, served)| Some(served.as_ref()?.version.clone())).collect(),
            unknown,
            richer: index.richer(),
            index,
            view: View::of(servers),
        }
    }

    /// A snapshot in which nothing is known yet.
    pub fn unsynced(local: Upstream) -> Self {
        Self::new(&[(local, None)], false)
    }

    /// Whether requests can be routed: the local server's resources are known, and which peers there are.
    pub fn is_synced(&self) -> bool {
        self.local_is_known() && !self.unknown.contains(ServerSet::CAPACITY - 1)
    }

    /// A snapshot with which every request is served locally and nothing is merged.
    pub fn disabled(local: Upstream) -> Self {
        Self { upstreams: vec![local], ..Self::default() }
    }

    /// Whether the proxy reroutes at all.
    pub fn enabled(&self) -> bool {
        self.enabled
    }

    /// Whether the local server's resources are known.
    pub fn local_is_known(&self) -> bool {
        self.enabled && !self.upstreams.is_empty() && !self.unknown.has_local()
    }

    /// Who serves what a request asks for: its resource, subresource and verb.
    pub fn servers_of(&self, info: &RequestInfo<'_>) -> ServerSet {
        self.index.servers_of(info)
    }

    /// Who has the resource and subresource, whatever the verb.
    pub fn servers_of_any_verb(&self, info: &RequestInfo<'_>) -> ServerSet {
        self.index.servers_of(&RequestInfo { verb: "", name: Cow::Borrowed(""), ..*info })
    }

    /// Who has the resource, whatever the subresource and verb.
    pub fn holders_of(&self, info: &RequestInfo<'_>) -> ServerSet {
        self.index.servers_of(&RequestInfo { verb: "", subresource: "", name: Cow::Borrowed(""), ..*info })
    }

    /// Whether somebody has a resource.
    pub fn has(&self, group: &str, version: &str, resource: &str) -> bool {
        self.index.has(group, version, resource)
    }

    /// Servers that are known to exist and never said what they serve.
    pub fn unknown(&self) -> ServerSet {
        self.unknown
    }

    /// All peers.
    pub fn all_peers(&self) -> ServerSet {
        (1..self.upstreams.len().min(ServerSet::CAPACITY - 1)).collect()
    }

    /// The API server behind an index of a [`ServerSet`].
    pub fn upstream(&self, index: usize) -> Option<Upstream> {
        self.upstreams.get(index).copied()
    }

    /// Whether a peer has this address.
    pub fn has_peer_at(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let is_there = |upstream: &&Upstream| upstream.address.ip().to_canonical() == address;
        self.upstreams.iter().skip(1).any(|upstream| is_there(&upstream))
    }

    /// The version that the API server behind an index said it has.
    pub fn version(&self, index: usize) -> Option<&str> {
        self.versions.get(index)?.as_deref()
    }

    /// All API servers, the local one first.
    pub fn upstreams(&self) -> &[Upstream] {
        &self.upstreams
    }

    /// The merged discovery documents.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Whether some peer serves what the local server does not.
    pub fn is_skewed(&self) -> bool {
        !self.richer().is_empty()
    }

    /// The peers that serve what the local server does not; none as long as that is not known.
    pub fn richer(&self) -> ServerSet {
        if self.local_is_known() { self.richer } else { ServerSet::default() }
    }

    /// Number of peers.
    pub fn peers(&self) -> usize {
        self.upstreams.len().saturating_sub(1)
    }

    /// Number of resources and subresources that some server serves.
    pub fn resources(&self) -> usize {
        self.index.len()
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("enabled", &self.enabled)
            .field("upstreams", &self.upstreams)
            .field("unknown", &self.unknown)
            .field("resources", &self.index.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
