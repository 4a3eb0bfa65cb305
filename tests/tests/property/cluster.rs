//! Makes random clusters, as plain lists and as the proxy's snapshot of them.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use mvproxy::discovery::document::{Group, GroupList, GroupMeta, Resource, Subresource, Version};
use mvproxy::discovery::openapi::OpenApi;
use mvproxy::discovery::view::Name;
use mvproxy::discovery::{Document, Part, Served, Snapshot};
use mvproxy::steering::Steering;
use mvproxy::upstream::{Role, Upstream};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

pub(crate) const GROUPS: [&str; 3] = ["", "batch", "g.io"];
pub(crate) const VERSIONS: [&str; 2] = ["v1", "v1beta1"];
pub(crate) const RESOURCES: [&str; 3] = ["jobs", "namespaces", "pods"];
/// The first one is the resource itself.
pub(crate) const SUBRESOURCES: [&str; 4] = ["", "log", "scale", "status"];
/// In the order in which documents list them.
pub(crate) const VERBS: [&str; 8] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const KEYS: usize = GROUPS.len() * VERSIONS.len() * RESOURCES.len() * SUBRESOURCES.len();
const VERSION_KEYS: usize = RESOURCES.len() * SUBRESOURCES.len();
pub(crate) const MOST_SERVERS: usize = 5;

/// One line of what a server serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) resource: &'static str,
    pub(crate) subresource: &'static str,
    pub(crate) verbs: Vec<&'static str>,
}

/// What a server serves; `None` while it has not said so.
pub(crate) type Server = Option<Vec<Entry>>;

/// Verbs of each possible key as bits; `None` where it is not served.
type Table = Vec<Option<u8>>;

/// Servers that are alike but for a few keys, as during a rollout; the first one is the local one.
pub(crate) fn cluster() -> impl Strategy<Value = Vec<Server>> {
    let verbs = || prop_oneof![4 => Just(0xFF), 2 => Just(0b0001_1000), 1 => Just(0), 3 => any::<u8>()];
    let table = vec(option::weighted(0.7, verbs()), KEYS);
    let edits = vec((0..KEYS, option::of(verbs())), 0..40);
    // A group version that a server has nothing of, as before an upgrade.
    let missing = (0..GROUPS.len() * VERSIONS.len()).prop_map(|number| {
        (number * VERSION_KEYS..(number + 1) * VERSION_KEYS).map(|key| (key, None)).collect()
    });
    let server = option::weighted(0.8, prop_oneof![4 => edits, 1 => missing, 1 => Just(Vec::new())]);
    (table, vec(server, 1..=MOST_SERVERS)).prop_map(|(table, servers)| {
        servers.into_iter().map(|edits| edits.map(|edits| entries(edited(table.clone(), edits)))).collect()
    })
}

fn edited(mut table: Table, edits: Vec<(usize, Option<u8>)>) -> Table {
    for (key, verbs) in edits {
        table[key] = verbs;
    }
    // A document has no subresource without its resource, which is then listed without verbs.
    for resource in table.chunks_mut(SUBRESOURCES.len()) {
        if resource[1..].iter().any(Option::is_some) {
            resource[0] = resource[0].or(Some(0));
        }
    }
    table
}

fn entries(table: Table) -> Vec<Entry> {
    let names = GROUPS.iter().flat_map(|group| {
        VERSIONS.iter().flat_map(move |version| {
            RESOURCES
                .iter()
                .flat_map(move |resource| SUBRESOURCES.iter().map(move |sub| (group, version, resource, sub)))
        })
    });
    names
        .zip(table)
        .filter_map(|((group, version, resource, subresource), bits)| {
            let bits = bits?;
            let verbs =
                VERBS.iter().enumerate().filter(|(bit, _)| bits & 1 << bit != 0).map(|(_, verb)| *verb);
            Some(Entry { group, version, resource, subresource, verbs: verbs.collect() })
        })
        .collect()
}

/// The proxy's view of a cluster.
pub(crate) fn snapshot(servers: &[Server]) -> Snapshot {
    let served: Vec<Option<Served>> = servers.iter().map(|server| server.as_deref().map(served)).collect();
    let pairs: Vec<_> = UPSTREAMS.iter().copied().zip(served.iter().map(Option::as_ref)).collect();
    Snapshot::new(&pairs, true)
}

/// API servers to put into snapshots, the first one local.
pub(crate) static UPSTREAMS: LazyLock<Vec<Upstream>> = LazyLock::new(|| {
    let counters = Steering::off("a test").counters();
    let upstream = |number: usize| {
        let address = ([127, 0, 0, 1], 6443 + u16::try_from(number).unwrap()).into();
        let role = if number == 0 { Role::Local } else { Role::Peer };
        Upstream { address, role, slot: counters.slot(address) }
    };
    (0..MOST_SERVERS).map(upstream).collect()
});

fn served(entries: &[Entry]) -> Served {
    let (core, named): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| entry.group.is_empty());
    Served { core: part(&core), groups: part(&named), version: "v1.36.0".to_owned() }
}

fn part(entries: &[&Entry]) -> Part {
    let mut groups: BTreeMap<&str, BTreeMap<&str, Vec<Resource>>> = BTreeMap::new();
    for entry in entries {
        let resources = groups.entry(entry.group).or_default().entry(entry.version).or_default();
        let verbs =
            (!entry.verbs.is_empty()).then(|| entry.verbs.iter().map(|verb| (*verb).to_owned()).collect());
        if entry.subresource.is_empty() {
            resources.push(Resource { resource: entry.resource.to_owned(), verbs, ..Resource::default() });
        } else {
            let subresource =
                Subresource { subresource: entry.subresource.to_owned(), verbs, ..Subresource::default() };
            resources
                .last_mut()
                .expect("the resource comes before its subresources")
                .subresources
                .push(subresource);
        }
    }
    let versions = |versions: BTreeMap<&str, Vec<Resource>>| {
        let version = |(version, resources): (&str, _)| Version {
            version: version.to_owned(),
            resources,
            freshness: "Current".to_owned(),
        };
        versions.into_iter().map(version).collect()
    };
    let group = |(name, found): (&str, _)| Group {
        metadata: GroupMeta { name: name.to_owned() },
        versions: versions(found),
    };
    let list = GroupList::of(groups.into_iter().map(group).collect());
    Part { etag: Some(list.etag()), list }
}

/// The discovery document that a request asks for, which routing reads for non-resource requests only.
pub(crate) fn document() -> impl Strategy<Value = Option<Name<'static>>> {
    let version = || select(&VERSIONS[..]);
    option::of(prop_oneof![
        1 => select(&Document::ALL[..]).prop_map(Name::Aggregated),
        1 => Just(Name::GroupList),
        3 => select(&GROUPS[1..]).prop_map(Name::Group),
        1 => (select(&GROUPS[..]), version()).prop_map(|(group, version)| Name::Resources { group, version }),
    ])
}

/// The `OpenAPI` document that a request asks for.
pub(crate) fn openapi() -> impl Strategy<Value = Option<OpenApi<'static>>> {
    let version = select(&VERSIONS[..]);
    option::of(prop_oneof![
        1 => Just(OpenApi::V2),
        1 => Just(OpenApi::Index),
        2 => (select(&GROUPS[..]), version).prop_map(|(group, version)| OpenApi::V3 { group, version }),
    ])
}
