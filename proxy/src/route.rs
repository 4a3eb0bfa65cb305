//! Decides which API server answers a request. Pure: no IO, no clock, no await.
//!
//! The order is that of the built-in proxy's handler (KEP-4020): non-resource, already proxied, snapshot not synced,
//! served locally, served by nobody, capable peers.

use crate::classify::RequestInfo;
use crate::discovery::{Document, ServerSet, Snapshot};

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// The local API server.
    Local(LocalReason),
    /// One of the peers in the set; never empty, never holds the local server.
    Peers(ServerSet),
    /// The local API server authorises it, the merged document answers it.
    Discovery(Document),
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
    /// No known server serves it; the local server words the 404.
    ServedByNobody,
}

/// The facts about a request, beyond its [`RequestInfo`], that routing looks at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Marks {
    /// An `x-kubernetes-peer-proxied` header is present, whatever its value.
    pub already_proxied: bool,
    /// The merged discovery document this request would be answered with.
    pub discovery: Option<Document>,
}

/// Decides.
pub fn route(info: Option<&RequestInfo<'_>>, marks: Marks, snapshot: &Snapshot) -> Route {
    if !snapshot.enabled() {
        return Route::Local(LocalReason::Disabled);
    }
    let Some(info) = info.filter(|info| info.is_resource) else {
        return match marks.discovery {
            Some(document) if !marks.already_proxied && snapshot.merged(document).is_some() => {
                Route::Discovery(document)
            }
            _ => Route::Local(LocalReason::NonResource),
        };
    };
    if marks.already_proxied {
        return Route::Local(LocalReason::AlreadyProxied);
    }
    if !snapshot.local_is_known() {
        return Route::Local(LocalReason::NotSynced);
    }
    let servers = snapshot.servers_of(info.group, info.version, info.resource);
    if servers.has_local() {
        return Route::Local(LocalReason::ServedLocally);
    }
    if servers.is_empty() {
        return Route::Local(LocalReason::ServedByNobody);
    }
    Route::Peers(servers)
}

#[cfg(test)]
mod tests;
