//! Routes requests by looking through plain lists, in the order the specification gives.

use std::collections::BTreeSet;

use mvproxy::discovery::Document;
use mvproxy::discovery::openapi::OpenApi;
use mvproxy::discovery::view::Name;
use mvproxy::route::LocalReason;

use crate::cluster::{Entry, Server, VERBS};
use crate::naive_request::NaiveRequest;

/// Where a request goes, servers as sorted numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Local(LocalReason, Vec<usize>),
    Peers(Vec<usize>),
    PeersFirst(Vec<usize>),
    OpenApiIndex(Vec<usize>),
    /// Who serves most of all, and who may stand in.
    OpenApiV2(Vec<usize>, Vec<usize>),
    Discovery(Name<'static>, Vec<usize>),
    Unavailable(Vec<usize>),
}

/// What is known about a request beside its request line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NaiveMarks {
    pub(crate) already_proxied: bool,
    pub(crate) discovery: Option<Name<'static>>,
    pub(crate) openapi: Option<OpenApi<'static>>,
    pub(crate) about_this_server: bool,
}

/// Decides for a request, `None` being one whose path kube-apiserver refuses with 500.
pub(crate) fn decide(request: Option<&NaiveRequest>, marks: NaiveMarks, servers: &[Server]) -> Decision {
    if marks.already_proxied {
        return Decision::Local(LocalReason::AlreadyProxied, Vec::new());
    }
    let Some(request) = request.filter(|request| request.is_resource) else {
        return non_resource(marks, servers);
    };
    let knows = |server: &Server, any_verb: bool| {
        server.iter().flatten().any(|entry| serves(entry, request, any_verb))
    };
    let capable = numbers(servers, |server| knows(server, false));
    let capable_peers: Vec<usize> = capable.iter().copied().filter(|number| *number != 0).collect();
    if servers[0].is_none() {
        return Decision::Local(LocalReason::NotSynced, capable_peers);
    }
    if capable.contains(&0) {
        return Decision::Local(LocalReason::ServedLocally, capable_peers);
    }
    if !capable_peers.is_empty() {
        return Decision::Peers(capable_peers);
    }
    // Nobody has resource, subresource and verb. Who has the first two words the 405, wherever it is; nothing more can be
    // said before every server has spoken; then who has the resource words the 404.
    let mut holders = numbers(servers, |server| knows(server, true));
    if holders.is_empty() {
        let unknown = numbers(servers, Option::is_none);
        if !unknown.is_empty() {
            return Decision::Unavailable(unknown);
        }
        let bare = NaiveRequest { subresource: String::new(), ..request.clone() };
        holders = numbers(servers, |server| server.iter().flatten().any(|entry| serves(entry, &bare, true)));
    }
    match holders.as_slice() {
        [] => Decision::Local(LocalReason::ServedByNobody, all_peers(servers)),
        [0, peers @ ..] => Decision::Local(LocalReason::ServedByNobody, peers.to_vec()),
        _ => Decision::Peers(holders),
    }
}

fn non_resource(marks: NaiveMarks, servers: &[Server]) -> Decision {
    let stand_ins = if marks.about_this_server { Vec::new() } else { all_peers(servers) };
    let unknown = numbers(servers, Option::is_none);
    if let Some(openapi) = marks.openapi.filter(|_| servers[0].is_some()) {
        return describe(openapi, servers, stand_ins);
    }
    match marks.discovery {
        Some(name) if servers[0].is_some() && is_replaced(name, servers) => {
            Decision::Discovery(name, stand_ins)
        }
        Some(name) if servers[0].is_some() && !is_listed(name, servers) && !unknown.is_empty() => {
            Decision::Unavailable(unknown)
        }
        _ => Decision::Local(LocalReason::NonResource, stand_ins),
    }
}

/// `OpenAPI` comes from a server that has most of what it describes, the local one where that is one of them; version 2 and
/// the index of version 3 are merged where peers have more to say.
fn describe(openapi: OpenApi<'_>, servers: &[Server], stand_ins: Vec<usize>) -> Decision {
    let local = Decision::Local(LocalReason::NonResource, stand_ins.clone());
    let unknown = numbers(servers, Option::is_none);
    let elsewhere = |fullest: Vec<usize>| !fullest.is_empty() && fullest[0] != 0;
    match openapi {
        OpenApi::V2 if is_skewed(servers) => Decision::OpenApiV2(fullest(servers, |_| true), stand_ins),
        OpenApi::V2 => local,
        OpenApi::Index => {
            let all: BTreeSet<_> =
                servers.iter().flatten().flatten().map(|entry| (entry.group, entry.version)).collect();
            let of = |(group, version)| {
                fullest(servers, move |entry: &Entry| entry.group == group && entry.version == version)
            };
            let is_completed = all.into_iter().any(|one| elsewhere(of(one)));
            if is_completed { Decision::OpenApiIndex(stand_ins) } else { local }
        }
        OpenApi::V3 { group, version } => {
            let belongs = |entry: &Entry| entry.group == group && entry.version == version;
            let holders = numbers(servers, |server| server.iter().flatten().any(belongs));
            let fullest = fullest(servers, belongs);
            match (holders.first(), unknown.is_empty()) {
                (None, false) => Decision::Unavailable(unknown),
                // The local server would say that there is no such document.
                (Some(1..), _) => Decision::Peers(holders),
                (Some(0), _) if elsewhere(fullest.clone()) => Decision::PeersFirst(fullest),
                (Some(0), _) | (None, true) => local,
            }
        }
    }
}

/// The servers with most entries; none when nobody has any.
fn fullest(servers: &[Server], belongs: impl Fn(&Entry) -> bool) -> Vec<usize> {
    let count = |server: &Server| server.iter().flatten().filter(|entry| belongs(entry)).count();
    let most = servers.iter().map(count).max().unwrap_or_default();
    if most == 0 { Vec::new() } else { numbers(servers, |server| count(server) == most) }
}

/// Whether some server's document is not the cluster's: the local one's now, or a peer's while the local one is down.
fn is_replaced(name: Name<'_>, servers: &[Server]) -> bool {
    match name {
        Name::Aggregated(document) => {
            let is_core = document == Document::Core;
            somebody_lacks(servers, |entry| entry.group.is_empty() == is_core)
        }
        Name::Resources { group, version } => {
            somebody_lacks(servers, |entry| entry.group == group && entry.version == version)
        }
        // Made from objects that all servers share, so that they are true of none while the servers differ.
        Name::GroupList => versions_differ(servers, |entry| !entry.group.is_empty()),
        Name::Group(group) => versions_differ(servers, |entry| entry.group == group),
    }
}

fn is_listed(name: Name<'_>, servers: &[Server]) -> bool {
    servers.iter().flatten().flatten().any(|entry| match name {
        Name::Aggregated(_) | Name::GroupList => true,
        Name::Group(group) => entry.group == group,
        Name::Resources { group, version } => entry.group == group && entry.version == version,
    }) || matches!(name, Name::Aggregated(_) | Name::GroupList)
}

fn versions_differ(servers: &[Server], belongs: impl Fn(&Entry) -> bool) -> bool {
    let versions = |server: &Vec<Entry>| -> BTreeSet<_> {
        let belonging = server.iter().filter(|entry| belongs(entry));
        belonging.map(|entry| (entry.group, entry.version)).collect()
    };
    let all: BTreeSet<_> = servers.iter().flatten().map(versions).collect();
    all.len() > 1
}

fn somebody_lacks(servers: &[Server], belongs: impl Fn(&Entry) -> bool) -> bool {
    servers.iter().flatten().any(|server| lacks(server, servers, &belongs))
}

/// Whether others have more to say than this server.
fn lacks(server: &[Entry], servers: &[Server], belongs: impl Fn(&Entry) -> bool) -> bool {
    let says = |wanted: &Entry| {
        server.iter().any(|entry| {
            names(entry) == names(wanted) && wanted.verbs.iter().all(|verb| entry.verbs.contains(verb))
        })
    };
    !servers.iter().flatten().flatten().filter(|entry| belongs(entry)).all(says)
}

/// Whether some peer serves what the local server does not.
pub(crate) fn is_skewed(servers: &[Server]) -> bool {
    servers[0].as_ref().is_some_and(|local| lacks(local, servers, |_| true))
}

fn serves(entry: &Entry, request: &NaiveRequest, any_verb: bool) -> bool {
    let wanted = (&*request.group, &*request.version, &*request.resource, &*request.subresource);
    // A verb that no document lists, such as the legacy proxy, is not told apart.
    let is_listable = VERBS.contains(&&*request.verb);
    names(entry) == wanted && (any_verb || !is_listable || entry.verbs.contains(&&*request.verb))
}

fn names(entry: &Entry) -> (&str, &str, &str, &str) {
    (entry.group, entry.version, entry.resource, entry.subresource)
}

fn all_peers(servers: &[Server]) -> Vec<usize> {
    (1..servers.len()).collect()
}

fn numbers(servers: &[Server], wanted: impl Fn(&Server) -> bool) -> Vec<usize> {
    (0..servers.len()).filter(|number| wanted(&servers[*number])).collect()
}
