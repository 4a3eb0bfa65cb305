//! Routes requests by looking through plain lists, in the order the specification gives.

use mvproxy::discovery::Document;
use mvproxy::route::LocalReason;

use crate::cluster::{Entry, Server, VERBS};
use crate::naive_request::NaiveRequest;

/// Where a request goes, servers as sorted numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Local(LocalReason, Vec<usize>),
    Peers(Vec<usize>),
    Discovery(Document, Vec<usize>),
    Unavailable(Vec<usize>),
}

/// What is known about a request beside its request line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NaiveMarks {
    pub(crate) already_proxied: bool,
    pub(crate) discovery: Option<Document>,
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
    match marks.discovery {
        Some(document) if merged_says_more(document, servers) => Decision::Discovery(document, stand_ins),
        _ => Decision::Local(LocalReason::NonResource, stand_ins),
    }
}

fn merged_says_more(document: Document, servers: &[Server]) -> bool {
    let Some(local) = &servers[0] else { return false };
    let belongs = |entry: &&Entry| entry.group.is_empty() == (document == Document::Core);
    let local_says = |wanted: &Entry| {
        local.iter().any(|entry| {
            names(entry) == names(wanted) && wanted.verbs.iter().all(|verb| entry.verbs.contains(verb))
        })
    };
    !servers.iter().flatten().flatten().filter(belongs).all(local_says)
}

/// Whether some peer serves what the local server does not.
pub(crate) fn is_skewed(servers: &[Server]) -> bool {
    servers[0].is_some() && Document::ALL.into_iter().any(|document| merged_says_more(document, servers))
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
