//! Decides which API server answers a request. Pure: no IO, no clock, no await.
//!
//! The order is that of the built-in proxy's handler (KEP-4020): non-resource, already proxied, snapshot not synced,
//! served locally, served by nobody, capable peers. Beyond it, subresource and verb count, and what nobody is known to
//! serve is only then a 404 when every server is accounted for.

use crate::classify::RequestInfo;
use crate::discovery::accept::Asked;
use crate::discovery::openapi::OpenApi;
use crate::discovery::view::Name;
use crate::discovery::{ServerSet, Snapshot};

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// The local API server, or while that cannot be reached one of `stand_ins`.
    Local {
        /// Why.
        reason: LocalReason,
        /// Peers that may answer in its place; empty where only the local server's own answer is true.
        stand_ins: ServerSet,
    },
    /// One of the peers in the set; never empty, never holds the local server.
    Peers(ServerSet),
    /// The same, or while none of them is healthy the local server, which has less to say.
    PeersFirst(ServerSet),
    /// A merged document answers it, once the local API server, or while that cannot be reached one of `stand_ins`, has
    /// authorised it.
    Discovery {
        /// Which; the snapshot has it.
        asked: Asked<'a>,
        /// Peers that may authorise it instead.
        stand_ins: ServerSet,
    },
    /// The local server's index of `OpenAPI` documents, or that of one of `stand_ins`, with the peers' added.
    OpenApiIndex {
        /// Peers that may answer in its place.
        stand_ins: ServerSet,
    },
    /// The local server's `/openapi/v2` with what only peers describe added, once the local API server, or while that cannot
    /// be reached one of `stand_ins`, has authorised it.
    OpenApiV2 {
        /// Who serves most of all, and answers until documents have been merged.
        fullest: ServerSet,
        /// Peers that may authorise it instead.
        stand_ins: ServerSet,
    },
    /// Nobody is known to serve it, but these servers have not said what they serve.
    Unavailable(ServerSet),
}

/// Why the local API server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalReason {
    /// Rerouting is switched off by feature gate.
    Disabled,
    /// Not a resource request, or one whose path the API server itself must refuse.
    NonResource,
    /// Another proxy chose this server.
    AlreadyProxied,
    /// Nothing is known about the local server yet.
    NotSynced,
    /// The local server serves the resource.
    ServedLocally,
    /// No known server serves it; the local server words the 404 or 405.
    ServedByNobody,
}

/// The facts about a request, beyond its [`RequestInfo`], that routing looks at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Marks<'a> {
    /// An `x-kubernetes-peer-proxied` header is present, whatever its value.
    pub already_proxied: bool,
    /// The discovery document of the whole cluster that the request asks for.
    pub discovery: Option<Asked<'a>>,
    /// The `OpenAPI` document that it asks for.
    pub openapi: Option<OpenApi<'a>>,
    /// The request asks about this very server: health, metrics, profiles, logs.
    pub about_this_server: bool,
}

/// Decides.
pub fn route<'a>(info: Option<&RequestInfo<'_>>, marks: Marks<'a>, snapshot: &Snapshot) -> Route<'a> {
    if !snapshot.enabled() {
        return only_local(LocalReason::Disabled);
    }
    if marks.already_proxied {
        return only_local(LocalReason::AlreadyProxied);
    }
    match info.filter(|info| info.is_resource) {
        Some(info) => route_resource(info, snapshot),
        None => route_non_resource(marks, snapshot),
    }
}

fn route_non_resource<'a>(marks: Marks<'a>, snapshot: &Snapshot) -> Route<'a> {
    let stand_ins = if marks.about_this_server { ServerSet::default() } else { snapshot.all_peers() };
    let local = Route::Local { reason: LocalReason::NonResource, stand_ins };
    let view = snapshot.view();
    // A 404 would say that nobody has it.
    let may_be_elsewhere =
        |name| !view.is_listed(name) && snapshot.local_is_known() && !snapshot.unknown().is_empty();
    match (marks.discovery, marks.openapi) {
        (Some(asked), _) if view.find(asked.name).is_some() => Route::Discovery { asked, stand_ins },
        (Some(asked), _) if may_be_elsewhere(asked.name) => Route::Unavailable(snapshot.unknown()),
        (None, Some(_)) if !snapshot.local_is_known() => local,
        (None, Some(OpenApi::V2)) if !snapshot.richer().is_empty() => {
            Route::OpenApiV2 { fullest: view.fullest(), stand_ins }
        }
        (None, Some(OpenApi::Index)) if view.elsewhere().next().is_some() => {
            Route::OpenApiIndex { stand_ins }
        }
        (None, Some(OpenApi::V3 { group, version })) => {
            if may_be_elsewhere(Name::Resources { group, version }) {
                return Route::Unavailable(snapshot.unknown());
            }
            let servers = view.servers_of(group, version);
            if servers.is_empty() || servers.has_local() {
                return peers_first(view.fullest_of(group, version), local);
            }
            Route::Peers(servers)
        }
        _ => local,
    }
}

/// The peers in a set of servers, if the local one is not in it.
fn peers_first(servers: ServerSet, local: Route<'_>) -> Route<'_> {
    if servers.is_empty() || servers.has_local() { local } else { Route::PeersFirst(servers) }
}

fn route_resource(info: &RequestInfo<'_>, snapshot: &Snapshot) -> Route<'static> {
    let servers = snapshot.servers_of(info);
    if !snapshot.local_is_known() {
        return Route::Local { reason: LocalReason::NotSynced, stand_ins: servers.peers() };
    }
    if servers.has_local() {
        return Route::Local { reason: LocalReason::ServedLocally, stand_ins: servers.peers() };
    }
    if !servers.is_empty() {
        return Route::Peers(servers);
    }
    // Whoever has the subresource words what is wrong with the verb; once every server is accounted for, whoever has the
    // resource words what is wrong with the subresource.
    let any_verb = snapshot.servers_of_any_verb(info);
    if any_verb.is_empty() && !snapshot.unknown().is_empty() {
        return Route::Unavailable(snapshot.unknown());
    }
    let holders = if any_verb.is_empty() { snapshot.holders_of(info) } else { any_verb };
    if holders.is_empty() {
        return Route::Local { reason: LocalReason::ServedByNobody, stand_ins: snapshot.all_peers() };
    }
    if holders.has_local() {
        return Route::Local { reason: LocalReason::ServedByNobody, stand_ins: holders.peers() };
    }
    Route::Peers(holders)
}

fn only_local(reason: LocalReason) -> Route<'static> {
    Route::Local { reason, stand_ins: ServerSet::default() }
}

/// Whether a path asks about the server that answers it rather than about the cluster.
pub fn is_about_this_server(path: &str) -> bool {
    const ROOTS: [&str; 7] = ["livez", "readyz", "healthz", "metrics", "debug", "logs", "configz"];
    path.trim_start_matches('/').split('/').next().is_some_and(|root| ROOTS.contains(&root))
}

#[cfg(test)]
mod tests;
